"""Which tensors of a source lie on a Q4_0 grid: told from the weights, never from a name."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import mlx.core as mx

from . import grid
from .blocks import fetched, row_blocks, row_bytes
from .plan import is_module, module_of
from .progress import Tick
from .recipes import DECODER
from .tensors import OnGrid, Plain, Tensor

_SAMPLE_ROWS = 4


def looks_on_grid(tensor: Tensor) -> bool:
    """Whether a few rows of a plain matrix lie on the grid: that they do not is proof, that they do is none."""
    if type(tensor) is not Plain or not is_module(tensor):
        return False
    count = tensor.shape[0]
    starts = sorted({0, count // 3, 2 * count // 3, max(0, count - _SAMPLE_ROWS)})
    parts = [tensor.values(tensor.fetch(start, min(start + _SAMPLE_ROWS, count))) for start in starts]
    rows = mx.concatenate(parts)
    return grid.on_grid(rows) and bool(mx.any(rows != 0).item())


def decoder_on_grid(tensors: Iterable[Tensor]) -> list[str]:
    """The modules of the decoder of which a few rows lie on the grid."""
    decoder = (tensor for tensor in tensors if fnmatchcase(module_of(tensor), DECODER))
    return [module_of(tensor) for tensor in decoder if looks_on_grid(tensor)]


def with_grid(tensors: Iterable[Tensor], tick: Tick) -> tuple[Tensor, ...]:
    """The tensors, those of which every row lies on the grid as ``OnGrid``.

    Args:
        tick: Told of the bytes that were looked at.
    """
    return tuple(_on_grid(tensor, tick) if looks_on_grid(tensor) else tensor for tensor in tensors)


def _on_grid(tensor: Tensor, tick: Tick) -> Tensor:
    assert isinstance(tensor, Plain)
    blocks = row_blocks(tensor)
    for (start, stop), rows in zip(blocks, fetched([(tensor, *block) for block in blocks]), strict=True):
        if not grid.on_grid(tensor.values(rows)):
            return tensor
        tick(tensor, (stop - start) * row_bytes(tensor))
    return OnGrid(tensor.name, tensor.entry)
