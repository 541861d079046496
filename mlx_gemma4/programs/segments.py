"""Recordings of any length to segments: their utterances, found by the same endpointing as live."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from mlx_gemma4.inputs.audio.endpoint import DEFAULT, Begin, End, Endpointer, Endpointing, Speech
from mlx_gemma4.inputs.audio.frames import Framer
from mlx_gemma4.inputs.audio.voice import Voice
from mlx_gemma4.programs.transcribe import Segment, Transcriber

BATCH_SIZE = 8
"""Utterances in a batch. A decoding step costs the time to read the weights, which the batch shares."""


@dataclass(frozen=True, eq=False)
class Utterance:
    """A stretch of a recording in which somebody speaks."""

    start: int
    """Its first frame, counted from the beginning of the recording."""
    frames: np.ndarray
    """[F, frame_samples]."""
    speech: tuple[tuple[int, int], ...]
    """Where in them the detector found speech."""

    def speech_seconds(self, frame_seconds: float) -> tuple[tuple[float, float], ...]:
        """The same in seconds from the beginning of the recording."""
        return tuple(((self.start + a) * frame_seconds, (self.start + b) * frame_seconds) for a, b in self.speech)


def make_endpointer(transcriber: Transcriber, endpointer: Endpointer | Endpointing | None = None) -> Endpointer:
    """An endpointer whose utterances fit into the transcriber's segments.

    Args:
        endpointer: Its settings, the default ones if None; or an endpointer, which is told how long utterances may be.

    Raises:
        ValueError: The transcriber's longest segment has no room for the beginning of an utterance.
    """
    if isinstance(endpointer, Endpointer):
        endpointer.limit(transcriber.max_frames)
        return endpointer
    return Endpointer(
        Voice(), endpointer or DEFAULT, frame_seconds=transcriber.frame_seconds, max_frames=transcriber.max_frames
    )


def transcribe(
    blocks: Iterable[np.ndarray],
    transcriber: Transcriber,
    endpointer: Endpointer | Endpointing | None = None,
    *,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Segment]:
    """Transcribe a recording, yielding each utterance when its text is known. Memory does not grow with the recording.

    Args:
        blocks: Sound, float32 [n] at 16 kHz each: ``stream_audio``, or a list of one array.
        endpointer: How utterances are found (``make_endpointer``).
        batch_size: How many utterances are decoded as one batch; with 1, none waits for others.
    """
    found = utterances(blocks, make_endpointer(transcriber, endpointer), transcriber.frame_samples)
    while group := list(islice(found, batch_size)):
        segments = transcriber.transcribe_batch([(utterance.start, utterance.frames) for utterance in group])
        for utterance, segment in zip(group, segments, strict=True):
            yield replace(segment, speech=utterance.speech_seconds(transcriber.frame_seconds))


def utterances(blocks: Iterable[np.ndarray], endpointer: Endpointer, frame_samples: int) -> Iterator[Utterance]:
    """Yield each utterance as soon as it has ended."""
    start, speech = 0, list[np.ndarray]()
    for event in _events(blocks, endpointer, Framer(frame_samples)):
        if isinstance(event, Begin):
            start, speech = event.start, []
        elif isinstance(event, Speech):
            speech.append(event.frames)
        elif isinstance(event, End):
            yield Utterance(start, np.concatenate(speech)[: event.length], event.speech)


def _events(blocks: Iterable[np.ndarray], endpointer: Endpointer, framer: Framer) -> Iterator[Begin | Speech | End]:
    for block in blocks:
        yield from endpointer.push(framer.push(block))
    yield from endpointer.push(framer.flush())
    yield from endpointer.finish()
