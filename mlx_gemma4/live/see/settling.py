"""When to ask about a changed scene: once it is still for a moment, or has kept changing for long.

    change ┐ moves moves moves still still ─▶ ask            ``settle`` seconds of stillness
    change ┐ moves moves moves moves moves ─▶ ask            ``max_wait`` seconds after the change began
    change ┐ back as before                ─▶ no change      a flash

All times are those of the pictures. numpy only.
"""

from __future__ import annotations

import numpy as np

from mlx_gemma4.live.see.scene import difference

SETTLE = 0.3
"""Seconds without movement after which a change has settled."""
MAX_WAIT = 5.0
"""Seconds after which a scene that keeps changing is asked about anyway."""
SAME_MOMENT = 1e-6
"""Seconds within which times are equal: they are sums of others."""
STILL = 0.25
"""A difference above this share of the threshold of a change is movement."""


class Settling:
    """The time from a change to the question about it.

    Args:
        settle: Seconds in which nothing may move before the question; 0 asks at once.
        max_wait: Seconds from the first picture of a change to the question, at most.
        threshold: What counts as a change (``Scene``).

    Raises:
        ValueError: The seconds are out of bounds.
    """

    def __init__(self, *, settle: float, max_wait: float, threshold: float) -> None:
        if not settle >= 0:
            raise ValueError(f"Expected 0 seconds or more for a scene to settle, got {settle:g}")
        if not max_wait >= settle:
            raise ValueError(
                f"Expected a longest wait of {settle:g} seconds or more, the time to settle, got {max_wait:g}"
            )
        self._settle, self._max_wait, self._still = settle, max_wait, STILL * threshold
        self._began: float | None = None
        self._quiet: np.ndarray | None = None
        self._quiet_since = 0.0
        self._is_changed = False

    @property
    def waits(self) -> bool:
        """Whether a change has not been asked about yet."""
        return self._began is not None and self._is_changed

    def is_due(self, means: np.ndarray, changed: bool, now: float) -> bool:
        """Whether to ask about the change now.

        Args:
            means: Block means of the picture (``Scene.seen``).
            changed: Whether it differs from what was last asked about.
            now: The picture's time.
        """
        if self._quiet is None or difference(means, self._quiet) > self._still:
            self._quiet, self._quiet_since = means, now
        self._is_changed = changed
        is_still = now - self._quiet_since >= self._settle - SAME_MOMENT
        if not changed:
            self._began = None if is_still else self._began
            return False
        if self._began is None:
            self._began = now
        return is_still or now - self._began >= self._max_wait - SAME_MOMENT

    def asked(self) -> None:
        """A question was asked: the change is over."""
        self._began = None
