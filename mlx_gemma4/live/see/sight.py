"""Whether a camera's last picture is still current. A film's last picture stays; a live camera's becomes stale."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

STALE_SECONDS = 5.0
"""Seconds without a picture after which the last one of a live camera is no longer current."""


class Watched(Protocol):
    """A camera."""

    @property
    def is_live(self) -> bool:
        """Whether it has no end of its own."""

    @property
    def problem(self) -> str | None:
        """Why the pictures ended, in a sentence, if they should not have."""


class Sight:
    """Reports once that the last picture is no longer current, and again after pictures have returned.

    Args:
        camera: None without a camera: nothing is ever reported.
        seconds: Seconds without a picture after which the last one is no longer current.
    """

    def __init__(
        self,
        camera: Watched | None,
        *,
        seconds: float = STALE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._camera, self._seconds, self._clock = camera, seconds, clock
        self._came_at = clock()
        self._has_come = False
        self._ended = False
        self._is_reported = False

    def came(self) -> None:
        """A picture has arrived."""
        self._came_at, self._has_come, self._is_reported = self._clock(), True, False

    def ended(self) -> None:
        """The pictures have ended."""
        self._ended = True

    @property
    def is_awaited(self) -> bool:
        """Whether the first picture is still expected."""
        return self._camera is not None and not (self._has_come or self._ended or self._is_reported)

    @property
    def left(self) -> float | None:
        """Seconds until the last picture becomes stale; None if it cannot."""
        if self._camera is None or self._is_reported or self._ended or not self._camera.is_live:
            return None
        return max(0.0, self._came_at + self._seconds - self._clock())

    @property
    def is_lost(self) -> bool:
        """Whether there is something to report."""
        return not self._is_reported and self._problem() is not None

    def lost(self) -> str | None:
        """Why the last picture is no longer current, in a sentence; None if it is, or if that was reported before."""
        problem = None if self._is_reported else self._problem()
        self._is_reported = self._is_reported or problem is not None
        return problem

    def _problem(self) -> str | None:
        if self._camera is None:
            return None
        if self._ended:
            return self._camera.problem or ("The camera has ended." if self._camera.is_live else None)
        return f"No picture has come for {self._seconds:g} s." if self.left == 0 else None
