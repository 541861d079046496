"""The turns of a conversation: sound enters the cache behind the history while somebody speaks.

    history     [system, turns, beginning of the user's turn]          computed ahead (``History``)
    speech      [history][frames so far …]                             a few frames in a forward (``Rhythm``)
    end         given back to the store                                the answer finds it there, by its content

So the answer computes only what is new behind the sound, however long it was. All this only saves time: if the history
comes late, or changes, frames wait, and whatever was not computed is computed with the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import repeat

import numpy as np

from mlx_gemma4.decoder.budget import ContextFull, MemoryFull
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.live.hear.rhythm import Moment, Rhythm
from mlx_gemma4.prefixes.landmarks import landmarks
from mlx_gemma4.prefixes.store import PrefixStore
from mlx_gemma4.session import PREFILL_STEP, Session


class Ahead:
    """A session of the store that is computed ahead: history, then the frames of the open turn.

    Args:
        ends: Token ids that end a message.
        clock: Measures forwards.
    """

    def __init__(
        self,
        store: PrefixStore,
        ends: tuple[int, ...],
        frame_seconds: float,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._store, self._ends, self._clock = store, ends, clock
        self._session: Session | None = None
        self._chunks: Iterator[Prompt] = iter(())
        self._marks: list[int] = []
        self._next: Prompt | None = None
        """The chunk of the history that is computed next."""
        self._heard: int | None = None
        """How many frames of the open turn are in the session or before it; None: it takes none."""
        self._begin = 0
        """How many of them are before its open stretch."""
        self.rhythm = Rhythm(frame_seconds, guesses=False)

    @property
    def waits(self) -> bool:
        """Whether history is left to compute."""
        return self._next is not None

    def open(self, prompt: Prompt, heard: int | None) -> None:
        """Begin with another history. Frames of the open turn follow from number ``heard`` on."""
        self.close()
        try:
            self._session, kept = self._store.open(prompt)
        except MemoryFull:  # the answer will make room, or tell
            return
        self._marks = [kept + row for row in landmarks(prompt, self._ends, start=kept)]
        self._chunks = prompt[kept:].chunks(repeat(PREFILL_STEP))
        self._next, self._heard, self._begin = next(self._chunks, None), heard, heard or 0

    def compute(self) -> None:
        """Compute the next chunk of the history. With its last one, a session that hears nothing is given back."""
        chunk, self._next = self._next, None
        if chunk is None or self._session is None:
            return
        start = self._session.position
        rows = [mark - start for mark in self._marks if start < mark <= start + len(chunk)]
        if self._extend(chunk, rows):
            self._next = next(self._chunks, None)
            if self._next is None and self._heard is None:
                self.close()

    def hear(self, frames: np.ndarray, moment: Moment) -> None:
        """Compute frames that wait, if it is time.

        Args:
            frames: Of the open turn's stretch, those that are not computed.
            moment: Where the open utterance stands.
        """
        if self._heard is None or not len(frames) or not self.rhythm.next(moment):
            return
        began = self._clock()
        if self._extend(frames):
            self._heard += len(frames)
            self.rhythm.computed(len(frames), self._clock() - began)

    @property
    def stretch(self) -> tuple[int, int] | None:
        """Frames of the open turn that are computed, and those that are before its open stretch; None where no frame
        can be computed now."""
        is_ready = self._session is not None and self._next is None
        return (self._heard, self._begin) if is_ready and self._heard is not None else None

    def close(self) -> None:
        """Give the session back."""
        session, self._session = self._session, None
        self._next, self._heard = None, None
        if session is not None:
            self._store.close(session)

    def _extend(self, piece: Prompt | np.ndarray, snapshots: list[int] | None = None) -> bool:
        """Extend the session; if there is no room, give up: the answer computes it, or tells why not."""
        assert self._session is not None
        try:
            self._session.extend(piece, snapshots=snapshots or ())
        except (MemoryFull, ContextFull):
            self.close()
            return False
        return True
