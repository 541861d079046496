"""Frames of speech on their way into the open turn: a few in a forward, and all before the silence ends the turn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlx_gemma4.inputs.audio.endpoint import Endpointer
from mlx_gemma4.live.hear.rhythm import Moment, Overload, Rhythm
from mlx_gemma4.live.talk.dialogue import Dialogue
from mlx_gemma4.live.talk.turns import Turns


class Hearing:
    """Puts frames into the open turn, and computes them when the rhythm says so."""

    def __init__(self, dialogue: Dialogue, turns: Turns, endpointer: Endpointer, clock: Callable[[], float]) -> None:
        self._dialogue, self._turns, self._endpointer, self._clock = dialogue, turns, endpointer, clock
        self._rhythm = Rhythm(endpointer.frame_seconds, guesses=False)
        self._spoken = 0
        """Frames of speech so far, in all utterances."""
        self.waiting = 0
        """Frames of the open utterance that are not computed yet."""
        self.behind = 0.0
        """Seconds of sound that came at once, last time."""

    @property
    def overload(self) -> Overload | None:
        """What is to be told while the machine is too slow for speech: sound piles up."""
        return self._rhythm.overload(self.behind)

    def put(self, frames: np.ndarray) -> None:
        """Take frames [F, frame_samples] of the open utterance; ``compute`` computes them."""
        self.waiting += len(frames)
        self._dialogue.put(self._turns.sound(frames))

    def compute(self) -> None:
        """Compute the frames that wait, if it is time. Those that wait at the end are computed with the question."""
        moment = Moment(
            waiting=self.waiting,
            new=self.waiting,
            until_complete=self._endpointer.until_complete,
            pause=self._endpointer.pause,
        )
        seconds = 0.0
        if self._rhythm.next(moment):
            computed, began = self._dialogue.session.computed, self._clock()
            self._dialogue.compute()
            seconds = self._clock() - began
            self._rhythm.computed(self._dialogue.session.computed - computed, seconds)
            self.waiting = 0
        self._rhythm.spent(self._endpointer.spoken - self._spoken, seconds)
        self._spoken = self._endpointer.spoken
