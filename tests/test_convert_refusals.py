"""What is no checkpoint, or a broken one: refused by the converter with a line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from converted import (
    FORMATS,
    LAYER,
    PACKED,
    PEERS,
    RELEASED,
    config_of,
    quantized_by_mlx,
    refuse,
    with_config,
)
from quantized_checkpoints import (
    Tensors,
    random_tensors,
    stored,
    write,
)

from mlx_gemma4.convert import tensors as tensors_module
from mlx_gemma4.convert.run import convert


def raw_file(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    """A safetensors file of types that MLX does not write."""
    header, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source", random_tensors())


def changed(source: Path, change: Callable[[Tensors], None]) -> Path:
    tensors = dict(random_tensors())
    change(tensors)
    path = source / "model.safetensors"
    mx.save_safetensors(str(path), tensors)
    return path


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
    refuse(source, f"The tensor {name} is stored twice in {source}: in {path} and in another file")


def test_a_dtype_that_is_none(source: Path) -> None:
    """The types that there are are named."""
    with pytest.raises(ValueError, match="Expected a dtype of bfloat16, float16, float32, got 'int8'"):
        convert(source, source.parent / "out", dtype="int8")
