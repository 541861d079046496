"""Small checkpoints whose decoder was trained for Q4_0, and what a converted file holds, read without the converter."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx
import numpy as np
from make_random_checkpoint import RELEASED, make

Tensors = dict[str, mx.array]


@dataclass(frozen=True)
class Q4:
    """Weights on a Q4_0 grid, and what they were made of."""

    values: mx.array
    """[R, C]: d · (q − 8)."""
    codes: np.ndarray
    """[R, C]: q, 0…15; 8 in groups of zeros."""
    scales: np.ndarray
    """[R, C / 32]: d, in float32."""


def q4_weights(
    rows: int,
    columns: int,
    seed: int = 0,
    *,
    dtype: mx.Dtype = mx.bfloat16,
    scale_dtype: mx.Dtype = mx.bfloat16,
    exponents: tuple[int, int] = (-8, -4),
    zeros: float = 0.1,
) -> Q4:
    """d · (q − 8), d of either sign and of magnitudes 2^exponents; ``zeros`` is the share of groups that are zero."""
    random = np.random.default_rng(seed)
    groups = (rows, columns // 32)
    codes = random.integers(0, 16, (*groups, 32))
    np.put_along_axis(codes, random.integers(0, 32, (*groups, 1)), 0, axis=-1)  # Q4_0: the farthest is −8 · d
    scales = random.uniform(1, 2, groups) * random.choice((-1, 1), groups) * 2.0 ** random.integers(*exponents, groups)
    zero = random.random(groups) < zeros
    scales = np.array(mx.array(np.where(zero, 0, scales).astype(np.float32)).astype(scale_dtype).astype(mx.float32))
    codes[zero] = 8
    values = scales[..., None].astype(np.float64) * (codes - 8)
    flat = mx.array(values.reshape(rows, columns).astype(np.float32)).astype(dtype)
    return Q4(flat, codes.reshape(rows, columns), scales)


@cache
def random_tensors() -> Tensors:
    """A random checkpoint of one sliding and one full layer, under the names of the released layout."""
    with TemporaryDirectory() as folder:
        make(Path(folder), small_config())
        tensors = mx.load(f"{folder}/model.safetensors")
        assert isinstance(tensors, dict)
        mx.eval(tensors)
    return tensors


def small_config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((RELEASED / "config.json").read_text())
    config["text_config"] |= {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
    config["vision_config"] |= {"mm_embed_dim": 16, "output_proj_dims": 16}
    return config


def write(folder: Path, tensors: Mapping[str, mx.array], config: Mapping[str, Any] | None = None) -> Path:
    """A checkpoint folder of these tensors, with the small files of the reference checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in RELEASED.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "config.json").write_text(json.dumps(small_config() if config is None else config))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tensors))
    return folder


def is_decoder_matrix(name: str) -> bool:
    return ".layers." in name and name.endswith("_proj.weight")


def q4_checkpoint(
    folder: Path, *, off: Callable[[str], bool] = lambda name: False, dtype: mx.Dtype = mx.bfloat16, **made: Any
) -> dict[str, Q4]:
    """Write the random checkpoint with a decoder on the grid, and return the decoder, by the converted names.

    Args:
        off: Modules that are left random, by name.
        made: For ``q4_weights``.
    """
    tensors = {name: tensor.astype(dtype) for name, tensor in random_tensors().items()}
    decoder = {}
    for seed, name in enumerate(sorted(filter(is_decoder_matrix, tensors))):
        if not off(name):
            weights = q4_weights(*tensors[name].shape, seed, dtype=dtype, **made)
            tensors[name] = weights.values
            decoder[converted_name(name)] = weights
    write(folder, tensors)
    return decoder


def converted_name(name: str) -> str:
    """The name that the converter gives a tensor of the released layout."""
    return name.removeprefix("model.").replace("language_model.", "language_model.model.", 1)


def released_name(name: str) -> str:
    """And back."""
    return f"model.{name.replace('language_model.model.', 'language_model.', 1)}"


def stored(folder: Path) -> Tensors:
    """All tensors of a converted folder, as they are on disk."""
    tensors: Tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        part = mx.load(str(path))
        assert isinstance(part, dict)
        tensors |= part
    return tensors


def codes(packed: mx.array) -> np.ndarray:
    """[R, C / 8] words → [R, C] 4-bit codes, the lowest bits first."""
    words = np.array(packed)
    return ((words[..., None] >> (4 * np.arange(8, dtype=np.uint32))) & 15).reshape(len(words), -1)


def dequantized(tensors: Tensors, name: str) -> np.ndarray:
    """The values of 4-bit codes, in exact arithmetic (float64); ``name`` is that of the weight."""
    module = name.removesuffix(".weight")
    scales, biases = (
        np.array(tensors[f"{module}.{part}"].astype(mx.float32), dtype=np.float64) for part in ("scales", "biases")
    )
    values = codes(tensors[name])
    size = values.shape[1] // scales.shape[1]
    return values * scales.repeat(size, axis=1) + biases.repeat(size, axis=1)


def rounded(values: np.ndarray, dtype: mx.Dtype) -> np.ndarray:
    """Values as a type holds them, in float32."""
    return np.array(mx.array(values.astype(np.float32)).astype(dtype).astype(mx.float32))


def numbers(tensor: mx.array) -> np.ndarray:
    return np.array(tensor.astype(mx.float32))
