"""Segments of text as txt, json, srt or vtt."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from html import escape
from typing import TextIO

from mlx_gemma4.transcribe import Segment

FORMATS = ("txt", "json", "srt", "vtt")


def write(segments: Iterable[Segment], layout: str) -> str:
    """A whole file of segments in one of FORMATS; segments without text are left out of all but json."""
    segments = list(segments)
    spoken = [segment for segment in segments if segment.text]
    if layout == "txt":
        return "".join(f"{segment.text}\n" for segment in spoken)
    if layout == "json":
        return json.dumps({"segments": [asdict(segment) for segment in segments]}, ensure_ascii=False, indent=2) + "\n"
    if layout == "srt":
        cues = enumerate((cue(each.start, each.end, each.text, layout) for each in spoken), 1)
        return "\n".join(f"{number}\n{text}" for number, text in cues)
    if layout == "vtt":
        return "WEBVTT\n\n" + "\n".join(cue(each.start, each.end, each.text, layout) for each in spoken)
    raise ValueError(f"Expected a format of {', '.join(FORMATS)}, got {layout!r}")


def cue(start: float, end: float, text: str, layout: str) -> str:
    """One subtitle in "srt" (without its number) or "vtt", times in seconds."""
    point = "," if layout == "srt" else "."
    lines = "\n".join(line for line in text.splitlines() if line.strip())  # an empty one would end the cue
    lines = lines if layout == "srt" else escape(lines, quote=False)
    return f"{_time(start, point)} --> {_time(end, point)}\n{lines}\n"


class CueWriter:
    """Subtitles in "srt" or "vtt", each written when it is known; those without text are left out."""

    def __init__(self, stream: TextIO, layout: str) -> None:
        self._stream = stream
        self._layout = layout
        self._count = 0
        if layout == "vtt":
            self._write("WEBVTT\n\n")

    def write(self, start: float, end: float, text: str) -> None:
        if not text:
            return
        self._count += 1
        number = f"{self._count}\n" if self._layout == "srt" else ""
        self._write(f"{number}{cue(start, end, text, self._layout)}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
