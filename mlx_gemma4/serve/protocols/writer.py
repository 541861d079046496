"""What every protocol of chats can do with the events of an answer."""

from __future__ import annotations

from typing import Any, Protocol

from mlx_gemma4.serve.events import ChatEvent
from mlx_gemma4.serve.protocols.failure import Failure


class Writer(Protocol):
    """Writes one answer: for each event of a stream, or as a whole after all of them."""

    @property
    def end(self) -> bytes:
        """What a stream ends with."""

    def take(self, event: ChatEvent) -> Any:
        """Take an event, for ``whole``."""

    def told(self, event: ChatEvent) -> list[bytes]:
        """Take an event; return the encoded events of the stream that tell it."""

    def failed(self, failure: Failure) -> list[bytes]:
        """The encoded events of a stream that fails."""

    def whole(self) -> dict[str, Any]:
        """The answer as one object."""
