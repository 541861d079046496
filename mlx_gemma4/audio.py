"""Sound in: files and arrays to 16 kHz mono float32, and into frames of raw samples. numpy only.

A frame is 640 samples (40 ms) in the 12B; its size comes from the checkpoint and is passed in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mlx_gemma4.audio_file import read_audio

SAMPLE_RATE = 16_000
PAUSE_FRAMES = 3
"""A pause is at least this long: 120 ms at 40 ms a frame. One quiet frame can lie inside a word."""
SEARCH_SECONDS = 2.0
"""How far before the longest length a cut is looked for."""


def load_audio(source: str | os.PathLike[str] | np.ndarray) -> np.ndarray:
    """Read sound as float32 [n] at 16 kHz, mono, in [-1, 1].

    Args:
        source: A path to anything libsndfile reads, at any rate and channel count; or samples [n] that already
            are at 16 kHz, float in [-1, 1] or int16.

    Raises:
        ValueError: No such file, no audio in it, cut short, or samples that are no sound (NaN, infinite, none).
    """
    if isinstance(source, np.ndarray):
        return check_samples(source, "the array")
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"Expected an audio file, found none at {path}")
    samples, rate = read_audio(path)
    _check_sound(samples, str(path))
    return check_samples(to_mono_16k(samples, rate), str(path))


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


def to_mono_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    """[n, channels] at ``rate`` Hz → [n'] at 16 kHz: the mean of the channels, resampled by soxr."""
    mono = samples.mean(axis=1)
    if rate == SAMPLE_RATE:
        return mono
    import soxr

    return soxr.resample(mono, rate, SAMPLE_RATE)


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
