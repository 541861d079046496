"""Sound in: files and arrays to 16 kHz mono float32, and into frames of raw samples. numpy only.

A frame is 640 samples (40 ms) in the 12B; its size comes from the checkpoint and is passed in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO, TypeAlias

import numpy as np

from mlx_gemma4.inputs.audio.byte_input import AudioInput
from mlx_gemma4.inputs.audio.decode import Piece, pieces
from mlx_gemma4.inputs.audio.pcm import RawFormat

AudioSource: TypeAlias = str | os.PathLike[str] | BinaryIO
"""Where recordings are read from."""
SAMPLE_RATE = 16_000
PAUSE_FRAMES = 3
"""A pause is at least this long: 120 ms at 40 ms a frame. One quiet frame can lie inside a word."""
SEARCH_SECONDS = 2.0
"""How far before the longest length a cut is looked for."""


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
        limit: Stop reading behind this many seconds. What is returned is then a little longer.

    Raises:
        ValueError: Nothing to read, no sound in it, damaged, cut short, or samples that are no sound (NaN, infinite).
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
        channel: Take this one, from 1 on (1 is left, 2 is right); None takes the mean of all.
        raw: What the samples are, if there is no header.

    Raises:
        ValueError: Nothing to read, or nothing that is sound. In the iteration, behind what could be decoded: no
            samples, samples that are no sound (NaN, infinite), or a recording that is damaged or cut short.
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
    yield from mono.finish()  # what was decoded comes before what went wrong
    if problem is not None:
        raise problem
    if mono.count == 0:
        raise ValueError(f"{name} holds no sound: 0 samples")


class _Mono:
    """Samples of any rate and number of channels in, 16 kHz mono out."""

    def __init__(self, channel: int | None, name: str) -> None:
        self.count = 0
        """Samples of each channel that came in."""
        self._channel, self._name = channel, name
        self._rate, self._resample = SAMPLE_RATE, resampler(SAMPLE_RATE)

    def push(self, piece: Piece) -> Iterator[np.ndarray]:
        samples = piece.samples
        if self._channel is not None:
            samples = samples[:, self._channel - 1 : self._channel]
        if piece.rate != self._rate:
            yield from self.finish()
            self._rate, self._resample = piece.rate, resampler(piece.rate)
        good = _count_finite(samples)
        block = self._resample(samples[:good].mean(axis=1), False)
        self.count += good
        if len(block):
            yield block
        if good < len(samples):
            raise ValueError(
                f"Expected finite samples in {self._name}, got {_first_bad(samples[good])} at sample {self.count}"
            )

    def finish(self) -> Iterator[np.ndarray]:
        """Nothing follows: what the resampler holds back comes out."""
        if self._rate == SAMPLE_RATE:
            return
        block = self._resample(np.zeros(0, dtype=np.float32), True)
        if len(block):
            yield block


def _count_finite(samples: np.ndarray) -> int:
    """How many of [n, channels] come before the first that is not finite in every channel."""
    bad = ~np.isfinite(samples).all(axis=1)
    return int(bad.argmax()) if bad.any() else len(samples)


def _first_bad(values: np.ndarray) -> np.floating:
    return values[~np.isfinite(values)][0]


def check_samples(samples: np.ndarray, name: str) -> np.ndarray:
    """Return ``samples`` as float32 [n], or raise a ValueError that says why they are no sound."""
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
        raise ValueError(f"Expected sound in {name}, it holds 0 samples")
    finite = np.isfinite(samples)
    if not finite.all():
        bad = tuple(np.argwhere(~finite)[0])
        raise ValueError(f"Expected finite samples in {name}, got {samples[bad]} at sample {bad[0]}")


def resampler(rate: int) -> Callable[[np.ndarray, bool], np.ndarray]:
    """(samples at ``rate``, is it the end) → samples at 16 kHz, as a stream."""
    if rate == SAMPLE_RATE:
        return lambda samples, last: samples
    import soxr

    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    return lambda samples, last: stream.resample_chunk(samples, last=last)


def frames(samples: np.ndarray, frame_samples: int) -> np.ndarray:
    """[n] → [ceil(n / frame_samples), frame_samples], the last frame padded with zeros.

    transformers ``Gemma4UnifiedAudioFeatureExtractor``.
    """
    count = -(-len(samples) // frame_samples)
    padded = np.zeros(count * frame_samples, dtype=np.float32)
    padded[: len(samples)] = samples
    return padded.reshape(count, frame_samples)


class Framer:
    """Blocks of any length in, whole frames out, as they become complete."""

    def __init__(self, frame_samples: int) -> None:
        self.frame_samples = frame_samples
        self._rest = np.zeros(0, dtype=np.float32)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take [n] samples, return the frames [F, frame_samples] that are complete."""
        joined = np.concatenate([self._rest, samples.astype(np.float32, copy=False)])
        whole = len(joined) // self.frame_samples * self.frame_samples
        self._rest = joined[whole:]
        return frames(joined[:whole], self.frame_samples)

    def flush(self) -> np.ndarray:
        """Return the last, padded frame [1, frame_samples], or [0, frame_samples] if nothing is left."""
        rest, self._rest = self._rest, self._rest[:0]
        return frames(rest, self.frame_samples)


def cut_point(speech: np.ndarray) -> int:
    """Where to cut a stretch that has become too long: after how many of its frames.

    The middle of the quietest pause (120 ms) within the last two seconds. What follows belongs to the next stretch.

    Args:
        speech: [F, frame_samples], at least one frame.
    """
    energy = np.square(speech, dtype=np.float64).sum(axis=1)
    frame_seconds = speech.shape[1] / SAMPLE_RATE
    first = max(0, len(speech) - round(SEARCH_SECONDS / frame_seconds))
    if len(speech) - first < PAUSE_FRAMES:
        return len(speech)
    pauses = np.convolve(energy[first:], np.ones(PAUSE_FRAMES), mode="valid")
    return first + int(pauses.argmin()) + PAUSE_FRAMES // 2 + 1


def split_audio(samples: np.ndarray, frame_samples: int, max_frames: int) -> Iterator[tuple[int, int]]:
    """Cut sound that is too long for one segment, at pauses; nothing is lost.

    Args:
        samples: [n] at 16 kHz.

    Yields:
        (start, end) in samples. Every segment has at most ``max_frames`` frames.
    """
    if max_frames < 1:
        raise ValueError(f"Expected at least 1 frame in a segment, got {max_frames}")
    all_frames = frames(samples, frame_samples)
    start = 0
    while len(all_frames) - start > max_frames:
        end = start + cut_point(all_frames[start : start + max_frames])
        yield start * frame_samples, end * frame_samples
        start = end
    yield start * frame_samples, len(samples)
