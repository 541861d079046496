"""Events as text for pipes and files: lines of text, JSON, SRT and VTT cues, each written when it is known."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TextIO

from mlx_gemma4.live.hear.events import DroppedAudio, Final, ListenerEvent, Partial
from mlx_gemma4.programs.subtitles import PLAIN, SegmentWriter, Style, word_record


class Writer:
    """Writes events to a stream in one of FORMATS. Finish it: a JSON document has an end.

    Text, subtitles and JSON hold what stands: the words of each utterance when it has ended, as ``transcribe`` writes
    them. JSON lines have every event but partials, under "event" its name.
    """

    def __init__(self, stream: TextIO, layout: str, style: Style = PLAIN) -> None:
        self._segments = SegmentWriter(stream, layout, style)
        self._stream = stream
        self._layout = layout
        self._style = style

    def write(self, event: ListenerEvent) -> None:
        """Write what the event adds, if it adds anything."""
        if self._layout == "jsonl":
            if not isinstance(event, Partial):
                self._write_line(event)
        elif isinstance(event, Final):
            self._segments.write(event)

    def finish(self, *, complete: bool = True) -> None:
        """End the document. Where it is not ``complete``, json says so."""
        self._segments.finish(complete=complete)

    def _write_line(self, event: ListenerEvent) -> None:
        name = "lost" if isinstance(event, DroppedAudio) else type(event).__name__.lower()
        told = {"event": name, **asdict(event)}
        if self._style.word_times and isinstance(event, Final):
            told |= word_record(event)
        self._stream.write(json.dumps(told, ensure_ascii=False) + "\n")
        self._stream.flush()
