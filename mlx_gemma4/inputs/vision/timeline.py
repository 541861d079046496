"""Times of a file's streams in one line that never runs back: clocks that restart or leap are joined."""

from __future__ import annotations

PICTURES, SOUND = 0, 1
LEAP = 24 * 3600.0
"""Seconds that nothing may be shown or heard in; a clock that leaps further was set anew."""
LEAP_OF_BROADCASTS = 10.0
"""The same in formats whose clocks may restart anywhere, as FFmpeg has it."""
BACK = 1.0
"""Seconds by which the times of sound or of packets may run back without a new clock: they overlap."""
WOBBLE = 0.25
"""The same for pictures, which come in order."""


class Timeline:
    """The times of several streams, whose clocks restart together.

    Args:
        zero: The clock's time that becomes 0.
    """

    def __init__(self, zero: float, leap: float = LEAP) -> None:
        self._shifts = [-zero]  # of each clock; beside the newest, a stream may have something left of the one before
        self._clock: dict[int, int] = {}
        self._leap = leap
        self._ends = {PICTURES: 0.0}
        self._begins = {PICTURES: 0.0}

    def of(self, stream: int, told: float | None, seconds: float) -> float:
        """Seconds from 0 on.

        Args:
            stream: Whose time it is.
            told: What the clock says; None where it says nothing: then it follows what came before.
            seconds: How long it lasts.
        """
        expected = self._ends.get(stream)
        time = (expected or 0.0) if told is None else self._joined(stream, told)
        if stream == PICTURES:
            time = max(time, self._begins[PICTURES])
        self._begins[stream] = time
        self._ends[stream] = max(time + seconds, expected or 0.0)
        return time

    def _joined(self, stream: int, told: float) -> float:
        # a stream that has not begun is compared with those that have
        where = self._ends.get(stream, max(self._ends.values()))
        earliest = self._begins.get(stream, where - self._leap) - (WOBBLE if stream == PICTURES else BACK)
        since = max(self._clock.get(stream, 0), len(self._shifts) - 2)
        fitting = [
            (abs(told + shift - where), number)
            for number, shift in enumerate(self._shifts[since:], since)
            if earliest <= told + shift <= where + self._leap
        ]
        if not fitting:
            self._shifts.append(max(self._ends.values()) - told)
        self._clock[stream] = min(fitting)[1] if fitting else len(self._shifts) - 1
        return told + self._shifts[self._clock[stream]]
