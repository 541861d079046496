"""Weights of a source, however they are stored: rows of values, and, where there is one, an exact quantized form.

Reading (``fetch``, numpy, any thread) and computing (``values``, ``stored``; MLX, its own thread) are apart, so that
the next rows can be read while these are computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Protocol

import mlx.core as mx
import numpy as np

from mlx_gemma4.checkpoint.recipes import Q4_0
from mlx_gemma4.checkpoint.setting import Setting

from . import grid
from .tensor_file import Entry

Rows = tuple[np.ndarray, ...]
"""Rows of the arrays that a tensor is stored in."""


class Tensor(Protocol):
    """A weight of the model."""

    @property
    def name(self) -> str:
        """As the converted checkpoint will have it."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> mx.Dtype:
        """Of the values."""

    @property
    def exact(self) -> Setting | None:
        """The quantized form that holds these very values, if there is one."""

    def fetch(self, start: int, stop: int) -> Rows:
        """Read rows, as they are stored.

        Raises:
            ValueError: A value is not a finite number; the message names the tensor.
        """

    def values(self, rows: Rows) -> mx.array:
        """[stop − start, …] values."""

    def stored(self, rows: Rows) -> tuple[mx.array, ...]:
        """The exact form: packed codes, scales and, in affine mode, biases."""


@dataclass(frozen=True)
class Plain:
    """A tensor of floating-point numbers."""

    name: str
    entry: Entry
    exact: None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape

    @property
    def dtype(self) -> mx.Dtype:
        return self.entry.dtype

    def fetch(self, start: int, stop: int) -> Rows:
        return (read_finite(self.entry, start, stop),)

    def values(self, rows: Rows) -> mx.array:
        return self.entry.to_mlx(rows[0])

    def stored(self, rows: Rows) -> tuple[mx.array, ...]:
        raise NotImplementedError(f"{self.name} has no quantized form of its own")


@dataclass(frozen=True)
class OnGrid(Plain):
    """A tensor whose values lie on a Q4_0 grid."""

    exact: Setting = Q4_0  # type: ignore[assignment]

    def stored(self, rows: Rows) -> tuple[mx.array, ...]:
        return grid.quantize(self.values(rows))


@dataclass(frozen=True)
class Quantized:
    """A tensor that MLX has quantized: ``weight``, ``scales`` and, in affine mode, ``biases``."""

    name: str
    entries: tuple[Entry, ...]
    exact: Setting
    computed: mx.Dtype
    """The type of the values: of the scales, or where they are bytes, the one to compute in."""

    @property
    def shape(self) -> tuple[int, ...]:
        rows, words = self.entries[0].shape
        return rows, words * 32 // self.exact.bits

    @property
    def dtype(self) -> mx.Dtype:
        return self.computed

    def fetch(self, start: int, stop: int) -> Rows:
        packed, *others = self.entries
        return (packed.read(start, stop), *(read_finite(entry, start, stop) for entry in others))

    def values(self, rows: Rows) -> mx.array:
        return _dequantized(self.stored(rows), self.exact).astype(self.computed)

    def stored(self, rows: Rows) -> tuple[mx.array, ...]:
        return tuple(entry.to_mlx(part) for entry, part in zip(self.entries, rows, strict=True))


@dataclass(frozen=True)
class PackedInt4:
    """A tensor of compressed-tensors' pack-quantized symmetric int4: codes q + 8, eight to a word, as MLX packs them.

    Its values are scale · q, which in MLX's terms is a scale, and a bias of −8 scales. A scale for a whole row
    is repeated for each of its groups.
    """

    name: str
    packed: Entry
    scales: Entry
    exact: Setting

    @property
    def shape(self) -> tuple[int, ...]:
        return self.packed.shape[0], self.packed.shape[1] * 8

    @property
    def dtype(self) -> mx.Dtype:
        return self.scales.dtype

    def fetch(self, start: int, stop: int) -> Rows:
        return self.packed.read(start, stop), read_finite(self.scales, start, stop)

    def values(self, rows: Rows) -> mx.array:
        return _dequantized(self.stored(rows), self.exact).astype(self.dtype)

    def stored(self, rows: Rows) -> tuple[mx.array, ...]:
        groups = self.shape[1] // self.exact.group_size
        scales = self.scales.to_mlx(rows[1])
        if scales.shape[1] == 1:
            scales = mx.repeat(scales, groups, axis=1)
        return mx.array(rows[0].view(np.uint32)), scales, -8 * scales


def _dequantized(parts: tuple[mx.array, ...], setting: Setting) -> mx.array:
    """Values in float32, to be rounded once: in the scales' own type, scale · q would be rounded before the bias."""
    packed, scales, *biases = parts
    if biases:
        scales, biases = scales.astype(mx.float32), [biases[0].astype(mx.float32)]
    return mx.dequantize(
        packed,
        scales,
        biases[0] if biases else None,
        group_size=setting.group_size,
        bits=setting.bits,
        mode=setting.mode,
        dtype=mx.float32,
    )


def read_finite(entry: Entry, start: int, stop: int) -> np.ndarray:
    """Rows of a tensor, none of them infinite or no number.

    Raises:
        ValueError: One is; the message names the tensor and the row.
    """
    rows = entry.read(start, stop)
    if entry.dtype == mx.bfloat16:
        finite = rows.size == 0 or (rows & 0x7FFF).max() < 0x7F80
        bad = (rows & 0x7FFF) >= 0x7F80 if not finite else None
    else:
        finite = not np.issubdtype(rows.dtype, np.floating) or bool(np.isfinite(rows).all())
        bad = None if finite else ~np.isfinite(rows)
    if bad is not None:
        row = start + int(np.argwhere(bad)[0][0])
        raise ValueError(
            f"There is NaN or infinity in {entry.name}, row {row}, of {entry.path}; "
            "the source is damaged: download it again"
        )
    return rows


BLOCK_BYTES = 8 * 2**20
"""Of values; what is held in memory at a time is a few of these. Larger ones are slower: each is mapped anew."""


def row_bytes(tensor: Tensor) -> int:
    """Bytes of a row of values, in which progress is counted."""
    return prod(tensor.shape[1:]) * tensor.dtype.size


def row_blocks(tensor: Tensor) -> list[tuple[int, int]]:
    """(start, stop) of each block of rows."""
    count = tensor.shape[0]
    rows = max(1, BLOCK_BYTES // max(1, prod(tensor.shape[1:]) * tensor.dtype.size))
    return [(start, min(start + rows, count)) for start in range(0, count, rows)]


def fetched(jobs: list[tuple[Tensor, int, int]]) -> Iterator[Rows]:
    """The rows of each job, in order; one is read ahead, in a thread that knows nothing of MLX."""
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as reader:
        ahead = None
        for tensor, start, stop in jobs:
            job = reader.submit(tensor.fetch, start, stop)
            if ahead is not None:
                yield ahead.result()
            ahead = job
        if ahead is not None:
            yield ahead.result()
