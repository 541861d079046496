"""Recordings of any length to segments: their utterances, found by the same endpointing as live."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from mlx_gemma4.inputs.audio.endpoint import DEFAULT, Begin, End, Endpointer, Endpointing, Speech
from mlx_gemma4.inputs.audio.frames import Framer
from mlx_gemma4.inputs.audio.voice import Voice
from mlx_gemma4.outputs.batch import BATCH_SIZE
from mlx_gemma4.programs.transcribe import Segment, Transcriber

Spans = tuple[tuple[float, float], ...]
"""Begins and ends, in seconds from the beginning of the recording."""


@dataclass(frozen=True, eq=False)
class Utterance:
    """A stretch of a recording in which somebody speaks."""

    start: int
    """Its first frame, counted from the beginning of the recording."""
    frames: np.ndarray
    """[F, frame_samples]."""
    speech: tuple[tuple[int, int], ...]
    """Where in them the detector found speech."""

    def speech_seconds(self, frame_seconds: float) -> Spans:
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
        batch_size: How many utterances are decoded at once, at most. With 1, none waits for another to begin.
    """
    recording = blocks, make_endpointer(transcriber, endpointer)
    for _, segment in transcribe_all([recording], transcriber, batch_size=batch_size):
        if segment is not None:
            yield segment


def transcribe_all(
    recordings: Iterable[tuple[Iterable[np.ndarray], Endpointer]],
    transcriber: Transcriber,
    *,
    batch_size: int = BATCH_SIZE,
) -> Iterator[tuple[int, Segment | None]]:
    """Transcribe recordings as one batch: the next one is read when the batch has room, and never earlier.

    Args:
        recordings: Blocks as for ``transcribe``, and an endpointer (``make_endpointer``), of each.

    Yields:
        (Number of the recording, segment), in order; None for a segment at the end of each recording.

    Raises:
        Exception: What reading a recording has raised, once everything before it is transcribed.
    """
    waiting: deque[tuple[int, Spans | None]] = deque()
    """What is not yet yielded: the speech of each utterance, and None behind each recording."""

    def stretches() -> Iterator[tuple[int, np.ndarray]]:
        for number, (blocks, endpointer) in enumerate(recordings):
            for utterance in utterances(blocks, endpointer, transcriber.frame_samples):
                waiting.append((number, utterance.speech_seconds(transcriber.frame_seconds)))
                yield utterance.start, utterance.frames
            waiting.append((number, None))

    def ends() -> Iterator[tuple[int, None]]:
        while waiting and waiting[0][1] is None:
            yield waiting.popleft()[0], None

    try:
        for segment in transcriber.transcribe_batch(stretches(), batch_size=batch_size, first_alone=True):
            yield from ends()
            number, speech = waiting.popleft()
            assert speech is not None
            yield number, replace(segment, speech=speech)
            yield from ends()
    except Exception:
        yield from ends()
        raise
    yield from ends()


def transcribe_each(
    recordings: Iterable[np.ndarray],
    transcriber: Transcriber,
    endpointing: Endpointing | None = None,
    *,
    batch_size: int = BATCH_SIZE,
) -> Iterator[list[Segment]]:
    """All segments of each recording, samples [n] at 16 kHz, in order, with ``transcribe_all``."""
    sounds = (([samples], make_endpointer(transcriber, endpointing)) for samples in recordings)
    segments: list[Segment] = []
    for _, segment in transcribe_all(sounds, transcriber, batch_size=batch_size):
        if segment is not None:
            segments.append(segment)
        else:
            yield segments
            segments = []


def joined(segments: Iterable[Segment]) -> str:
    """The text of a recording."""
    return " ".join(segment.text for segment in segments if segment.text)


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
