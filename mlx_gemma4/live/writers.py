"""Events as text for pipes and files: lines of text, JSON lines, SRT and VTT cues, each written when it is known."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TextIO

from mlx_gemma4.live.events import Event, Final, Partial
from mlx_gemma4.subtitles import FORMATS, CueWriter


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
        self._cues = CueWriter(stream, layout) if layout in ("srt", "vtt") else None

    def write(self, event: Event) -> None:
        """Write what the event adds, if it adds anything."""
        if self._layout == "json":
            if not isinstance(event, Partial):
                told = {"event": type(event).__name__.lower(), **asdict(event)}
                self._write(json.dumps(told, ensure_ascii=False) + "\n")
        elif isinstance(event, Final) and event.text:
            if self._cues is None:
                self._write(event.text + "\n")
            else:
                self._cues.write(event.start, event.end, event.text)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
