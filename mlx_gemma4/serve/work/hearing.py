"""Live sound to words: what was appended is in the cache when the next forward of this session is over."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np

from mlx_gemma4.inputs.audio.endpoint import Endpointer
from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
from mlx_gemma4.live.hear.events import Final, ListenerEvent, Partial
from mlx_gemma4.live.hear.rhythm import Rhythm
from mlx_gemma4.serve.engine import Work
from mlx_gemma4.serve.hearing import (
    Began,
    Clear,
    Cleared,
    Command,
    Commit,
    Committed,
    Configure,
    Hearing,
    HearingSettings,
    History,
    Release,
    Said,
    Sound,
)
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.priority import Turn
from mlx_gemma4.serve.work.listening import Listening, heard
from mlx_gemma4.serve.work.speech import Transcribers

SLICE = SAMPLE_RATE // 5
"""Samples that are heard in one turn, at most: other sessions get theirs in between."""
LATE_SLICE = SAMPLE_RATE
"""The same where sound has waited for ``LATE``: a forward over more frames costs little more."""
LATE = 1.0
"""Seconds."""
HASTE = 3.0
"""Seconds of sound that a client may send before they could have been spoken, and still be live."""


class Inbox:
    """Commands from a protocol to its work. Any thread may put them in.

    Args:
        clock: Measures how long sound waits.

    Attributes:
        on_arrival: Called when there is something new.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._commands: deque[tuple[Command, float]] = deque()
        """With the time at which they came."""
        self._ahead: deque[Command] = deque()
        """Commands that are no part of the sound, and do not wait behind it."""
        self._lock = threading.Lock()
        self._samples = 0
        self._spoken = 0.0
        """When the sound that has come could have been spoken."""
        self._is_closed = False
        self.on_arrival: Callable[[], None] = lambda: None

    @property
    def seconds(self) -> float:
        """Sound that waits."""
        return self._samples / SAMPLE_RATE

    @property
    def turn(self) -> Turn:
        """Of what is next. Sound that was sent faster than it is spoken comes after all else."""
        return Turn.HASTE if self._spoken - self._clock() > HASTE else Turn.LIVE

    @property
    def is_over(self) -> bool:
        """Whether nothing is left, and nothing follows."""
        return self._is_closed and not self._commands and not self._ahead

    def put(self, command: Command) -> None:
        with self._lock:
            if isinstance(command, (History, Release)):
                self._ahead.append(command)
            else:
                now = self._clock()
                self._commands.append((command, now))
                if isinstance(command, Sound):
                    self._samples += len(command.samples)
                    self._spoken = max(self._spoken, now) + len(command.samples) / SAMPLE_RATE
        self.on_arrival()

    def close(self) -> None:
        """Nothing follows."""
        self._is_closed = True
        self.on_arrival()

    def take(self) -> Command | None:
        """The next command; of sound, a slice. None if nothing has arrived."""
        with self._lock:
            if self._ahead:
                return self._ahead.popleft()
            if not self._commands:
                return None
            command, came = self._commands[0]
            if isinstance(command, Sound):
                return self._slice(self._clock() - came)
            self._commands.popleft()
            return command

    def _slice(self, waited: float) -> Sound:
        """The sound that is heard next, of one command or several. The first of it has waited so many seconds."""
        left = LATE_SLICE if waited >= LATE and self.turn == Turn.LIVE else SLICE
        parts: list[np.ndarray] = []
        while left and self._commands and isinstance(sound := self._commands[0][0], Sound):
            part, rest = sound.samples[:left], sound.samples[left:]
            _, came = self._commands.popleft()
            if len(rest):
                self._commands.appendleft((Sound(rest), came))
            parts.append(part)
            left -= len(part)
            self._samples -= len(part)
        return Sound(np.concatenate(parts), waited)


def hear(inbox: Inbox, transcribers: Transcribers, default: str, outbox: Outbox[Hearing]) -> Work:
    """Hear what arrives, until the inbox is closed.

    Args:
        default: The English name of the language that is spoken if the settings name none.
    """
    ear = _Ear(transcribers, default)
    try:
        while not inbox.is_over:
            command = inbox.take() if not outbox.is_full else None
            if command is None:
                yield Turn.WAIT
                continue
            yield inbox.turn
            for event in ear.take(command):
                outbox.put(event)
    finally:
        ear.close()


class _Ear:
    """Takes commands and tells what was heard."""

    def __init__(self, transcribers: Transcribers, default: str) -> None:
        self._transcribers, self._default = transcribers, default
        self._settings = HearingSettings()
        self._listening: Listening[Endpointer] | None = None
        self._rhythm: Rhythm | None = None
        self._since: float | None = None
        """When the open utterance has begun, as far as it was told."""
        self._before = 0.0
        """Seconds of sound before the listener's."""
        self._seconds = 0.0
        """Seconds of all sound."""

    def take(self, command: Command) -> Iterator[Hearing]:
        if isinstance(command, Sound):
            return self._hear(command)
        if isinstance(command, Commit):
            return chain(self._end(), [Committed()])
        if isinstance(command, Clear):
            self._forget()
            return iter([Cleared()])
        if isinstance(command, Configure):
            return self._configure(command)
        return iter(())  # what was asked of a conversation, before it became a transcription

    def close(self) -> None:
        """Give the transcriber back."""
        self._forget()

    def _hear(self, sound: Sound) -> Iterator[Hearing]:
        self._listening = self._listening or self._open()
        listener = self._listening.listener
        self._seconds += len(sound.samples) / SAMPLE_RATE
        listener.feed(sound.samples)
        events = listener.step(behind=sound.waited)
        for event in events:
            yield from self._told(event)
        if self._since is None and listener.speaks_since is not None:
            yield from self._begin(listener.speaks_since)

    def _end(self) -> Iterator[Hearing]:
        """End what is open. What follows is another recording."""
        if self._listening is not None:
            for event in self._listening.listener.finish():
                yield from self._told(event)
            self._forget()

    def _told(self, event: ListenerEvent) -> Iterator[Hearing]:
        told = heard(event, self._before)
        if told is None:
            return
        yield from self._begin(event.start if isinstance(event, (Partial, Final)) else None)
        yield told
        if isinstance(told, Said):
            self._since = None

    def _begin(self, start: float | None) -> Iterator[Hearing]:
        if self._since is None:
            assert self._listening is not None
            start = self._listening.listener.speaks_since if start is None else start
            self._since = start or 0.0
            yield Began(self._before + self._since)

    def _configure(self, command: Configure) -> Iterator[Hearing]:
        if command.settings != self._settings:
            yield from self._end()
            self._settings = command.settings

    def _open(self) -> Listening[Endpointer]:
        opened = Listening(self._transcribers, self._settings, self._default, self._rhythm, Endpointer)
        self._rhythm = opened.rhythm
        return opened

    def _forget(self) -> None:
        if self._listening is not None:
            self._listening.close()
        self._listening, self._since, self._before = None, None, self._seconds
