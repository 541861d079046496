"""What every protocol can do with the events of an answer or of a transcript."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from mlx_gemma4.serve.events import ChatEvent
from mlx_gemma4.serve.protocols.failure import Failure

E = TypeVar("E", contravariant=True)


class Writer(Protocol[E]):
    """Writes one answer: for each event of a stream, or as a whole after all of them."""

    @property
    def end(self) -> bytes:
        """What a stream ends with."""

    def take(self, event: E) -> Any:
        """Take an event, for ``whole``."""

    def told(self, event: E) -> list[bytes]:
        """Take an event; return the encoded events of the stream that tell it."""

    def failed(self, failure: Failure) -> list[bytes]:
        """The encoded events of a stream that fails."""


class ChatWriter(Writer[ChatEvent], Protocol):
    """Writes one answer of a chat."""

    def whole(self) -> dict[str, Any]:
        """The answer as one object."""
