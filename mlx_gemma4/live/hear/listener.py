"""The engine of live transcription: sound in, events out. No devices, no display; the clock only measures.

``feed`` takes sound and computes nothing, ``step`` processes all sound that was fed, ``finish`` ends. ``feed`` may be
called from any thread; everything else from one, which owns the model.

Frames of an utterance go into the cache soon after they arrive, a few in one forward (``Rhythm``). A guess reads the
end of the prompt and the last guess behind the frames, then the cache is rewound to the frames:

    cache     [instruction][frames so far]                          a frame: one position more
    guess     [instruction][frames so far][tail]"go forward to"     only words that the last guess lacked cost a forward
    rewind    [instruction][frames so far]

    guesses   "go for"  "go forward to"  "go forward two met"       where two in a row agree, words are committed
    committed           "go"             "go forward"               the rest is a draft, which may change

When the utterance ends, ``Final`` has the text of the whole sound, which is the last guess if it covered all frames.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.audio.endpoint import Begin, End, Endpointer, Endpointing, Speech
from mlx_gemma4.inputs.audio.frames import Framer
from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE, check_samples
from mlx_gemma4.live.hear.agreement import Agreement
from mlx_gemma4.live.hear.events import Committed, Final, ListenerEvent, Partial, Silence
from mlx_gemma4.live.hear.rhythm import Moment, Overload, Rhythm
from mlx_gemma4.live.hear.work import Work
from mlx_gemma4.programs.segments import make_endpointer
from mlx_gemma4.programs.transcribe import Guess, Transcriber


class Listener:
    """Live transcription on a transcriber.

    Args:
        endpointer: How utterances are found: settings, the default ones if None, or an endpointer. No utterance is
            longer than the transcriber's longest segment.
        guess_every: Seconds of new speech between two guesses. By default this follows from what forwards cost on this
            machine (``Rhythm``), 0.5 s at least; 0 guesses after every pass that brings speech, 30 or more in
            pauses only.
    """

    def __init__(
        self,
        transcriber: Transcriber,
        endpointer: Endpointer | Endpointing | None = None,
        *,
        guess_every: float | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._transcriber = transcriber
        self.endpointer = make_endpointer(transcriber, endpointer)
        self.rhythm = Rhythm(transcriber.frame_seconds, guess_every)
        self._clock = clock
        self._framer = Framer(transcriber.frame_samples)
        self._waiting: list[np.ndarray] = []
        self._received = 0
        """Samples of all passes so far."""
        self._pass_began = 0.0
        """When the last pass began."""
        self._lock = threading.Lock()
        """Guards ``_waiting``: a device's thread may feed sound."""
        self._happened: list[ListenerEvent] = []
        """Events that were not returned yet: an error or a signal may cut a pass short."""
        self._guess: Guess | None = None
        self._agreement = Agreement()
        self._utterance = 0
        self._begin: int | None = None
        self._guessed = 0
        self._seen = 0
        self._silent_since: int | None = 0
        self._forwards_before = transcriber.session.forwards
        self._audio_before = transcriber.audio_computed
        self.behind = 0.0
        """Seconds of sound that had piled up when the last pass began."""
        self.work = Work()

    @property
    def backlog(self) -> float:
        """Seconds of sound that was fed but not processed yet."""
        with self._lock:
            return sum(len(block) for block in self._waiting) / SAMPLE_RATE

    def feed(self, samples: np.ndarray) -> None:
        """Take sound, float32 [n] at 16 kHz, and return at once. It is copied: the caller may reuse its buffer.

        Raises:
            ValueError: A sample is not a finite number; none of them is taken.
        """
        if len(samples):
            block = check_samples(samples, "the sound that was fed").copy()
            with self._lock:
                self._waiting.append(block)

    def step(self, *, behind: float = 0.0) -> list[ListenerEvent]:
        """Process what was fed; return the events.

        Args:
            behind: Seconds for which what was fed has waited elsewhere.
        """
        self.behind = self.backlog + behind
        self._collect(self._pass(self._framer.push(self._take())))
        return self._hand_out()

    def finish(self) -> list[ListenerEvent]:
        """Process what is left and end the open utterance, if there is one."""
        frames = np.concatenate([self._framer.push(self._take()), self._framer.flush()])
        self._collect(self._pass(frames, last=True))
        for action in self.endpointer.finish():
            self._collect(self._act(action))
        self._collect(self._silence())
        return self._hand_out()

    @property
    def speaks_since(self) -> float | None:
        """When the utterance that is open has begun, in seconds of the sound; None while nobody speaks."""
        return None if self._begin is None else self._seconds(self._begin)

    @property
    def model(self) -> Model:
        """The model that hears."""
        return self._transcriber.session.model

    @property
    def is_late(self) -> bool:
        """Whether more sound had piled up before the last pass than the machine's rhythm explains (``Rhythm``)."""
        return self.rhythm.is_late(self.behind)

    @property
    def overload(self) -> Overload | None:
        """What is to be told while the machine is too slow: sound piles up, because the model is always busy."""
        return self.rhythm.overload(self.behind)

    def abandon(self) -> list[ListenerEvent]:
        """End at once, without computing, for example after an error in ``step``.

        The open utterance gets the text of its last guess; sound that was not processed is dropped.
        """
        if self._begin is not None and self._guess is not None:
            guess = self._guess
            self._collect(iter([self._final(guess.text, guess.frames, "interrupted", complete=False)]))
        self._begin = None
        return self._hand_out()

    def _collect(self, events: Iterator[ListenerEvent]) -> None:
        for event in events:
            self._happened.append(event)

    def _hand_out(self) -> list[ListenerEvent]:
        self.work.forwards = self._transcriber.session.forwards - self._forwards_before
        self.work.gated_frames = self.endpointer.gated
        self.work.audio_computed = self._transcriber.audio_computed - self._audio_before
        events, self._happened = self._happened, []
        return events

    def _take(self) -> np.ndarray:
        with self._lock:
            blocks, self._waiting = self._waiting, []
        self._received += sum(map(len, blocks))
        self._pass_began = self._clock()
        return np.concatenate([np.zeros(0, np.float32), *blocks])

    def _pass(self, frames: np.ndarray, *, last: bool = False) -> Iterator[ListenerEvent]:
        spoken, busy = self.endpointer.spoken, self.work.busy
        for action in self.endpointer.push(frames):
            yield from self._act(action)
        self._seen += len(frames)
        if self._begin is not None and not last:
            yield from self._compute()
        self.rhythm.spent(self.endpointer.spoken - spoken, self.work.busy - busy)

    def _compute(self) -> Iterator[ListenerEvent]:
        """Compute frames that wait, make a guess, or nothing, as the rhythm says."""
        transcriber = self._transcriber
        moment = Moment(
            waiting=transcriber.waiting,
            new=transcriber.heard - self._guessed,
            until_complete=self.endpointer.until_complete,
            pause=self.endpointer.pause,
            behind=self.behind,
        )
        todo = self.rhythm.next(moment)
        if todo == "guess":
            yield from self._make_guess()
        elif todo:
            began = self._clock()
            transcriber.compute(todo)
            seconds = self._clock() - began
            self.work.busy += seconds
            self.work.audio_forwards += 1
            self.rhythm.computed(todo, seconds)

    def _act(self, action: Begin | Speech | End) -> Iterator[ListenerEvent]:
        if isinstance(action, Begin):
            yield from self._silence(until=action.start)
            self._begin = action.start
            self._agreement = Agreement()
            self._guess = None
            self._guessed = action.pre_roll
            self.rhythm.begin(self._transcriber.guess_rows)
        elif isinstance(action, Speech):
            self._transcriber.put(action.frames)
        else:
            yield from self._make_final(action)

    def _make_guess(self) -> Iterator[ListenerEvent]:
        assert self._begin is not None
        with self._measure(self._transcriber.waiting, self._transcriber.heard - self._guessed):
            guess = self._guess = self._transcriber.guess()
        self._guessed = guess.frames
        self.work.guesses += 1
        fresh = self._agreement.add(guess.text)
        start, end = self._seconds(self._begin), self._seconds(self._begin + guess.frames)
        if fresh:
            yield Committed(self._utterance, end, fresh)
        yield Partial(self._utterance, start, end, self._agreement.committed, self._agreement.draft)

    @contextmanager
    def _measure(self, frames: int, new: int) -> Iterator[None]:
        """Tell the rhythm what a guess cost that computes so many frames."""
        session, rows = self._transcriber.session, frames + self._transcriber.guess_rows
        forwards, began = session.forwards, self._clock()
        yield
        seconds = self._clock() - began
        self.work.busy += seconds
        self.work.audio_forwards += frames > 0
        if session.forwards > forwards:
            self.rhythm.guessed(rows, frames, new, session.forwards - forwards - 1, seconds)

    def _make_final(self, end: End) -> Iterator[ListenerEvent]:
        assert self._begin is not None
        decided = self._clock()
        frames = max(0, end.length - (self._transcriber.heard - self._transcriber.waiting))
        with self._measure(frames, max(0, end.length - self._guessed)):
            segment = self._transcriber.finish(end.length)
        assert segment is not None
        yield self._final(
            segment.text,
            end.length,
            end.reason,
            speech=tuple((self._seconds(self._begin + a), self._seconds(self._begin + b)) for a, b in end.speech),
            delay=self._clock() - decided,
            forwards=segment.forwards,
            tokens=segment.tokens,
            complete=segment.complete,
        )

    def _final(
        self,
        text: str,
        length: int,
        reason: str,
        *,
        complete: bool,
        speech: tuple[tuple[float, float], ...] = (),
        delay: float = 0.0,
        forwards: int = 0,
        tokens: int = 0,
    ) -> Final:
        """End the open utterance after ``length`` frames."""
        assert self._begin is not None
        rest, revised = self._agreement.finish(text)
        self.work.utterances += 1
        self.work.revised += revised
        self.work.speech_frames += length
        self.work.speech += length * self._transcriber.frame_seconds
        final = Final(
            utterance=self._utterance,
            start=self._seconds(self._begin),
            end=self._seconds(self._begin + length),
            text=text,
            rest=rest,
            revised=revised,
            reason=reason,
            delay=delay,
            forwards=forwards,
            tokens=tokens,
            complete=complete,
            speech=speech,
            after_speech=self._since(speech[-1][1]) if speech else 0.0,
        )
        self._utterance += 1
        self._silent_since = self._begin + length
        self._begin = self._guess = None
        return final

    def _silence(self, until: int | None = None) -> Iterator[ListenerEvent]:
        since, until = self._silent_since, self._seen if until is None else until
        self._silent_since = None
        if since is not None and until > since:
            self.work.silent_frames += until - since
            yield Silence(self._seconds(since), self._seconds(until))

    def _since(self, moment: float) -> float:
        """Seconds from a moment of the sound until now."""
        return max(0.0, self._received / SAMPLE_RATE - moment) + self._clock() - self._pass_began

    def _seconds(self, frames: int) -> float:
        return frames * self._transcriber.frame_seconds
