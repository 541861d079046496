"""The grid of Q4_0: weights that lie on it are found and kept exactly, and no others are taken for it."""

from __future__ import annotations

import re
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from quantized_checkpoints import (
    codes,
    converted_name,
    dequantized,
    is_decoder_matrix,
    numbers,
    q4_checkpoint,
    q4_weights,
    random_tensors,
    rounded,
    stored,
    write,
)

from mlx_gemma4.convert import grid, tensors
from mlx_gemma4.convert.detect import decoder_on_grid, looks_on_grid, with_grid
from mlx_gemma4.convert.progress import silent
from mlx_gemma4.convert.read import open_checkpoint
from mlx_gemma4.convert.run import convert
from mlx_gemma4.convert.tensor_file import read_entries
from mlx_gemma4.convert.tensors import OnGrid, Plain, Tensor
from mlx_gemma4.decoder.config import Config

FOUND = "These weights were trained for 4 bits: recipe qat is used, which keeps them exactly"
LAYER = "language_model.model.layers.0"
DECODER = sorted(filter(is_decoder_matrix, random_tensors()))


def spacing(values: np.ndarray) -> np.ndarray:
    """The distance from each bfloat16 number to the next: it has eight bits."""
    return 2.0 ** (np.floor(np.log2(np.abs(values))) - 7)


def tensor_of(folder: Path, rows: mx.array, name: str = f"{LAYER}.mlp.up_proj.weight") -> Tensor:
    """A tensor in a file."""
    path = folder / "one.safetensors"
    mx.save_safetensors(str(path), {name: rows})
    (entry,) = read_entries(path)
    return Plain(name, entry)


@pytest.mark.parametrize(
    ("dtype", "scale_dtype", "exponents"),
    [
        (mx.bfloat16, mx.bfloat16, (-8, -4)),
        (mx.bfloat16, mx.bfloat16, (-100, 100)),
        (mx.float32, mx.bfloat16, (-30, 30)),
        (mx.float32, mx.float32, (-100, 100)),
        (mx.float16, mx.float16, (-10, 8)),
        (mx.float16, mx.bfloat16, (-8, 4)),
    ],
)
def test_weights_on_the_grid_are_kept_exactly(
    tmp_path: Path, dtype: mx.Dtype, scale_dtype: mx.Dtype, exponents: tuple[int, int]
) -> None:
    """Codes and scales are those of the training, and the values are the source's, bit for bit."""
    decoder = q4_checkpoint(tmp_path / "q4", dtype=dtype, scale_dtype=scale_dtype, exponents=exponents)
    convert(tmp_path / "q4", tmp_path / "out", recipe="qat")
    tensors = stored(tmp_path / "out")
    assert len(decoder) == len(DECODER) == 13
    for name, weights in decoder.items():
        module = name.removesuffix(".weight")
        np.testing.assert_array_equal(codes(tensors[name]), weights.codes, name)
        assert tensors[f"{module}.scales"].dtype == tensors[f"{module}.biases"].dtype == dtype
        np.testing.assert_array_equal(numbers(tensors[f"{module}.scales"]), weights.scales, name)
        np.testing.assert_array_equal(numbers(tensors[f"{module}.biases"]), -8 * weights.scales, name)
        np.testing.assert_array_equal(rounded(dequantized(tensors, name), dtype), numbers(weights.values), name)


@pytest.mark.parametrize("scale_dtype", [mx.float32, mx.float16])
def test_scales_that_bfloat16_does_not_hold(tmp_path: Path, scale_dtype: mx.Dtype) -> None:
    """Codes are those of the training, and a value is off by one rounding at most.

    Plain 4 bits are off by some nine times as much, and 70 times in squares.
    """
    decoder = q4_checkpoint(tmp_path / "q4", scale_dtype=scale_dtype)
    convert(tmp_path / "q4", tmp_path / "out", recipe="qat")
    tensors = stored(tmp_path / "out")
    errors, plain_errors = [], []
    for name, weights in decoder.items():
        np.testing.assert_array_equal(codes(tensors[name]), weights.codes, name)
        source, kept = numbers(weights.values), dequantized(tensors, name)
        error = np.abs(rounded(kept, mx.bfloat16) - source)
        some = source != 0
        assert (error[~some] == 0).all()
        assert (error[some] <= spacing(source[some])).all()
        plain = mx.dequantize(*mx.quantize(weights.values.astype(mx.float32), group_size=32, bits=4), group_size=32)
        errors.append(kept - source)
        plain_errors.append(np.array(plain, dtype=np.float64) - source)
    error, plain_error = (np.concatenate([part.reshape(-1) for part in parts]) for parts in (errors, plain_errors))
    assert 0 < 8 * np.abs(error).mean() < np.abs(plain_error).mean()
    assert 50 * (error**2).mean() < (plain_error**2).mean()


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 5),
    groups=st.integers(1, 4),
    exponent=st.integers(-100, 100),
    scale_dtype=st.sampled_from([mx.bfloat16, mx.float32]),
)
@settings(max_examples=100, deadline=None)
def test_any_weights_on_the_grid(seed: int, rows: int, groups: int, exponent: int, scale_dtype: mx.Dtype) -> None:
    """Whatever their magnitudes, signs and scales are, they are found, and their codes too."""
    weights = q4_weights(rows, groups * 32, seed, scale_dtype=scale_dtype, exponents=(exponent, exponent + 6))
    assert grid.on_grid(weights.values)
    packed, scales, biases = grid.quantize(weights.values)
    np.testing.assert_array_equal(codes(packed), weights.codes)
    np.testing.assert_array_equal(numbers(scales), rounded(weights.scales, mx.bfloat16))
    np.testing.assert_array_equal(numbers(biases), -8 * numbers(scales))


@given(
    seed=st.integers(0, 2**32 - 1),
    row=st.integers(0, 4),
    column=st.integers(0, 95),
    by=st.sampled_from([-0.5, -0.2, 0.2, 0.5]),
)
@settings(max_examples=100, deadline=None)
def test_one_weight_off_the_grid(seed: int, row: int, column: int, by: float) -> None:
    """A single weight that lies a fifth of a step beside the grid is enough."""
    weights = q4_weights(5, 96, seed, zeros=0)
    values = numbers(weights.values)
    if weights.codes[row, column] == 0:  # the scale would be another
        column = int(np.flatnonzero(weights.codes[row])[0])
    values[row, column] += by * weights.scales[row, column // 32]
    assert not grid.on_grid(mx.array(values).astype(mx.bfloat16))


def other_weights(kind: str, random: np.random.Generator) -> np.ndarray:
    shape = (64, 3, 32)
    scales = random.uniform(0.001, 0.01, (64, 3, 1))
    if kind == "normal":
        return random.normal(0, 0.02, shape)
    if kind == "uniform":
        return random.uniform(-0.05, 0.05, shape)
    if kind == "ternary":
        return scales * random.integers(-1, 2, shape)
    if kind == "seven values":
        return scales * random.integers(-3, 4, shape)
    if kind == "int8":
        return scales * random.integers(-127, 128, shape)
    steps = random.integers(-7, 8, shape)
    steps[..., :2] = [-7, 7]
    return scales * steps


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.float32])
@pytest.mark.parametrize("kind", ["normal", "uniform", "ternary", "seven values", "int8", "int4 from -7 to 7"])
def test_other_weights_are_not_taken_for_it(tmp_path: Path, kind: str, dtype: mx.Dtype) -> None:
    """Nor are those with other grids, or with few values."""
    for seed in range(5):
        values = other_weights(kind, np.random.default_rng(seed)).reshape(64, 96)
        rows = mx.array(values.astype(np.float32)).astype(dtype)
        tensor = tensor_of(tmp_path, rows)
        assert not grid.on_grid(rows)
        assert not looks_on_grid(tensor)
        assert with_grid([tensor], silent) == (tensor,)


@pytest.mark.parametrize("columns", [33, 48, 16])
def test_widths_that_groups_do_not_divide(tmp_path: Path, columns: int) -> None:
    """Such weights lie on no grid, whatever their values are."""
    rows = q4_weights(8, 64, zeros=0).values[:, :columns]
    assert not grid.on_grid(rows)
    assert with_grid([tensor_of(tmp_path, rows)], silent)[0].exact is None


def test_nothing_but_zeros(tmp_path: Path) -> None:
    """Zeros lie on every grid, which says nothing: a matrix of them was not trained for it."""
    rows = mx.zeros((16, 64), mx.bfloat16)
    assert grid.on_grid(rows)
    assert not looks_on_grid(tensor_of(tmp_path, rows))


@pytest.mark.parametrize("name", [f"{LAYER}.layer_scalar", f"{LAYER}.input_layernorm.weight", "pos_embedding"])
def test_what_is_no_matrix_of_a_module(tmp_path: Path, name: str) -> None:
    """Vectors, and arrays with more than two axes, are not looked at."""
    values = q4_weights(4, 64).values
    rows = values[0] if "norm" in name or "scalar" in name else values.reshape(4, 2, 32)
    assert not looks_on_grid(tensor_of(tmp_path, rows, name))


@pytest.mark.parametrize(("row", "looks"), [(99, False), (20, True)])
@pytest.mark.parametrize("block_bytes", [1000, 2**20])
def test_one_damaged_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int, looks: bool, block_bytes: int
) -> None:
    """Every row is looked at: one group beside the grid, in the last row or where no sample was, is enough."""
    monkeypatch.setattr(tensors, "BLOCK_BYTES", block_bytes)
    rows = q4_weights(100, 64).values
    assert type(with_grid([tensor_of(tmp_path, rows)], silent)[0]) is OnGrid
    rows[row, 32:] = mx.random.normal((32,), key=mx.random.key(0)).astype(mx.bfloat16)
    tensor = tensor_of(tmp_path, rows)
    assert looks_on_grid(tensor) is looks
    assert with_grid([tensor], silent) == (tensor,)


def test_modules_of_the_decoder_on_the_grid(tmp_path: Path) -> None:
    """They are told by their weights, each for itself, under the names that they will have."""
    q4_checkpoint(tmp_path, off=lambda name: "v_proj" in name or ".1.mlp" in name)
    on = [name for name in DECODER if "v_proj" not in name and ".1.mlp" not in name]
    found = decoder_on_grid(open_checkpoint(tmp_path).tensors)
    assert sorted(found) == [converted_name(name).removesuffix(".weight") for name in on]


def test_auto_keeps_what_was_trained_for_it(tmp_path: Path) -> None:
    """auto takes qat for such weights, and says so; the embedding is stored at 8 bits, media as they are."""
    q4_checkpoint(tmp_path / "q4")
    notes: list[str] = []
    record = convert(tmp_path / "q4", tmp_path / "out", note=notes.append)
    assert (record.recipe, notes) == ("qat", [FOUND])
    assert record.modules == {"4 bits, group 32": 13, "bfloat16": 3, "8 bits, group 64": 1}
    block = Config.from_file(tmp_path / "out" / "config.json").quantization
    assert block == {
        "group_size": 32,
        "bits": 4,
        "mode": "affine",
        "language_model.model.embed_tokens": {"group_size": 64, "bits": 8, "mode": "affine"},
    }


def test_auto_for_other_weights(tmp_path: Path) -> None:
    """It takes 4bit, and has nothing to say."""
    write(tmp_path / "random", random_tensors())
    notes: list[str] = []
    assert convert(tmp_path / "random", tmp_path / "out", recipe="auto", note=notes.append).recipe == "4bit"
    assert notes == []


@pytest.mark.parametrize(("recipe", "warns"), [("4bit", True), ("mixed", True), ("8bit", True), ("bf16", False)])
def test_recipes_that_lose_the_grid_warn(tmp_path: Path, recipe: str, warns: bool) -> None:
    """They go on, but say how many modules they put on another grid; plain numbers lose nothing."""
    q4_checkpoint(tmp_path / "q4", off=lambda name: "v_proj" in name)
    notes: list[str] = []
    convert(tmp_path / "q4", tmp_path / "out", recipe=recipe, note=notes.append)
    warning = (
        f"Warning: 12 modules were trained for Q4_0, and recipe {recipe} rounds them again; "
        "--recipe qat keeps them exactly"
    )
    assert notes == ([warning] if warns else [])


def test_qat_refuses_other_weights(tmp_path: Path) -> None:
    """Rounding them to 8 bits under the name qat would mislead; nothing is written."""
    folder = write(tmp_path / "random", random_tensors())
    message = (
        f"Recipe qat needs weights on the Q4_0 grid, but those of {folder} are not on it; "
        "use 4bit, or the checkpoint that was trained for 4 bits"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        convert(folder, tmp_path / "out", recipe="qat")
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(("off", "count", "more"), [("v_proj", 1, ""), ("0.self_attn", 4, ", …"), ("mlp", 6, ", …")])
def test_a_few_modules_off_the_grid(tmp_path: Path, off: str, count: int, more: str) -> None:
    """They are named, the first three of them, and stored at 8 bits; the others are kept exactly."""
    decoder = q4_checkpoint(tmp_path / "q4", off=lambda name: off in name)
    on_disk = [entry.name for entry in read_entries(tmp_path / "q4" / "model.safetensors")]
    left = [converted_name(name).removesuffix(".weight") for name in on_disk if name in DECODER and off in name]
    named = f"{count} of 13 modules of the decoder are not on the Q4_0 grid: {', '.join(left[:3])}{more}"
    notes: list[str] = []
    record = convert(tmp_path / "q4", tmp_path / "out", recipe="qat", note=notes.append)
    assert notes == [named]
    assert record.modules["4 bits, group 32"] == len(decoder)
    tensors = stored(tmp_path / "out")
    for name in DECODER:
        converted = converted_name(name)
        if converted in decoder:
            np.testing.assert_array_equal(codes(tensors[converted]), decoder[converted].codes, name)
            continue
        module, source = converted.removesuffix(".weight"), random_tensors()[name]
        expected = mx.quantize(source, group_size=64, bits=8)
        for part, values in zip(("weight", "scales", "biases"), expected, strict=True):
            assert mx.array_equal(tensors[f"{module}.{part}"], values), name


def test_a_module_that_only_looks_so(tmp_path: Path) -> None:
    """One whose sample lies on the grid, and of which another row does not, is named too."""
    q4_checkpoint(tmp_path / "q4")
    tensors = stored(tmp_path / "q4")
    weight = tensors["model.language_model.layers.1.mlp.gate_proj.weight"]
    weight[11] = mx.random.normal((64,), key=mx.random.key(0)).astype(mx.bfloat16)
    write(tmp_path / "q4", tensors)
    notes: list[str] = []
    convert(tmp_path / "q4", tmp_path / "out", note=notes.append)
    named = "1 of 13 modules of the decoder are not on the Q4_0 grid: language_model.model.layers.1.mlp.gate_proj"
    assert notes == [FOUND, named]


def test_a_module_asked_for_otherwise(tmp_path: Path) -> None:
    """--q-module decides of weights on the grid too; the others stay on it."""
    decoder = q4_checkpoint(tmp_path / "q4")
    convert(tmp_path / "q4", tmp_path / "out", recipe="qat", modules=["*.v_proj=8", "*layers.1.mlp.*=none"])
    tensors, name = stored(tmp_path / "out"), f"{LAYER}.self_attn.v_proj"
    expected = mx.quantize(decoder[f"{name}.weight"].values, group_size=64, bits=8)
    for part, values in zip(("weight", "scales", "biases"), expected, strict=True):
        assert mx.array_equal(tensors[f"{name}.{part}"], values)
    up, name = "language_model.model.layers.1.mlp.up_proj.weight", f"{LAYER}.mlp.up_proj.weight"
    assert mx.array_equal(tensors[up], decoder[up].values)
    np.testing.assert_array_equal(codes(tensors[name]), decoder[name].codes)


def test_another_dtype_would_round_the_scales(tmp_path: Path) -> None:
    """float16 does not hold bfloat16's scales: qat refuses it, and takes float32, which does."""
    decoder = q4_checkpoint(tmp_path / "q4")
    message = "Weights that stay quantized keep scales of type bfloat16, got dtype float16; leave out --dtype"
    with pytest.raises(ValueError, match=f"^{message}$"):
        convert(tmp_path / "q4", tmp_path / "out", recipe="qat", dtype="float16")
    assert not (tmp_path / "out").exists()
    convert(tmp_path / "q4", tmp_path / "out", recipe="qat", dtype="float32")
    tensors = stored(tmp_path / "out")
    for name, weights in decoder.items():
        assert tensors[name.replace("weight", "scales")].dtype == mx.float32
        np.testing.assert_array_equal(rounded(dequantized(tensors, name), mx.bfloat16), numbers(weights.values), name)


def test_there_and_back(tmp_path: Path) -> None:
    """Dequantized, such weights are the source's again, bit for bit, and are found on the grid again."""
    decoder = q4_checkpoint(tmp_path / "q4")
    convert(tmp_path / "q4", tmp_path / "qat")
    convert(tmp_path / "qat", tmp_path / "back", recipe="bf16")
    tensors = stored(tmp_path / "back")
    for name, weights in decoder.items():
        np.testing.assert_array_equal(numbers(tensors[name]), numbers(weights.values), name)
    assert convert(tmp_path / "back", tmp_path / "again").recipe == "qat"


def test_a_conversion_on_the_grid(tmp_path: Path) -> None:
    """Converted again, it is kept as it is by auto; other recipes warn."""
    q4_checkpoint(tmp_path / "q4")
    convert(tmp_path / "q4", tmp_path / "qat")
    notes: list[str] = []
    assert convert(tmp_path / "qat", tmp_path / "again", note=notes.append).recipe == "qat"
    assert notes == [FOUND]
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "qat" / "model.safetensors"
    ).read_bytes()
    convert(tmp_path / "qat", tmp_path / "other", recipe="4bit", note=notes.append)
    assert notes[1].startswith("Warning: 13 modules were trained for Q4_0, and recipe 4bit")


def test_a_conversion_beside_the_grid(tmp_path: Path) -> None:
    """MLX's own 4 bits in groups of 32 are not taken for it: their biases are their own."""
    write(tmp_path / "random", random_tensors())
    convert(tmp_path / "random", tmp_path / "q4", recipe="bf16", modules=["*layers.*=4/32"])
    notes: list[str] = []
    record = convert(tmp_path / "q4", tmp_path / "again", note=notes.append)
    assert (record.recipe, notes) == ("4bit", [])
