"""How often to guess, and which frames to compute together: the plan that leaves the model enough time. Numbers only.

A forward reads all weights, however few rows it has, and up to some number of rows it costs little more than with one.
So frames wait for each other, and some of them for the next guess, which has room for them in its own forward:

    frames     1 2 3 4 5 6 7 8 9 …            each 40 ms
    computed         ▲     ▲                  ``stride`` frames in a forward, until ``alone`` frames are computed
    guess                        ▲            after ``period`` frames; the frames that wait are in its forward
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

GUESS_EVERY = 0.5
"""Seconds of new speech between two guesses, at least."""
RARELY = 3.0
"""Seconds of new speech between two guesses, at most."""
LONGEST = 30.0
"""Seconds of the longest utterance: guesses that are no more frequent are made in pauses only."""
BUSY = 0.45
"""Share of the time that the model may be busy while somebody speaks."""
STEPS = 10
"""Periods to choose from, each a quarter longer than the one before."""
MOST_FRAMES = 32
"""Frames in a forward without a guess, at most: 1.3 s."""
NEVER = sys.maxsize
"""Frames between two guesses where there are none."""


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
class Costs:
    """Seconds of forwards. A forward over fewer rows costs no more than one over more."""

    frames: Sequence[float]
    """By the number of frames, up to MOST_FRAMES, without a guess."""
    guesses: Sequence[float]
    """Of the forward with which a guess begins, by the number of frames in it."""
    words: float
    """Of the other forwards of all guesses, for a second of speech."""


def best_plan(costs: Costs, periods: Sequence[int], frame_seconds: float) -> Plan:
    """The plan of the shortest period that keeps the model free enough, or else the one with the least load."""
    best = [min(_plans(costs, period, frame_seconds), key=lambda plan: plan.load) for period in periods]
    fitting = [plan for plan in best if plan.load <= BUSY]
    return fitting[0] if fitting else min(best, key=lambda plan: plan.load)


def plan_without_guesses(costs: Costs, frame_seconds: float) -> Plan:
    """The cheapest stride."""
    stride = min(range(1, MOST_FRAMES + 1), key=lambda count: costs.frames[count] / count)
    return Plan(stride, NEVER, NEVER, costs.frames[stride] / stride / frame_seconds)


def periods(guess_every: float | None, frame_seconds: float) -> list[int]:
    """Frames between two guesses to choose from, the shortest first. Empty: guess in pauses only.

    Args:
        guess_every: Seconds of new speech, if they are given.

    Raises:
        ValueError: ``guess_every`` is less than 0.
    """
    check_guess_every(guess_every)
    shortest, longest = (GUESS_EVERY, RARELY) if guess_every is None else (guess_every, guess_every)
    if shortest >= LONGEST:
        return []
    least, most = (max(1, math.ceil(seconds / frame_seconds - 1e-6)) for seconds in (shortest, longest))
    return sorted({min(most, math.ceil(least * 1.25**step)) for step in range(STEPS)})


def check_guess_every(seconds: float | None) -> None:
    """Raise a ValueError if there can be no guess every so many seconds."""
    if seconds is not None and not seconds >= 0:
        raise ValueError(f"Expected guess_every in seconds, 0 or more, got {seconds:g}")


def _plans(costs: Costs, period: int, frame_seconds: float) -> Iterator[Plan]:
    for stride in range(1, min(MOST_FRAMES, period) + 1):
        for forwards in range((period - 1) // stride + 1):
            alone = forwards * stride
            busy = forwards * costs.frames[stride] + costs.guesses[period - alone]
            yield Plan(stride, alone, period, busy / period / frame_seconds + costs.words)
