"""Times of a camera's pictures that never run back, from the time that each picture carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av


class FrameTimes:
    """Seconds since the first picture; counted if pictures carry no times.

    Args:
        rate: Pictures per second, if they do not say how long they are shown.
        jump: A picture further ahead than so many seconds has a new clock: it follows the last one.
    """

    def __init__(self, rate: float, *, jump: float) -> None:
        self._rate, self._jump = rate, jump
        self._count = 0
        self._last = self._next = 0.0
        self._shift: float | None = None

    def restart(self, after: float | None = None) -> None:
        """Let the next picture follow the last one, ``after`` so many seconds if given, whatever its time."""
        self._shift = None
        if after is not None:
            self._next = self._last + after

    def of(self, picture: av.VideoFrame) -> float:
        """Seconds since the first picture."""
        clock_time = self._count / self._rate if picture.time is None else picture.time
        self._count += 1
        if self._shift is None or self._is_new_clock(clock_time + self._shift):
            self._shift = self._next - clock_time
        self._last = clock_time + self._shift
        shown = picture.duration * picture.time_base if picture.duration else 1 / self._rate
        self._next = self._last + float(shown)
        return self._last

    def _is_new_clock(self, seconds: float) -> bool:
        return not self._last <= seconds <= self._last + self._jump
