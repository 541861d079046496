"""Scaling pictures exactly as the reference does: torch's bicubic kernel for uint8, antialiased. numpy only.

Pillow's kernel rounds its weights more finely, and differs from this one by one or two steps of 255 in a fifth of the
pixels. The arithmetic is that of torch's ``upsample_avx_bilinear_bicubic_uint8``: 16-bit weights, the width first,
rounded to uint8 in between.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

SUPPORT = 2.0
"""The cubic reaches two pixels to each side, or two pixels of the result where that is smaller."""
CUBIC = -0.5
BLOCK = 16
"""Results computed in one matrix product."""
ROWS = 64
"""Rows of the result that are computed at once."""


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, C] → uint8 [height, width, C].

    ``torch.nn.functional.interpolate(mode="bicubic", antialias=True)`` of a uint8 tensor on a CPU with AVX2. Of what
    lies between the two passes only ``ROWS`` rows of the result are held: a long, thin picture takes no more memory.
    """
    across = None if width == pixels.shape[1] else _weights(pixels.shape[1], width)
    down = None if height == pixels.shape[0] else _weights(pixels.shape[0], height)
    resized = np.empty((height, width, pixels.shape[2]), dtype=np.uint8)
    for first in range(0, height, ROWS):
        last = min(first + ROWS, height)
        begin, end = (first, last) if down is None else down.reach(first, last)
        band = pixels[begin:end]
        if across is not None:
            band = _resize_width(band, across, 0, width, 0)
        if down is not None:
            band = _resize_width(band.transpose(1, 0, 2), down, first, last, begin).transpose(1, 0, 2)
        resized[first:last] = band
    return resized


@dataclass(frozen=True)
class _Weights:
    """Whole numbers: result i is the sum of ``values[i]`` × pixels from ``starts[i]`` on, over 2^precision."""

    starts: np.ndarray
    values: list[np.ndarray]
    precision: int

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """The pixels, from one up to another, that results ``first`` up to ``last`` are made of."""
        return int(self.starts[first]), max(int(self.starts[i]) + len(self.values[i]) for i in range(first, last))


def _resize_width(pixels: np.ndarray, weights: _Weights, first: int, last: int, offset: int) -> np.ndarray:
    """Columns ``first`` up to ``last`` of the result; ``offset`` is the column that ``pixels`` begin with."""
    edges = [*range(first, last, BLOCK), last]
    return np.concatenate([_columns(pixels, weights, *ends, offset) for ends in itertools.pairwise(edges)], axis=1)


def _columns(pixels: np.ndarray, weights: _Weights, first: int, last: int, offset: int) -> np.ndarray:
    """As ``_resize_width``, in one matrix product."""
    height, _, channels = pixels.shape
    begin, end = weights.reach(first, last)
    matrix = np.zeros((end - begin, last - first))  # float64 holds these sums exactly
    for i in range(first, last):
        at = int(weights.starts[i]) - begin
        matrix[at : at + len(weights.values[i]), i - first] = weights.values[i]
    rows = pixels[:, begin - offset : end - offset].transpose(0, 2, 1).reshape(height * channels, end - begin)
    sums = np.floor((rows.astype(np.float64) @ matrix) / 2**weights.precision + 0.5)
    return np.clip(sums, 0, 255).astype(np.uint8).reshape(height, channels, last - first).transpose(0, 2, 1)


def _weights(size: int, width: int) -> _Weights:
    scale = size / width
    stretch = max(scale, 1.0)
    centers = (np.arange(width) + 0.5) * scale
    starts = np.maximum((centers - SUPPORT * stretch + 0.5).astype(int), 0)
    ends = np.minimum((centers + SUPPORT * stretch + 0.5).astype(int), size)
    values = []
    for start, end, center in zip(starts, ends, centers, strict=True):
        value = _cubic((np.arange(start, end) - center + 0.5) / stretch)
        values.append(value / value.sum())
    precision = _precision(max(value.max() for value in values))
    rounded = [np.trunc(value * 2**precision + np.where(value < 0, -0.5, 0.5)) for value in values]
    return _Weights(starts, rounded, precision)


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    x = np.abs(x)
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * CUBIC
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _precision(largest: float) -> int:
    """Bits after the point, such that the largest weight still fits into 16 bits with its sign."""
    precision = 0
    while precision < 22 and int(0.5 + largest * 2 ** (precision + 1)) < 2**15:
        precision += 1
    return precision
