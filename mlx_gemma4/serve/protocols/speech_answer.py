"""The answer to ``POST /v1/audio/transcriptions``: segments in; a document, or the events of a stream, out."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

from mlx_gemma4.outputs.word_times import words
from mlx_gemma4.programs.formats import write as write_cues
from mlx_gemma4.serve.events import Heard, Listened, SpeechEvent
from mlx_gemma4.serve.protocols import wire
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.speech_request import SpeechRequest

TYPES = {"text": "text/plain; charset=utf-8", "srt": "application/x-subrip", "vtt": "text/vtt; charset=utf-8"}
JSON = "application/json"


@dataclass
class SpeechAnswer:
    """Writes one transcript. Use ``events`` for each event of a stream, or ``whole`` after all events.

    Args:
        language: The English name of the language of the text.
    """

    request: SpeechRequest
    language: str
    _heard: list[Heard] = field(default_factory=list)
    _end: Listened | None = None

    @property
    def media_type(self) -> str:
        return TYPES.get(self.request.form, JSON)

    @property
    def text(self) -> str:
        """All text so far."""
        return " ".join(segment.text for segment in self._heard if segment.text)

    def take(self, event: SpeechEvent) -> str:
        """Take an event; return the text that it adds."""
        if isinstance(event, Listened):
            self._end = event
            return ""
        follows = any(segment.text for segment in self._heard)
        self._heard.append(event)
        return f" {event.text}" if event.text and follows else event.text

    def events(self, event: SpeechEvent) -> list[dict[str, Any]]:
        """Take an event; return the events of the stream that tell it."""
        added = self.take(event)
        if isinstance(event, Listened):
            return [{"type": "transcript.text.done", "text": self.text, "usage": self._usage()}]
        return [{"type": "transcript.text.delta", "delta": added}] if added else []

    @property
    def end(self) -> bytes:
        """What a stream ends with."""
        return wire.DONE

    def told(self, event: SpeechEvent) -> list[bytes]:
        """The encoded events of the stream that tell an event (``events``)."""
        return [wire.event(record) for record in self.events(event)]

    def failed(self, failure: Failure) -> list[bytes]:
        """The events of a stream that fails."""
        return [wire.event(failure.record())]

    def whole(self) -> bytes:
        """The document."""
        form = self.request.form
        if form == "text":
            return f"{self.text}\n".encode()
        if form in ("srt", "vtt"):
            return write_cues(self._heard, form).encode()
        if form == "json":
            return wire.write({"text": self.text, "usage": self._usage()})
        return wire.write(self._verbose())

    def _usage(self) -> dict[str, Any]:
        end = self._end or Listened(0, 0, 0)
        given, made = end.audio_tokens + end.text_tokens, sum(segment.tokens for segment in self._heard)
        return {
            "type": "tokens",
            "input_tokens": given,
            "output_tokens": made,
            "total_tokens": given + made,
            "input_token_details": {"audio_tokens": end.audio_tokens, "text_tokens": end.text_tokens},
        }

    def _verbose(self) -> dict[str, Any]:
        seconds = 0.0 if self._end is None else self._end.seconds
        record: dict[str, Any] = {
            "task": "translate" if self.request.translates else "transcribe",
            "language": self.language.lower(),
            "duration": round(seconds, 3),
            "text": self.text,
            "usage": {"type": "duration", "seconds": round(seconds, 3)},
        }
        told = [segment for segment in self._heard if segment.text]
        if self.request.has_segments:
            record["segments"] = [_segment(number, segment) for number, segment in enumerate(told)]
        if self.request.has_words:
            record["words"] = [
                {"word": word.text.strip(), "start": round(word.start, 3), "end": round(word.end, 3)}
                for segment in told
                for word in words(segment)
            ]
        return record


def _segment(number: int, segment: Heard) -> dict[str, Any]:
    """A segment. Clients expect all of Whisper's fields; what is not known here has a value that means nothing bad."""
    data = segment.text.encode()
    return {
        "id": number,
        "seek": round(100 * segment.start),
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": 0.0,
        "compression_ratio": round(len(data) / len(zlib.compress(data)), 3),
        "no_speech_prob": 0.0,
    }
