"""The engine of live transcription: sound in, events out. No devices, no display; the clock only measures.

Three verbs, as in other live engines: ``feed`` takes sound and computes nothing, ``step`` works off all that was fed,
``finish`` ends. An utterance's frames go into the session when they come; guesses are made while nothing waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass

import numpy as np

from mlx_gemma4.audio import SAMPLE_RATE, Framer, check_samples
from mlx_gemma4.live.agreement import Agreement
from mlx_gemma4.live.endpoint import Begin, End, Endpointer, Speech
from mlx_gemma4.live.events import Committed, Event, Final, Partial, Silence
from mlx_gemma4.transcribe import Transcriber

GUESS_EVERY = 0.5
"""Seconds of new speech between two guesses."""
BEHIND = 1.0
"""A pass that brings more seconds of sound than this is late: it makes no guess."""


@dataclass
class Work:
    """What a listener has done."""

    speech_frames: int = 0
    """Frames given to the model, each counted once."""
    silent_frames: int = 0
    audio_computed: int = 0
    """Audio positions computed: more than ``speech_frames`` only where a long utterance was cut."""
    forwards: int = 0
    guesses: int = 0
    utterances: int = 0
    revised: int = 0
    """Committed words that a final text had otherwise."""

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))


class Listener:
    """Live transcription on a transcriber.

    Args:
        guess_every: Seconds of new speech between two guesses; 0 guesses after every pass.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        endpointer: Endpointer,
        *,
        guess_every: float = GUESS_EVERY,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._transcriber = transcriber
        self.endpointer = endpointer
        self._guess_every = guess_every
        self._clock = clock
        self._framer = Framer(transcriber.frame_samples)
        self._waiting: list[np.ndarray] = []
        self._agreement = Agreement()
        self._utterance = 0
        self._begin: int | None = None
        self._guessed = 0
        self._seen = 0
        self._silent_since: int | None = 0
        self._forwards_before = transcriber.session.forwards
        self.behind = 0.0
        """Seconds of sound that had piled up when the last pass began."""
        self.work = Work()
        longest = endpointer.settings.max_utterance
        if round(longest / transcriber.frame_seconds) > transcriber.max_frames:
            raise ValueError(
                f"Expected utterances no longer than the transcriber's segments "
                f"({transcriber.max_frames * transcriber.frame_seconds:g} s), got {longest:g} s"
            )

    @property
    def backlog(self) -> float:
        """Seconds of sound that was fed and not yet worked off."""
        return sum(len(block) for block in self._waiting) / SAMPLE_RATE

    def feed(self, samples: np.ndarray) -> None:
        """Take sound, float32 [n] at 16 kHz. Returns at once."""
        if len(samples):
            self._waiting.append(check_samples(samples, "what was fed"))

    def step(self) -> list[Event]:
        """Work off what was fed; return what happened."""
        self.behind = self.backlog
        events = list(self._pass(self._framer.push(self._take()), late=self.behind > BEHIND))
        return self._counted(events)

    def finish(self) -> list[Event]:
        """Work off what is left and end the utterance that is open, if there is one."""
        frames = np.concatenate([self._framer.push(self._take()), self._framer.flush()])
        events = list(self._pass(frames, late=True))
        for action in self.endpointer.finish():
            events += self._act(action)
        return self._counted([*events, *self._silence()])

    def _counted(self, events: list[Event]) -> list[Event]:
        self.work.forwards = self._transcriber.session.forwards - self._forwards_before
        return events

    def _take(self) -> np.ndarray:
        blocks, self._waiting = self._waiting, []
        return np.concatenate([np.zeros(0, np.float32), *blocks])

    def _pass(self, frames: np.ndarray, *, late: bool) -> Iterator[Event]:
        heard = self._transcriber.heard
        for action in self.endpointer.push(frames):
            yield from self._act(action)
        self._seen += len(frames)
        if self._begin is not None and not late and self._is_time(paused=self._transcriber.heard == heard):
            yield from self._make_guess()

    def _is_time(self, *, paused: bool) -> bool:
        """Enough new speech since the last guess; or a pause, in which the guess that may be the last one is made."""
        new = self._transcriber.heard - self._guessed
        return new > 0 and (paused or new * self._transcriber.frame_seconds >= self._guess_every)

    def _act(self, action: Begin | Speech | End) -> Iterator[Event]:
        if isinstance(action, Begin):
            yield from self._silence(until=action.start)
            self._begin = action.start
            self._agreement = Agreement()
            self._guessed = 0
        elif isinstance(action, Speech):
            self._hear(action.frames)
        else:
            yield from self._make_final(action)

    def _hear(self, frames: np.ndarray) -> None:
        cut = list(self._transcriber.feed(frames))
        assert not cut, "the endpointer cuts before the transcriber has to"
        self.work.audio_computed += len(frames)

    def _make_guess(self) -> Iterator[Event]:
        assert self._begin is not None
        guess = self._transcriber.guess()
        self._guessed = guess.frames
        self.work.guesses += 1
        fresh = self._agreement.add(guess.text)
        start, end = self._seconds(self._begin), self._seconds(self._begin + guess.frames)
        if fresh:
            yield Committed(self._utterance, end, fresh)
        yield Partial(self._utterance, start, end, self._agreement.committed, self._agreement.draft)

    def _make_final(self, end: End) -> Iterator[Event]:
        assert self._begin is not None
        decided = self._clock()
        segment = self._transcriber.finish(end.length)
        assert segment is not None
        rest, revised = self._agreement.finish(segment.text)
        self.work.utterances += 1
        self.work.revised += revised
        self.work.speech_frames += end.length
        yield Final(
            utterance=self._utterance,
            start=self._seconds(self._begin),
            end=self._seconds(self._begin + end.length),
            text=segment.text,
            rest=rest,
            revised=revised,
            reason=end.reason,
            delay=self._clock() - decided,
            forwards=segment.forwards,
            tokens=segment.tokens,
            complete=segment.complete,
        )
        self._utterance += 1
        self._silent_since = self._begin + end.length
        self._begin = None

    def _silence(self, until: int | None = None) -> Iterator[Event]:
        since, until = self._silent_since, self._seen if until is None else until
        self._silent_since = None
        if since is not None and until > since:
            self.work.silent_frames += until - since
            yield Silence(self._seconds(since), self._seconds(until))

    def _seconds(self, frames: int) -> float:
        return frames * self._transcriber.frame_seconds
