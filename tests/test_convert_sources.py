"""Checkpoints of every layout and quantization, converted: the same weights, tensor by tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from converted import (
    FORMATS,
    LAYER,
    PEERS,
    RELEASED,
    RESAVED,
    assert_same,
    config_of,
    converted,
    in_shards,
    quantized_by_mlx,
    silent,
)
from make_random_checkpoint import make
from quantized_checkpoints import (
    Tensors,
    codes,
    converted_name,
    dequantized,
    is_decoder_matrix,
    numbers,
    q4_weights,
    random_tensors,
    released_name,
    rounded,
    small_config,
    stored,
    write,
)
from reference_cases import reference_case

from mlx_gemma4 import Session, load
from mlx_gemma4.checkpoint.weight_files import weight_files
from mlx_gemma4.convert.plan import Plan
from mlx_gemma4.convert.record import Record
from mlx_gemma4.convert.run import convert
from mlx_gemma4.decoder.weights import read_weights

PROMPT = reference_case("released", "text").prompt


def logits(folder: Path) -> np.ndarray:
    model, _ = load(folder, dtype="float32")
    return np.array(Session(model).extend(PROMPT, logits_from=0))


def quantization_of(folder: Path) -> dict[str, Any]:
    block: dict[str, Any] = config_of(folder)["quantization"]
    return block


@pytest.mark.parametrize("source", [RELEASED, RESAVED], ids=["released", "resaved"])
def test_plain_checkpoints(tmp_path: Path, source: Path) -> None:
    """Without a way to quantize, every tensor is the source's, bit for bit, and so are the logits."""
    tensors = converted(source, tmp_path / "out")
    assert_same(tensors, read_weights(source))
    np.testing.assert_array_equal(logits(tmp_path / "out"), logits(source))


@pytest.mark.parametrize("recipe", ["bf16", "4bit"])
def test_shards(tmp_path: Path, recipe: str) -> None:
    """A checkpoint in many files gives what it gives in one."""
    sharded = in_shards(RELEASED, tmp_path / "sharded", 3)
    assert_same(converted(sharded, tmp_path / "from-many", recipe), converted(RELEASED, tmp_path / "from-one", recipe))
    np.testing.assert_array_equal(logits(tmp_path / "from-many"), logits(tmp_path / "from-one"))


def test_shards_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit in one file is written in more, with an index that names every tensor's."""
    whole = converted(RELEASED, tmp_path / "one", "4bit")
    shards = Plan.shards
    monkeypatch.setattr(Plan, "shards", lambda plan: shards(plan, 500_000))
    assert_same(converted(RELEASED, tmp_path / "many", "4bit"), whole)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    names = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    assert [path.name for path in weight_files(tmp_path / "many")] == names
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    for name in names:
        held = mx.load(str(tmp_path / "many" / name))
        assert set(held) == {tensor for tensor, file in index["weight_map"].items() if file == name}
    assert index["weight_map"].keys() == whole.keys()
    np.testing.assert_array_equal(logits(tmp_path / "many"), logits(tmp_path / "one"))


@pytest.mark.parametrize("recipe", ["4bit", "mixed", "8bit", "mxfp4", "mxfp8", "nvfp4"])
def test_the_same_recipe_again(tmp_path: Path, recipe: str) -> None:
    """What is stored so already is copied, bit for bit."""
    convert(RELEASED, tmp_path / "once", recipe=recipe)
    convert(tmp_path / "once", tmp_path / "twice", recipe=recipe)
    once, twice = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("once", "twice"))
    assert once == twice
    assert config_of(tmp_path / "once") == config_of(tmp_path / "twice")


def values_of(tensors: Mapping[str, mx.array], module: str, setting: Mapping[str, Any]) -> mx.array:
    """A quantized module's values, in float32."""
    packed, scales, biases = (tensors.get(f"{module}.{part}") for part in ("weight", "scales", "biases"))
    if biases is not None:
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    return mx.dequantize(packed, scales, biases, dtype=mx.float32, **setting)


@pytest.mark.parametrize("recipe", ["4bit", "mixed", "8bit", "mxfp4", "mxfp8", "nvfp4"])
def test_dequantized(tmp_path: Path, recipe: str) -> None:
    """Back into plain numbers: scale · q + bias, rounded once; the rest is the source's."""
    quantized = converted(RELEASED, tmp_path / "quantized", recipe)
    block = quantization_of(tmp_path / "quantized")
    default = {key: value for key, value in block.items() if not isinstance(value, dict)}
    expected = dict(read_weights(RELEASED))
    modules = [name.removesuffix(".scales") for name in quantized if name.endswith(".scales")]
    for module in modules:
        expected[f"{module}.weight"] = values_of(quantized, module, block.get(module, default)).astype(mx.bfloat16)
    assert_same(converted(tmp_path / "quantized", tmp_path / "plain"), expected)
    assert len(modules) == 83
    assert "quantization" not in config_of(tmp_path / "plain")
    assert "quantization_config" not in config_of(tmp_path / "plain")


def test_quantized_at_more_bits(tmp_path: Path) -> None:
    """Eight bits of what four have left."""
    four = converted(RELEASED, tmp_path / "four", "4bit")
    eight = converted(tmp_path / "four", tmp_path / "eight", "8bit")
    module = f"{LAYER}.mlp.down_proj"
    values = values_of(four, module, {"bits": 4, "group_size": 64}).astype(mx.bfloat16)
    for part, expected in zip(("weight", "scales", "biases"), mx.quantize(values, group_size=64, bits=8), strict=True):
        assert mx.array_equal(eight[f"{module}.{part}"], expected)


def text_only(name: str) -> str:
    return name.removeprefix("language_model.")


@pytest.mark.parametrize(("block", "asked"), PEERS.values(), ids=PEERS)
def test_conversions_of_others(tmp_path: Path, block: dict[str, Any], asked: list[str]) -> None:
    """Their modules are read as their entries say: asked for the same, they are copied, and so are the logits."""
    source = quantized_by_mlx(tmp_path / "theirs", block)
    assert_same(converted(source, tmp_path / "ours", modules=asked), stored(source))
    np.testing.assert_array_equal(logits(tmp_path / "ours"), logits(source))
    default = {key: value for key, value in block.items() if not isinstance(value, (dict, bool))}
    plain = converted(source, tmp_path / "plain")
    for module in ("language_model.model.embed_tokens", f"{LAYER}.mlp.up_proj", f"{LAYER}.mlp.down_proj"):
        expected = values_of(stored(source), module, block.get(module, default)).astype(mx.bfloat16)
        assert mx.array_equal(plain[f"{module}.weight"], expected), module


@pytest.mark.parametrize("rename", [lambda name: f"model.{name}", released_name, text_only])
def test_names_of_others(tmp_path: Path, rename: Callable[[str], str]) -> None:
    """Whatever the layout calls the modules, their entries are found."""
    block, _ = PEERS["an-entry-each"]
    expected = converted(quantized_by_mlx(tmp_path / "known", block), tmp_path / "expected")
    source = quantized_by_mlx(tmp_path / "renamed", block, rename)
    assert_same(converted(source, tmp_path / "out"), expected)


def test_a_bias_beside_quantized_weights(tmp_path: Path) -> None:
    """The bias of a quantized layer is no part of its quantization, and is kept."""
    source = quantized_by_mlx(tmp_path / "theirs", {"group_size": 64, "bits": 8, "mode": "affine"})
    assert "vision_embedder.patch_dense.scales" in stored(source)
    tensors = converted(source, tmp_path / "out", "4bit")
    assert "vision_embedder.patch_dense.scales" not in tensors
    bias = read_weights(RELEASED)["vision_embedder.patch_dense.bias"]
    assert mx.array_equal(tensors["vision_embedder.patch_dense.bias"], bias)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_scales_of_another_type(tmp_path: Path, dtype: mx.Dtype) -> None:
    """Scales keep their own type where norms have another."""
    source = quantized_by_mlx(tmp_path / "theirs", {"group_size": 64, "bits": 4, "mode": "affine"})
    tensors = {
        name: tensor.astype(dtype) if name.endswith((".scales", ".biases")) else tensor
        for name, tensor in stored(source).items()
    }
    mx.save_safetensors(str(source / "model.safetensors"), tensors)
    assert_same(converted(source, tmp_path / "out", modules=["*=4"]), stored(source))


def test_what_was_quantized_before(tmp_path: Path) -> None:
    """Where MLX's own block is, a block that another tool has left beside it does not count."""
    source = quantized_by_mlx(tmp_path / "theirs", PEERS["all-alike"][0])
    config = config_of(source) | {"quantization_config": {"quant_method": "fp8"}}
    (source / "config.json").write_text(json.dumps(config))
    assert_same(converted(source, tmp_path / "out", modules=["*=4/32"]), stored(source))


@pytest.mark.parametrize("quantized", [False, True])
def test_text_only_checkpoints(tmp_path: Path, quantized: bool) -> None:
    """As mlx-lm writes them: no media tensors, their parts of the config unchanged. The conversion says so itself."""
    source = quantized_by_mlx(tmp_path / "all", PEERS["all-alike"][0]) if quantized else RELEASED
    tensors = {name: tensor for name, tensor in read_weights(source).items() if name.startswith("language_model.")}
    text = write(tmp_path / "text", {text_only(name): tensor for name, tensor in tensors.items()}, config_of(source))
    assert_same(converted(text, tmp_path / "out", modules=["*=4/32"] if quantized else []), tensors)
    np.testing.assert_array_equal(logits(tmp_path / "out"), logits(source))
    told = config_of(tmp_path / "out")
    assert (told["vision_config"], told["audio_config"]) == (None, None)


def test_what_a_conversion_does_not_store(tmp_path: Path) -> None:
    """A head beside the tied embedding and stored frequencies are passed over."""
    extra = {"lm_head.weight": mx.zeros((371, 64)), "model.layers.0.self_attn.rotary_emb.inv_freq": mx.zeros(16)}
    source = write(tmp_path / "source", {**stored(RELEASED), **extra}, config_of(RELEASED))
    assert_same(converted(source, tmp_path / "out"), read_weights(RELEASED))


def expected_of(name: str) -> dict[str, np.ndarray]:
    """What compressed-tensors itself decompresses, by the converted names."""
    arrays = np.load(FORMATS / name / "expected.npz")
    return {f"{converted_name(module)}.weight": arrays[module] for module in arrays.files}


def assert_codes(tensors: Tensors, source: Path, name: str) -> None:
    """Codes and scales are those on disk; float32 scale · q, rounded to bfloat16, is what the package decompresses."""
    module = released_name(name.removesuffix(".weight"))
    packed = stored(source)
    np.testing.assert_array_equal(np.array(tensors[name]), np.array(packed[f"{module}.weight_packed"]).view(np.uint32))
    scales = numbers(packed[f"{module}.weight_scale"])
    found = tensors[name.replace(".weight", ".scales")]
    assert found.dtype == mx.bfloat16
    np.testing.assert_array_equal(
        numbers(found), np.broadcast_to(scales.repeat(found.shape[1] // scales.shape[1], 1), found.shape)
    )


def test_compressed_tensors(tmp_path: Path) -> None:
    """A W4A16 export keeps its codes and scales; auto takes qat for it."""
    source = FORMATS / "compressed-tensors"
    record = convert(source, tmp_path / "out", note=silent)
    assert record.recipe == "qat"
    assert record.modules == {"4 bits, group 32": 20, "bfloat16": 3, "8 bits, group 64": 1}
    tensors, expected = stored(tmp_path / "out"), expected_of("compressed-tensors")
    assert len(expected) == 20
    for name, values in expected.items():
        assert_codes(tensors, source, name)
        np.testing.assert_array_equal(rounded(dequantized(tensors, name), mx.bfloat16), values, name)


def test_compressed_tensors_in_plain_numbers(tmp_path: Path) -> None:
    """Dequantized, it holds what the package decompresses, bit for bit; and both conversions compute alike."""
    source = FORMATS / "compressed-tensors"
    plain = converted(source, tmp_path / "plain")
    for name, values in expected_of("compressed-tensors").items():
        np.testing.assert_array_equal(numbers(plain[name]), values, name)
        assert plain[name].dtype == mx.bfloat16
    told = config_of(tmp_path / "plain")
    assert "quantization_config" not in told
    convert(source, tmp_path / "qat", modules=["*embed_tokens=none"], note=silent)
    exact = logits(tmp_path / "plain")
    assert np.abs(logits(tmp_path / "qat") - exact).max() < 0.02 * np.abs(exact).max()


@cache
def narrow_config() -> dict[str, Any]:
    """Sizes of which the query projection is 24 × 256, the one of the single modules."""
    config = small_config()
    config["text_config"] |= {
        "hidden_size": 256,
        "intermediate_size": 64,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "global_head_dim": 8,
    }
    config["vision_config"] |= {"mm_embed_dim": 16, "output_proj_dims": 256}
    return config


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    folder = tmp_path_factory.mktemp("narrow")
    make(folder, narrow_config())
    return stored(folder)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("name", ["compressed-tensors-channel", "compressed-tensors-group-128"])
def test_other_groups_of_compressed_tensors(tmp_path: Path, narrow: Tensors, name: str, nested: bool) -> None:
    """A scale for a row of 256, or for 128 of them, is one for each group of 128."""
    block = json.loads((FORMATS / name / "config.json").read_text())
    config = json.loads(json.dumps(narrow_config()))
    (config["text_config"] if nested else config).update(block)
    (weight,) = expected_of(name)
    tensors = {key: tensor for key, tensor in narrow.items() if key != released_name(weight)}
    source = write(tmp_path / "source", {**tensors, **stored(FORMATS / name)}, config)
    found = converted(source, tmp_path / "out", "qat", modules=["*.o_proj=none"])
    assert quantization_of(tmp_path / "out")[weight.removesuffix(".weight")]["group_size"] == 128
    assert_codes(found, source, weight)
    np.testing.assert_array_equal(rounded(dequantized(found, weight), mx.bfloat16), expected_of(name)[weight])
    plain = converted(source, tmp_path / "plain")
    np.testing.assert_array_equal(numbers(plain[weight]), expected_of(name)[weight])
    assert "quantization_config" not in {
        **config_of(tmp_path / "plain"),
        **config_of(tmp_path / "plain")["text_config"],
    }
    load(tmp_path / "out", dtype="float32")


DRAFTERS = ("assistant-plain", "assistant-ordered")


@pytest.mark.parametrize("recipe", ["bf16", "4bit", "mixed", "8bit", "auto"])
@pytest.mark.parametrize("name", DRAFTERS)
def test_drafters(tmp_path: Path, name: str, recipe: str) -> None:
    """They keep their names; layers are quantized, the head is left out, and the order of tokens is as it was."""
    original = stored(FORMATS / name)
    source = shutil.copytree(FORMATS / name, tmp_path / "source")
    mx.save_safetensors(str(source / "model.safetensors"), {**original, "lm_head.weight": mx.zeros((512, 64))})
    tensors = converted(source, tmp_path / "out", recipe)
    weights = {key: tensor for key, tensor in tensors.items() if not key.endswith((".scales", ".biases"))}
    assert weights.keys() == original.keys()
    quantized = {key.removesuffix(".scales") for key in tensors if key.endswith(".scales")}
    layers = {key.removesuffix(".weight") for key in original if key.endswith("_proj.weight") and ".layers." in key}
    embedding = set() if name == "assistant-ordered" else {"model.embed_tokens"}
    assert len(layers) == 20
    assert quantized == (set() if recipe == "bf16" else layers | embedding)
    for key, tensor in original.items():
        if key.removesuffix(".weight") not in quantized:
            assert tensors[key].dtype == tensor.dtype
            assert mx.array_equal(tensors[key], tensor), key
    if name == "assistant-ordered":
        ordering = tensors["masked_embedding.token_ordering"]
        assert (ordering.dtype, sorted(ordering.tolist())) == (mx.int64, list(range(512)))


@pytest.mark.parametrize("name", DRAFTERS)
def test_the_config_of_drafters(tmp_path: Path, name: str) -> None:
    """It says what mlx-vlm has other defaults for; all else is the source's."""
    converted(FORMATS / name, tmp_path / "out", "8bit")
    expected = config_of(FORMATS / name)
    expected["text_config"] |= {"hidden_size_per_layer_input": 0, "global_head_dim": 64}
    block: dict[str, Any] = {"group_size": 64, "bits": 8, "mode": "affine"}
    assert config_of(tmp_path / "out") == {**expected, "quantization": block, "quantization_config": block}
    record = Record.read(tmp_path / "out")
    assert record.model_type == "gemma4_unified_assistant"
    assert record.parameters == sum(tensor.size for tensor in stored(FORMATS / name).values())


def drafter_on_grid(folder: Path, name: str) -> tuple[Path, dict[str, np.ndarray]]:
    """A drafter whose layers and embedding lie on a Q4_0 grid, and their codes."""
    tensors, expected = stored(FORMATS / name), {}
    for seed, key in enumerate(sorted(tensors)):
        if is_decoder_matrix(key) or "embed_tokens" in key:
            weights = q4_weights(*tensors[key].shape, seed)
            tensors[key], expected[key] = weights.values, weights.codes
    source = shutil.copytree(FORMATS / name, folder)
    mx.save_safetensors(str(source / "model.safetensors"), tensors)
    return source, expected


@pytest.mark.parametrize("name", DRAFTERS)
def test_drafters_trained_for_four_bits(tmp_path: Path, name: str) -> None:
    """They are kept exactly; an embedding that is read row by row stays in plain numbers even then."""
    source, expected = drafter_on_grid(tmp_path / "source", name)
    assert convert(source, tmp_path / "out", note=silent).recipe == "qat"
    tensors, embedding = stored(tmp_path / "out"), "model.embed_tokens.weight"
    if name == "assistant-ordered":
        del expected[embedding]
        assert mx.array_equal(tensors[embedding], stored(source)[embedding])
    assert len(expected) == (20 if name == "assistant-ordered" else 21)
    for key, right in expected.items():
        np.testing.assert_array_equal(codes(tensors[key]), right, key)


@pytest.mark.parametrize("recipe", ["4bit", "mixed", "8bit", "mxfp8", "auto"])
def test_an_ordered_embedding_is_told_of(tmp_path: Path, recipe: str) -> None:
    """It is most of a drafter: that it is not quantized is said."""
    notes: list[str] = []
    convert(FORMATS / "assistant-ordered", tmp_path / "out", recipe=recipe, note=notes.append)
    assert notes == ["The embedding is not quantized: its rows are read as plain numbers (use_ordered_embeddings)"]
    assert stored(tmp_path / "out")["model.embed_tokens.weight"].dtype == mx.bfloat16


def test_an_ordered_embedding_asked_for(tmp_path: Path) -> None:
    """Whoever asks for it by name gets it, and is not told otherwise."""
    source, notes = FORMATS / "assistant-ordered", list[str]()
    convert(source, tmp_path / "out", recipe="4bit", modules=["*embed_tokens=8/32"], note=notes.append)
    expected = mx.quantize(stored(source)["model.embed_tokens.weight"], group_size=32, bits=8)
    for part, values in zip(("weight", "scales", "biases"), expected, strict=True):
        assert mx.array_equal(stored(tmp_path / "out")[f"model.embed_tokens.{part}"], values)
    assert notes == []


def test_a_quantized_drafter(tmp_path: Path) -> None:
    """A conversion is read back: the same again is a copy, and an ordered embedding comes back to plain numbers."""
    source = FORMATS / "assistant-ordered"
    converted(source, tmp_path / "once", "4bit", modules=["*embed_tokens=8"])
    again = converted(tmp_path / "once", tmp_path / "again", "4bit")
    once = stored(tmp_path / "once")
    values = values_of(once, "model.embed_tokens", {"bits": 8, "group_size": 64}).astype(mx.bfloat16)
    expected = {key: tensor for key, tensor in once.items() if "embed_tokens" not in key}
    assert_same(again, {**expected, "model.embed_tokens.weight": values})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source", random_tensors())
