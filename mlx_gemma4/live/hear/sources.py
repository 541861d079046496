"""Sources of sound: a recording played at its own pace, or a pipe. They know neither model nor tokenizer.

Read a source in a loop: ``read`` waits for sound and returns all that has arrived; None means that it has ended.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np

from mlx_gemma4.inputs.audio.byte_input import is_pipe
from mlx_gemma4.inputs.audio.pcm import RawFormat
from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE, AudioSource, AudioStream, check_samples, stream_audio

BLOCK = 640
"""Samples in a block of a device or recording: 40 ms."""
WAITING_SECONDS = 30.0
"""Seconds of sound that may wait for the reader; with more, the writer has to wait."""


class Source(Protocol):
    """Sound that arrives."""

    @property
    def lost_seconds(self) -> float:
        """How much sound has been lost so far."""

    @property
    def problem(self) -> str | None:
        """Why the sound ended, in a sentence, if it should not have."""

    @property
    def can_wait(self) -> bool:
        """Whether sound that is not read yet is kept, as a file or a pipe does. A room does not wait."""

    def read(self) -> np.ndarray | None:
        """Wait for sound, return what has arrived as float32 [n] at 16 kHz mono; None when it has ended."""

    def stop(self) -> None:
        """End the sound here. Safe to call from a signal handler."""


class FileSource:
    """A recording, played at its own pace as if it were being spoken, or ``fast``: block by block, without waiting.

    It is decoded while it is played. If that fails, the sound ends there, with a ``problem``.

    Args:
        source: A path, or samples [n] at 16 kHz; ``load_audio`` says which.
        channel: The channel to use, from 1 on; None takes the mean of all.
        raw: The format of the samples, if there is no header.

    Raises:
        ValueError: As ``stream_audio``, for errors that the beginning of the recording shows.
    """

    lost_seconds = 0.0
    can_wait = True

    def __init__(
        self,
        source: AudioSource | np.ndarray,
        *,
        fast: bool = False,
        channel: int | None = None,
        raw: RawFormat | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.problem: str | None = None
        self._blocks: Iterator[np.ndarray] = iter(())
        if isinstance(source, np.ndarray):
            self._next = check_samples(source, "the array")
        else:
            self._blocks = stream_audio(source, channel=channel, raw=raw)
            self._next = next(self._blocks)
        self._fast = fast
        self._clock = clock
        self._sleep = sleep
        self._read = 0
        self._end: float = math.inf
        self._started: float | None = None

    def read(self) -> np.ndarray | None:
        block = self._take(BLOCK)
        if not len(block):
            return None
        if self._fast:
            return block
        self._wait(self._read)
        spoken = min(self._spoken(), self._read + round(WAITING_SECONDS * SAMPLE_RATE)) // BLOCK * BLOCK
        return np.concatenate([block, self._take(spoken - self._read)])

    def stop(self) -> None:
        spoken = 0 if self._fast or self._started is None else self._spoken()
        self._end = min(self._end, max(self._read, spoken))

    def _take(self, count: int) -> np.ndarray:
        """The next ``count`` samples; fewer, or none, at the end."""
        count = max(0, int(min(count, self._end - self._read)))
        taken = [self._next]
        missing = count - len(self._next)
        while missing > 0 and (block := self._decoded()) is not None:
            taken.append(block)
            missing -= len(block)
        samples = self._next if len(taken) == 1 else np.concatenate(taken)
        self._next = samples[count:]
        self._read += min(count, len(samples))
        return samples[:count]

    def _decoded(self) -> np.ndarray | None:
        try:
            return next(self._blocks, None)
        except ValueError as error:
            self.problem = str(error)
            return None

    def _wait(self, awaited: int) -> None:
        """Until ``awaited`` samples would have been spoken."""
        if self._started is None:
            self._started = self._clock()
        seconds = self._started + awaited / SAMPLE_RATE - self._clock()
        if seconds > 0:
            self._sleep(seconds)

    def _spoken(self) -> int:
        assert self._started is not None
        return int((self._clock() - self._started) * SAMPLE_RATE)


class PipeSource:
    """Sound that arrives in a recording's format: on standard input, a named pipe or a stream.

    A thread reads it. While ``WAITING_SECONDS`` of sound wait for ``read``, the thread stops reading, so the writer has
    to wait and nothing is lost. If the sound is damaged or cut short, it ends there, with a ``problem``.

    Args:
        source: ``"-"`` for standard input, or as for ``stream_audio``.
        channel: The channel to use, from 1 on; None takes the mean of all.
        raw: The format of the samples, if there is no header.

    Raises:
        ValueError: As ``stream_audio``. The constructor waits for the beginning, so that its errors come at once.
    """

    lost_seconds = 0.0
    can_wait = True

    def __init__(self, source: AudioSource = "-", *, channel: int | None = None, raw: RawFormat | None = None) -> None:
        self.problem: str | None = None
        self._condition = threading.Condition()
        self._waiting: list[np.ndarray] = []
        self._stopped = self._opened = self._ended = False
        self._failure: BaseException | None = None
        open_stream = partial(stream_audio, source, channel=channel, raw=raw)
        threading.Thread(target=self._pump, args=(open_stream,), name="pipe", daemon=True).start()
        with self._condition:
            self._condition.wait_for(lambda: self._opened or self._ended)
            if not self._opened:
                self._raise_failure()

    @property
    def backlog(self) -> float:
        """Seconds of sound that have arrived but were not read yet."""
        return sum(map(len, self._waiting)) / SAMPLE_RATE

    def read(self) -> np.ndarray | None:
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or self._ended or self._stopped)
            blocks, self._waiting = self._waiting, []
            self._condition.notify_all()
            if blocks:
                return np.concatenate(blocks)
            self._raise_failure()
            return None

    def stop(self) -> None:
        """End the sound with what has arrived. Safe to call from a signal handler, also while the pipe is quiet."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _pump(self, open_stream: Callable[[], AudioStream]) -> None:
        """The thread: take all blocks, then note how the sound ended."""
        try:
            with open_stream() as stream:
                self._set_opened()
                for block in stream:
                    if not self._put(block):
                        return
        except ValueError as error:
            self._fail(error)
        except Exception as error:  # an error of the caller's own stream: read raises it
            self._failure = error
        finally:
            with self._condition:
                self._ended = True
                self._condition.notify_all()

    def _fail(self, error: ValueError) -> None:
        """An error at the beginning is raised; after some sound it becomes the problem."""
        if self._opened:
            self.problem = str(error)
        else:
            self._failure = error

    def _set_opened(self) -> None:
        with self._condition:
            self._opened = True
            self._condition.notify_all()

    def _put(self, block: np.ndarray) -> bool:
        """Add a block when there is room for it; return False once the source was stopped."""
        with self._condition:
            self._condition.wait_for(lambda: self._stopped or self.backlog < WAITING_SECONDS)
            if self._stopped:
                return False
            self._waiting.append(block)
            self._condition.notify_all()
            return True


def open_recording(
    source: str | os.PathLike[str], *, fast: bool = False, channel: int | None = None, raw: RawFormat | None = None
) -> FileSource | PipeSource:
    """A FileSource for a file; a PipeSource for a pipe or ``"-"``."""
    if is_pipe(source):
        return PipeSource(source, channel=channel, raw=raw)
    return FileSource(source, fast=fast, channel=channel, raw=raw)
