"""Streams to clients that are slow, silent or gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mlx_gemma4.serve.limits import Limits
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.protocols.wire import KEEP_ALIVE
from mlx_gemma4.serve.web import streams
from mlx_gemma4.serve.web.realtime import _Connection
from mlx_gemma4.serve.web.streams import EventStream, while_connected
from mlx_gemma4.serve.work.hearing import Inbox

Message = dict[str, Any]


class Client:
    """Takes the messages of a response.

    Args:
        takes: How many it takes before it stops reading.
        leaves: It goes away after that, rather than wait.
    """

    def __init__(self, takes: int = 1000, *, leaves: bool = False) -> None:
        self.taken: list[Message] = []
        self._takes, self._leaves = takes, leaves
        self._has_left = asyncio.Event()

    async def send(self, message: Message) -> None:
        if len(self.taken) == self._takes:
            if self._leaves:
                self._has_left.set()
            await asyncio.sleep(60)
        self.taken.append(message)

    async def receive(self) -> Message:
        await self._has_left.wait()
        return {"type": "http.disconnect"}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.taken)


def run(client: Callable[[], Client], events: Callable[[], AsyncGenerator[bytes, None]]) -> tuple[Client, list[str]]:
    """A stream to a client, and what happened at its end."""
    ends: list[str] = []

    async def noted() -> AsyncGenerator[bytes, None]:
        try:
            async for event in events():
                yield event
        finally:
            ends.append("closed")

    async def serve() -> Client:
        made = client()
        stream = EventStream(noted(), lambda: ends.append("ended"), idle=0.05)
        await stream({"type": "http"}, made.receive, made.send)  # type: ignore[arg-type]
        return made

    return asyncio.run(serve()), ends


async def endless() -> AsyncGenerator[bytes, None]:
    while True:
        yield b"data: x\n\n"


async def slow() -> AsyncGenerator[bytes, None]:
    yield b"data: a\n\n"
    await asyncio.sleep(0.05)
    yield b"data: b\n\n"


@pytest.mark.parametrize("leaves", [False, True])
def test_who_does_not_read_is_not_waited_for(leaves: bool) -> None:
    """After the idle time, or at once if the client is gone."""
    client, ends = run(lambda: Client(4, leaves=leaves), endless)
    assert (client.body, ends) == (b"data: x\n\n" * 3, ["closed", "ended"])


def test_a_silent_stream_sends_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_SECONDS", 0.01)
    client, ends = run(Client, slow)
    assert client.body.startswith(b"data: a\n\n" + KEEP_ALIVE) and client.body.endswith(KEEP_ALIVE + b"data: b\n\n")
    assert client.body.replace(KEEP_ALIVE, b"") == b"data: a\n\ndata: b\n\n"
    assert client.taken[0]["status"] == 200 and client.taken[-1]["more_body"] is False
    assert ends == ["closed", "ended"]


def test_work_is_cancelled_when_its_client_goes() -> None:
    done: list[str] = []

    async def work() -> str:
        try:
            await asyncio.sleep(60)
        finally:
            done.append("cancelled")
        return "late"

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def stays() -> Message:
        await asyncio.sleep(60)
        return {}

    async def fails() -> str:
        raise ValueError("broken")

    def wait(receive: Callable[[], Awaitable[Message]], work: Callable[[], Awaitable[str]]) -> str | None:
        return asyncio.run(while_connected(receive, work))  # type: ignore[arg-type]

    assert wait(gone, work) is None and done == ["cancelled"]
    with pytest.raises(ValueError, match=r"^broken$"):
        wait(stays, fails)


def test_events_of_a_websocket_leave_the_event_loop_to_others() -> None:
    """One a turn: sending into a buffer does not wait, and whether the client has gone is seen in between."""
    sent: list[str] = []

    class Socket:
        async def send_text(self, text: str) -> None:
            sent.append(text)

    async def counts() -> list[int]:
        service: Any = SimpleNamespace(limits=Limits())
        anything: Any = None
        connection = _Connection(service, anything, Socket(), anything, Inbox(), Outbox())  # type: ignore[arg-type]
        connection._put([{"type": "error"}] * 10)
        task = asyncio.create_task(connection._send())
        found = []
        for _ in range(4):
            await asyncio.sleep(0)
            found.append(len(sent))
        task.cancel()
        return found

    assert asyncio.run(counts()) == [1, 2, 3, 4]
