"""``/v1/realtime``: a WebSocket around a transcription session."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from mlx_gemma4.serve.engine import Busy
from mlx_gemma4.serve.hearing import Hearing
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.realtime import Event, TranscriptionSession
from mlx_gemma4.serve.protocols.realtime_vllm import VllmSession, is_vllm
from mlx_gemma4.serve.protocols.wire import write
from mlx_gemma4.serve.service import Service
from mlx_gemma4.serve.web.failures import failure_of
from mlx_gemma4.serve.work.hearing import Inbox

PROTOCOL = "realtime"
"""The subprotocol that OpenAI's clients for browsers ask for."""
SERVER_ERROR, TRY_LATER, GOING_AWAY = 1011, 1013, 1001
"""Codes with which a WebSocket is closed."""
AHEAD = 20.0
"""Seconds of sound that may wait to be heard. A client that sends more waits, as TCP makes it."""
LOOK = 0.02
"""Seconds between two looks at whether they were heard."""
WAITING_EVENTS = 64


async def converse(service: Service, websocket: WebSocket) -> None:
    """Serve a connection until one side ends it."""
    offered = websocket.scope.get("subprotocols") or []
    await websocket.accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
    kind = "transcription" if websocket.query_params.get("intent") == "transcription" else "realtime"
    session = TranscriptionSession(lambda prefix: f"{prefix}_{secrets.token_hex(12)}", kind=kind)
    inbox, outbox = Inbox(), Outbox[Hearing]()
    try:
        job = service.hear(inbox, outbox)
    except (Busy, Failure) as error:
        await websocket.send_text(write(session.error(failure_of(error))).decode())
        await websocket.close(TRY_LATER)
        return
    connection = _Connection(service, websocket, session, inbox, outbox)
    try:
        await connection.run()
    finally:
        job.cancel()
        await _close(websocket, connection.code)


async def _close(websocket: WebSocket, code: int) -> None:
    with anyio.CancelScope(shield=True), anyio.move_on_after(1.0):
        if websocket.client_state == websocket.application_state == WebSocketState.CONNECTED:
            try:
                await websocket.close(code)
            except RuntimeError:  # the client was quicker
                return


class _Connection:
    """Three tasks: one takes the client's events, one those of the work, and one sends what both have to say.

    Attributes:
        code: Why it ended.
    """

    def __init__(
        self,
        service: Service,
        websocket: WebSocket,
        session: TranscriptionSession,
        inbox: Inbox,
        outbox: Outbox[Hearing],
    ) -> None:
        self._limits, self._websocket = service.limits, websocket
        self._session: TranscriptionSession | VllmSession = session
        self._inbox, self._outbox = inbox, outbox
        self.code = GOING_AWAY
        self._sender, self._events = anyio.create_memory_object_stream[Event](WAITING_EVENTS)
        for event in session.open():
            self._sender.send_nowait(event)

    async def run(self) -> None:
        async with self._sender, self._events, anyio.create_task_group() as group:

            async def until_end(task: Callable[[], Awaitable[None]]) -> None:
                try:
                    await task()
                except Exception as error:
                    failure_of(error)  # notes it
                    self.code = SERVER_ERROR
                group.cancel_scope.cancel()

            for task in (self._send, self._tell, self._receive):
                group.start_soon(until_end, task)

    async def _put(self, events: Sequence[Event]) -> None:
        for event in events:
            await self._sender.send(event)

    async def _send(self) -> None:
        """Send events; return if the client does not read them."""
        async for event in self._events:
            with anyio.move_on_after(self._limits.idle) as sending:
                try:
                    await self._websocket.send_text(write(event).decode())
                except (WebSocketDisconnect, RuntimeError):
                    return
            if sending.cancelled_caught:
                return

    async def _tell(self) -> None:
        """Tell what the work has heard."""
        try:
            while (heard := await self._outbox.get()) is not None:
                await self._put(self._session.hear(heard))
        except Exception as error:
            self.code = SERVER_ERROR
            await self._put([self._session.error(failure_of(error))])
            await anyio.sleep(0.1)  # let it be sent

    async def _receive(self) -> None:
        """Take the client's events; return if it goes, or says nothing for a long time."""
        is_first = True
        while True:
            with anyio.move_on_after(self._limits.session_idle) as waiting:
                message = await self._websocket.receive()
            if waiting.cancelled_caught or message["type"] == "websocket.disconnect":
                return
            data = _bytes(message)
            if is_first and is_vllm(data):
                self._session = VllmSession()
            is_first = False
            events, commands = self._session.receive(data)
            await self._put(events)
            for command in commands:
                self._inbox.put(command)
            while self._inbox.seconds > AHEAD:
                await anyio.sleep(LOOK)


def _bytes(message: MutableMapping[str, Any]) -> bytes:
    text, data = message.get("text"), message.get("bytes")
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else data if isinstance(data, bytes) else b""
