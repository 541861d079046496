"""Turning pictures upright: the eight orientations of EXIF. numpy only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels.swapaxes(0, 1)[::-1, ::-1],
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels [H, W, …] turned upright, as a view: nothing is copied.

    Args:
        orientation: 1 to 8, as in EXIF's tag 0x0112; any other number means 1, as stored.
    """
    return _TURNS.get(orientation, lambda stored: stored)(pixels)


def orientation_of(matrix: tuple[int, int, int, int]) -> int:
    """The orientation of a display matrix (a, b, c, d); any angle becomes the nearest quarter turn.

    A point (x, y) of the stored picture is shown at (a·x + c·y, b·x + d·y), y downwards, as in ISO/IEC 14496-12.
    """
    a, b, c, d = matrix
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return {(True, True): 1, (False, True): 2, (False, False): 3, (True, False): 4}[a >= 0, d >= 0]
    return {(True, True): 5, (True, False): 6, (False, False): 7, (False, True): 8}[b >= 0, c >= 0]
