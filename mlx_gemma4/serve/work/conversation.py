"""The ears of a conversation: finds turns, or takes what the client commits, and computes it ahead (``Ahead``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlx_gemma4.inputs.audio.endpoint import Begin, End, Endpointer, EndpointerEvent, Speech
from mlx_gemma4.inputs.audio.frames import Framer
from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
from mlx_gemma4.inputs.audio.voice import Voice
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.live.hear.events import Committed as Stood
from mlx_gemma4.live.hear.events import Final, ListenerEvent, Partial
from mlx_gemma4.live.hear.rhythm import Moment, Rhythm
from mlx_gemma4.prefixes.store import PrefixStore
from mlx_gemma4.serve.engine import Work
from mlx_gemma4.serve.hearing import (
    Began,
    Clear,
    Cleared,
    Command,
    Commit,
    Committed,
    Converse,
    Hearing,
    History,
    Sound,
    Spoke,
    Transcribe,
    Transcribed,
    TurnEnded,
    TurnSettings,
)
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.priority import Turn
from mlx_gemma4.serve.work.hearing import Inbox, hear
from mlx_gemma4.serve.work.listening import Listening, heard
from mlx_gemma4.serve.work.speech import Transcribers
from mlx_gemma4.serve.work.turns import Ahead


@dataclass(frozen=True)
class Parts:
    """What a server shares among its conversations."""

    processor: Processor
    store: PrefixStore
    transcribers: Transcribers
    language: str
    """What is spoken if a client does not say; an English name."""
    context: int
    """Positions of a session, at most."""


def converse(inbox: Inbox, parts: Parts, outbox: Outbox[Hearing]) -> Work:
    """Hear the turns of a conversation until the inbox is closed, or the client wants a transcription only."""
    ears, is_prefills_turn = _Ears(parts), False
    try:
        while not inbox.is_over:
            is_prefills_turn = ears.ahead.waits and not is_prefills_turn  # sound and history in turn
            command = inbox.take() if not outbox.is_full and not is_prefills_turn else None
            if isinstance(command, Transcribe):
                ears.close()
                yield from hear(inbox, parts.transcribers, parts.language, outbox)
            elif command is not None:
                yield inbox.turn
                for event in ears.take(command):
                    outbox.put(event)
            elif ears.ahead.waits:
                yield Turn.PREFILL
                ears.ahead.compute()
                ears.compute()
            else:
                yield Turn.WAIT
    finally:
        ears.close()


class _Recorded(Endpointer):
    """An endpointer that keeps what it has found, for a second reader."""

    happened: Sequence[EndpointerEvent] = ()

    def push(self, frames: np.ndarray) -> list[EndpointerEvent]:
        return self._keep(super().push(frames))

    def finish(self) -> list[EndpointerEvent]:
        return self._keep(super().finish())

    def take(self) -> Sequence[EndpointerEvent]:
        """What it has found since the last call."""
        happened, self.happened = self.happened, ()
        return happened

    def _keep(self, events: list[EndpointerEvent]) -> list[EndpointerEvent]:
        self.happened = [*self.happened, *events]
        return events


class _Ears:
    """Takes commands, and tells what was heard."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = TurnSettings()
        self._hears = parts.processor.config.audio_config is not None
        frame_samples = parts.processor.frame_samples if self._hears else 1
        self._frame_seconds = frame_samples / SAMPLE_RATE
        self._longest = parts.processor.limits.audio_tokens
        self.ahead = Ahead(parts.store, tuple(parts.processor.stop_ids), self._frame_seconds)
        self._framer = Framer(frame_samples)
        self._endpointer: _Recorded | None = None
        self._voice: Voice | None = None
        """What the endpointer finds speech with, where nothing is written down."""
        self._listening: Listening[_Recorded] | None = None
        self._rhythm: Rhythm | None = None
        """Of transcription: what forwards cost is learned once."""
        self._frames: list[np.ndarray] = []
        """Of the open turn, or of the buffer; each [F, frame_samples]."""
        self._length = 0
        """Of the open utterance, in frames."""
        self._start = 0.0
        self._before = 0.0
        """Seconds of sound before the endpointer's."""
        self._seconds = 0.0
        """Seconds of all sound."""
        self._patience: int | None = None
        """Frames until a turn that was cut at its longest is over; None: no turn was."""
        self._count = 0
        """Utterances that have begun."""
        self._first = 0
        """The number of the listener's first utterance."""

    def take(self, command: Command) -> Iterator[Hearing]:
        if isinstance(command, Sound):
            return self._hear(command)
        if isinstance(command, Commit):
            return self._commit()
        if isinstance(command, Clear):
            self._forget()
            return iter([Cleared()])
        if isinstance(command, Converse):
            return self._configure(command.settings)
        if isinstance(command, History):
            self.ahead.open(command.prompt, command.heard)
        else:
            self.ahead.close()
        return iter(())

    def compute(self) -> None:
        """Compute frames that wait, if it is time, up to the end of their stretch."""
        stretch = self.ahead.stretch
        if stretch is None:
            return
        heard, begin = stretch
        waiting = self._frames_from(heard)[: begin + self._longest - heard]
        endpointer = self._endpointer if self._settings.finds_turns else None
        moment = Moment(
            waiting=len(waiting),
            new=len(waiting),
            until_complete=None if endpointer is None else endpointer.until_complete,
            pause=0 if endpointer is None else endpointer.pause,
        )
        self.ahead.hear(waiting, moment)

    def close(self) -> None:
        """Give everything back."""
        self._forget()

    def _frames_from(self, number: int) -> np.ndarray:
        """Frames of the open turn from a number on."""
        left = sum(map(len, self._frames)) - number
        blocks = [np.zeros((0, self._framer.frame_samples), np.float32)]
        for block in reversed(self._frames):
            if left <= 0:
                break
            blocks.append(block[-left:] if left < len(block) else block)
            left -= len(block)
        return np.concatenate(blocks[::-1])

    def _hear(self, sound: Sound) -> Iterator[Hearing]:
        self._seconds += len(sound.samples) / SAMPLE_RATE
        if self._endpointer is None and (self._settings.finds_turns or self._settings.transcribes):
            self._open()
        yield from self._listen(sound, last=False)
        self.compute()

    def _commit(self) -> Iterator[Hearing]:
        yield from self._listen(Sound(np.zeros(0, np.float32)), last=True)
        self._forget()
        yield Committed()

    def _listen(self, sound: Sound, *, last: bool) -> Iterator[Hearing]:
        """Take sound; ``last`` ends it."""
        told: list[ListenerEvent] = []
        frames = self._framer.push(sound.samples)
        if last:
            frames = np.concatenate([frames, self._framer.flush()])
        if self._listening is not None:
            listener = self._listening.listener
            listener.feed(sound.samples)
            told = listener.finish() if last else listener.step(behind=sound.waited)
        elif self._endpointer is not None:
            self._endpointer.push(frames)
            if last:
                self._endpointer.finish()
        if self._settings.finds_turns:
            yield from self._follow(len(frames), last=last)
        elif len(frames):
            self._frames.append(frames)
        for event in told:
            yield from self._told(event)

    def _follow(self, frames: int, *, last: bool) -> Iterator[Hearing]:
        """Tell what the endpointer has found."""
        if self._patience is not None:
            self._patience -= frames
        for action in self._endpointer.take() if self._endpointer is not None else ():
            if isinstance(action, Begin):
                self._patience, self._length = None, 0
                self._start = action.start * self._frame_seconds
                self._count += 1
                yield Began(self._before + self._start)
            elif isinstance(action, Speech):
                self._frames.append(action.frames)
                self._length += len(action.frames)
            else:
                yield from self._end(action)
        if self._patience is not None and (self._patience <= 0 or last):
            yield self._end_turn(by_client=last)

    def _end_turn(self, *, by_client: bool) -> Hearing:
        """The turn is over: its answer finds the session in the store."""
        self._patience = None
        self._give_back()
        return TurnEnded(by_client)

    def _end(self, end: End) -> Iterator[Hearing]:
        """An utterance has ended; frames behind it are judged again. One that was cut may go on for some time."""
        frames = np.concatenate(self._frames)
        frames = frames[: len(frames) - (self._length - end.length)]
        spoken = frames[len(frames) - end.length :].reshape(-1)
        stop = self._before + self._start + end.length * self._frame_seconds
        self._frames = [frames]
        yield Spoke(self._before + self._start, stop, spoken)
        if end.reason == "silence" or len(frames) + self._longest > self._parts.context:
            yield self._end_turn(by_client=False)
        else:
            assert self._endpointer is not None
            self._patience = round(self._endpointer.settings.silence / self._frame_seconds)

    def _give_back(self) -> None:
        """Forget the frames, and give the session back."""
        self._frames = []
        self.ahead.close()

    def _told(self, event: ListenerEvent) -> Iterator[Hearing]:
        told = heard(event, self._before)
        if told is not None and isinstance(event, (Stood, Partial, Final)):
            yield Transcribed(self._number(event.utterance), told)

    def _number(self, utterance: int) -> int | None:
        return self._first + utterance if self._settings.finds_turns else None

    def _configure(self, settings: TurnSettings) -> Iterator[Hearing]:
        if settings == self._settings:
            return
        if self._settings.finds_turns:
            yield from self._listen(Sound(np.zeros(0, np.float32)), last=True)
            self._forget()
        else:
            self._stop_listening()  # the buffer goes on
        self._settings = settings

    def _open(self) -> None:
        """Make what finds turns, and what writes them down."""
        settings, transcribers = self._settings.hearing, self._parts.transcribers
        self._first = self._count
        if self._settings.transcribes:
            self._listening = Listening(transcribers, settings, self._parts.language, self._rhythm, _Recorded)
            self._endpointer, self._rhythm = self._listening.endpointer, self._listening.rhythm
        else:
            self._voice = transcribers.take_voice()
            self._endpointer = _Recorded(self._voice, settings.endpointing, frame_seconds=self._frame_seconds)

    def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.close()
        if self._voice is not None:
            self._parts.transcribers.give_back_voice(self._voice)
        self._listening = self._voice = self._endpointer = None

    def _forget(self) -> None:
        """Forget the open turn, or the buffer. What follows is another sound."""
        self._stop_listening()
        self._give_back()
        self._framer.flush()
        self._patience, self._length, self._before = None, 0, self._seconds
