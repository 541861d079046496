"""Where sound comes from: a file at its own pace, a pipe, a microphone. They know neither model nor tokenizer.

A source is read in a loop: ``read`` waits for sound and returns all that has arrived, until it returns None.
"""

from __future__ import annotations

import os
import queue
import time
import wave
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np

from mlx_gemma4.audio import SAMPLE_RATE, load_audio

BLOCK = 640
"""Samples that devices and pipes hand over at once: 40 ms."""


class Source(Protocol):
    """Sound that arrives."""

    def read(self) -> np.ndarray | None:
        """Wait for sound, return what has arrived as float32 [n] at 16 kHz mono; None when it has ended."""

    def stop(self) -> None:
        """Let the sound end here; what has arrived can still be read. Safe to call from a signal handler."""


class FileSource:
    """A recording, played at its own pace as if it were being spoken, or ``fast``: block by block, without waiting."""

    def __init__(
        self,
        path: str | os.PathLike[str],
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
        self._stopped = False
        self._started: float | None = None

    def read(self) -> np.ndarray | None:
        if self._stopped or self._read >= len(self._samples):
            return None
        end = min(self._read + BLOCK, len(self._samples))
        if not self._fast:
            end = max(end, self._arrived(end))
        block = self._samples[self._read : end]
        self._read = end
        return block

    def stop(self) -> None:
        self._stopped = True

    def _arrived(self, awaited: int) -> int:
        """Wait until ``awaited`` samples would have been spoken, then say how many have been."""
        if self._started is None:
            self._started = self._clock()
        wait = self._started + awaited / SAMPLE_RATE - self._clock()
        if wait > 0:
            self._sleep(wait)
        elapsed = int((self._clock() - self._started) * SAMPLE_RATE)
        return min(elapsed // BLOCK * BLOCK, len(self._samples))


class PipeSource:
    """Sound on a stream: a 16-bit WAV of any rate, or else raw signed 16-bit little-endian at 16 kHz, mono."""

    def __init__(self, stream: BinaryIO) -> None:
        head = stream.read(4)
        joined = _Rejoined(head, stream)
        self._blocks = _wav_blocks(joined) if head == b"RIFF" else _raw_blocks(joined)
        self._stopped = False

    def read(self) -> np.ndarray | None:
        return None if self._stopped else next(self._blocks, None)

    def stop(self) -> None:
        self._stopped = True


class _Rejoined:
    """A stream whose first bytes were read already. It cannot seek, and says so."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, fewer only at the end: a pipe hands over what it has."""
        taken, self._head = self._head[:size], self._head[size:]
        while len(taken) < size and (more := self._stream.read(size - len(taken))):
            taken += more
        return taken

    def tell(self) -> int:
        raise OSError("a pipe has no position")


def _raw_blocks(stream: _Rejoined) -> Iterator[np.ndarray]:
    while data := stream.read(2 * BLOCK):
        yield _from_int16(data[: len(data) // 2 * 2])


def _from_int16(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype="<i2").astype(np.float32) / 32768


def _wav_blocks(stream: _Rejoined) -> Iterator[np.ndarray]:
    try:
        file = wave.open(stream)  # type: ignore[call-overload]  # noqa: SIM115
    except (wave.Error, EOFError) as error:
        raise ValueError(f"Expected a 16-bit PCM WAV or raw s16le on standard input, got: {error}") from error
    if file.getsampwidth() != 2:
        raise ValueError(f"Expected 16-bit samples in the WAV on standard input, got {8 * file.getsampwidth()}-bit")
    rate, channels = file.getframerate(), file.getnchannels()
    block = max(1, BLOCK * rate // SAMPLE_RATE)
    resample = _resampler(rate)
    while data := file.readframes(block):
        whole = len(data) // (2 * channels) * 2 * channels
        yield resample(_from_int16(data[:whole]).reshape(-1, channels).mean(axis=1), False)
    yield resample(np.zeros(0, dtype=np.float32), True)


def _resampler(rate: int) -> Callable[[np.ndarray, bool], np.ndarray]:
    """(samples at ``rate``, is it the end) → samples at 16 kHz, as a stream."""
    if rate == SAMPLE_RATE:
        return lambda samples, last: samples
    import soxr

    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    return lambda samples, last: stream.resample_chunk(samples, last=last)


class Microphone:
    """A microphone, until it is closed. Opened on entry; its callback only queues, so it never waits for the model.

    Args:
        device: PortAudio's index, or part of the device's name; None for the system's choice.
    """

    def __init__(self, device: int | str | None = None) -> None:
        self._queue: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self._stream = _sounddevice().InputStream(
            samplerate=SAMPLE_RATE, channels=1, blocksize=BLOCK, device=device, dtype="float32", callback=self._heard
        )

    def __enter__(self) -> Microphone:
        self._stream.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()

    def stop(self) -> None:
        self._queue.put(None)

    def read(self) -> np.ndarray | None:
        blocks = [self._queue.get()]
        while not self._queue.empty():
            blocks.append(self._queue.get())
        sound = [block for block in blocks if block is not None]
        if len(sound) < len(blocks):
            self._queue.put(None)
        return np.concatenate(sound) if sound else None

    def _heard(self, data: np.ndarray, frames: int, times: Any, status: Any) -> None:
        self._queue.put(data[:, 0].copy())


def _sounddevice() -> Any:
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the package is there, PortAudio itself is not
        raise ImportError(
            f"Microphone input needs the [mic] extra: pip install 'mlx-gemma4[mic]' "
            f"(on Linux also: apt install libportaudio2). {error}"
        ) from error
    return sounddevice
