"""Every kind of checkpoint is converted to the same weights, bit for bit where nothing is rounded; others are named."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import huggingface_hub
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from make_random_checkpoint import make
from mlx.utils import tree_flatten
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
from reference_cases import DATA, REFERENCE, reference_case

from mlx_gemma4 import Processor, Session, load
from mlx_gemma4.checkpoint.weight_files import weight_files
from mlx_gemma4.cli import main
from mlx_gemma4.convert import tensors as tensors_module
from mlx_gemma4.convert.card import write_card
from mlx_gemma4.convert.config_files import copied_files, write_config
from mlx_gemma4.convert.job import plan_conversion
from mlx_gemma4.convert.plan import Plan
from mlx_gemma4.convert.provenance import make_record
from mlx_gemma4.convert.publish import check_folder
from mlx_gemma4.convert.record import Record
from mlx_gemma4.convert.run import convert
from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.weights import load_model, read_weights

FORMATS = DATA / "formats"
RELEASED, RESAVED = (REFERENCE / name / "checkpoint" for name in ("released", "resaved"))
PROMPT = reference_case("released", "text").prompt
LAYER = "language_model.model.layers.0"
SMALL_FILES = ("chat_template.jinja", "generation_config.json", "processor_config.json", "tokenizer.json")


def silent(text: str) -> None:
    """What a conversion tells is not asked for."""


def converted(source: Path, out: Path, recipe: str = "bf16", **options: Any) -> Tensors:
    convert(source, out, recipe=recipe, note=silent, **options)
    return stored(out)


def logits(folder: Path) -> np.ndarray:
    model, _ = load(folder, dtype="float32")
    return np.array(Session(model).extend(PROMPT, all_logits=True))


def assert_same(found: Mapping[str, mx.array], expected: Mapping[str, mx.array]) -> None:
    """Names, types and bits."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert mx.array_equal(found[name], tensor), name


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def quantization_of(folder: Path) -> dict[str, Any]:
    block: dict[str, Any] = config_of(folder)["quantization"]
    return block


def in_shards(source: Path, folder: Path, count: int) -> Path:
    """A copy of a checkpoint whose tensors lie in several files, with an index."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    tensors = stored(source)
    weight_map = {}
    for part in range(count):
        shard = {name: tensors[name] for name in sorted(tensors)[part::count]}
        weight_map |= dict.fromkeys(shard, f"model-{part}.safetensors")
        mx.save_safetensors(str(folder / f"model-{part}.safetensors"), shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


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


def quantized_by_mlx(folder: Path, block: Mapping[str, Any], rename: Callable[[str], str] = str) -> Path:
    """The released reference as mlx-lm and mlx-vlm quantize it: what has scales is what the block does not exclude."""
    model = load_model(RELEASED)
    default = {key: value for key, value in block.items() if not isinstance(value, (dict, bool))}

    def settings(path: str, module: nn.Module) -> bool | dict[str, Any]:
        own = block.get(path, default)
        return own if hasattr(module, "to_quantized") else False

    nn.quantize(model, class_predicate=settings)
    renamed = {key if key in default else rename(key): value for key, value in block.items()}
    config = {**config_of(RELEASED), "quantization": renamed, "quantization_config": renamed}
    return write(folder, {rename(name): tensor for name, tensor in tree_flatten(model.parameters())}, config)


def text_only(name: str) -> str:
    return name.removeprefix("language_model.")


PEERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "all-alike": (
        {"group_size": 32, "bits": 4, "mode": "affine"},
        ["*=4/32"],
    ),
    "an-entry-each": (
        {
            "group_size": 64,
            "bits": 4,
            "mode": "affine",
            "language_model.model.embed_tokens": {"group_size": 64, "bits": 8},
            f"{LAYER}.self_attn.v_proj": {"group_size": 64, "bits": 8},
            f"{LAYER}.mlp.down_proj": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
            f"{LAYER}.mlp.up_proj": {"group_size": 64, "bits": 4},
            "embed_vision.embedding_projection": False,
            "vision_embedder.patch_dense": False,
        },
        [
            *("*=4/64", "*embed_tokens=8/64", f"{LAYER}.self_attn.v_proj=8/64", f"{LAYER}.mlp.down_proj=mxfp4"),
            *("embed_vision.*=none", "vision_embedder.*=none"),
        ],
    ),
    "entries-without-mode": (
        {"group_size": 32, "bits": 4, "mode": "mxfp4", f"{LAYER}.mlp.up_proj": {"group_size": 64, "bits": 8}},
        ["*=mxfp4", f"{LAYER}.mlp.up_proj=8/64"],
    ),
}


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


# What the converted folder says of itself


@pytest.mark.parametrize(
    "source", [RELEASED, RESAVED, FORMATS / "compressed-tensors"], ids=lambda path: path.parent.name
)
@pytest.mark.parametrize("recipe", ["bf16", "4bit"])
def test_the_config_is_the_released_dialect(tmp_path: Path, source: Path, recipe: str) -> None:
    """Every size is named by the released keys, as mlx-vlm and mlx-lm read them; it means what the source's does."""
    converted(source, tmp_path / "out", recipe)
    told, text = config_of(tmp_path / "out"), config_of(tmp_path / "out")["text_config"]
    assert "per_layer_config" not in text
    assert (text["global_head_dim"], text["num_global_key_value_heads"]) == (64, 1)
    assert (text["hidden_size_per_layer_input"], text["num_kv_shared_layers"], told["vocab_size"]) == (0, 0, 371)
    assert told["vision_config"]["model_patch_size"] == 48
    assert told["audio_config"]["audio_embed_dim"] == told["audio_config"]["audio_samples_per_token"] == 640
    assert told.get("quantization") == told.get("quantization_config")
    assert ("quantization" in told) == (recipe == "4bit")
    raw = {key: value for key, value in config_of(source).items() if key != "quantization_config"}
    expected = Config.from_dict(raw)
    assert replace(Config.from_file(tmp_path / "out" / "config.json"), quantization=None) == expected


def test_sizes_in_the_released_dialect(tmp_path: Path) -> None:
    """Whatever they are, full layers' sizes go by the released names, and what others would guess is said."""
    raw = small_config()
    for key in ("global_head_dim", "num_global_key_value_heads", "num_kv_shared_layers"):
        del raw["text_config"][key]
    raw["text_config"]["per_layer_config"] = {"1": {"head_dim": 48, "num_key_value_heads": 2}}
    write_config(tmp_path, raw, Config.from_dict(raw), None)
    text = config_of(tmp_path)["text_config"]
    assert "per_layer_config" not in text
    assert (text["head_dim"], text["global_head_dim"], text["num_global_key_value_heads"]) == (32, 48, 2)
    assert (text["num_kv_shared_layers"], text["hidden_size_per_layer_input"]) == (0, 0)
    assert Config.from_file(tmp_path / "config.json") == Config.from_dict(raw)


def test_layers_of_their_own_sizes(tmp_path: Path) -> None:
    """Where full layers differ from each other, only the source's dialect can say so, and is kept."""
    config = small_config()
    text = config["text_config"]
    text |= {"num_hidden_layers": 3, "layer_types": ["sliding_attention", "full_attention", "full_attention"]}
    sizes = {"1": {"head_dim": 64, "num_key_value_heads": 1}, "2": {"head_dim": 32, "num_key_value_heads": 2}}
    text |= {"per_layer_config": sizes}
    del text["global_head_dim"], text["num_global_key_value_heads"]
    tensors = dict(random_tensors())
    for name in list(tensors):
        if ".layers.1." in name:
            tensors[name.replace(".layers.1.", ".layers.2.")] = tensors[name]
    layer = "model.language_model.layers.2.self_attn"
    tensors |= {f"{layer}.{norm}.weight": mx.ones(32, mx.bfloat16) for norm in ("q_norm", "k_norm")}
    tensors[f"{layer}.q_proj.weight"] = tensors[f"{layer}.q_proj.weight"][:128]
    tensors[f"{layer}.o_proj.weight"] = tensors[f"{layer}.o_proj.weight"][:, :128]
    source = write(tmp_path / "source", tensors, config)
    assert_same(converted(source, tmp_path / "out"), read_weights(source))
    assert config_of(tmp_path / "out")["text_config"]["per_layer_config"] == sizes
    expected = Config.from_file(source / "config.json")
    assert Config.from_file(tmp_path / "out" / "config.json") == expected


def test_small_files_are_copied(tmp_path: Path) -> None:
    """Tokenizer, templates and processor byte for byte; not what is no part of a checkpoint, or is written new."""
    source = shutil.copytree(RELEASED, tmp_path / "source")
    others = ["README.md", "notes.txt", "pytorch_model.bin.index.json", "image.png"]
    for name in [*others, "tokenizer.model", "preprocessor_config.json"]:
        (source / name).write_bytes(b"{}")
    (source / "folder.json").mkdir()
    convert(source, tmp_path / "out", recipe="4bit")
    copied = {*SMALL_FILES, "tokenizer_config.json", "tokenizer.model", "preprocessor_config.json"}
    assert {path.name for path in copied_files(source)} == copied
    made = {"config.json", "model.safetensors", "model.safetensors.index.json", "conversion.json", "README.md"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == copied | made
    for name in copied:
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes(), name
    assert (tmp_path / "out" / "README.md").read_bytes() != b"{}"
    Processor.from_folder(tmp_path / "out")


def test_what_is_not_part_of_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not copied, whatever its name ends in, and is named."""
    source = shutil.copytree(RELEASED, tmp_path / "source")
    others = ["secrets.json", ".env", "._config.json", "._tokenizer.json", "training_args.json", "notes.jinja"]
    for name in others:
        (source / name).write_text("secret")
    (source / "link.json").symlink_to("/etc/passwd")
    command = ["convert", "--hf-path", str(source), "--mlx-path", str(tmp_path / "out"), "-q"]
    assert main(command) == 0
    names = ", ".join(map(repr, sorted([*others, "link.json"])))
    assert capsys.readouterr().err == f"Not part of a checkpoint, left out: {names}\n"
    assert not {path.name for path in (tmp_path / "out").iterdir()} & {*others, "link.json"}


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.jinja", "config.json", "model.safetensors"])
def test_links_out_of_the_source(tmp_path: Path, name: str) -> None:
    """A file of a checkpoint that is a link to elsewhere is not read, and so never copied."""
    source = shutil.copytree(RELEASED, tmp_path / "source")
    outside = (source / name).rename(tmp_path / name)
    (source / name).symlink_to(outside)
    message = f"{source / name} is a link to a file outside its folder; copy the file into the folder"
    with pytest.raises(ValueError, match=re.escape(message)):
        convert(source, tmp_path / "out", recipe="4bit")
    assert not (tmp_path / "out").exists()


def test_a_quantization_that_is_no_object(source: Path) -> None:
    """It is named."""
    with_config(source, quantization=True)
    refuse(source, f"Expected an object for 'quantization' in {source / 'config.json'}, got True")


def test_a_packed_tensor_that_is_no_matrix(tmp_path: Path) -> None:
    """It is named."""
    source = shutil.copytree(FORMATS / "compressed-tensors", tmp_path / "source")
    tensors = stored(source)
    mx.eval(tensors)
    (source / "expected.npz").unlink()
    path = source / "model.safetensors"
    path.unlink()
    mx.save_safetensors(str(path), {**tensors, f"{PACKED}.weight_packed": mx.zeros((16,), mx.int32)})
    refuse(source, f"Expected a matrix for {PACKED}.weight_packed in {path}, got [16]", recipe="qat")


def test_links_become_files(tmp_path: Path) -> None:
    """A snapshot of the Hugging Face cache holds links only; what is made of it does not depend on the cache."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    shutil.copytree(RELEASED, blobs)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(blobs.iterdir())):
        blob = path.rename(blobs / f"{number:040d}")
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    convert(snapshot, tmp_path / "out", recipe="bf16")
    shutil.rmtree(blobs)
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
    assert_same(stored(tmp_path / "out"), read_weights(RELEASED))
    for name in SMALL_FILES:
        assert (tmp_path / "out" / name).read_bytes() == (RELEASED / name).read_bytes()


@pytest.mark.parametrize(
    ("recipe", "modules"),
    [
        ("bf16", {"bfloat16": 86}),
        ("4bit", {"4 bits, group 64": 82, "bfloat16": 3, "6 bits, group 64": 1}),
        ("nvfp4", {"nvfp4": 82, "bfloat16": 3, "6 bits, group 64": 1}),
    ],
)
def test_the_record(tmp_path: Path, recipe: str, modules: dict[str, int]) -> None:
    """It tells what is on disk: parameters of the source, bytes of the tensors, modules by how they are stored."""
    record = convert(RELEASED, tmp_path / "out", recipe=recipe)
    assert record == Record.read(tmp_path / "out")
    assert record.parameters == sum(tensor.size for tensor in stored(RELEASED).values()) == 1151948
    assert record.size_bytes == sum(tensor.nbytes for tensor in stored(tmp_path / "out").values())
    assert record.bits_per_weight == 8 * record.size_bytes / 1151948
    assert record.modules == modules
    assert (record.source, record.base_model, record.license) == ("checkpoint", None, None)
    assert (record.recipe, record.model_type, record.quantization_error) == (recipe, "gemma4_unified", None)


def test_the_base_model_is_kept(tmp_path: Path) -> None:
    """Converted again, a conversion names the model that it was first made of, and its licence."""
    convert(RELEASED, tmp_path / "once", recipe="8bit")
    first = replace(Record.read(tmp_path / "once"), base_model="google/gemma-4-12B-it", license="apache-2.0")
    first.write(tmp_path / "once")
    record = convert(tmp_path / "once", tmp_path / "twice", recipe="4bit")
    assert (record.source, record.base_model, record.license) == ("once", "google/gemma-4-12B-it", "apache-2.0")
    assert record.recipe == "4bit"


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\ntags: [x]\n---\n", None),
        ("---\nlicense: [\n---\n", None),
        ("---\n- license\n---\n", None),
        ("no metadata", None),
        ("", None),
    ],
)
def test_the_licence_of_a_folder(tmp_path: Path, card: str, license: str | None) -> None:
    """It is what the folder's card names; a card that says nothing, or cannot be read, undoes no conversion."""
    source = shutil.copytree(RELEASED, tmp_path / "source")
    (source / "README.md").write_text(card)
    assert convert(source, tmp_path / "out", recipe="4bit").license == license


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"base_model": "a/b"}', "does not describe the weights beside it"),
        ("[]", "Expected a JSON object"),
    ],
)
def test_a_record_of_another_form(tmp_path: Path, content: str, reason: str) -> None:
    """Neither does a record that another version has written, and it is said."""
    source = shutil.copytree(RELEASED, tmp_path / "source")
    (source / "conversion.json").write_text(content)
    told: list[str] = []
    assert convert(source, tmp_path / "out", recipe="4bit", note=told.append).base_model is None
    assert told[-1].startswith("The source's conversion.json is ignored: ") and reason in told[-1]


def with_record(folder: Path) -> Path:
    """A conversion that names its base and its licence."""
    convert(RELEASED, folder, recipe="bf16")
    record = replace(Record.read(folder), base_model="google/gemma-4-12B-it", license="apache-2.0")
    record.write(folder)
    return folder


def test_a_record_of_other_weights(tmp_path: Path) -> None:
    """Weights that replaced those of a conversion have no card of theirs: one tensor that was trained is enough."""
    folder = with_record(tmp_path / "made")
    tensors = stored(folder)
    name = f"{LAYER}.mlp.up_proj.weight"
    mx.save_safetensors(str(folder / "model.safetensors"), tensors | {name: tensors[name] * 1.01})
    message = re.escape(
        f"{folder}/conversion.json does not describe the weights beside it: convert them, or remove the"
    )
    for refused in (Record.read, check_folder, write_card):
        with pytest.raises(ValueError, match=message):
            refused(folder)
    told: list[str] = []
    record = convert(folder, tmp_path / "again", recipe="4bit", note=told.append)
    assert (record.base_model, record.license) == (None, None)
    assert told[-1].startswith(f"The source's conversion.json is ignored: {folder}/conversion.json does not describe")
    assert "google/gemma-4-12B-it" not in (tmp_path / "again" / "README.md").read_text()


def test_a_record_of_the_same_weights(tmp_path: Path) -> None:
    """Neither the files nor the order of tensors make other weights of them."""
    folder = with_record(tmp_path / "made")
    many = in_shards(folder, tmp_path / "many", 3)
    assert Record.read(many) == Record.read(folder)
    convert(many, tmp_path / "again", recipe="bf16")
    assert Record.read(tmp_path / "again").base_model == "google/gemma-4-12B-it"


def test_a_record_is_not_copied(tmp_path: Path) -> None:
    """A conversion has its own alone, whatever the source has."""
    source = shutil.copytree(RELEASED, tmp_path / "source")
    (source / "conversion.json").write_text('{"loss": 5}')
    convert(source, tmp_path / "out", recipe="4bit")
    assert Record.read(tmp_path / "out").quantization_error is None


def test_a_repo_is_the_base_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that was named as a repo is the base; its card, where it cannot be had, names no licence."""
    (tmp_path / "card.md").write_text("---\nlicense: gemma\n---\n")
    asked: list[tuple[str, str]] = []

    def download(repo: str, name: str) -> str:
        asked.append((repo, name))
        if repo == "owner/gone":
            raise ConnectionError("no network")
        return str(tmp_path / "card.md")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    job = plan_conversion(RELEASED, "4bit", note=silent)
    record = make_record(replace(job, name="owner/model"), silent)
    assert (record.source, record.base_model, record.license) == ("owner/model", "owner/model", "gemma")
    record = make_record(replace(job, name="owner/gone"), silent)
    assert (record.source, record.base_model, record.license) == ("owner/gone", "owner/gone", None)
    assert asked == [("owner/model", "README.md"), ("owner/gone", "README.md")]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_another_dtype(tmp_path: Path, dtype: str) -> None:
    """What is not quantized, and scales, take the type that is asked for; codes are derived in it."""
    kind = {"float16": mx.float16, "float32": mx.float32}[dtype]
    plain = converted(RELEASED, tmp_path / "plain", dtype=dtype)
    assert_same(plain, {name: tensor.astype(kind) for name, tensor in read_weights(RELEASED).items()})
    tensors = converted(RELEASED, tmp_path / "four", "4bit", dtype=dtype)
    name = f"{LAYER}.mlp.up_proj"
    expected = mx.quantize(plain[f"{name}.weight"], group_size=64, bits=4)
    for part, values in zip(("weight", "scales", "biases"), expected, strict=True):
        assert mx.array_equal(tensors[f"{name}.{part}"], values)
        assert tensors[f"{name}.{part}"].dtype == values.dtype


# What is no checkpoint, or a broken one


def raw_file(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """A safetensors file of types that MLX does not write."""
    header, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def refuse(source: Path, message: str, recipe: str = "4bit") -> None:
    """The conversion ends with this message, and leaves nothing behind."""
    out = source.parent / "out"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        convert(source, out, recipe=recipe, note=silent)
    assert sorted(path.name for path in source.parent.iterdir()) == [source.name]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source", random_tensors())


def changed(source: Path, change: Callable[[Tensors], None]) -> Path:
    tensors = dict(random_tensors())
    change(tensors)
    path = source / "model.safetensors"
    mx.save_safetensors(str(path), tensors)
    return path


def with_config(source: Path, **changes: Any) -> None:
    (source / "config.json").write_text(json.dumps({**small_config(), **changes}))


def test_no_config(source: Path) -> None:
    """A folder without one is no checkpoint."""
    (source / "config.json").unlink()
    refuse(source, f"There is no config.json of a checkpoint at {source / 'config.json'}")


@pytest.mark.parametrize("block", [{}, {"quantization_config": {"quant_method": "fp8"}}])
def test_another_architecture(source: Path, block: dict[str, Any]) -> None:
    """Other models are refused before their tensors are looked at."""
    with_config(source, model_type="llama", **block)
    raw_file(source / "model.safetensors", {"weight": ("F8_E4M3", (1,), b"0")})
    refuse(source, "Expected a Gemma 4 12B checkpoint (model_type gemma4_unified), got 'llama'")


@pytest.mark.parametrize("config", [{}, {"text_config": None}, {"text_config": {"hidden_size": 64}}])
def test_a_drafter_without_layers(tmp_path: Path, config: dict[str, Any]) -> None:
    """A drafter's config is refused before anything is computed."""
    source = shutil.copytree(FORMATS / "assistant-plain", tmp_path / "source")
    (source / "config.json").write_text(json.dumps({"model_type": "gemma4_unified_assistant", **config}))
    refuse(source, f"There are no layer_types in text_config in {source / 'config.json'}")


def test_no_weights(source: Path) -> None:
    """A folder without weights is named."""
    (source / "model.safetensors").unlink()
    refuse(source, f"There are no weights (model*.safetensors) in {source}")


def test_a_missing_tensor(source: Path) -> None:
    """It is named, with how many there are."""

    def change(tensors: Tensors) -> None:
        del tensors["model.language_model.norm.weight"], tensors["model.language_model.layers.0.layer_scalar"]

    changed(source, change)
    refuse(
        source,
        f"The tensors are not those of config.json in {source}: it lacks {LAYER}.layer_scalar, "
        "language_model.model.norm.weight (2 in all)",
    )


def test_nothing_but_a_matrix(source: Path) -> None:
    """A checkpoint without any norm lacks tensors, and says so."""
    mx.save_safetensors(str(source / "model.safetensors"), {"model.embed_tokens.weight": mx.zeros((371, 64))})
    refuse(
        source,
        f"The tensors are not those of config.json in {source}: it lacks {LAYER}.input_layernorm.weight, "
        f"{LAYER}.layer_scalar, {LAYER}.mlp.down_proj.weight (28 in all)",
    )


def test_an_extra_tensor(source: Path) -> None:
    """So is one that the model does not have."""
    changed(source, lambda tensors: tensors.update({"model.language_model.layers.2.layer_scalar": mx.zeros(1)}))
    refuse(
        source,
        f"The tensors are not those of config.json in {source}: it has unknown "
        "language_model.model.layers.2.layer_scalar (1 in all)",
    )


def test_another_shape(source: Path) -> None:
    """Both shapes are told."""
    changed(source, lambda tensors: tensors.update({"model.language_model.embed_tokens.weight": mx.zeros((370, 64))}))
    refuse(source, f"Expected language_model.model.embed_tokens.weight as [371, 64] in {source}, got [370, 64]")


@pytest.mark.parametrize("cut", [1, 300_000])
def test_a_file_cut_short(source: Path, cut: int) -> None:
    """Found before anything is computed."""
    path = source / "model.safetensors"
    size = path.stat().st_size
    os.truncate(path, size - cut)
    refuse(source, f"Expected {size} bytes in {path}, got {size - cut}: the file is cut short; download it again")


def test_a_type_that_is_not_known(source: Path) -> None:
    """Eight-bit floats are named."""
    path = source / "model.safetensors"
    raw_file(path, {"model.embed_tokens.weight": ("F8_E4M3", (2, 2), b"1234")})
    refuse(
        source,
        f"Expected a type of BF16, F16, F32, U32, U8, I32, I64 for model.embed_tokens.weight in {path}, got F8_E4M3",
    )


def test_offsets_that_do_not_fit(source: Path) -> None:
    """A header whose offsets are not those of its shapes is damaged."""
    path = source / "model.safetensors"
    raw_file(path, {"model.embed_tokens.weight": ("BF16", (2, 2), b"1234")})
    refuse(
        source,
        f"{path} is not a safetensors file: its header cannot be read: 'model.embed_tokens.weight' is BF16 of "
        "[2, 2], 8 bytes, its data_offsets hold 4",
    )


@pytest.mark.parametrize(("dtype", "kind"), [(mx.int32, "int32"), (mx.uint8, "uint8")])
def test_whole_numbers_for_weights(source: Path, dtype: mx.Dtype, kind: str) -> None:
    """They belong to a format that is not known."""
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    path = changed(source, lambda tensors: tensors.update({name: tensors[name].astype(dtype)}))
    refuse(source, f"Expected floating-point weights, got {kind} for {name} in {path}")


def test_scales_without_a_block(tmp_path: Path) -> None:
    """Quantized modules are of no use without the bits that they have."""
    source = quantized_by_mlx(tmp_path / "source", PEERS["all-alike"][0])
    (source / "config.json").write_text(json.dumps(config_of(RELEASED)))
    refuse(source, f"A quantization block is missing in {source / 'config.json'}: 86 modules have scales")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors.pop(f"{LAYER}.mlp.up_proj.biases"),
            "Expected biases of [128, 2] for {name}.weight (4 bits, group 32) in {path}, got none",
        ),
        (
            lambda tensors: tensors.update({f"{LAYER}.mlp.up_proj.scales": mx.zeros((128, 1), mx.bfloat16)}),
            "Expected scales of [128, 2] for {name}.weight (4 bits, group 32) in {path}, got [128, 1]",
        ),
    ],
)
def test_parts_that_do_not_fit(tmp_path: Path, change: Callable[[Tensors], None], message: str) -> None:
    """Scales and biases are as many as the block says, before any is copied."""
    source = quantized_by_mlx(tmp_path / "source", PEERS["all-alike"][0])
    tensors = stored(source)
    mx.eval(tensors)
    change(tensors)
    path = source / "model.safetensors"
    mx.save_safetensors(str(path), tensors)
    refuse(source, message.format(name=f"{LAYER}.mlp.up_proj", path=path))


def scheme(packing: str = "pack-quantized", **changes: Any) -> dict[str, Any]:
    """The block of the compressed-tensors export, with other weights, or packed otherwise."""
    block: dict[str, Any] = config_of(FORMATS / "compressed-tensors")["quantization_config"]
    block["format"] = block["config_groups"]["group_0"]["format"] = packing
    block["config_groups"]["group_0"]["weights"] |= changes
    return block


@pytest.mark.parametrize(
    "block",
    [
        {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False},
        {"quant_method": "awq", "bits": 4, "group_size": 128},
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        scheme("float-quantized", num_bits=8, type="float"),
        scheme("naive-quantized"),
        scheme(symmetric=False),
        scheme(num_bits=8),
        {**scheme(), "config_groups": {}},
        {**scheme(), "quant_method": "other"},
    ],
    ids=["gptq", "awq", "bitsandbytes", "fp8", "ct-fp8", "not-packed", "asymmetric", "int8", "no-groups", "other"],
)
def test_other_quantizations(source: Path, block: dict[str, Any]) -> None:
    """The method, its format and its weights are told."""
    with_config(source, quantization_config=block)
    schemes = [group["weights"] for group in block.get("config_groups", {}).values()]
    refuse(
        source,
        "Expected weights in floating point, quantized by MLX, or in compressed-tensors' pack-quantized symmetric int4 "
        f"(W4A16), got quant_method {block['quant_method']!r}, format {block.get('format')!r} and weights {schemes!r} "
        f"in {source / 'config.json'}",
    )


@pytest.mark.parametrize("second", [{"group_size": 64}, {"strategy": "tensor_group"}, {"strategy": "tensor"}])
def test_more_than_one_scheme(source: Path, second: dict[str, Any]) -> None:
    """All modules have to be packed alike."""
    block = scheme()
    first = block["config_groups"]["group_0"]
    block["config_groups"]["group_1"] = {**first, "weights": {**first["weights"], **second}}
    with_config(source, quantization_config=block)
    schemes = [first["weights"], {**first["weights"], **second}]
    refuse(source, f"Expected one group size for all modules in {source / 'config.json'}, got {schemes!r}")


PACKED = "model.language_model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (
            "weight_g_idx",
            mx.zeros(64, mx.int32),
            "Only symmetric groups in their order can be read, not those of {packed}.weight_g_idx in {path}",
        ),
        (
            "weight_zero_point",
            mx.zeros((16, 2), mx.int32),
            "Only symmetric groups in their order can be read, not those of {packed}.weight_zero_point in {path}",
        ),
        (
            "weight_scale",
            None,
            "Expected a weight_scale of [128, 2] for {packed}.weight_packed in {path}, got none",
        ),
        (
            "weight_scale",
            mx.zeros((128, 1), mx.bfloat16),
            "Expected a weight_scale of [128, 2] for {packed}.weight_packed in {path}, got [128, 1]",
        ),
        (
            "weight_packed",
            mx.zeros((128, 6), mx.int32),
            "Groups of 32 do not divide the 48 inputs of {packed}.weight_packed",
        ),
        (
            "weight_scale",
            mx.full((128, 2), float("inf"), mx.bfloat16),
            "There is NaN or infinity in {packed}.weight_scale, row 0, of {path}; "
            "the source is damaged: download it again",
        ),
    ],
)
def test_compressed_tensors_of_another_kind(tmp_path: Path, name: str, tensor: mx.array | None, message: str) -> None:
    """Asymmetric groups, groups in another order, and parts that lack or do not fit are named."""
    source = shutil.copytree(FORMATS / "compressed-tensors", tmp_path / "source")
    tensors = {key: value for key, value in stored(source).items() if key != f"{PACKED}.{name}"}
    mx.eval(tensors)
    (source / "expected.npz").unlink()
    path = source / "model.safetensors"
    path.unlink()
    mx.save_safetensors(str(path), tensors if tensor is None else {**tensors, f"{PACKED}.{name}": tensor})
    refuse(source, message.format(packed=PACKED, path=path), recipe="qat")


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.float32])
@pytest.mark.parametrize(
    ("name", "row", "value"),
    [
        ("layers.1.mlp.gate_proj.weight", 77, float("nan")),
        ("norm.weight", 5, float("-inf")),
        ("embed_tokens.weight", 370, float("inf")),
    ],
)
def test_no_number(
    source: Path, monkeypatch: pytest.MonkeyPatch, dtype: mx.Dtype, name: str, row: int, value: float
) -> None:
    """NaN and infinity are found whatever the recipe, and their tensor and row named."""
    monkeypatch.setattr(tensors_module, "BLOCK_BYTES", 2**12)
    name = f"model.language_model.{name}"

    def change(tensors: Tensors) -> None:
        values = tensors[name].astype(dtype)
        values[row] = value
        tensors[name] = values

    path = changed(source, change)
    message = f"There is NaN or infinity in {name}, row {row}, of {path}; the source is damaged: download it again"
    refuse(source, message, "bf16" if dtype == mx.float16 else "4bit")


def test_no_number_among_scales(tmp_path: Path) -> None:
    """The scales of quantized modules are looked at too."""
    source = quantized_by_mlx(tmp_path / "source", PEERS["all-alike"][0])
    tensors, name = stored(source), f"{LAYER}.mlp.up_proj.scales"
    mx.eval(tensors)
    tensors[name][3, 1] = float("nan")
    path = source / "model.safetensors"
    mx.save_safetensors(str(path), tensors)
    message = f"There is NaN or infinity in {name}, row 3, of {path}; "
    refuse(source, message + "the source is damaged: download it again")


@pytest.mark.parametrize("name", ["model.language_model.norm.weight", "language_model.model.norm.weight"])
def test_a_tensor_twice(source: Path, name: str) -> None:
    """Two files with the same tensor, under one name or two, are no checkpoint."""
    path = source / "model2.safetensors"
    mx.save_safetensors(str(path), {name: mx.zeros(64, mx.bfloat16)})
    refuse(source, f"A tensor is stored twice in {source}, {name} is in {path} and elsewhere")


def test_a_dtype_that_is_none(source: Path) -> None:
    """The types that there are are named."""
    with pytest.raises(ValueError, match="Expected a dtype of bfloat16, float16, float32, got 'int8'"):
        convert(source, source.parent / "out", dtype="int8")
