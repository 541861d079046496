"""What forwards cost on this machine, by their number of rows: measured while the program runs, never beforehand.

A forward over several rows reads the weights once, or once for every few rows, depending on the machine's kernels::

    rows              1     2     4     8    16    32
    an M3 Pro         1                 3.4              as users report: a forward over 8 rows costs 3.4 steps
    an M2 Pro         1                 7.1

Until a size has been seen, its cost follows from its neighbours and the shape that is assumed (``ASSUMED``).
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from statistics import median

ASSUMED = {1: 1.0, 2: 1.3, 4: 1.9, 8: 3.4, 16: 3.6, 32: 4.2}
"""Cost of a forward in units of that of one row. Beyond 32 rows it is assumed to grow with the rows."""
RECENT = 9
"""Measurements of each size whose median counts: a machine that becomes warm gets slower."""


class ForwardCosts:
    """Seconds of a forward by its number of rows."""

    def __init__(self) -> None:
        self._seen: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._medians: dict[int, float] = {}

    def record(self, rows: int, seconds: float) -> None:
        """A forward over so many rows took so long."""
        self._seen[rows].append(seconds)
        self._medians[rows] = median(self._seen[rows])

    @property
    def measured(self) -> bool:
        """Whether any forward has been seen."""
        return bool(self._medians)

    def knows(self, rows: int) -> bool:
        """Whether a forward over exactly so many rows has been seen."""
        return rows in self._medians

    def seconds(self, rows: int) -> float:
        """What a forward over so many rows will take.

        Raises:
            ValueError: No forward has been recorded.
        """
        if not self._medians:
            raise ValueError("No forward has been measured yet; record one first")
        if rows in self._medians:
            return self._medians[rows]
        below = max((size for size in self._medians if size < rows), default=None)
        above = min((size for size in self._medians if size > rows), default=None)
        if below is None or above is None:
            nearest = above if below is None else below
            assert nearest is not None
            return self._medians[nearest] / assumed(nearest) * assumed(rows)
        share = math.log(rows / below) / math.log(above / below)
        scale = [self._medians[size] / assumed(size) for size in (below, above)]
        return assumed(rows) * (scale[0] + share * (scale[1] - scale[0]))


def assumed(rows: int) -> float:
    """The assumed cost of a forward, in units of that of one row."""
    if rows >= max(ASSUMED):
        return ASSUMED[max(ASSUMED)] * rows / max(ASSUMED)
    below = max(size for size in ASSUMED if size <= rows)
    above = min(size for size in ASSUMED if size > rows)
    share = (rows - below) / (above - below)
    return ASSUMED[below] + share * (ASSUMED[above] - ASSUMED[below])
