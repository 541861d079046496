"""A recording as segments: in one where it fits, else by its utterances, found by the same endpointing as live."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlx_gemma4.audio import frames
from mlx_gemma4.live.endpoint import Begin, End, Endpointer, Endpointing, Speech
from mlx_gemma4.live.voice import Voice
from mlx_gemma4.transcribe import Segment, Transcriber

TOGETHER = 8
"""Utterances decoded side by side: reading the weights, which is what a step costs, is done once for all."""


def transcribe(
    samples: np.ndarray, transcriber: Transcriber, settings: Endpointing, *, together: int = TOGETHER
) -> list[Segment]:
    """The text of a recording [n] at 16 kHz, with times."""
    if len(samples) <= transcriber.max_frames * transcriber.frame_samples:
        return transcriber.transcribe(samples)
    endpointer = Endpointer(Voice(), settings, frame_seconds=transcriber.frame_seconds)
    found = list(utterances(frames(samples, transcriber.frame_samples), endpointer))
    groups = (found[first : first + together] for first in range(0, len(found), together))
    return [segment for group in groups for segment in transcriber.together(group)]


def utterances(sound: np.ndarray, endpointer: Endpointer) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first frame, frames) of each utterance in frames [F, frame_samples]."""
    start, speech = 0, sound[:0]
    for event in [*endpointer.push(sound), *endpointer.finish()]:
        if isinstance(event, Begin):
            start, speech = event.start, sound[:0]
        elif isinstance(event, Speech):
            speech = np.concatenate([speech, event.frames])
        elif isinstance(event, End):
            yield start, speech[: event.length]
