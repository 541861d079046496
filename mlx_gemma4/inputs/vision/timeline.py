"""Times of a file's streams that never run back: clocks that restart or leap are joined."""

from __future__ import annotations

PICTURES, SOUND = 0, 1
LEAP = 24 * 3600.0
"""Seconds: a clock that leaps further has been set again."""
LEAP_OF_BROADCASTS = 10.0
"""The same in formats whose clocks may restart anywhere, as in FFmpeg."""
BACK = 1.0
"""Seconds by which the times of sound may run back within one clock: packets overlap."""
WOBBLE = 0.25
"""The same for pictures, which are in order."""


class Timeline:
    """The times of several streams whose clocks restart together.

    Args:
        zero: The clock's time that becomes 0.
    """

    def __init__(self, zero: float, leap: float = LEAP) -> None:
        self._shifts = [-zero]  # one for each clock; a stream may still have something from the clock before
        self._clock: dict[int, int] = {}
        self._leap = leap
        self._ends = {PICTURES: 0.0}
        self._begins = {PICTURES: 0.0}

    def of(self, stream: int, clock_time: float | None, seconds: float) -> float:
        """Seconds from 0 on.

        Args:
            stream: PICTURES or SOUND.
            clock_time: The time in the file; None: it follows the one before.
            seconds: Duration.
        """
        expected = self._ends.get(stream)
        time = (expected or 0.0) if clock_time is None else self._joined(stream, clock_time)
        if stream == PICTURES:
            time = max(time, self._begins[PICTURES])
        self._begins[stream] = time
        self._ends[stream] = max(time + seconds, expected or 0.0)
        return time

    def _joined(self, stream: int, clock_time: float) -> float:
        # a stream that has not begun is compared with those that have
        where = self._ends.get(stream, max(self._ends.values()))
        earliest = self._begins.get(stream, where - self._leap) - (WOBBLE if stream == PICTURES else BACK)
        since = max(self._clock.get(stream, 0), len(self._shifts) - 2)
        fitting = [
            (abs(clock_time + shift - where), number)
            for number, shift in enumerate(self._shifts[since:], since)
            if earliest <= clock_time + shift <= where + self._leap
        ]
        if not fitting:
            self._shifts.append(max(self._ends.values()) - clock_time)
        self._clock[stream] = min(fitting)[1] if fitting else len(self._shifts) - 1
        return clock_time + self._shifts[self._clock[stream]]
