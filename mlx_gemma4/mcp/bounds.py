"""What a server may send: how much, and how many messages."""

from __future__ import annotations

import time
from typing import Any

from anyio import EndOfStream
from mcp_types import JSONRPCNotification

MOST_BYTES = 16 * 2**20
"""Bytes of a message: a large screenshot has ten million."""
MOST_MESSAGES = 5_000
"""Messages in WINDOW, which is much more than a server has to say."""
WINDOW = 10.0
"""Seconds."""


class Rate:
    """Counts messages.

    Attributes:
        problem: What was too much, or None.
    """

    def __init__(self) -> None:
        self._since, self._count = 0.0, 0
        self.problem: str | None = None

    def is_within(self) -> bool:
        """Count one more message; False if there were too many."""
        now = time.monotonic()
        if now - self._since > WINDOW:
            self._since, self._count = now, 0
        self._count += 1
        if self._count > MOST_MESSAGES:
            self.problem = f"it sent more than {MOST_MESSAGES:,} messages within {WINDOW:g} s"
        return self.problem is None


class Incoming:
    """The messages of a server, without its notifications, which nobody reads. It ends where there are too many.

    Implements what the ``mcp`` package asks of a stream of messages.

    Args:
        rate: Counts them.
    """

    def __init__(self, stream: Any, rate: Rate) -> None:
        self._stream, self._rate = stream, rate

    async def receive(self) -> Any:
        while True:
            item = await self._stream.receive()
            if not self._rate.is_within():
                raise EndOfStream
            if not isinstance(getattr(item, "message", None), JSONRPCNotification):
                return item

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Incoming:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self.receive()
        except EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Incoming:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def last_context(self) -> Any:
        """The context of the last message, where the stream has one."""
        return getattr(self._stream, "last_context", None)
