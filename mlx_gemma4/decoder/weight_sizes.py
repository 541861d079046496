"""What the weights of a checkpoint take in memory, from the headers of its files alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import mlx.core as mx

from mlx_gemma4.checkpoint.recipes import RECIPES, recipe_settings, stored_bytes
from mlx_gemma4.checkpoint.tensor_header import StoredTensor, read_header
from mlx_gemma4.checkpoint.weight_files import weight_files
from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.types import STORED_TYPES
from mlx_gemma4.decoder.weights import Rename, compute_type, model_name, parameter_shapes

FLOATING = {name: STORED_TYPES[name] for name in ("BF16", "F16", "F32")}
"""Types that are converted to the type that the model computes in, by their names in safetensors."""


@dataclass(frozen=True)
class WeightSizes:
    """Bytes of the weights of a checkpoint."""

    held: int
    """In the type that the model computes in."""
    loading: int
    """Beside them for a moment, while those in another type are converted, layer by layer."""
    dtype: mx.Dtype
    """What the model computes in."""


def weight_sizes(folder: Path, dtype: mx.Dtype | None = None, rename: Rename = model_name) -> WeightSizes:
    """The sizes of a checkpoint folder. No tensor is read.

    Args:
        dtype: Compute in this type; None takes the checkpoint's own.
        rename: From the names on disk; None for tensors that are not loaded.

    Raises:
        ValueError: The folder has no weights, or a file is broken; the message names it.
    """
    tensors = dict(_wanted(folder, rename))
    own = [(FLOATING[each.dtype], each.shape) for each in tensors.values() if each.dtype in FLOATING]
    compute = compute_type(own) if dtype is None else dtype
    held, peak = 0, 0
    for group in _in_order(tensors):
        sources = sum(_nbytes(tensor) for tensor in group if FLOATING.get(tensor.dtype, compute) != compute)
        held += sum(_converted(tensor, compute) for tensor in group)
        peak = max(peak, held + sources)
    return WeightSizes(held, peak - held, compute)


def recipe_sizes(config: Config) -> dict[str, int]:
    """Bytes of the weights of a config by recipe, computed in bfloat16."""
    shapes = parameter_shapes(config)
    return {name: stored_bytes(shapes, recipe_settings(name, shapes)) for name in RECIPES}


def _wanted(folder: Path, rename: Rename) -> Iterator[tuple[str, StoredTensor]]:
    for path in weight_files(folder):
        for name, tensor in read_header(path).items():
            renamed = rename(name)
            if renamed is not None:
                yield renamed, tensor


def _in_order(tensors: Mapping[str, StoredTensor]) -> Iterator[list[StoredTensor]]:
    """The tensors that are read together: those of each layer, then all others (``load``)."""
    layers: dict[str, list[StoredTensor]] = {}
    others = []
    for name, tensor in tensors.items():
        _, found, rest = name.partition(".layers.")
        if found:
            layers.setdefault(rest.partition(".")[0], []).append(tensor)
        else:
            others.append(tensor)
    yield from layers.values()
    yield others


def _nbytes(tensor: StoredTensor) -> int:
    return tensor.stop - tensor.start


def _converted(tensor: StoredTensor, compute: mx.Dtype) -> int:
    return prod(tensor.shape) * compute.size if tensor.dtype in FLOATING else _nbytes(tensor)
