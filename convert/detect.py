"""Which tensors of a source lie on the Q4_0 grid: found in the weights, never in a name."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

import mlx.core as mx

from mlx_gemma4.checkpoint.recipes import DECODER, Q4_0

from . import grid
from .plan import is_module, module_of
from .progress import Tick
from .tensors import OnGrid, Plain, Quantized, Rows, Tensor, fetched, row_blocks, row_bytes

_SAMPLE_ROWS = 4


def looks_on_grid(tensor: Tensor) -> bool:
    """Whether a few rows of a matrix lie on the grid. If they do not, neither does the matrix; if they do, it may."""
    if not is_module(tensor):
        return False
    if isinstance(tensor, Quantized):
        return tensor.exact == Q4_0 and all(_are_symmetric(tensor, rows) for rows in _sample(tensor))
    if type(tensor) is not Plain:
        return False
    rows = mx.concatenate([tensor.values(rows) for rows in _sample(tensor)])
    return grid.on_grid(rows) and bool(mx.any(rows != 0).item())


def _sample(tensor: Tensor) -> list[Rows]:
    count = tensor.shape[0]
    starts = sorted({0, count // 3, 2 * count // 3, max(0, count - _SAMPLE_ROWS)})
    return [tensor.fetch(start, min(start + _SAMPLE_ROWS, count)) for start in starts]


def _are_symmetric(tensor: Tensor, rows: Rows) -> bool:
    """Whether all biases are −8 scales, as on the grid; ``mx.quantize`` makes only some groups like that."""
    _, scales, biases = tensor.stored(rows)
    return bool(mx.all(biases == -8 * scales).item())


def decoder_on_grid(tensors: Iterable[Tensor]) -> list[str]:
    """The modules of the decoder whose sampled rows lie on the grid."""
    decoder = (tensor for tensor in tensors if fnmatchcase(module_of(tensor), DECODER))
    return [module_of(tensor) for tensor in decoder if looks_on_grid(tensor)]


def with_grid(tensors: Iterable[Tensor], tick: Tick) -> tuple[Tensor, ...]:
    """The tensors; plain ones whose rows all lie on the grid become ``OnGrid``.

    Args:
        tick: Called with the bytes that were read.
    """
    return tuple(
        _on_grid(tensor, tick) if isinstance(tensor, Plain) and looks_on_grid(tensor) else tensor for tensor in tensors
    )


def _on_grid(tensor: Plain, tick: Tick) -> Tensor:
    blocks = row_blocks(tensor)
    for (start, stop), rows in zip(blocks, fetched([(tensor, *block) for block in blocks]), strict=True):
        if not grid.on_grid(tensor.values(rows)):
            return tensor
        tick(tensor, (stop - start) * row_bytes(tensor))
    return OnGrid(tensor.name, tensor.entry)
