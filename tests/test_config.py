"""Both dialects of config.json give the same facts; nothing is guessed, and other models are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference_cases import REFERENCE

from mlx_gemma4.decoder.config import (
    FULL,
    SLIDING,
    AudioConfig,
    Config,
    GenerationConfig,
    LayerConfig,
    RopeConfig,
    TokenIds,
    VisionConfig,
    read_json,
)
from mlx_gemma4.inputs.processor import Limits, Processor

REMOVED = object()
DIALECTS = ("released", "resaved")


def raw(dialect: str = "released", **changes: Any) -> dict[str, Any]:
    """A reference config.json as parsed, with changes: ``text_config__head_dim=3`` sets, ``=REMOVED`` removes."""
    table: dict[str, Any] = json.loads((REFERENCE / dialect / "checkpoint" / "config.json").read_text())
    for path, value in changes.items():
        *parents, key = path.split("__")
        part = table
        for parent in parents:
            part = part[parent]
        if value is REMOVED:
            del part[key]
        else:
            part[key] = value
    return table


SLIDING_LAYER = LayerConfig(SLIDING, head_dim=32, num_key_value_heads=2, k_eq_v=False)
FULL_LAYER = LayerConfig(FULL, head_dim=64, num_key_value_heads=1, k_eq_v=True)


@pytest.mark.parametrize(("dialect", "groups", "window"), [("released", 2, 16), ("resaved", 1, 24)])
def test_text_sizes(dialect: str, groups: int, window: int) -> None:
    """The decoder's sizes, layer by layer."""
    text = Config.from_dict(raw(dialect)).text_config
    assert text.layers == ((SLIDING_LAYER,) * 5 + (FULL_LAYER,)) * groups
    assert [layer.is_sliding for layer in text.layers] == ([True] * 5 + [False]) * groups
    assert (text.hidden_size, text.intermediate_size, text.num_attention_heads, text.vocab_size) == (64, 128, 4, 371)
    assert (text.sliding_window, text.rms_norm_eps, text.final_logit_softcapping) == (window, 1e-6, 30.0)
    assert text.rope == {SLIDING: RopeConfig(1e4, 1.0), FULL: RopeConfig(1e6, 0.25)}
    assert (text.image_blocks, text.eos_token_ids) == (True, (1, 5))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_media_sizes(dialect: str) -> None:
    """The projections' sizes, and the tokens of media."""
    config = Config.from_dict(raw(dialect))
    assert config.vision_config == VisionConfig(48, mm_embed_dim=64, mm_posemb_size=64, rms_norm_eps=1e-6)
    assert config.audio_config == AudioConfig(640, rms_norm_eps=1e-6)
    assert VisionConfig(48, 64, 64, 1e-6).patch_values == 6912
    assert config.token_ids == TokenIds(
        image=10, audio=13, video=15, image_begin=9, image_end=11, audio_begin=12, audio_end=14
    )
    assert config.quantization is None


def test_released_names_of_sizes() -> None:
    """A patch's side and a frame's samples have two names each."""
    config = Config.from_dict(raw(vision_config__model_patch_size=32))
    assert config.vision_config is not None and config.vision_config.model_patch_size == 32
    table = raw(audio_config__audio_embed_dim=REMOVED, audio_config__audio_samples_per_token=320)
    assert Config.from_dict(table).audio_config == AudioConfig(320, rms_norm_eps=1e-6)


def test_both_names_of_the_audio_end() -> None:
    """Released configs call it an index, others an id."""
    table = raw(eoa_token_index=REMOVED, eoa_token_id=77)
    assert Config.from_dict(table).token_ids.audio_end == 77


def test_full_layers_with_values_of_their_own() -> None:
    """Where values are not the keys, full layers have the KV heads of the others."""
    layers = Config.from_dict(raw(text_config__attention_k_eq_v=False)).text_config.layers
    assert layers[5] == LayerConfig(FULL, head_dim=64, num_key_value_heads=2, k_eq_v=False)


TEXT_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "vocab_size",
    "sliding_window",
    "rms_norm_eps",
    "layer_types",
    "rope_parameters",
    "num_key_value_heads",
    "head_dim",
)
MEDIA_SIZES = (
    ("vision_config", "mm_embed_dim"),
    ("vision_config", "mm_posemb_size"),
    ("vision_config", "patch_size"),
    ("vision_config", "pooling_kernel_size"),
    ("audio_config", "audio_embed_dim"),
)


@pytest.mark.parametrize("value", [REMOVED, None], ids=["absent", "null"])
@pytest.mark.parametrize(
    ("dialect", "where", "key"),
    [
        *((dialect, "text_config", key) for dialect in DIALECTS for key in TEXT_SIZES),
        *((dialect, where, key) for dialect in DIALECTS for where, key in MEDIA_SIZES),
        ("released", "text_config", "global_head_dim"),
        ("released", "text_config", "num_global_key_value_heads"),
    ],
)
def test_missing_size(dialect: str, where: str, key: str, value: object) -> None:
    """A size that is not there is named, and never guessed."""
    with pytest.raises(ValueError, match=f"{where} has no '{key}': the checkpoint's config.json is incomplete"):
        Config.from_dict(raw(dialect, **{f"{where}__{key}": value}))


def test_missing_size_of_a_full_layer() -> None:
    """In the other dialect it is the layer's own table that lacks it."""
    where = r"text_config.per_layer_config\['5'\]"
    with pytest.raises(ValueError, match=f"{where} has no 'head_dim'"):
        Config.from_dict(raw("resaved", text_config__per_layer_config={}))


@pytest.mark.parametrize(
    ("path", "layer_type"),
    [("rope_theta", FULL), ("rope_theta", SLIDING), ("partial_rotary_factor", FULL)],
)
def test_missing_rope(path: str, layer_type: str) -> None:
    """So are the numbers of the rotary embedding."""
    with pytest.raises(ValueError, match=f"text_config.rope_parameters.{layer_type} has no '{path}'"):
        Config.from_dict(raw(**{f"text_config__rope_parameters__{layer_type}__{path}": REMOVED}))


@pytest.mark.parametrize("value", [0, -1, 1.5, "64", True])
def test_sizes_are_whole_numbers(value: object) -> None:
    """A size that is none is refused, with its value."""
    message = f"Expected a positive whole number for 'hidden_size' in text_config, got {value!r}"
    with pytest.raises(ValueError, match=message):
        Config.from_dict(raw(text_config__hidden_size=value))
    with pytest.raises(ValueError, match="Expected a positive whole number for 'model_patch_size' in vision_config"):
        Config.from_dict(raw(vision_config__model_patch_size=value))


@pytest.mark.parametrize("key", ["text_config", "vision_config", "audio_config", "quantization_config"])
def test_parts_are_objects(key: str) -> None:
    """A part that is no object is refused."""
    with pytest.raises(ValueError, match=f"Expected an object for '{key}' in config.json, got 'x'"):
        Config.from_dict(raw(**{key: "x"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, r"Expected a Gemma 4 12B checkpoint \(model_type gemma4_unified\), got 'llama'"),
        ({"model_type": REMOVED}, r"Expected a Gemma 4 12B checkpoint \(model_type gemma4_unified\), got None"),
        ({"text_config__num_kv_shared_layers": 20}, r"but of another size \(num_kv_shared_layers = 20\)"),
        (
            {"text_config__hidden_size_per_layer_input": 256},
            r"but of another size \(hidden_size_per_layer_input = 256\)",
        ),
        ({"text_config__enable_moe_block": True}, r"but of another size \(enable_moe_block = True\)"),
        ({"text_config__tie_word_embeddings": False}, "text_config sets tie_word_embeddings to false"),
        ({"tie_word_embeddings": False}, "^config.json sets tie_word_embeddings to false"),
        ({"text_config__attention_bias": True}, "text_config sets attention_bias to true"),
        ({"text_config__hidden_activation": "silu"}, "Expected hidden_activation 'gelu_pytorch_tanh' .*, got 'silu'"),
        ({"text_config__hidden_activation": REMOVED}, "Expected hidden_activation 'gelu_pytorch_tanh' .*, got None"),
        (
            {"text_config__use_bidirectional_attention": "all"},
            "Expected use_bidirectional_attention 'vision' or null in text_config, got 'all'",
        ),
        (
            {"text_config__rope_parameters__full_attention__rope_type": "yarn"},
            "Expected rope_type 'proportional' in text_config.rope_parameters.full_attention, got 'yarn'",
        ),
        (
            {"text_config__rope_parameters__sliding_attention__rope_type": REMOVED},
            "Expected rope_type 'default' in text_config.rope_parameters.sliding_attention, got None",
        ),
        (
            {"text_config__layer_types": [SLIDING] * 11 + ["chunked_attention"]},
            r"Expected layer_types 'sliding_attention' or 'full_attention' in text_config, got \['chunked_attention'\]",
        ),
        (
            {"text_config__layer_types": [SLIDING] * 3},
            r"Expected 12 layer_types in text_config \(num_hidden_layers\), got 3",
        ),
    ],
)
def test_other_architectures(changes: dict[str, Any], message: str) -> None:
    """What this model does not compute is refused, with the reason."""
    with pytest.raises(ValueError, match=message):
        Config.from_dict(raw(**changes))


def test_absent_features() -> None:
    """Caps and bidirectional images may be absent: then there are none."""
    table = raw(text_config__final_logit_softcapping=None, text_config__use_bidirectional_attention=None)
    text = Config.from_dict(table).text_config
    assert (text.final_logit_softcapping, text.image_blocks) == (None, False)


@pytest.mark.parametrize("value", [REMOVED, None], ids=["absent", "null"])
def test_text_only(value: object) -> None:
    """Without vision or audio part, the config has none."""
    config = Config.from_dict(raw(vision_config=value, audio_config=value))
    assert (config.vision_config, config.audio_config) == (None, None)


def test_media_norms_have_an_epsilon() -> None:
    """An epsilon is no size: where none is named it is the reference's."""
    config = Config.from_dict(raw(audio_config={"audio_embed_dim": 640}, vision_config__rms_norm_eps=1e-5))
    assert config.audio_config == AudioConfig(640, rms_norm_eps=1e-6)
    assert config.vision_config is not None and config.vision_config.rms_norm_eps == 1e-5


BLOCK = {"group_size": 32, "bits": 4, "mode": "affine", "embed_vision.embedding_projection": False}


@pytest.mark.parametrize(
    "tables",
    [
        {"quantization": BLOCK},
        {"quantization_config": BLOCK},
        {"quantization": BLOCK, "quantization_config": BLOCK},
        {"quantization": BLOCK, "quantization_config": {"quant_method": "compressed-tensors"}},
        {"quantization": None, "quantization_config": BLOCK},
    ],
)
def test_quantization(tables: dict[str, Any]) -> None:
    """MLX's block is read under either name, its own before the other."""
    assert Config.from_dict(raw(**tables)).quantization == BLOCK


@pytest.mark.parametrize("block", [{"quant_method": "gptq", "bits": 4, "group_size": 128}, {"quant_method": "fp8"}])
def test_foreign_quantization(block: dict[str, Any]) -> None:
    """Formats of other tools are refused by their name, those with bits too."""
    message = (
        f"Expected MLX quantization or none in config.json, got quant_method '{block['quant_method']}'; use the bf16"
    )
    with pytest.raises(ValueError, match=message):
        Config.from_dict(raw(quantization_config=block))


def test_no_config(tmp_path: Path) -> None:
    """A folder without config.json is named, with what could be named instead."""
    message = f"There is no config.json of a checkpoint at {tmp_path}/config.json; name a folder"
    with pytest.raises(ValueError, match=message):
        Config.from_file(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": ', "{} is not valid JSON: Expecting value"),
        (b"\xff", "{} is not valid JSON: 'utf-8' codec can't decode"),
        (b"[]", "Expected a JSON object in {}, got list"),
    ],
)
def test_broken_json(tmp_path: Path, content: bytes, message: str) -> None:
    """A file that is no JSON object is named."""
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message.format(path)):
        Config.from_file(path)


def test_read_json(tmp_path: Path) -> None:
    """JSON is read as UTF-8 whatever the machine's own encoding."""
    (tmp_path / "a.json").write_bytes('{"a": "é"}'.encode())
    assert read_json(tmp_path / "a.json") == {"a": "é"}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({}, GenerationConfig()),
        (
            {"temperature": 1.0, "top_k": 64, "top_p": 0.95, "eos_token_id": [1, 106, 50]},
            GenerationConfig(eos_token_ids=(1, 106, 50), temperature=1.0, top_k=64, top_p=0.95),
        ),
        ({"suppress_tokens": [258883, 258882]}, GenerationConfig(suppress_tokens=(258883, 258882))),
        ({"eos_token_id": 1}, GenerationConfig(eos_token_ids=(1,))),
        ({"do_sample": True}, GenerationConfig(temperature=1.0)),
        ({"do_sample": True, "temperature": 0.5}, GenerationConfig(temperature=0.5)),
        ({"do_sample": False, "temperature": 0.5, "top_k": 9}, GenerationConfig(temperature=0.0, top_k=9)),
        ({"temperature": None, "top_k": None, "top_p": None, "suppress_tokens": None}, GenerationConfig()),
    ],
)
def test_generation_config(tmp_path: Path, table: dict[str, Any], expected: GenerationConfig) -> None:
    """How to sample, what ends an answer and what is never said; greedy unless the file asks for sampling."""
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(table))
    assert GenerationConfig.from_file(path) == expected


def test_no_generation_config(tmp_path: Path) -> None:
    """Without the file: greedy, nothing suppressed; a broken one is named."""
    path = tmp_path / "generation_config.json"
    assert GenerationConfig.from_file(path) == GenerationConfig((), (), temperature=0.0, top_k=0, top_p=1.0)
    path.write_text("temperature: 1")
    with pytest.raises(ValueError, match=f"{path} is not valid JSON: Expecting value"):
        GenerationConfig.from_file(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", {"text_config": {"layer_types": 5}}, "a list for 'layer_types' in text_config, got 5"),
        ("config.json", {"text_config": {"layer_types": [[1]] * 12}}, "layer_types .* in text_config, got"),
        ("config.json", {"text_config": {"final_logit_softcapping": [30]}}, "a number .*'final_logit_softcapping' in"),
        ("config.json", {"text_config": {"final_logit_softcapping": 0}}, "a number above 0 for 'final_logit_softcap"),
        (
            "config.json",
            {"text_config": {"rms_norm_eps": float("nan")}},
            "a number .*'rms_norm_eps' in text_.*, got nan",
        ),
        ("config.json", {"text_config": {"rms_norm_eps": 10**400}}, "a number .*'rms_norm_eps' in text_.*, got 1000"),
        ("config.json", {"text_config": {"head_dim": 15}}, "an even number for 'head_dim' in text_config, got 15"),
        ("config.json", {"text_config": {"num_key_value_heads": 3}}, "'num_key_value_heads' in .* to divide the 4"),
        ("config.json", {"text_config": {"num_hidden_layers": 10**9}}, "at most 1024 for 'num_hidden_layers' in text_"),
        ("config.json", {"text_config": {"hidden_size": 10**10}}, "at most 1048576 for 'hidden_size' in text_conf"),
        ("config.json", {"text_config": {"eos_token_id": [1.0]}}, "of 0 or more for 'eos_token_id' in text_config, "),
        ("config.json", {"image_token_id": 7.5}, "of 0 or more for 'image_token_id' in config.json, got 7.5"),
        ("config.json", {"audio_token_id": True}, "of 0 or more for 'audio_token_id' in config.json, got True"),
        ("config.json", {"boi_token_id": "7"}, "of 0 or more for 'boi_token_id' in config.json, got '7'"),
        ("config.json", {"model_type": ["gemma4"]}, r"\(model_type gemma4_unified\), got \['gemma4'\]"),
        ("generation_config.json", {"eos_token_id": 1.5}, "of 0 or more for 'eos_token_id' in {path}, got 1.5"),
        ("generation_config.json", {"suppress_tokens": [[1]]}, "'suppress_tokens' in {path}, got \\[1\\]"),
        ("generation_config.json", {"eos_token_id": [1] * 5000}, "at most 4096 token ids for 'eos_token_id' in {path}"),
        ("generation_config.json", {"temperature": float("inf")}, "'temperature' in {path}, got inf"),
        ("generation_config.json", {"do_sample": "no"}, "true or false for 'do_sample' in {path}, got 'no'"),
        ("generation_config.json", {"top_p": 2}, "from 0 to 1 for 'top_p' in {path}, got 2"),
        ("processor_config.json", {"image_processor": {"max_soft_tokens": [70]}}, "'max_soft_tokens' in {path}, got"),
        (
            "processor_config.json",
            {"image_processor": {"max_soft_tokens": 10**9}},
            "at most 1120 for 'max_soft_tokens'",
        ),
        ("processor_config.json", {"video_processor": {"num_frames": -1}}, "'num_frames' in {path}, got -1"),
        ("processor_config.json", {"audio_seq_length": 10**7}, "at most 15000 for 'audio_seq_length' in {path}, got"),
        ("processor_config.json", {"image_processor": 70}, "an object for 'image_processor' in {path}, got 70"),
    ],
)
def test_values_of_another_type_are_named(tmp_path: Path, name: str, content: dict[str, Any], message: str) -> None:
    """A list where a number belongs, and the like; sizes that no checkpoint has."""
    told = json.loads((REFERENCE / "released" / "checkpoint" / name).read_text())
    for key, value in content.items():
        told[key] = {**told[key], **value} if isinstance(value, dict) else value
    (tmp_path / name).write_text(json.dumps(told))
    readers = {"config": Config, "generation_config": GenerationConfig, "processor_config": Limits}
    with pytest.raises(ValueError, match=message.format(path=tmp_path / name)) as raised:
        readers[Path(name).stem].from_file(tmp_path / name)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500


def test_an_epsilon_of_null_is_the_references_default() -> None:
    told = json.loads((REFERENCE / "released" / "checkpoint" / "config.json").read_text())
    told["vision_config"]["rms_norm_eps"] = told["audio_config"]["rms_norm_eps"] = None
    config = Config.from_dict(told)
    assert config.vision_config is not None and config.audio_config is not None
    assert (config.vision_config.rms_norm_eps, config.audio_config.rms_norm_eps) == (1e-6, 1e-6)


def test_a_medium_with_the_id_of_another_token(tmp_path: Path) -> None:
    """The end of a sound would stand for a video that nobody gave."""
    source = REFERENCE / "released" / "checkpoint"
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    told = json.loads((source / "config.json").read_text())
    end = told.get("eoa_token_index", told.get("eoa_token_id"))
    (tmp_path / "config.json").write_text(json.dumps({**told, "video_token_id": end}))
    content = [{"type": "audio", "audio": np.zeros(1000, np.float32)}]
    with pytest.raises(ValueError, match=r"config\.json gives a medium the token id of another token"):
        Processor.from_folder(tmp_path).prompt([{"role": "user", "content": content}])
