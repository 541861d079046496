"""What a conversation gets, as it comes: sound, pictures and typed lines. They know neither model nor tokenizer.

Live, a thread reads each source and only the newest picture waits: older ones are dropped and counted, sound never is.
Sound that can wait, in a pipe or a file, is read when there is room for it.
A recording and a clip that are played together, ``Together``, come in the order of their times and wait for the answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from mlx_gemma4.audio import SAMPLE_RATE, check_samples
from mlx_gemma4.live.camera import Shot
from mlx_gemma4.live.sight import STALE_SECONDS, Sight, Watched
from mlx_gemma4.live.sources import WAITING_SECONDS, Source

STOP_SECONDS = 0.3
"""How long sources may take to hand over what they have when they are stopped; a dead one hands over nothing."""


class Pictures(Watched, Protocol):
    """A camera."""

    def read(self) -> Shot | None:
        """Wait for a picture; None when there are no more."""

    def stop(self) -> None: ...


class Line(str):
    """A typed line."""

    arrived: float
    """When, by time.monotonic."""


@dataclass
class Batch:
    """All that has come since the last one; what is seen is newer than what is heard."""

    sound: list[np.ndarray] = field(default_factory=list)
    """float32 [n] at 16 kHz each."""
    shot: Shot | None = None
    typed: list[str] = field(default_factory=list)
    lost: str | None = None
    """Why the last picture is no longer what there is to see, in a sentence, when that has just shown."""

    def __bool__(self) -> bool:
        return bool(self.sound or self.typed) or self.shot is not None or self.lost is not None


class Arrivals(Protocol):
    """Where batches come from."""

    def take(self, *, wait: bool) -> Batch | None:
        """What has come, perhaps nothing; with ``wait``, something. None when nothing more comes."""

    def stop(self) -> None:
        """Let everything end here. Safe to call from a signal handler."""


class Inbox:
    """Sources that are read in threads of their own. It ends when the sound has; without sound, when the lines have.

    What a source has raised is raised by ``take``, behind what came before.

    Args:
        stale_seconds: Without a picture for this long, the last one of a live camera is lost (``Batch.lost``).
    """

    def __init__(
        self,
        sound: Source | None = None,
        pictures: Pictures | None = None,
        typed: Iterable[str] | None = None,
        *,
        stale_seconds: float = STALE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.dropped = 0
        """Pictures that a newer one replaced before they were taken."""
        self._sound, self._pictures, self._typed = sound, pictures, typed
        self._sight = Sight(pictures, seconds=stale_seconds, clock=clock)
        self._condition = threading.Condition()
        self._batch = Batch()
        self._failure: BaseException | None = None
        self._open = 0
        self._stopped = False
        self._is_over = False

    def __enter__(self) -> Inbox:
        pumps: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []
        if self._sound is not None:
            pumps.append((self._sound.read, self._hear))
        if self._typed is not None:
            pumps.append((partial(next, iter(self._typed), None), self._read))
        if self._pictures is not None:
            pumps.append((self._pictures.read, self._look))
        self._open = len(pumps)
        for number, (read, put) in enumerate(pumps):
            threading.Thread(target=self._pump, args=(read, put, number == 0), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let everything end here, with what the sources hand over at once. Safe to call from a signal handler."""
        self._stopped = True
        for source in (self._sound, self._pictures, self._typed):
            if stop := getattr(source, "stop", None):
                stop()
        with self._condition:
            self._condition.notify_all()

    def take(self, *, wait: bool) -> Batch | None:
        with self._condition:
            if wait:
                self._wait()
            if self._stopped:
                self._condition.wait_for(lambda: not self._open, STOP_SECONDS)
                self._open = 0
            batch, self._batch = self._batch, Batch()
            self._condition.notify_all()  # there is room for more sound
            if self._is_over:  # what a camera goes on to see would keep it going
                return None
            if self._failure is not None and not batch:
                raise self._failure
            self._is_over = not self._open and self._failure is None
            batch.lost = None if self._stopped else self._sight.lost()
            return batch if batch or self._open else None

    def _wait(self) -> None:
        """Until something has come, or sight is lost."""
        self._condition.wait_for(
            lambda: self._batch or not self._open or self._failure or self._stopped or self._sight.is_lost,
            self._sight.left,
        )

    def _pump(self, read: Callable[[], Any], put: Callable[[Any], None], leads: bool) -> None:
        try:
            while (item := read()) is not None:
                with self._condition:
                    put(item)
                    self._condition.notify_all()
        except Exception as error:  # of a device or its library; raised again where batches are taken
            with self._condition:
                self._failure = error
        finally:
            with self._condition:
                self._open = 0 if leads else max(0, self._open - 1)
                if put == self._look:
                    self._sight.ended()
                self._condition.notify_all()

    def _hear(self, block: np.ndarray) -> None:
        # checked here, so that it spoils no other block; copied, since a source may use its buffer again
        block = check_samples(block, "what was heard").copy()
        if self._sound is not None and self._sound.can_wait:
            self._condition.wait_for(lambda: self._stopped or self._seconds_waiting() < WAITING_SECONDS)
        self._batch.sound.append(block)

    def _seconds_waiting(self) -> float:
        return sum(map(len, self._batch.sound)) / SAMPLE_RATE

    def _look(self, shot: Shot) -> None:
        self.dropped += self._batch.shot is not None
        self._batch.shot = shot
        self._sight.came()

    def _read(self, text: str) -> None:
        line = Line(text)
        line.arrived = time.monotonic()
        self._batch.typed.append(line)


class Together:
    """A recording and pictures, faster than they were: in the order of their times, never while an answer is given."""

    def __init__(self, sound: Source, pictures: Pictures | None = None) -> None:
        self._sound, self._pictures = sound, pictures
        self._heard = 0
        self._shot = pictures.read() if pictures is not None else None

    def take(self, *, wait: bool) -> Batch | None:
        if not wait:
            return Batch()
        if self._pictures is not None and self._shot is not None and self._shot.time <= self._heard / SAMPLE_RATE:
            shot, self._shot = self._shot, self._pictures.read()
            return Batch(shot=shot)
        block = self._sound.read()
        if block is None:
            return None
        self._heard += len(block)
        return Batch(sound=[block])

    def stop(self) -> None:
        self._sound.stop()
        if self._pictures is not None:
            self._pictures.stop()
