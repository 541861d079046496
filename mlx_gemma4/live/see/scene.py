"""Whether a scene has changed: the mean colours of a grid of blocks are compared, in which noise averages out."""

from __future__ import annotations

import numpy as np

GRID = 16
"""Blocks along each side."""
SAMPLES = 512
"""Pixels along each side that are sampled, about."""
LARGEST = 4
"""The blocks that changed most, whose mean is the difference: a moving thing leaves some and enters others."""
THRESHOLD = 0.0625
"""A step of 16 in 255 of a colour."""


def block_means(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """uint8 [H, W, 3] → the mean colours of its blocks, float32 [rows, columns, 3] in [0, 1]."""
    height, width = pixels.shape[:2]
    pixels = pixels[:: max(1, height // SAMPLES), :: max(1, width // SAMPLES)]
    return _means(_means(pixels, rows, 0), columns, 1) / np.float32(255)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of the blocks that differ most: from 0 for the same picture to 1 for black and white."""
    return float(np.sort(np.abs(one - other).max(axis=-1), axis=None)[-LARGEST:].mean())


class Scene:
    """The last accepted picture, and whether another one shows something else.

    Args:
        threshold: A ``difference`` above this is a change.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f"Expected a threshold from 0 to 1, got {threshold}")
        self._threshold = threshold
        self._seen: np.ndarray | None = None
        self._accepted: np.ndarray | None = None

    @property
    def is_new(self) -> bool:
        """Whether no picture was accepted yet."""
        return self._accepted is None

    @property
    def seen(self) -> np.ndarray:
        """Block means of the picture that was compared last."""
        assert self._seen is not None
        return self._seen

    def changed(self, pixels: np.ndarray) -> bool:
        """Whether a picture, uint8 [H, W, 3], differs from the accepted one. Without one, every picture does."""
        self._seen = block_means(pixels, GRID, GRID)
        return self._accepted is None or difference(self._seen, self._accepted) > self._threshold

    def accept(self) -> None:
        """Accept the picture that was compared last."""
        self._accepted = self._seen

    def forget(self) -> None:
        """Forget the accepted picture: the next one is a change."""
        self._accepted = None


def _means(values: np.ndarray, count: int, axis: int) -> np.ndarray:
    """Means of ``count`` parts along an axis. If there are fewer rows than parts, parts share rows."""
    length = values.shape[axis]
    starts = np.arange(count) * length // count
    sums = np.add.reduceat(values, starts, axis=axis, dtype=np.float32)
    sizes = np.maximum(np.diff(starts, append=length), 1).astype(np.float32)
    return sums / np.expand_dims(sizes, tuple(each for each in range(values.ndim) if each != axis))
