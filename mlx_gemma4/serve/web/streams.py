"""Answers that take a while: to the client as they come, and ended when it goes away."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mlx_gemma4.serve.protocols.wire import KEEP_ALIVE
from mlx_gemma4.serve.protocols.writer import Writer
from mlx_gemma4.serve.web.failures import failure_of

KEEP_ALIVE_SECONDS = 15.0
"""After so long without an event, a comment is sent: proxies and clients give up on silent connections."""
GONE = 499
"""Status of a response that nobody reads any more."""

T = TypeVar("T")


async def while_connected(receive: Receive, work: Callable[[], Awaitable[T]]) -> T | None:
    """What ``work`` returns or raises; None if the client went away before it was done, and it was cancelled."""
    result: list[T] = []
    problem: list[Exception] = []
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            result.append(await work())
        except Exception as error:  # raised below: a task group would put it into a group of its own
            problem.append(error)
        group.cancel_scope.cancel()
    if problem:
        raise problem[0]
    return result[0] if result else None


async def take_all(events: AsyncIterator[T], writer: Writer[T]) -> bool:
    """Let a writer take all events."""
    async for told in events:
        writer.take(told)
    return True


async def written(events: AsyncIterator[T], writer: Writer[T]) -> AsyncGenerator[bytes, None]:
    """The encoded events of a stream. An error is one of them: the status is sent already."""
    try:
        async for told in events:
            for event in writer.told(told):
                yield event
    except Exception as error:
        for event in writer.failed(failure_of(error)):
            yield event
    if writer.end:
        yield writer.end


class EventStream(Response):
    """A stream of server-sent events.

    Args:
        events: Encoded events. They must not raise.
        ended: Called at the end, also if the client goes away or takes too long to read.
        idle: Seconds in which the client must take an event.
    """

    def __init__(self, events: AsyncGenerator[bytes, None], ended: Callable[[], None], idle: float) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._events, self._ended, self._idle = events, ended, idle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(receive, lambda: self._send(send))
        finally:
            self._ended()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sender, receiver = anyio.create_memory_object_stream[bytes](0)

        async def read() -> None:
            async with sender, aclosing(self._events):
                async for event in self._events:
                    await sender.send(event)

        async with anyio.create_task_group() as group, receiver:
            group.start_soon(read)
            while (event := await _next(receiver)) is not None:
                with anyio.move_on_after(self._idle) as sending:
                    await send({"type": "http.response.body", "body": event, "more_body": True})
                if sending.cancelled_caught:
                    group.cancel_scope.cancel()
                    return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _next(receiver: MemoryObjectReceiveStream[bytes]) -> bytes | None:
    """The next event, a comment if there is none for a while, or None at the end."""
    with anyio.move_on_after(KEEP_ALIVE_SECONDS):
        try:
            return await receiver.receive()
        except anyio.EndOfStream:
            return None
    return KEEP_ALIVE
