"""Times of a camera's frames in one line that never runs back, from what each frame says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av


class FrameTimes:
    """Seconds since the first frame; by count where a frame says nothing.

    Args:
        rate: Frames per second where they do not say how long they are shown.
        jump: A frame further ahead than so many seconds follows the last one.
    """

    def __init__(self, rate: float, *, jump: float) -> None:
        self._rate, self._jump = rate, jump
        self._count = 0
        self._last = self._next = 0.0
        self._shift: float | None = None

    def restart(self, after: float | None = None) -> None:
        """The next frame follows the last one, by so many seconds if they are given, whatever it says."""
        self._shift = None
        if after is not None:
            self._next = self._last + after

    def of(self, picture: av.VideoFrame) -> float:
        """When a frame was taken."""
        told = self._count / self._rate if picture.time is None else picture.time
        self._count += 1
        if self._shift is None or self._is_new_clock(told + self._shift):
            self._shift = self._next - told
        self._last = told + self._shift
        shown = picture.duration * picture.time_base if picture.duration else 1 / self._rate
        self._next = self._last + float(shown)
        return self._last

    def _is_new_clock(self, seconds: float) -> bool:
        return not self._last <= seconds <= self._last + self._jump
