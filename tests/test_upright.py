"""Which way up: EXIF's eight orientations, and display matrices that ask for the same."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from mlx_gemma4.inputs.vision.upright import orientation_of, turn

MATRICES = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


@pytest.mark.parametrize("orientation", range(10))
def test_pillow_turns_it_the_same_way(orientation: int) -> None:
    """Numbers that EXIF does not have leave a picture as it is."""
    stored = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(turn(stored, orientation), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("orientation", MATRICES)
def test_a_matrix_moves_the_corners(orientation: int) -> None:
    """Where (x, y) goes by the matrix, the pixel is found."""
    a, b, c, d = MATRICES[orientation]
    assert orientation_of((a << 16, b << 16, c << 16, d << 16)) == orientation
    stored = np.arange(6).reshape(2, 3)
    shown = turn(stored, orientation)
    places = np.array([(a * x + c * y, b * x + d * y) for y in range(2) for x in range(3)])
    for (x, y), value in zip(places - places.min(axis=0), stored.ravel(), strict=True):
        assert shown[y, x] == value
