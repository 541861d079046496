"""Segments of text as txt, json, jsonl, srt or vtt, each written when it is known."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from textwrap import indent
from typing import Any, Protocol, TextIO

from mlx_gemma4.outputs.word_times import Line, Timed, lines, words
from mlx_gemma4.programs.transcribe import Segment

FORMATS = ("txt", "json", "jsonl", "srt", "vtt")
"""json is one document, jsonl an object a line."""
CUES = ("srt", "vtt")


class Spoken(Timed, Protocol):
    """A ``Segment``, or the ``Final`` of an utterance."""

    @property
    def tokens(self) -> int: ...
    @property
    def forwards(self) -> int: ...
    @property
    def complete(self) -> bool: ...


@dataclass(frozen=True)
class Style:
    """How segments are written."""

    word_times: bool = False
    """json and jsonl: the times of words, interpolated."""
    max_line: int | None = None
    """txt, srt and vtt: at most this many characters a line; a longer text becomes several lines, or cues."""

    def check(self, layout: str) -> None:
        """Raise a ValueError if a format has no place for it, or is none."""
        if layout not in FORMATS:
            raise ValueError(f"Expected a format of {', '.join(FORMATS)}, got {layout!r}")
        if self.max_line is not None and self.max_line < 1:
            raise ValueError(f"Expected a --max-line of at least 1 character, got {self.max_line}")
        if self.max_line is not None and layout in ("json", "jsonl"):
            raise ValueError(f"--max-line is for txt, srt and vtt; for {layout} there is --word-times")
        if self.word_times and layout not in ("json", "jsonl"):
            raise ValueError(f"--word-times is for json and jsonl; for {layout} there is --max-line")


PLAIN = Style()


def write(segments: Iterable[Segment], layout: str, style: Style = PLAIN) -> str:
    """A whole file of segments in one of FORMATS; segments without text are left out of all but json and jsonl."""
    stream = io.StringIO()
    writer = SegmentWriter(stream, layout, style)
    for segment in segments:
        writer.write(segment)
    writer.finish()
    text = stream.getvalue()
    return text[:-1] if layout in CUES and text.endswith("\n\n") and writer.count else text


class SegmentWriter:
    """Writes segments to a stream, each when it is known. Finish it: a document has an end.

    Raises:
        ValueError: Not one of FORMATS, or a style that the format has no place for.
    """

    def __init__(self, stream: TextIO, layout: str, style: Style = PLAIN) -> None:
        style.check(layout)
        self._stream = stream
        self._layout = layout
        self._style = style
        self._cues: CueWriter | None = None
        self._finished = False
        self.count = 0
        """Segments with text so far; in json, all."""

    def write(self, segment: Spoken) -> None:
        """Write a segment, if the format shows it."""
        if self._layout == "json":
            item = indent(json.dumps(record(segment, self._style), ensure_ascii=False, indent=2), "    ")
            self._put((",\n" if self.count else '{\n  "segments": [\n') + item)
        elif self._layout == "jsonl":
            told = {"event": "final", **record(segment, self._style)}
            self._put(json.dumps(told, ensure_ascii=False) + "\n")
        elif not segment.text:
            return
        elif self._layout == "txt":
            self._put("".join(f"{line.text}\n" for line in self._lines(segment)))
        else:
            self._cue_writer().write_all(self._lines(segment))
        self.count += 1

    def finish(self, *, complete: bool = True) -> None:
        """End the document. Where it is not ``complete``, json says so; without a segment, there is none then."""
        if self._finished or not (complete or self.count):
            return
        self._finished = True
        if self._layout in CUES:
            self._cue_writer()
        if self._layout != "json":
            return
        begun = "\n  ]" if self.count else '{\n  "segments": []'
        self._put(begun + ("" if complete else ',\n  "complete": false') + "\n}\n")

    def _cue_writer(self) -> CueWriter:
        """Made when it is needed: it begins with a header."""
        self._cues = self._cues or CueWriter(self._stream, self._layout)
        return self._cues

    def _lines(self, segment: Spoken) -> list[Line]:
        if self._style.max_line is None:
            return [Line(segment.start, segment.end, segment.text)]
        return lines(segment, self._style.max_line)

    def _put(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def record(segment: Spoken, style: Style) -> dict[str, Any]:
    """What JSON tells of a segment."""
    told = {key: getattr(segment, key) for key in ("start", "end", "text", "tokens", "forwards", "complete")}
    return {**told, **word_record(segment)} if style.word_times else told


def word_record(segment: Timed) -> dict[str, Any]:
    """What JSON tells of its words, and where their times are from."""
    said = [
        {"word": word.text.strip(), "start": round(word.start, 3), "end": round(word.end, 3)} for word in words(segment)
    ]
    return {"words": said, "times": "interpolated"}


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
        self.write_all([Line(start, end, text)])

    def write_all(self, cues: Iterable[Line]) -> None:
        """Those of a segment, at once."""
        self._write("".join(self._cue(each) for each in cues if each.text))

    def _cue(self, each: Line) -> str:
        self._count += 1
        number = f"{self._count}\n" if self._layout == "srt" else ""
        return f"{number}{cue(each.start, each.end, each.text, self._layout)}\n"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
