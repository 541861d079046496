"""Events as text for pipes and files: lines of text, JSON lines, SRT and VTT cues, each written when it is known."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TextIO

from mlx_gemma4.live.events import Event, Final, Partial
from mlx_gemma4.subtitles import FORMATS, cue


class Writer:
    """Writes events to a stream in one of FORMATS.

    Text and subtitles hold what stands: the words of each utterance when it has ended. JSON has every event but
    partials, one object a line, under "event" its name.
    """

    def __init__(self, stream: TextIO, layout: str) -> None:
        if layout not in FORMATS:
            raise ValueError(f"Expected a format of {', '.join(FORMATS)}, got {layout!r}")
        self._stream = stream
        self._layout = layout
        self._cues = 0
        if layout == "vtt":
            self._write("WEBVTT\n\n")

    def write(self, event: Event) -> None:
        """Write what the event adds, if it adds anything."""
        if self._layout == "json":
            if not isinstance(event, Partial):
                told = {"event": type(event).__name__.lower(), **asdict(event)}
                self._write(json.dumps(told, ensure_ascii=False) + "\n")
        elif isinstance(event, Final) and event.text:
            self._final(event)

    def _final(self, event: Final) -> None:
        if self._layout == "txt":
            self._write(event.text + "\n")
            return
        self._cues += 1
        number = f"{self._cues}\n" if self._layout == "srt" else ""
        self._write(f"{number}{cue(event.start, event.end, event.text, self._layout)}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
