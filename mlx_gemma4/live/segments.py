"""A recording as segments: its utterances, found by the same endpointing as live, however long it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from mlx_gemma4.audio import Framer
from mlx_gemma4.live.endpoint import Begin, End, Endpointer, Endpointing, Speech
from mlx_gemma4.live.voice import Voice
from mlx_gemma4.transcribe import Segment, Transcriber

TOGETHER = 8
"""Utterances decoded side by side: reading the weights, which is what a step costs, is done once for all."""


def transcribe(
    blocks: Iterable[np.ndarray], transcriber: Transcriber, settings: Endpointing, *, together: int = TOGETHER
) -> Iterator[Segment]:
    """The utterances of a recording, each when it is known; memory does not grow with the recording.

    Args:
        blocks: Sound, float32 [n] at 16 kHz each: ``stream_audio``, or a list of one array.
        together: How many utterances are decoded side by side.
    """
    endpointer = Endpointer(Voice(), settings, frame_seconds=transcriber.frame_seconds)
    found = utterances(blocks, endpointer, transcriber.frame_samples)
    while group := list(islice(found, together)):
        yield from transcriber.together(group)


def utterances(
    blocks: Iterable[np.ndarray], endpointer: Endpointer, frame_samples: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first frame, frames [F, frame_samples]) of each utterance, as soon as it has ended."""
    start, speech = 0, list[np.ndarray]()
    for event in _events(blocks, endpointer, Framer(frame_samples)):
        if isinstance(event, Begin):
            start, speech = event.start, []
        elif isinstance(event, Speech):
            speech.append(event.frames)
        elif isinstance(event, End):
            yield start, np.concatenate(speech)[: event.length]


def _events(blocks: Iterable[np.ndarray], endpointer: Endpointer, framer: Framer) -> Iterator[Begin | Speech | End]:
    for block in blocks:
        yield from endpointer.push(framer.push(block))
    yield from endpointer.push(framer.flush())
    yield from endpointer.finish()
