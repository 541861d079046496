"""``/v1/realtime``: which kind of session a connection is. The address, or the first events of the client, say so.

?intent=transcription                                 TranscriptionSession
session.update with the type transcription            TranscriptionSession, if nothing was said before
vLLM's first event                                    VllmSession
otherwise                                             ConversationSession
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlx_gemma4.serve.events import ChatEvent
from mlx_gemma4.serve.hearing import Hearing, Transcribe
from mlx_gemma4.serve.protocols.chat_messages import Decode
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.realtime import TranscriptionSession
from mlx_gemma4.serve.protocols.realtime_conversation import Abilities, Command, ConversationSession
from mlx_gemma4.serve.protocols.realtime_events import Read, Unread
from mlx_gemma4.serve.protocols.realtime_request import Update, event_id_of
from mlx_gemma4.serve.protocols.realtime_vllm import VllmSession, is_vllm

Event = dict[str, Any]
Done = tuple[list[Event], list[Command]]
"""What to tell the client, and what to tell the work."""

SMALL = 16_384
"""Bytes of a message that is read at once. Others may hold pictures."""
APPEND = b"input_audio_buffer.append"


@dataclass(frozen=True)
class Message:
    """An event of the client, and what it is in a conversation."""

    data: bytes
    read: Read | Unread | None = None


class RealtimeSession:
    """A connection of any kind.

    Args:
        transcribes: Whether the address asks for a transcription.
        decode: Decodes media.
    """

    def __init__(
        self, next_id: Callable[[str], str], abilities: Abilities, decode: Decode, *, transcribes: bool
    ) -> None:
        self._next_id, self._decode = next_id, decode
        self._is_first = True
        self._session: ConversationSession | TranscriptionSession | VllmSession = (
            TranscriptionSession(next_id) if transcribes else ConversationSession(next_id, abilities)
        )

    def open(self) -> Done:
        """The first events."""
        session = self._session
        assert not isinstance(session, VllmSession)
        return session.open() if isinstance(session, ConversationSession) else (session.open(), [])

    def takes_long(self, data: bytes) -> bool:
        """Whether ``read`` should not hold up others."""
        is_small = len(data) <= SMALL or APPEND in data[:SMALL] or APPEND in data[-SMALL:]
        return isinstance(self._session, ConversationSession) and not is_small

    def read(self, data: bytes) -> Message:
        """Read an event of the client. It changes nothing, and may run in any thread."""
        if isinstance(self._session, ConversationSession):
            return Message(data, self._session.read(data, self._decode))
        return Message(data)

    def take(self, message: Message) -> Done:
        """Take an event of the client. What is wrong changes nothing, and is answered by an error."""
        is_first, self._is_first = self._is_first, False
        session = self._session
        if is_first and is_vllm(message.data):
            self._session = VllmSession()
            switches: list[Command] = [Transcribe()] if isinstance(session, ConversationSession) else []
            events, commands = self._session.receive(message.data)
            return events, [*switches, *commands]
        if not isinstance(session, ConversationSession):
            events, commands = session.receive(message.data)
            return events, [*commands]
        read = message.read
        if isinstance(read, Read) and isinstance(read.event, Update) and read.event.session.type == "transcription":
            return self._switch(session, message.data, read)
        assert read is not None
        return session.take(read)

    def hear(self, told: Hearing) -> Done:
        """Take an event of the work on sound."""
        session = self._session
        return session.hear(told) if isinstance(session, ConversationSession) else (session.hear(told), [])

    def drain(self) -> Done:
        """The server ends: what somebody is saying is told as it is."""
        session = self._session
        return [], [*session.drain()] if isinstance(session, TranscriptionSession) else []

    def answer(self, response_id: str, told: ChatEvent) -> Done:
        """Take an event of the work on an answer."""
        session = self._session
        return session.answer(response_id, told) if isinstance(session, ConversationSession) else ([], [])

    def fail(self, response_id: str, failure: Failure) -> Done:
        """An answer has failed."""
        session = self._session
        return session.fail(response_id, failure) if isinstance(session, ConversationSession) else ([], [])

    def leave(self, turns: int, response_id: str | None = None) -> None:
        """The oldest turns have left the context, to make room for an answer, or for the next one."""
        if isinstance(self._session, ConversationSession):
            self._session.leave(turns, response_id)

    def error(self, failure: Failure, message: bytes | None = None) -> Event:
        """An error.

        Args:
            message: The event of the client that has failed.
        """
        if message is None or isinstance(self._session, VllmSession):
            return self._session.error(failure)
        return self._session.error(failure, event_id_of(message))

    def _switch(self, session: ConversationSession, data: bytes, read: Read) -> Done:
        """The client wants a transcription; a conversation that has begun refuses that."""
        if session.has_begun:
            return session.take(read)
        transcription = TranscriptionSession(self._next_id, session_id=session.id)
        events, commands = transcription.receive(data)
        if events[0]["type"] == "error":
            return events, []
        self._session = transcription
        return events, [Transcribe(), *commands]
