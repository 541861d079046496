"""The inputs of a conversation: sound, pictures and lines, collected while the assistant computes.

    microphone ─ thread ─▶ all sound          never dropped; a pipe or a file is read when there is room
    camera ───── thread ─▶ one picture        a newer one replaces it, and is counted as dropped      ─▶ take()
    keyboard ─── thread ─▶ lines              at once; from a pipe one by one, when the last is answered

A question waits for the first picture. ``Replay`` plays a recording and a video in the order of their times and
waits for each answer. This file knows neither model nor tokenizer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE, check_samples
from mlx_gemma4.live.hear.sources import WAITING_SECONDS, Source
from mlx_gemma4.live.see.camera import Shot
from mlx_gemma4.live.see.sight import STALE_SECONDS, Sight, Watched

STOP_SECONDS = 0.3
"""How long a stopped source may take to hand over what it has. A device that is gone hands over nothing."""


class Pictures(Watched, Protocol):
    """A camera."""

    def read(self) -> Shot | None:
        """Wait for a picture; None when there are no more."""

    def stop(self) -> None: ...


class Lines(Protocol):
    """Lines that are typed, or come from a pipe."""

    @property
    def can_wait(self) -> bool:
        """Whether a line may be read late."""

    def read(self) -> str | None:
        """Wait for a line; None when there are no more."""

    def finish(self) -> None:
        """End after the lines that have arrived already."""

    def stop(self) -> None: ...


class Line(str):
    """A typed line."""

    arrived: float
    """When it was typed, by ``time.monotonic``."""


@dataclass
class Arrived:
    """Everything that arrived since the last ``take``. The picture is newer than the sound."""

    sound: list[np.ndarray] = field(default_factory=list)
    """Blocks, float32 [n] at 16 kHz."""
    shot: Shot | None = None
    typed: list[str] = field(default_factory=list)
    piped: str | None = None
    """A line from a pipe: it can wait until nobody speaks and no answer is being given."""
    is_last_sound: bool = False
    """The sound has ended; lines still follow."""
    lost: str | None = None
    """Why the last picture is no longer current, in a sentence; reported once."""

    def __bool__(self) -> bool:
        is_set = any(each is not None for each in (self.shot, self.piped, self.lost))
        return is_set or bool(self.sound or self.typed or self.is_last_sound)


class Arrivals(Protocol):
    """What ``converse`` takes its inputs from."""

    def take(self, *, wait: bool, ready: bool = True) -> Arrived | None:
        """What has arrived, perhaps nothing; with ``wait``, something. None when nothing more comes.

        Args:
            ready: Whether the next piped line may be delivered.
        """

    def stop(self) -> None:
        """End all inputs. Safe to call from a signal handler."""


class Inbox:
    """Reads each source in a thread of its own. It ends with the sound or, without sound, with the lines.

    Piped lines are read to their end; after the sound, only those that are there already. An error of a source is
    raised by ``take``, after what arrived before it.

    Args:
        stale_seconds: After so long without a picture, the last one of a live camera is no longer current
            (``Arrived.lost``).
    """

    def __init__(
        self,
        sound: Source | None = None,
        pictures: Pictures | None = None,
        lines: Lines | None = None,
        *,
        stale_seconds: float = STALE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.dropped = 0
        """Pictures that a newer one replaced before they were taken."""
        self._sound, self._pictures, self._lines = sound, pictures, lines
        self._sight = Sight(pictures, seconds=stale_seconds, clock=clock)
        self._condition = threading.Condition()
        self._arrived = Arrived()
        self._typed: deque[str] = deque()
        self._failure: BaseException | None = None
        self._open: list[Source | Pictures | Lines] = []
        """Sources that the inbox waits for."""
        self._stopped = False
        self._is_over = False

    def __enter__(self) -> Inbox:
        pumps: list[tuple[Any, Callable[[Any], None]]] = [
            (self._sound, self._hear),
            (self._lines, self._read),
            (self._pictures, self._look),
        ]
        pumps = [(source, put) for source, put in pumps if source is not None]
        self._open = [source for source, _ in pumps]
        for source, put in pumps:
            threading.Thread(target=self._pump, args=(source, put), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all sources; what they hand over at once is still delivered. Safe to call from a signal handler."""
        self._stopped = True
        for source in (self._sound, self._pictures, self._lines):
            if source is not None:
                source.stop()
        with self._condition:
            self._condition.notify_all()

    def take(self, *, wait: bool, ready: bool = True) -> Arrived | None:
        with self._condition:
            if wait:
                self._wait(ready)
            if self._stopped:
                self._condition.wait_for(lambda: not self._open, STOP_SECONDS)
                self._open = []
                if self._lines_wait:
                    self._typed.clear()
            arrived, self._arrived = self._arrived, Arrived()
            if self._has_line(ready):
                self._take_lines(arrived)
            self._condition.notify_all()  # wake a source that waits for room
            if self._is_over:  # a camera that never ends would otherwise continue it
                return None
            if self._failure is not None and not arrived:
                raise self._failure
            arrived.lost = None if self._stopped else self._sight.lost()
            self._is_over = self._is_done and self._failure is None
            return arrived if arrived or not self._is_done else None

    @property
    def _is_done(self) -> bool:
        return not self._open and not self._typed

    def _wait(self, ready: bool) -> None:
        """Wait until something arrives or the picture becomes stale."""
        self._condition.wait_for(
            lambda: (
                self._arrived
                or self._has_line(ready)
                or self._is_done
                or self._failure
                or self._stopped
                or self._sight.is_lost
            ),
            self._sight.left,
        )

    def _has_line(self, ready: bool) -> bool:
        """Whether a line may be delivered: a question is about the current picture, so it waits for the first."""
        may_ask = not self._sight.is_awaited and (ready or not self._lines_wait)
        return bool(self._typed) and (may_ask or self._stopped)

    def _take_lines(self, arrived: Arrived) -> None:
        if self._lines_wait:
            arrived.piped = self._typed.popleft()
        else:
            arrived.typed = [*self._typed]
            self._typed.clear()

    @property
    def _lines_wait(self) -> bool:
        return self._lines is not None and self._lines.can_wait

    def _pump(self, source: Any, put: Callable[[Any], None]) -> None:
        try:
            while (item := source.read()) is not None:
                with self._condition:
                    put(item)
                    self._condition.notify_all()
        except Exception as error:  # from a device or its library; ``take`` raises it again
            with self._condition:
                self._failure = error
        finally:
            with self._condition:
                self._end(source)
                self._condition.notify_all()

    def _end(self, source: Any) -> None:
        """A source has ended. Sound ends the others, but piped lines that have arrived; without sound, lines do."""
        still_needed = [other for other in self._open if other is not source]
        if source is self._pictures:
            self._sight.ended()
        elif source is self._sound and self._lines is not None and self._lines_wait:
            still_needed = [other for other in still_needed if other is self._lines]
            self._arrived.is_last_sound = True
            self._lines.finish()
        elif source is self._sound or self._sound is None:
            still_needed = []
        self._open = still_needed

    def _hear(self, block: np.ndarray) -> None:
        # checked here, so that blocks before a bad one are delivered; copied, because a source may reuse its buffer
        block = check_samples(block, "what was heard").copy()
        if self._sound is not None and self._sound.can_wait:
            self._condition.wait_for(lambda: self._stopped or self._seconds_waiting() < WAITING_SECONDS)
        self._arrived.sound.append(block)

    def _seconds_waiting(self) -> float:
        return sum(map(len, self._arrived.sound)) / SAMPLE_RATE

    def _look(self, shot: Shot) -> None:
        self.dropped += self._arrived.shot is not None
        self._arrived.shot = shot
        self._sight.came()

    def _read(self, text: str) -> None:
        line = Line(text)
        line.arrived = time.monotonic()
        if self._lines_wait:
            self._condition.wait_for(lambda: self._stopped or not self._typed)
        self._typed.append(line)


class Replay:
    """Plays a recording and pictures as fast as they are answered, in the order of their times."""

    def __init__(self, sound: Source, pictures: Pictures | None = None) -> None:
        self._sound, self._pictures = sound, pictures
        self._samples = 0
        """Samples that were played so far."""
        self._shot = pictures.read() if pictures is not None else None

    def take(self, *, wait: bool, ready: bool = True) -> Arrived | None:
        if not wait:
            return Arrived()
        if self._pictures is not None and self._shot is not None and self._shot.time <= self._samples / SAMPLE_RATE:
            shot, self._shot = self._shot, self._pictures.read()
            return Arrived(shot=shot)
        block = self._sound.read()
        if block is None:
            return None
        self._samples += len(block)
        return Arrived(sound=[block])

    def stop(self) -> None:
        self._sound.stop()
        if self._pictures is not None:
            self._pictures.stop()
