"""When to compute frames and when to guess: by a plan (``Plan``) that follows from what forwards cost on this machine,
and by what the speaker does. No model, no clock: numbers in, decisions out.

At the end of speech nothing waits. While a silence is too short to end the utterance, there is time to compute:

    sound      S S S ~ ~ ~ ~ ~ ~ ~ ~ ~ ~      S speech, ~ silence; the tail belongs to the utterance
    flushed          ▲                        the frames that wait, if the last guess is sooner there by it
    guess                    ▲                when the tail is complete: it has heard everything
    final                              ▲      that guess; no forward is left
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from mlx_gemma4.decoder.costs import ForwardCosts, assumed
from mlx_gemma4.live.hear.plan import (
    MOST_FRAMES,
    NEVER,
    RARELY,
    Costs,
    Plan,
    best_plan,
    periods,
    plan_without_guesses,
)

FIRST_STRIDE = 5
"""Frames in a forward while no costs are known."""
WORDS = 3.0
"""Forwards for new tokens in a second of speech, until more has been heard than ``RARELY`` seconds."""
RECENT = 10.0
"""Seconds of speech over which the load is measured."""
BEHIND = 1.0
"""Seconds of sound that a machine that is too slow leaves behind."""
OUTLIER = 4.0
"""A forward that took so many times longer than expected was waited for: the machine slept, or other programs ran."""


@dataclass(frozen=True)
class Moment:
    """Where an open utterance stands. All but ``behind`` in frames."""

    waiting: int
    """Not computed yet."""
    new: int
    """Since the last guess."""
    until_complete: int | None = None
    """Of silence until the utterance is complete, 0 from then on; None while somebody speaks."""
    pause: int = 0
    """Of silence since the last speech."""
    behind: float = 0.0
    """Seconds of sound that had piled up before this moment."""


@dataclass(frozen=True)
class Overload:
    """The machine is too slow."""

    load: float
    """Seconds for which the model was busy in a second of speech."""
    rarer_guesses: bool
    """Whether it would be less busy with the period of guesses that it would choose itself."""
    shorter_segments: bool
    """Whether it would keep up if segments, and so the texts that guesses read, were half as long."""


class Rhythm:
    """Decides what to do next, and learns from what it is told about each forward.

    Args:
        frame_seconds: How long a frame is.
        guess_every: Seconds of new speech between two guesses: None lets the costs decide, 0 guesses whenever there is
            a new frame, 30 or more in pauses only.
        guesses: False never guesses, not even in a pause.

    Raises:
        ValueError: ``guess_every`` is less than 0.
    """

    def __init__(self, frame_seconds: float, guess_every: float | None = None, *, guesses: bool = True) -> None:
        self._frame_seconds = frame_seconds
        self._is_own = guess_every is None
        self._guesses = guesses
        self._periods = periods(guess_every, frame_seconds) if guesses else []
        self._frame_costs = ForwardCosts()
        """Of forwards over frames alone, without the head."""
        self._guess_costs = ForwardCosts()
        """Of the forward with which a guess begins, and of those over one token."""
        self._seen_alone: set[int] = set()
        """Sizes of guesses that needed only their first forward."""
        self._rows = 0
        """Rows of the last guess's first forward, without frames."""
        self._tokens, self._heard = WORDS * RARELY, RARELY
        """Forwards for new tokens, and the seconds of speech that they were for."""
        self._last_guess = 0.0
        """Seconds that the last guess took."""
        self._spent: deque[tuple[float, float]] = deque()
        """Seconds of speech, and seconds for which the model was busy with them."""
        self.plan = self._make_plan()

    def next(self, moment: Moment) -> int | Literal["guess"]:
        """What to do now: compute so many of the frames that wait, perhaps none; or guess, all of them with it."""
        if moment.until_complete is not None:
            return self._in_silence(moment, moment.until_complete)
        if self.is_late(moment.behind):  # words that are never guessed would all be computed at the end
            rarely = max(self.plan.period, RARELY / self._frame_seconds)
            return "guess" if moment.new >= rarely else moment.waiting
        if moment.new >= self.plan.period:
            return "guess"
        count = min(moment.waiting, self.plan.alone - (moment.new - moment.waiting))
        return count if count >= self.plan.stride else 0

    def is_late(self, behind: float) -> bool:
        """Whether guesses are made ``RARELY``: more sound has piled up than arrives from one guess to the next."""
        return behind > self.plan.period * self._frame_seconds + self._last_guess

    def begin(self, rows: int) -> None:
        """An utterance begins. A guess has so many rows besides frames: there is no draft yet."""
        self._rows = rows
        self.plan = self._make_plan()

    def computed(self, frames: int, seconds: float) -> None:
        """So many frames were computed without a guess, in so many seconds."""
        size = _size(frames)
        if self._frame_costs.measured:
            seconds = min(seconds, OUTLIER * self._frame_costs.seconds(size))
        self._frame_costs.record(size, seconds)
        if not self._guesses:
            self.plan = self._make_plan()

    def guessed(self, rows: int, frames: int, new: int, tokens: int, seconds: float) -> None:
        """A guess was made, and the next plan follows from all costs.

        Args:
            rows: Of its first forward, frames included.
            frames: How many of them were frames.
            new: Frames since the guess before.
            tokens: Forwards after the first, one for each new token.
        """
        size = _size(rows)
        first, step = self._split(size, tokens, seconds)
        if not tokens:
            self._seen_alone.add(size)
        if size not in self._seen_alone or not tokens:
            self._guess_costs.record(size, first)
        if tokens:
            self._guess_costs.record(1, step)
        self._rows, self._last_guess = rows - frames, seconds
        self._tokens += tokens
        self._heard += new * self._frame_seconds
        self.plan = self._make_plan()

    def spent(self, frames: int, seconds: float) -> None:
        """The model was busy for so many seconds with a pass that brought so many frames of speech."""
        if not frames and not seconds:
            return
        self._spent.append((frames * self._frame_seconds, seconds))
        while sum(speech for speech, _ in self._spent) - self._spent[0][0] >= RECENT:
            self._spent.popleft()

    def overload(self, behind: float) -> Overload | None:
        """What is to be told if the machine was too slow for the last ``RECENT`` seconds of speech, so that sound piles
        up. ``behind`` is how much has; a recording that is read fast never does.
        """
        if behind < BEHIND or not self._spent:
            return None
        speech, busy = map(sum, zip(*self._spent, strict=True))
        if speech < RECENT or busy <= speech:
            return None
        own = periods(None, self._frame_seconds)
        now = self._best(self._rows, self._periods or own).load
        return Overload(
            load=busy / speech,
            rarer_guesses=not self._is_own and self._best(self._rows, own).load < 0.9 * now,
            shorter_segments=self._guesses and self._best(self._rows // 2, self._periods or own).load < 1 <= now,
        )

    def _split(self, rows: int, tokens: int, seconds: float) -> tuple[float, float]:
        """What the first forward of a guess cost, and each of the others, of which only the sum is known. If a guess of
        that size was seen without others, or one of another size, the rest follows; otherwise their ratio is assumed.
        """
        first, step = self._guess_seconds(rows), self._guess_seconds(1)
        if self._guess_costs.measured:
            seconds = min(seconds, OUTLIER * (first + tokens * step))
        if not tokens:
            return seconds, step
        if rows in self._seen_alone and seconds > first:
            return first, (seconds - first) / tokens
        if rows not in self._seen_alone and self._guess_costs.knows(1) and seconds > (tokens + 1) * step:
            return seconds - tokens * step, step
        scale = seconds / (first + tokens * step) if seconds else 0.0
        return first * scale, step * scale

    def _in_silence(self, moment: Moment, left: int) -> int | Literal["guess"]:
        """The tail of the utterance may be arriving: ``left`` frames of it are missing."""
        if left == 0:
            return "guess" if moment.new and self._guesses else moment.waiting
        if moment.waiting <= moment.pause:  # the tail alone
            return 0
        if not self._guesses or not self._guess_costs.measured:
            return moment.waiting
        alone, arrival = self._frame_seconds_of(moment.waiting), left * self._frame_seconds
        flushed = max(alone, arrival) + self._guess_seconds(self._rows + left)
        together = arrival + self._guess_seconds(self._rows + moment.waiting + left)
        return moment.waiting if together - flushed > alone / 2 else 0

    def _make_plan(self) -> Plan:
        if not self._frame_costs.measured and not self._guess_costs.measured:
            period = self._periods[0] if self._periods else NEVER
            return Plan(FIRST_STRIDE, period, period)
        if self._periods:
            plan = self._best(self._rows, self._periods)
            if plan.load < 1 or not self._is_own:
                return plan
        return plan_without_guesses(self._costs(self._rows, 1), self._frame_seconds)

    def _best(self, rows: int, choice: list[int]) -> Plan:
        return best_plan(self._costs(rows, max(choice)), choice, self._frame_seconds)

    def _costs(self, rows: int, most: int) -> Costs:
        """What forwards will cost, with ``rows`` rows of prompt and draft in a guess, and up to ``most`` frames."""
        return Costs(
            frames=_rising([self._frame_seconds_of(count) for count in range(MOST_FRAMES + 1)]),
            guesses=_rising([self._guess_seconds(rows + count) for count in range(most + 1)]),
            words=self._tokens / self._heard * self._guess_seconds(1),
        )

    def _frame_seconds_of(self, frames: int) -> float:
        """Expected seconds of a forward over frames alone."""
        if not frames:
            return 0.0
        return (self._frame_costs if self._frame_costs.measured else self._guess_costs).seconds(_size(frames))

    def _guess_seconds(self, rows: int) -> float:
        """Expected seconds of a forward with the head; in units of a forward over one row if nothing is known."""
        if self._guess_costs.measured:
            return self._guess_costs.seconds(_size(rows))
        return self._frame_costs.seconds(_size(rows)) if self._frame_costs.measured else assumed(_size(rows))


def _size(rows: int) -> int:
    """The size under which the cost of a forward is recorded: guesses hardly ever have as many rows as one before."""
    step = 1 if rows <= 8 else 4 if rows <= 64 else 16
    return max(1, -(-rows // step) * step)


def _rising(seconds: list[float]) -> list[float]:
    """Without what is dearer than a forward over more rows: it was waited for."""
    return [*accumulate(reversed(seconds), min)][::-1]
