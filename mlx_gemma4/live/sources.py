"""Where sound comes from: a file at its own pace, a pipe. They know neither model nor tokenizer.

A source is read in a loop: ``read`` waits for sound and returns all that has arrived, until it returns None.
"""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

import numpy as np

from mlx_gemma4.audio import SAMPLE_RATE, load_audio, resampler
from mlx_gemma4.audio_headers import UNKNOWN_SIZE

BLOCK = 640
"""Samples that devices and pipes hand over at once: 40 ms."""
PCM, EXTENSIBLE = 1, 0xFFFE
"""WAV's numbers for whole-number samples, and for a number written further on."""


class Source(Protocol):
    """Sound that arrives."""

    @property
    def lost_seconds(self) -> float:
        """How much sound has been lost so far."""

    @property
    def problem(self) -> str | None:
        """Why the sound ended, in a sentence, if it should not have."""

    def read(self) -> np.ndarray | None:
        """Wait for sound, return what has arrived as float32 [n] at 16 kHz mono; None when it has ended."""

    def stop(self) -> None:
        """Let the sound end here. Safe to call from a signal handler."""


class FileSource:
    """A recording, played at its own pace as if it were being spoken, or ``fast``: block by block, without waiting."""

    lost_seconds = 0.0
    problem: str | None = None

    def __init__(
        self,
        path: str | os.PathLike[str] | np.ndarray,
        *,
        fast: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._samples = load_audio(path)
        self._fast = fast
        self._clock = clock
        self._sleep = sleep
        self._read = 0
        self._end = len(self._samples)
        self._started: float | None = None

    def read(self) -> np.ndarray | None:
        if self._read >= self._end:
            return None
        end = min(self._read + BLOCK, self._end)
        if not self._fast:
            self._wait(end)
            end = max(end, min(self._spoken() // BLOCK * BLOCK, self._end))
        block = self._samples[self._read : end]
        self._read = end
        return block

    def stop(self) -> None:
        spoken = 0 if self._fast or self._started is None else self._spoken()
        self._end = min(self._end, max(self._read, spoken))

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
    """Sound on a stream: a 16-bit WAV of any rate, or else raw signed 16-bit little-endian at 16 kHz, mono.

    A WAV's header is read at once: what is wrong with it is said before there is sound. After ``stop``, what still
    waits in the pipe is not read.
    """

    lost_seconds = 0.0
    problem: str | None = None

    def __init__(self, stream: BinaryIO) -> None:
        head = _read(stream, 4)
        if head == b"RIFF":
            rate, channels, size = _wav_format(stream)
            self._blocks = _blocks(_pieces(stream, rate, channels, size), rate, channels)
        else:
            self._blocks = _blocks(_pieces(stream, SAMPLE_RATE, 1, None, head), SAMPLE_RATE, 1)
        self._stopped = False

    def read(self) -> np.ndarray | None:
        return None if self._stopped else next(self._blocks, None)

    def stop(self) -> None:
        self._stopped = True


def _read(stream: BinaryIO, size: int) -> bytes:
    """Exactly ``size`` bytes, fewer only at the end: a pipe hands over what it has."""
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


def _wav_format(stream: BinaryIO) -> tuple[int, int, int | None]:
    """The rest of a WAV's header → its rate, its channels, and its bytes of sound, None where it does not know."""
    _read(stream, 8)
    layout = None
    while len(head := _read(stream, 8)) == 8:
        name, size = struct.unpack("<4sI", head)
        if name == b"data" and layout is not None:
            return *layout, size if 0 < size < UNKNOWN_SIZE else None
        chunk = _read(stream, size + size % 2)
        if name == b"fmt ":
            layout = _wav_layout(chunk)
    raise ValueError("Expected sound in the WAV on standard input, it ends before it")


def _wav_layout(chunk: bytes) -> tuple[int, int]:
    if len(chunk) < 16:
        raise ValueError("Expected a format in the WAV on standard input, it ends inside it")
    encoding, channels, rate, _, _, bits = struct.unpack("<HHIIHH", chunk[:16])
    if encoding == EXTENSIBLE:
        encoding = int.from_bytes(chunk[24:26], "little")
    if encoding != PCM or bits != 16 or not channels or not rate:
        raise ValueError(
            "Expected 16-bit PCM in the WAV on standard input, "
            f"got format {encoding}, {bits}-bit, {channels} channels at {rate} Hz"
        )
    return rate, channels


def _pieces(stream: BinaryIO, rate: int, channels: int, size: int | None, head: bytes = b"") -> Iterator[bytes]:
    """40 ms at a time, until the end of the stream or of the ``size`` bytes; ``head`` are bytes already read."""
    block = 2 * channels * max(1, BLOCK * rate // SAMPLE_RATE)
    left = math.inf if size is None else size
    while data := head + _read(stream, int(min(block, left)) - len(head)):
        yield data
        head = b""
        left -= len(data)


def _blocks(pieces: Iterator[bytes], rate: int, channels: int) -> Iterator[np.ndarray]:
    """s16le of any rate and channel count → float32 at 16 kHz, mono; half a sample at the end is dropped."""
    resample = resampler(rate)
    for data in pieces:
        whole = len(data) // (2 * channels) * 2 * channels
        samples = np.frombuffer(data[:whole], dtype="<i2").astype(np.float32) / 32768
        yield resample(samples.reshape(-1, channels).mean(axis=1), False)
    if rate != SAMPLE_RATE:
        yield resample(np.zeros(0, dtype=np.float32), True)
