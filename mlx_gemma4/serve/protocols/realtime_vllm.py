"""vLLM's events on ``/v1/realtime``, which its example clients speak. The first event of a client tells which it is.

client                                 server
                                       session.created
session.update {model}
input_audio_buffer.commit              (begin)
input_audio_buffer.append …            transcription.delta {delta} …
input_audio_buffer.commit {final}      transcription.delta …, transcription.done {text, usage}
"""

from __future__ import annotations

from typing import Any

import msgspec

from mlx_gemma4.inputs.audio.pcm import SampleStream
from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
from mlx_gemma4.serve.hearing import Command, Commit, Committed, Hearing, Said, Words, sounds
from mlx_gemma4.serve.protocols.data_url import decode_base64
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.wire import read

Event = dict[str, Any]

UPDATE, APPEND, COMMIT = "session.update", "input_audio_buffer.append", "input_audio_buffer.commit"


class Client(msgspec.Struct):
    """Any event of a client."""

    type: str
    model: str | None = None
    session: dict[str, Any] | None = None
    audio: str | None = None
    final: bool = False


def is_vllm(first: bytes) -> bool:
    """Whether the first event of a client is one of vLLM's."""
    try:
        event = msgspec.json.decode(first, type=Client)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return event.type == COMMIT or (event.type == UPDATE and event.model is not None and event.session is None)


class VllmSession:
    """One connection. Sound is 16-bit PCM of 16 kHz; all of it up to the final commit is one text."""

    def __init__(self) -> None:
        self._stream, self._samples = SampleStream(), 0
        self._text = ""
        self._is_first = True
        """Whether the next words are the first ones of their utterance."""

    def receive(self, message: bytes) -> tuple[list[Event], list[Command]]:
        """Take an event of the client; return what to answer, and what to tell the work."""
        try:
            event = read(message, Client)
            if event.type == APPEND:
                return [], self._append(event.audio or "")
            if event.type == COMMIT:
                return [], [Commit()] if event.final else []
            if event.type == UPDATE:
                return [], []
            raise Failure(400, f"There is no event of the type {event.type[:60]!r}", code="unknown_event")
        except Failure as failure:
            return [self.error(failure)], []

    def hear(self, event: Hearing) -> list[Event]:
        """Take an event of the work; return the events that tell it."""
        if isinstance(event, Words):
            return self._delta(event.text)
        if isinstance(event, Said):
            events = self._delta(event.rest)
            self._text, self._is_first = f"{self._text} {event.text}".strip(), True
            return events
        if not isinstance(event, Committed):
            return []
        usage = {"type": "duration", "seconds": round(self._samples / SAMPLE_RATE, 3)}
        text, self._text, self._samples = self._text, "", 0
        return [{"type": "transcription.done", "text": text, "usage": usage}]

    def error(self, failure: Failure) -> Event:
        """An error. The session goes on."""
        return {"type": "error", "error": failure.message, "code": failure.code}

    def _append(self, audio: str) -> list[Command]:
        samples = self._stream.push(decode_base64(audio, "audio") if audio else b"", "s16le")[:, 0]
        self._samples += len(samples)
        return sounds(samples)

    def _delta(self, text: str) -> list[Event]:
        if not text:
            return []
        space = " " if self._is_first and self._text and not text.startswith(" ") else ""
        self._is_first = False
        return [{"type": "transcription.delta", "delta": space + text}]
