"""Samples into frames, and where sound that is too long is cut. numpy only.

A frame is what the model takes as one position: 640 samples (40 ms) in the 12B. The checkpoint decides how many.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE

PAUSE_FRAMES = 3
"""Frames of the shortest pause, 120 ms in the 12B. One quiet frame can lie inside a word."""
SEARCH_SECONDS = 2.0
"""How far back from the end a pause to cut at is looked for."""


def to_frames(samples: np.ndarray, frame_samples: int) -> np.ndarray:
    """[n] → float32 [ceil(n / frame_samples), frame_samples], the last frame padded with zeros.

    As transformers' ``Gemma4UnifiedAudioFeatureExtractor``.
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
        return to_frames(joined[:whole], self.frame_samples)

    def flush(self) -> np.ndarray:
        """Return the last, padded frame [1, frame_samples], or [0, frame_samples] if nothing is left."""
        rest, self._rest = self._rest, self._rest[:0]
        return to_frames(rest, self.frame_samples)


def cut_point(speech: np.ndarray) -> int:
    """After how many of its frames to cut a stretch that has become too long.

    In the middle of the quietest pause (120 ms) of its last two seconds. The rest belongs to the next stretch:

        energy   ▆▅▇▆▂▁▁▃▇▆▅▂▂▄▆
                      └┬┘              the quietest three frames in a row
        cut            ^

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
    """Cut sound that is too long for one segment, at pauses. Every sample is in exactly one segment.

    Args:
        samples: [n] at 16 kHz.

    Yields:
        (start, end) in samples. Every segment has at most ``max_frames`` frames.

    Raises:
        ValueError: ``max_frames`` is less than 1.
    """
    if max_frames < 1:
        raise ValueError(f"Expected max_frames of 1 or more, got {max_frames}")
    all_frames = to_frames(samples, frame_samples)
    start = 0
    while len(all_frames) - start > max_frames:
        end = start + cut_point(all_frames[start : start + max_frames])
        yield start * frame_samples, end * frame_samples
        start = end
    yield start * frame_samples, len(samples)
