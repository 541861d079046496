"""Are the pictures of a camera still current? A film's last picture stays; that of a live camera becomes stale."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

STALE_SECONDS = 5.0
"""Without a picture for this long, the last one of a live camera is no longer what there is to see."""


class Watched(Protocol):
    """A camera."""

    @property
    def is_live(self) -> bool:
        """Whether it has no end of its own."""

    @property
    def problem(self) -> str | None:
        """Why the pictures ended, in a sentence, if they should not have."""


class Sight:
    """Tells once when sight is lost, and again after pictures have come back.

    Args:
        camera: None where there is none: nothing is ever lost.
        seconds: Without a picture for this long, sight is lost.
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
        self._is_told = False

    def came(self) -> None:
        """A picture has come."""
        self._came_at, self._has_come, self._is_told = self._clock(), True, False

    def ended(self) -> None:
        """No more pictures come."""
        self._ended = True

    @property
    def is_awaited(self) -> bool:
        """Whether there is nothing to see yet, but will be."""
        return self._camera is not None and not (self._has_come or self._ended or self._is_told)

    @property
    def left(self) -> float | None:
        """Seconds until sight is lost if nothing comes; None if that cannot happen by waiting."""
        if self._camera is None or self._is_told or self._ended or not self._camera.is_live:
            return None
        return max(0.0, self._came_at + self._seconds - self._clock())

    @property
    def is_lost(self) -> bool:
        """Whether there is something to tell."""
        return not self._is_told and self._problem() is not None

    def lost(self) -> str | None:
        """Why there is nothing to see any more, in a sentence; None if there is, or if it was told before."""
        problem = None if self._is_told else self._problem()
        self._is_told = self._is_told or problem is not None
        return problem

    def _problem(self) -> str | None:
        if self._camera is None:
            return None
        if self._ended:
            return self._camera.problem or ("The camera has ended." if self._camera.is_live else None)
        return f"No picture has come for {self._seconds:g} s." if self.left == 0 else None
