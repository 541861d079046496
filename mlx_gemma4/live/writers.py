"""Events as text for pipes and files, each written when it is known; a JSON document is written at the end."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TextIO

from mlx_gemma4.live.events import Event, Final, Partial
from mlx_gemma4.subtitles import FORMATS, CueWriter, write
from mlx_gemma4.transcribe import Segment

LAYOUTS = (*FORMATS, "jsonl")


class Writer:
    """Writes events to a stream in one of LAYOUTS.

    txt, srt and vtt hold what stands: the words of each utterance when it has ended. jsonl has every event but
    partials, one object a line, under "event" its name. json is one document, as ``transcribe`` writes it.
    """

    def __init__(self, stream: TextIO, layout: str) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f"Expected a format of {', '.join(LAYOUTS)}, got {layout!r}")
        self._stream = stream
        self._layout = layout
        self._segments: list[Segment] = []
        self._cues = CueWriter(stream, layout) if layout in ("srt", "vtt") else None

    def write(self, event: Event) -> None:
        """Write what the event adds, if it adds anything."""
        if self._layout == "jsonl":
            if not isinstance(event, Partial):
                told = {"event": type(event).__name__.lower(), **asdict(event)}
                self._write(json.dumps(told, ensure_ascii=False) + "\n")
        elif isinstance(event, Final) and event.text:
            if self._layout == "json":
                self._segments.append(_segment(event))
            elif self._cues is None:
                self._write(event.text + "\n")
            else:
                self._cues.write(event.start, event.end, event.text)

    def finish(self) -> None:
        """The last event has been written: a document is written now."""
        if self._layout == "json":
            self._write(write(self._segments, "json"))

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def _segment(final: Final) -> Segment:
    return Segment(final.start, final.end, final.text, final.tokens, final.forwards, final.complete)
