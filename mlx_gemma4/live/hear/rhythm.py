"""When to compute frames and when to guess, by what forwards cost on this machine. No model, no clock: numbers in,
decisions out.

A forward reads all weights, however few rows it has, and up to some number of rows it costs little more than one row.
So frames wait for each other, and some of them for the next guess, which has room for them in its own forward:

    frames     1 2 3 4 5 6 7 8 9 …            each 40 ms
    computed         ▲     ▲                  ``stride`` frames in a forward, until ``alone`` frames are computed
    guess                        ▲            after ``period`` frames; the frames that wait are in its forward

At the end of speech nothing waits. While a silence is too short to end the utterance, there is time to compute:

    sound      S S S ~ ~ ~ ~ ~ ~ ~ ~ ~ ~      S speech, ~ silence; the tail belongs to the utterance
    flushed          ▲                        the frames that wait, if the last guess is sooner there by it
    guess                    ▲                when the tail is complete: it has heard everything
    final                              ▲      that guess; no forward is left
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mlx_gemma4.decoder.costs import ForwardCosts, assumed

GUESS_EVERY = 0.5
"""Seconds of new speech between two guesses, at least."""
RARELY = 3.0
"""Seconds of new speech between two guesses, at most."""
STEPS = 10
"""Periods to choose from, each a quarter longer than the one before."""
BUSY = 0.45
"""Share of the time that the model may be busy while somebody speaks."""
FIRST_STRIDE = 5
"""Frames in a forward while no costs are known."""
MOST_FRAMES = 32
"""Frames in a forward without a guess, at most: 1.3 s."""
WORDS = 3.0
"""Forwards for new tokens in a second of speech, until more has been heard than ``RARELY`` seconds."""
NEVER = sys.maxsize
"""Frames between two guesses where there are none."""
RECENT = 10.0
"""Seconds of speech over which the load is measured."""


@dataclass(frozen=True)
class Plan:
    """How speech is computed until the next plan. All but ``load`` in frames."""

    stride: int
    """Frames in a forward without a guess."""
    alone: int
    """Frames between two guesses that are computed without one; the others are computed with the guess."""
    period: int
    """Frames between two guesses."""
    load: float = 0.0
    """Seconds for which the model is busy in a second of speech; 0 while no costs are known."""


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
            a new frame, ``math.inf`` never.

    Raises:
        ValueError: ``guess_every`` is less than 0.
    """

    def __init__(self, frame_seconds: float, guess_every: float | None = None) -> None:
        if guess_every is not None and not guess_every >= 0:
            raise ValueError(f"Expected guess_every in seconds, 0 or more, got {guess_every:g}")
        self._frame_seconds = frame_seconds
        self._guess_every = guess_every
        self.never_guesses = guess_every == math.inf
        if guess_every is None:
            self._periods = _periods(GUESS_EVERY, RARELY, frame_seconds)
        elif self.never_guesses:
            self._periods = [NEVER]
        else:
            self._periods = _periods(guess_every, guess_every, frame_seconds)
        self._frame_costs = ForwardCosts()
        """Of forwards over frames alone, without the head."""
        self._guess_costs = ForwardCosts()
        """Of the forward with which a guess begins, and of those over one token."""
        self._knows_frames = self._knows_guesses = False
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
        if self.is_late(moment.behind):
            return moment.waiting
        if moment.new >= self.plan.period:
            return "guess"
        count = min(moment.waiting, self.plan.alone - (moment.new - moment.waiting))
        return count if count >= self.plan.stride else 0

    def is_late(self, behind: float) -> bool:
        """Whether guesses have to wait: more sound has piled up than arrives from one guess to the next."""
        return behind > self.guess_seconds + self._last_guess

    def begin(self, rows: int) -> None:
        """An utterance begins. A guess has so many rows besides frames: there is no draft yet."""
        self._rows = rows
        self.plan = self._make_plan()

    def computed(self, frames: int, seconds: float) -> None:
        """So many frames were computed without a guess, in so many seconds."""
        self._frame_costs.record(_size(frames), seconds)
        self._knows_frames = True
        if self.never_guesses:
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
        self._knows_guesses = True
        self._rows, self._last_guess = rows - frames, seconds
        self._tokens += tokens
        self._heard += new * self._frame_seconds
        self.plan = self._make_plan()

    def spent(self, frames: int, seconds: float) -> None:
        """The model was busy for so many seconds with a pass that brought so many frames of speech."""
        self._spent.append((frames * self._frame_seconds, seconds))
        while sum(speech for speech, _ in self._spent) - self._spent[0][0] >= RECENT:
            self._spent.popleft()

    @property
    def overload(self) -> Overload | None:
        """What is to be told if the machine was too slow for the last ``RECENT`` seconds of speech."""
        speech, busy = map(sum, zip(*self._spent, strict=True)) if self._spent else (0.0, 0.0)
        if speech < RECENT or busy <= speech:
            return None
        now, own = self._best(self._rows, self._periods), _periods(GUESS_EVERY, RARELY, self._frame_seconds)
        return Overload(
            load=busy / speech,
            rarer_guesses=self._best(self._rows, own).load < 0.9 * now.load,
            shorter_segments=self._best(self._rows // 2, self._periods).load < 1 <= now.load,
        )

    @property
    def guess_seconds(self) -> float:
        """Seconds of new speech between two guesses."""
        return self.plan.period * self._frame_seconds

    def _split(self, rows: int, tokens: int, seconds: float) -> tuple[float, float]:
        """What the first forward of a guess cost, and each of the others, of which only the sum is known. If a guess of
        that size was seen without others, or one of another size, the rest follows; otherwise their ratio is assumed.
        """
        first, step = self._guess_seconds(rows), self._guess_seconds(1)
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
            return "guess" if moment.new and not self.never_guesses else moment.waiting
        if moment.waiting <= moment.pause:  # the tail alone
            return 0
        if self.never_guesses or not self._knows_guesses:
            return moment.waiting
        alone, arrival = self._frame_seconds_of(moment.waiting), left * self._frame_seconds
        flushed = max(alone, arrival) + self._guess_seconds(self._rows + left)
        together = arrival + self._guess_seconds(self._rows + moment.waiting + left)
        return moment.waiting if together - flushed > alone / 2 else 0

    def _make_plan(self) -> Plan:
        if not self._knows_guesses and not self._knows_frames:
            return Plan(FIRST_STRIDE, self._periods[0], self._periods[0])
        if not self.never_guesses:
            plan = self._best(self._rows, self._periods)
            if plan.load < 1 or self._guess_every is not None:
                return plan
        stride = min(range(1, MOST_FRAMES + 1), key=lambda count: self._frame_seconds_of(count) / count)
        return Plan(stride, NEVER, NEVER, self._frame_seconds_of(stride) / stride / self._frame_seconds)

    def _best(self, rows: int, periods: Sequence[int]) -> Plan:
        """The plan of the shortest period that keeps the model free enough, or else the one with the least load."""
        frames = [self._frame_seconds_of(count) for count in range(MOST_FRAMES + 1)]
        guesses = [self._guess_seconds(rows + count) for count in range(max(periods) + 1)]
        words = self._tokens / self._heard * self._guess_seconds(1)

        def plans(period: int) -> Iterator[Plan]:
            for stride in range(1, min(MOST_FRAMES, period) + 1):
                for forwards in range((period - 1) // stride + 1):
                    alone = forwards * stride
                    busy = forwards * frames[stride] + guesses[period - alone]
                    yield Plan(stride, alone, period, busy / period / self._frame_seconds + words)

        best = [min(plans(period), key=lambda plan: plan.load) for period in periods]
        fitting = [plan for plan in best if plan.load <= BUSY]
        return fitting[0] if fitting else min(best, key=lambda plan: plan.load)

    def _frame_seconds_of(self, frames: int) -> float:
        """Expected seconds of a forward over frames alone."""
        if not frames:
            return 0.0
        return (self._frame_costs if self._knows_frames else self._guess_costs).seconds(_size(frames))

    def _guess_seconds(self, rows: int) -> float:
        """Expected seconds of a forward with the head; in units of a forward over one row if nothing is known."""
        if self._knows_guesses:
            return self._guess_costs.seconds(_size(rows))
        return self._frame_costs.seconds(_size(rows)) if self._knows_frames else assumed(_size(rows))


def _size(rows: int) -> int:
    """The size under which the cost of a forward is recorded: guesses hardly ever have as many rows as one before."""
    step = 1 if rows <= 8 else 4 if rows <= 64 else 16
    return -(-rows // step) * step


def _periods(shortest: float, longest: float, frame_seconds: float) -> list[int]:
    """Frames between two guesses, to choose from."""
    least, most = (max(1, math.ceil(seconds / frame_seconds - 1e-6)) for seconds in (shortest, longest))
    return sorted({min(most, math.ceil(least * 1.25**step)) for step in range(STEPS)})
