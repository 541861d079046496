"""Reads the bodies of requests, within bounds of size and time."""

from __future__ import annotations

import anyio
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from mlx_gemma4.serve.protocols.failure import Failure


class Bounded:
    """Receives the parts of a body.

    Raises:
        Failure: The body is longer than ``most`` bytes, or the next part does not come in ``idle`` seconds.
    """

    def __init__(self, receive: Receive, most: int, idle: float) -> None:
        self._receive, self._most, self._idle = receive, most, idle
        self._count = 0

    async def __call__(self) -> Message:
        try:
            with anyio.fail_after(self._idle):
                message = await self._receive()
        except TimeoutError:
            raise Failure(408, f"Nothing was received for {self._idle:g} s", code="timeout") from None
        self._count += len(message.get("body", b""))
        if self._count > self._most:
            raise too_large(self._most)
        return message


def too_large(most: int) -> Failure:
    return Failure(413, f"The body of a request may have at most {most // 1_000_000} MB", code="request_too_large")


async def read_body(request: Request, most: int, idle: float) -> bytes:
    """The body of a request.

    Raises:
        Failure: It is too long or comes too slowly.
        ClientDisconnect: The client has gone.
    """
    bounded = bound(request, most, idle)
    parts = []
    while True:
        message = await bounded()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def bound(request: Request, most: int, idle: float) -> Bounded:
    """What receives the body of a request within bounds.

    Raises:
        Failure: Its header says that it is too long.
    """
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise too_large(most)
    return Bounded(request.receive, most, idle)
