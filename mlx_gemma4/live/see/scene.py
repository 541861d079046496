"""Has what a camera sees changed? Mean colours of a grid of blocks, in which noise averages out. numpy only."""

from __future__ import annotations

import numpy as np

GRID = 16
"""Blocks along each side."""
SAMPLES = 512
"""Pixels along each side that are looked at, about."""
LARGEST = 4
"""Blocks that say how much has changed: what moves leaves some and enters others."""
THRESHOLD = 0.0625


def block_means(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """uint8 [H, W, 3] → the mean colours of its blocks, float32 [rows, columns, 3] in [0, 1]."""
    height, width = pixels.shape[:2]
    pixels = pixels[:: max(1, height // SAMPLES), :: max(1, width // SAMPLES)]
    return _means(_means(pixels, rows, 0), columns, 1) / np.float32(255)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """By how much the blocks differ that differ most: 0 for nothing, 1 for black and white."""
    return float(np.sort(np.abs(one - other).max(axis=-1), axis=None)[-LARGEST:].mean())


class Scene:
    """What was last accepted, and whether a picture shows something else.

    Args:
        threshold: A ``difference`` above this is a change: a colour's step of 16 in 255, by default.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"Expected a threshold from 0 to 1, got {threshold}")
        self._threshold = threshold
        self._seen: np.ndarray | None = None
        self._accepted: np.ndarray | None = None

    @property
    def is_new(self) -> bool:
        """Whether nothing was accepted yet."""
        return self._accepted is None

    @property
    def seen(self) -> np.ndarray:
        """Block means of the picture that was last asked about."""
        assert self._seen is not None
        return self._seen

    def changed(self, pixels: np.ndarray) -> bool:
        """Whether uint8 [H, W, 3] differs from what was last accepted. Before anything was, everything does."""
        self._seen = block_means(pixels, GRID, GRID)
        return self._accepted is None or difference(self._seen, self._accepted) > self._threshold

    def accept(self) -> None:
        """Compare with the picture that was last asked about from now on."""
        self._accepted = self._seen

    def forget(self) -> None:
        """Let whatever comes next be a change."""
        self._accepted = None


def _means(values: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Means of ``count`` stretches along an axis; where there are fewer rows than stretches, rows are shared."""
    length = values.shape[axis]
    starts = np.arange(count) * length // count
    sums = np.add.reduceat(values, starts, axis=axis, dtype=np.float32)
    sizes = np.maximum(np.diff(starts, append=length), 1).astype(np.float32)
    return sums / np.expand_dims(sizes, tuple(each for each in range(values.ndim) if each != axis))
