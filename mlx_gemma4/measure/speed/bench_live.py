"""Live transcription at the pace of speech: how long after the end of speech the text comes, and how busy that keeps.

speech ──────────────────┐ last sample
                         ├── silence ──┤ decision: the utterance has ended
                         │             ├── delay ──┤ text
                         └── after speech ─────────┘
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
from mlx_gemma4.live.hear.events import Final
from mlx_gemma4.live.hear.listener import Listener
from mlx_gemma4.live.hear.sources import FileSource, Source
from mlx_gemma4.measure.speed.bench_media import utterances
from mlx_gemma4.measure.speed.figures import Figure
from mlx_gemma4.programs.transcribe import Transcriber

Clock = Callable[[], float]


@dataclass(frozen=True)
class LiveRun:
    """What a listener did with a stretch of sound."""

    finals: tuple[Final, ...]
    sound_seconds: float
    speech_seconds: float
    busy_seconds: float
    """Spent in the listener, which waits for the device."""
    behind_seconds: float
    """The most sound that had piled up."""
    forwards: int


def hear(transcriber: Transcriber, source: Source, clock: Clock = time.perf_counter) -> LiveRun:
    """Listen to a source until it ends."""
    listener = Listener(transcriber)
    finals: list[Final] = []
    received, busy, behind = 0, 0.0, 0.0
    while (block := source.read()) is not None:
        listener.feed(block)
        began = clock()
        finals += [event for event in listener.step() if isinstance(event, Final)]
        busy += clock() - began
        received += len(block)
        behind = max(behind, listener.behind)
    finals += [event for event in listener.finish() if isinstance(event, Final)]
    speech = listener.work.speech_frames * transcriber.frame_seconds
    return LiveRun(tuple(finals), received / SAMPLE_RATE, speech, busy, behind, listener.work.forwards)


def live_figures(run: LiveRun) -> list[Figure]:
    """Of the utterances that silence ended."""
    ended = [final for final in run.finals if final.reason == "silence"]
    counts = {"utterances": len(ended)}
    per_second = (run.busy_seconds / max(run.speech_seconds, 1e-9),)
    return [
        *(
            Figure("live", name, "s", tuple(values), counts)
            for name, values in (
                ("last sample of speech to text", [final.after_speech for final in ended]),
                ("decision to text", [final.delay for final in ended]),
            )
            if values
        ),
        Figure("live", "computing a second of speech", "s", per_second, {"forwards": run.forwards}),
        Figure("live", "most sound that piled up", "s", (run.behind_seconds,)),
    ]


def measure_live(transcriber: Transcriber) -> list[Figure]:
    """Hear the utterances twice: fast, to warm up, then as they were spoken."""
    samples = utterances()
    hear(transcriber, FileSource(samples, fast=True))
    return live_figures(hear(transcriber, FileSource(samples)))
