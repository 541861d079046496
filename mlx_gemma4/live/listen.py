"""The loop: sound from a source into a transcriber while it arrives, and the text when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlx_gemma4.audio import Framer
from mlx_gemma4.live.sources import Source
from mlx_gemma4.transcribe import Segment, Transcriber


@dataclass(frozen=True)
class Heard:
    """A segment, and how long its text took."""

    segment: Segment
    delay: float
    """Seconds from the end of its sound (or from where it had to be cut) to its text."""


def listen(
    source: Source,
    transcriber: Transcriber,
    framer: Framer,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Heard]:
    """Feed each frame when it arrives; yield a segment when one reaches its longest, and the last at the end."""
    while (block := source.read()) is not None:
        yield from _timed(transcriber.feed(framer.push(block)), clock)
    ended = clock()
    yield from _timed(transcriber.feed(framer.flush()), clock)
    last = transcriber.finish()
    if last is not None:
        yield Heard(last, clock() - ended)


def _timed(segments: Iterator[Segment], clock: Callable[[], float]) -> Iterator[Heard]:
    while True:
        started = clock()
        segment = next(segments, None)
        if segment is None:
            return
        yield Heard(segment, clock() - started)
