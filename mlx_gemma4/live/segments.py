"""A recording as segments: in one where it fits, else by its utterances, found by the same endpointing as live."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlx_gemma4.audio import frames
from mlx_gemma4.live.endpoint import Begin, End, Endpointer, Endpointing, Speech
from mlx_gemma4.live.voice import Voice
from mlx_gemma4.transcribe import Segment, Transcriber


def transcribe(samples: np.ndarray, transcriber: Transcriber, settings: Endpointing) -> list[Segment]:
    """The text of a recording [n] at 16 kHz, with times."""
    if len(samples) <= transcriber.max_frames * transcriber.frame_samples:
        return transcriber.transcribe(samples)
    endpointer = Endpointer(Voice(), settings, frame_seconds=transcriber.frame_seconds)
    return list(utterances(samples, transcriber, endpointer))


def utterances(samples: np.ndarray, transcriber: Transcriber, endpointer: Endpointer) -> Iterator[Segment]:
    """Yield the text of each utterance of a recording [n] at 16 kHz, when it is known; silence takes no time."""
    events = [*endpointer.push(frames(samples, transcriber.frame_samples)), *endpointer.finish()]
    for event in events:
        if isinstance(event, Begin):
            transcriber.skip(event.start)
        elif isinstance(event, Speech):
            for _ in transcriber.feed(event.frames):
                raise AssertionError("the endpointer cuts before the transcriber has to")
        elif isinstance(event, End):
            segment = transcriber.finish(event.length)
            assert segment is not None
            yield segment
