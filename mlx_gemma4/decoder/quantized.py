"""Numbers in 8 or 4 bits, with a scale and a bias for each group along the last axis (``mx.quantize``, affine)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

from mlx_gemma4.decoder.stored import group_size


class Quantized(NamedTuple):
    """An array [..., S, width], of which each row of ``width`` numbers was quantized by itself."""

    codes: mx.array
    """uint32 [..., S, width · bits / 32]"""
    scales: mx.array
    """[..., S, width / group]"""
    biases: mx.array
    bits: int

    @property
    def shape(self) -> tuple[int, ...]:
        return *self.codes.shape[:-1], self.codes.shape[-1] * 32 // self.bits

    @property
    def group(self) -> int:
        return self.shape[-1] // self.scales.shape[-1]

    def between(self, positions: slice) -> Quantized:
        """Some positions."""
        codes, scales, biases = (array[:, :, positions] for array in self[:3])
        return Quantized(codes, scales, biases, self.bits)

    def plain(self) -> mx.array:
        """The numbers, in the type of the scales."""
        return mx.dequantize(*self[:3], group_size=self.group, bits=self.bits)

    def product(self, x: mx.array, *, transpose: bool) -> mx.array:
        """``x @ self``, or with the transpose of its last two axes."""
        return mx.quantized_matmul(x, *self[:3], transpose=transpose, group_size=self.group, bits=self.bits)


Stored = mx.array | Quantized
"""A part of the keys or values of a layer, as its cache holds it: [B, K, S, width]."""


def encode(parts: Sequence[mx.array], bits: int | None) -> list[mx.array]:
    """What is written to buffers of parts [B, K, L, width]: they, or their codes, scales and biases."""
    if bits is None:
        return list(parts)
    return [array for part in parts for array in mx.quantize(part, group_size=group_size(part.shape[-1]), bits=bits)]


def decode(buffers: Sequence[mx.array], bits: int | None) -> tuple[Stored, ...]:
    """The parts whose ``encode`` is in the buffers."""
    if bits is None:
        return tuple(buffers)
    triples = zip(buffers[::3], buffers[1::3], buffers[2::3], strict=True)
    return tuple(Quantized(codes, scales, biases, bits) for codes, scales, biases in triples)


def has_fast_products() -> bool:
    """Whether products of quantized numbers are fast with as many columns as there are positions: on Metal."""
    return mx.metal.is_available() and mx.default_device().type == mx.gpu


def readable(parts: Sequence[Stored]) -> list[Stored]:
    """Parts for products: as they are, or plain ones where those are faster."""
    as_they_are = has_fast_products()
    return [part.plain() if isinstance(part, Quantized) and not as_they_are else part for part in parts]


def cut(parts: Sequence[Stored], positions: slice) -> list[Stored]:
    """Some positions of parts."""
    return [part.between(positions) if isinstance(part, Quantized) else part[:, :, positions] for part in parts]


def product(x: mx.array, part: Stored) -> mx.array:
    """``x @ part``."""
    return part.product(x, transpose=False) if isinstance(part, Quantized) else x @ part


def sum_of_products(rows: Sequence[mx.array], parts: Sequence[Stored]) -> mx.array:
    """The sum of ``x @ part.T`` over the parts."""
    total: mx.array | None = None
    for x, part in zip(rows, parts, strict=True):
        if isinstance(part, Quantized):
            one = part.product(x, transpose=True)
            total = one if total is None else total + one
        else:
            columns = part.swapaxes(-1, -2)
            total = x @ columns if total is None else mx.addmm(total, x, columns)
    assert total is not None
    return total
