"""Scaling against torch's numbers, and against what scaling means."""

from __future__ import annotations

import numpy as np

from mlx_gemma4.inputs.vision.resize import resize

RAMP = (np.arange(7 * 9 * 3) * 37 % 256).astype(np.uint8).reshape(7, 9, 3)

SMALLER = [[123, 122, 128], [133, 124, 124]]
LARGER = [[29, 54, 120, 146, 60, 0], [9, 35, 100, 142, 113, 79], [0, 21, 74, 133, 196, 229]]


def test_the_same_size_changes_nothing() -> None:
    np.testing.assert_array_equal(resize(RAMP, 7, 9), RAMP)


def test_one_colour_stays_that_colour() -> None:
    """Weights sum to one after rounding, however far the picture is scaled."""
    for size in (1, 2, 5, 48, 480):
        np.testing.assert_array_equal(resize(np.full((31, 17, 3), 201, np.uint8), size, size), 201)


def test_smaller_is_torchs() -> None:
    """Values of torch.nn.functional.interpolate(mode="bicubic", antialias=True) on uint8."""
    assert resize(RAMP, 2, 3)[..., 0].tolist() == SMALLER


def test_larger_is_torchs() -> None:
    """A corner of the picture scaled to 12 × 20."""
    assert resize(RAMP, 12, 20)[:3, :6, 1].tolist() == LARGER
