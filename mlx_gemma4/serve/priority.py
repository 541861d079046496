"""Whose turn it is: the most urgent kind of work that is ready, or one that others have kept waiting. Numbers only.

    live sound    L L L L L L L L . L L L …     turns of 20 ms
    an answer     . . . . D . . . . D . . .     of 10 ms: behind 80 ms of others
    a prompt      . . . . . . . . P . . . .     of 500 ms: behind eight turns of others

So nobody waits forever, and what takes long does not crowd out the rest.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum

PATIENCE = 8
"""A kind waits for so many turns of others, or for as long as so many turns of its own take if that is less."""
RECENT = 0.3
"""Weight of the newest turn in what a turn of a kind takes."""


class Turn(IntEnum):
    """What a job computes next; the most urgent first."""

    LIVE = 0
    """Sound that is arriving now."""
    DECODE = 1
    """A token of an answer."""
    PREFILL = 2
    """A chunk of a prompt."""
    HASTE = 3
    """Sound that came faster than it is spoken."""
    WAIT = 4
    """Nothing, until ``Job.wake``: input has not arrived, or the reader of the output is slow."""


class Turns:
    """Chooses the kind of the next turn, and learns from how long turns take."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(Turn, 0.0)
        """What a turn of a kind takes."""
        self._passed = dict.fromkeys(Turn, 0)
        """Turns of others since a kind was ready."""
        self._waited = dict.fromkeys(Turn, 0.0)
        """How long they took."""
        self._ready: set[Turn] = set()
        """The kinds of which the last one was chosen."""

    def choose(self, ready: Collection[Turn]) -> Turn:
        """The kind of the next turn.

        Args:
            ready: Kinds that have something to compute; at least one.
        """
        self._ready = set(ready)
        for kind in Turn:
            if kind not in ready:
                self._passed[kind], self._waited[kind] = 0, 0.0
        kinds = sorted(ready)
        return next((kind for kind in kinds if self._is_due(kind)), kinds[0])

    def took(self, turn: Turn, seconds: float) -> None:
        """A turn took so many seconds, while the others that were ready waited."""
        for kind in self._ready:
            self._passed[kind] += 1
            self._waited[kind] += seconds
        self._passed[turn], self._waited[turn] = 0, 0.0
        known = self._seconds[turn]
        self._seconds[turn] = known + RECENT * (seconds - known) if known else seconds

    def _is_due(self, kind: Turn) -> bool:
        return self._passed[kind] >= PATIENCE or self._waited[kind] > PATIENCE * self._seconds[kind]
