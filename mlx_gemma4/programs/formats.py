"""Transcripts and descriptions as txt, json, jsonl, srt or vtt, each segment written when it is known."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from textwrap import indent
from typing import Any, Protocol, TextIO

from mlx_gemma4.outputs.word_times import Line, Timed, lines, words

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
        """Raise a ValueError if there is no such format, or if it cannot show what the style asks for."""
        if layout not in FORMATS:
            raise ValueError(f"Expected a format of {', '.join(FORMATS)}, got {layout!r}")
        if self.max_line is not None and self.max_line < 1:
            raise ValueError(f"--max-line must be at least 1 character, got {self.max_line}")
        if self.max_line is not None and layout in ("json", "jsonl"):
            raise ValueError(f"--max-line is for txt, srt and vtt; for {layout} there is --word-times")
        if self.word_times and layout not in ("json", "jsonl"):
            raise ValueError(f"--word-times is for json and jsonl; for {layout} there is --max-line")


PLAIN = Style()


def write(segments: Iterable[Spoken], layout: str, style: Style = PLAIN) -> str:
    """A whole file of segments in one of FORMATS. Segments without text are left out, except in json and jsonl."""
    stream = io.StringIO()
    writer = SegmentWriter(stream, layout, style)
    for segment in segments:
        writer.write(segment)
    writer.finish()
    text = stream.getvalue()
    return text[:-1] if layout in CUES and text.endswith("\n\n") and writer.count else text


class SegmentWriter:
    """Writes segments to a stream, each when it is known. Call ``finish``: a document has an end.

    Raises:
        ValueError: Not one of FORMATS, or a style that the format cannot show.
    """

    def __init__(self, stream: TextIO, layout: str, style: Style = PLAIN) -> None:
        style.check(layout)
        self._stream = stream
        self._layout = layout
        self._style = style
        self._cues = 0
        self._has_header = layout != "vtt"
        self._finished = False
        self.count = 0
        """Segments with text so far; in json, all."""

    def write(self, segment: Spoken) -> None:
        """Write a segment, if the format shows it."""
        if self._layout == "json":
            item = indent(json.dumps(record(segment, self._style), ensure_ascii=False, indent=2), "    ")
            self._put((",\n" if self.count else '{\n  "segments": [\n') + item)
            self.count += 1
        elif self._layout == "jsonl":
            self.write_record({"event": "final", **record(segment, self._style)})
        elif segment.text:
            self.write_lines(self._lines(segment))

    def write_record(self, values: Mapping[str, Any]) -> None:
        """Write an object of jsonl: of an event, or of a segment that has other fields than a transcript's."""
        self._put(json.dumps(values, ensure_ascii=False) + "\n")
        self.count += 1

    def write_lines(self, segment: Iterable[Line]) -> None:
        """Write a segment's lines in txt, or its cues in srt and vtt, all at once."""
        if self._layout == "txt":
            self._put("".join(f"{line.text}\n" for line in segment))
        else:
            self._put(self._header() + "".join(self._cue(line) for line in segment if line.text))
        self.count += 1

    def finish(self, *, complete: bool = True) -> None:
        """End the document. If it is not ``complete``, json says so, or has no document at all without a segment."""
        if self._finished or not (complete or self.count):
            return
        self._finished = True
        if self._layout == "vtt":
            self._put(self._header())
        if self._layout != "json":
            return
        begun = "\n  ]" if self.count else '{\n  "segments": []'
        self._put(begun + ("" if complete else ',\n  "complete": false') + "\n}\n")

    def _lines(self, segment: Spoken) -> list[Line]:
        if self._style.max_line is None:
            return [Line(segment.start, segment.end, segment.text)]
        return lines(segment, self._style.max_line)

    def _header(self) -> str:
        """That of vtt, once. It waits for the first cue: a recording that cannot be read leaves no file."""
        header = "" if self._has_header else "WEBVTT\n\n"
        self._has_header = True
        return header

    def _cue(self, line: Line) -> str:
        self._cues += 1
        number = f"{self._cues}\n" if self._layout == "srt" else ""
        return f"{number}{_cue(line, self._layout)}\n"

    def _put(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def record(segment: Spoken, style: Style) -> dict[str, Any]:
    """A segment's fields in JSON."""
    fields = {key: getattr(segment, key) for key in ("start", "end", "text", "tokens", "forwards", "complete")}
    return {**fields, **word_record(segment)} if style.word_times else fields


def word_record(segment: Timed) -> dict[str, Any]:
    """The fields of a segment's words in JSON, and where their times are from."""
    timed = [
        {"word": word.text.strip(), "start": round(word.start, 3), "end": round(word.end, 3)} for word in words(segment)
    ]
    return {"words": timed, "times": "interpolated"}


def _cue(line: Line, layout: str) -> str:
    """One subtitle in "srt" (without its number) or "vtt"."""
    point = "," if layout == "srt" else "."
    text = "\n".join(row for row in line.text.splitlines() if row.strip())  # an empty row would end the cue
    text = text if layout == "srt" else escape(text, quote=False)
    return f"{_time(line.start, point)} --> {_time(line.end, point)}\n{text}\n"


def _time(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
