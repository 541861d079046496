"""Files, pipes and arrays to samples: float32, 16 kHz, mono. No mlx."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import BinaryIO, TypeAlias

import numpy as np

from mlx_gemma4.inputs.audio.byte_input import AudioInput
from mlx_gemma4.inputs.audio.decode import Piece, pieces
from mlx_gemma4.inputs.audio.pcm import RawFormat

AudioSource: TypeAlias = str | os.PathLike[str] | BinaryIO
"""A path, ``"-"`` for standard input, or a binary stream."""
SAMPLE_RATE = 16_000


def load_audio(
    source: AudioSource | np.ndarray,
    *,
    channel: int | None = None,
    raw: RawFormat | None = None,
    limit: float | None = None,
) -> np.ndarray:
    """Read sound as float32 [n] at 16 kHz, mono, in [-1, 1].

    Args:
        source: As for ``stream_audio``; or samples [n] that already are at 16 kHz, float in [-1, 1] or int16.
        channel: As for ``stream_audio``.
        raw: As for ``stream_audio``.
        limit: Stop reading after this many seconds; the result is then a little longer.

    Raises:
        ValueError: Nothing to read, no sound, damaged or cut short, or samples that are NaN or infinite.
    """
    if isinstance(source, np.ndarray):
        return check_samples(source, "the array")
    blocks, count = [], 0
    with stream_audio(source, channel=channel, raw=raw) as stream:
        for block in stream:
            blocks.append(block)
            count += len(block)
            if limit is not None and count > limit * SAMPLE_RATE:
                break
    return np.concatenate(blocks)


def stream_audio(source: AudioSource, *, channel: int | None = None, raw: RawFormat | None = None) -> AudioStream:
    """Read sound block by block as it arrives, float32 [n] at 16 kHz, mono, in memory that does not grow.

    Args:
        source: A path of a file or a named pipe, ``"-"`` for standard input, or a binary stream; of anything that
            libsndfile or FFmpeg decodes, recognised by its first bytes, at any rate and channel count.
        channel: The channel to use, from 1 on (1 is left, 2 is right); None takes the mean of all.
        raw: The format of the samples, if there is no header.

    Raises:
        ValueError: There is nothing to read, or it is no sound. During iteration, after all that could be decoded:
            there are no samples, one is NaN or infinite, or the recording is damaged or cut short.
    """
    if channel is not None and channel < 1:
        raise ValueError(f"Expected a channel from 1 on, got {channel}")
    return AudioStream(AudioInput(source), channel, raw)


class AudioStream:
    """Blocks of sound, float32 [n] at 16 kHz, in an iterator that ``stream_audio`` opens. Close it, or read to the end.

    Attributes:
        name: What messages call the source.
    """

    def __init__(self, source: AudioInput, channel: int | None, raw: RawFormat | None) -> None:
        self.name = source.name
        self._source = source
        try:
            self._blocks = _blocks(pieces(source, raw, channel), channel, source.name)
        except BaseException:
            source.close()
            raise

    def __iter__(self) -> AudioStream:
        return self

    def __next__(self) -> np.ndarray:
        return next(self._blocks)

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading, and close the file. Not while another thread waits for a block."""
        self._blocks.close()
        self._source.close()


def _blocks(sound: Iterator[Piece], channel: int | None, name: str) -> Generator[np.ndarray, None, None]:
    mono = _Mono(channel, name)
    problem: ValueError | None = None
    try:
        for piece in sound:
            yield from mono.push(piece)
    except ValueError as error:
        problem = error
    yield from mono.finish()  # the decoded sound comes before the error
    if problem is not None:
        raise problem
    if mono.count == 0:
        raise ValueError(f"{name} holds no sound: 0 samples")


class _Mono:
    """Pieces of any rate and number of channels in, 16 kHz mono out."""

    def __init__(self, channel: int | None, name: str) -> None:
        self.count = 0
        """Samples of each channel that came in."""
        self._channel, self._name = channel, name
        self._resampler = Resampler()

    def push(self, piece: Piece) -> Iterator[np.ndarray]:
        samples = piece.samples
        if self._channel is not None:
            samples = samples[:, self._channel - 1 : self._channel]
        good = _count_finite(samples)
        self.count += good
        yield from _unless_empty(self._resampler.push(samples[:good].mean(axis=1), piece.rate))
        if good < len(samples):
            raise ValueError(
                f"Expected finite samples in {self._name}, got {_first_bad(samples[good])} at sample {self.count}"
            )

    def finish(self) -> Iterator[np.ndarray]:
        """Nothing follows."""
        yield from _unless_empty(self._resampler.finish())


def _unless_empty(block: np.ndarray) -> Iterator[np.ndarray]:
    if len(block):
        yield block


def _count_finite(samples: np.ndarray) -> int:
    """How many of [n, channels] come before the first that is not finite in every channel."""
    bad = ~np.isfinite(samples).all(axis=1)
    return int(bad.argmax()) if bad.any() else len(samples)


def _first_bad(values: np.ndarray) -> np.floating:
    return values[~np.isfinite(values)][0]


def check_samples(samples: np.ndarray, name: str) -> np.ndarray:
    """Return ``samples`` as float32 [n], or raise a ValueError that says why they are not sound."""
    if samples.ndim != 1 or not (samples.dtype == np.int16 or np.issubdtype(samples.dtype, np.floating)):
        raise ValueError(
            f"Expected float or int16 samples [n] at {SAMPLE_RATE} Hz in {name}, "
            f"got {samples.dtype} {list(samples.shape)}"
        )
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / 32768
    with np.errstate(over="ignore"):  # float64 that becomes infinite is reported below
        samples = samples.astype(np.float32, copy=False)
    _check_sound(samples, name)
    return samples


def _check_sound(samples: np.ndarray, name: str) -> None:
    if samples.size == 0:
        raise ValueError(f"There is no sound in {name}: 0 samples")
    finite = np.isfinite(samples)
    if not finite.all():
        bad = tuple(np.argwhere(~finite)[0])
        raise ValueError(f"Expected finite samples in {name}, got {samples[bad]} at sample {bad[0]}")


class Resampler:
    """Mono sound in blocks at any rate in, at 16 kHz out. The rate may change from one block to the next.

    A filter needs samples from both sides, so the newest ones come out with the next block, or with ``finish``.
    """

    def __init__(self) -> None:
        self._start(SAMPLE_RATE)

    def push(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """[n] at ``rate`` Hz → what is now known, [m] at 16 kHz; at another rate than before, the rest comes first."""
        rest = np.zeros(0, np.float32)
        if rate != self._rate:
            rest = self.finish()
            self._start(rate)
        block = samples if self._stream is None else self._stream.resample_chunk(samples, last=False)
        return np.concatenate([rest, block]) if len(rest) else block

    def finish(self) -> np.ndarray:
        """Nothing follows: return what was held back. What is pushed later is another sound."""
        if self._stream is None:
            return np.zeros(0, np.float32)
        rest = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        self._start(self._rate)
        return rest

    def _start(self, rate: int) -> None:
        self._rate, self._stream = rate, None
        if rate != SAMPLE_RATE:
            import soxr

            self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
