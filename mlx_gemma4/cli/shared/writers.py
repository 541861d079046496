"""Events of live transcription as text, JSON, SRT and VTT, each written when it is known."""

from __future__ import annotations

from dataclasses import asdict
from typing import TextIO

from mlx_gemma4.live.hear.events import DroppedAudio, Final, ListenerEvent, Partial
from mlx_gemma4.programs.formats import PLAIN, SegmentWriter, Style, word_record


class Writer:
    """Writes events to a stream in one of FORMATS. Call ``finish``: a JSON document has an end.

    Text, subtitles and JSON hold each utterance when it has ended, as ``transcribe`` writes them. JSON lines hold every
    event except partials, with its name under "event".
    """

    def __init__(self, stream: TextIO, layout: str, style: Style = PLAIN) -> None:
        self._segments = SegmentWriter(stream, layout, style)
        self._layout = layout
        self._style = style

    def write(self, event: ListenerEvent) -> None:
        """Write what the event adds, if it adds anything."""
        if self._layout == "jsonl":
            if not isinstance(event, Partial):
                self._write_record(event)
        elif isinstance(event, Final):
            self._segments.write(event)

    def finish(self, *, complete: bool = True) -> None:
        """End the document. If it is not ``complete``, json says so."""
        self._segments.finish(complete=complete)

    def _write_record(self, event: ListenerEvent) -> None:
        name = "lost" if isinstance(event, DroppedAudio) else type(event).__name__.lower()
        record = {"event": name, **asdict(event)}
        if self._style.word_times and isinstance(event, Final):
            record |= word_record(event)
        self._segments.write_record(record)
