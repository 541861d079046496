"""A recording that is longer than a segment: its utterances, found by the same endpointing as live."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlx_gemma4.audio import frames
from mlx_gemma4.live.endpoint import Begin, End, Endpointer, Speech
from mlx_gemma4.transcribe import Segment, Transcriber


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
