"""``/v1/realtime``: a WebSocket around a session."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import anyio
import anyio.lowlevel
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from mlx_gemma4.serve.engine import CLOSING, Busy
from mlx_gemma4.serve.hearing import Hearing, Release
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.realtime_conversation import Abilities, Cancel, Prefetch, Respond
from mlx_gemma4.serve.protocols.realtime_session import Done, Event, RealtimeSession
from mlx_gemma4.serve.protocols.wire import write
from mlx_gemma4.serve.service import Service
from mlx_gemma4.serve.web.failures import failure_of
from mlx_gemma4.serve.web.fetching import Fetcher
from mlx_gemma4.serve.web.pace import until_heard
from mlx_gemma4.serve.web.realtime_answers import Answering
from mlx_gemma4.serve.web.realtime_pictures import with_pictures
from mlx_gemma4.serve.web.sessions import Sessions
from mlx_gemma4.serve.web.threads import Threads
from mlx_gemma4.serve.work.hearing import Inbox
from mlx_gemma4.serve.work.media import Media

PROTOCOL = "realtime"
"""The subprotocol that OpenAI's clients for browsers ask for."""
SERVER_ERROR, TRY_LATER, GOING_AWAY, RESTART = 1011, 1013, 1001, 1012
"""Codes with which a WebSocket is closed."""
WAITING_EVENTS = 64
"""Events that may wait to be sent. Who has more to tell waits."""


async def converse(service: Service, fetcher: Fetcher, sessions: Sessions, websocket: WebSocket) -> None:
    """Serve a connection until one side ends it."""
    offered = websocket.scope.get("subprotocols") or []
    await websocket.accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
    transcribes = websocket.query_params.get("intent") == "transcription"
    session = RealtimeSession(_next_id, abilities(service), _decoder(service), transcribes=transcribes)
    inbox, outbox = Inbox(), Outbox[Hearing]()
    try:
        if sessions.is_ending:
            raise Busy(CLOSING)
        job = service.hear(inbox, outbox) if transcribes else service.converse(inbox, outbox)
    except (Busy, Failure) as error:
        await websocket.send_text(write(session.error(failure_of(error))).decode())
        await websocket.close(TRY_LATER)
        return
    connection = _Connection(service, fetcher, websocket, session, inbox, outbox)
    try:
        with sessions.holding(connection):
            await connection.run()
    finally:
        job.cancel()
        await _close(websocket, connection.code)


def abilities(service: Service) -> Abilities:
    """What the model of a server takes."""
    processor, questions = service.processor, service.questions
    hears = processor.config.audio_config is not None
    frame = processor.frame_samples if hears else 1
    return Abilities(
        service.names[0],
        longest=processor.limits.audio_tokens * frame if hears else None,
        frame=frame,
        context=questions.context,
        calls=questions.writes_tools,
    )


def _decoder(service: Service) -> Callable[[str, bytes, str | None, str], Any]:
    """Decodes the media of an event, whose number is limited."""

    def decode(kind: str, data: bytes, detail: str | None, where: str) -> Any:
        return Media(service.processor, service.limits.media).decode(kind, data, detail, where)

    return decode


def _next_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


async def _close(websocket: WebSocket, code: int) -> None:
    with anyio.CancelScope(shield=True), anyio.move_on_after(1.0):
        if websocket.client_state == websocket.application_state == WebSocketState.CONNECTED:
            try:
                await websocket.close(code)
            except RuntimeError:  # the client was quicker
                return


class _Connection:
    """Tasks: one takes the client's events, one those of the work, one sends, and others answer (``Answering``).

    Attributes:
        code: Why it ended.
    """

    def __init__(
        self,
        service: Service,
        fetcher: Fetcher,
        websocket: WebSocket,
        session: RealtimeSession,
        inbox: Inbox,
        outbox: Outbox[Hearing],
    ) -> None:
        self._limits, self._websocket, self._session = service.limits, websocket, session
        self._fetcher, self._inbox, self._outbox = fetcher, inbox, outbox
        self._threads = Threads()
        self._answering = Answering(service, session, self._threads, self._do, inbox.put)
        self.code = GOING_AWAY
        self._is_draining = False
        self._receiving = anyio.CancelScope()
        self._events: deque[Event] = deque()
        """In the order in which the session has told them."""
        self._changed = anyio.Event()
        """Set when an event was put there, or taken."""

    def drain(self) -> None:
        """The server ends: take no more events, tell what was promised, and end."""
        self._is_draining, self.code = True, RESTART
        self._receiving.cancel()

    async def run(self) -> None:
        async with anyio.create_task_group() as group:

            async def until_end(task: Callable[[], Awaitable[None]]) -> None:
                try:
                    await task()
                except Exception as error:
                    failure_of(error)  # notes it
                    self.code = SERVER_ERROR
                group.cancel_scope.cancel()

            self._answering.group = group
            for task in (self._send, self._tell, self._receive, self._answering.prefetch):
                group.start_soon(until_end, task)

    async def _do(self, done: Done) -> None:
        """Do what the session says: nothing comes in between. Then wait while the client does not read."""
        events, commands = done
        self._put(events)
        for command in commands:
            if isinstance(command, Respond):
                self._answering.begin(command)
            elif isinstance(command, Cancel):
                self._answering.cancel(command.response_id)
            elif isinstance(command, Prefetch):
                self._answering.want(command)
            else:
                if isinstance(command, Release):
                    self._answering.want(None)
                self._inbox.put(command)
        while len(self._events) > WAITING_EVENTS:
            await self._changed.wait()

    def _put(self, events: Sequence[Event]) -> None:
        self._events += events
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _send(self) -> None:
        """Send events; return if the client does not read them."""
        while True:
            while not self._events:
                await self._changed.wait()
            with anyio.move_on_after(self._limits.idle) as sending:
                try:
                    await self._websocket.send_text(write(self._events[0]).decode())
                except (WebSocketDisconnect, RuntimeError):
                    return
            if sending.cancelled_caught:
                return
            self._events.popleft()
            self._notify()
            await anyio.lowlevel.checkpoint()  # sending does not wait for others, nor see that the client has gone

    async def _tell(self) -> None:
        """Tell what the work has heard."""
        try:
            while (heard := await self._outbox.get()) is not None:
                await self._do(self._session.hear(heard))
            if self._is_draining:
                await self._answering.ended()
                while self._events:
                    await self._changed.wait()
        except Exception as error:
            self.code = SERVER_ERROR
            self._put([self._session.error(failure_of(error))])
            await anyio.sleep(0.1)  # let it be sent

    async def _receive(self) -> None:
        """Take the client's events; return if it goes, or says nothing for a long time."""
        await self._do(self._session.open())
        with self._receiving:
            await self._receive_all()
        if self._is_draining:
            await self._do(self._session.drain())
            self._inbox.close()
            await anyio.sleep_forever()  # _tell ends the connection

    async def _receive_all(self) -> None:
        while True:
            with anyio.move_on_after(self._limits.session_idle) as waiting:
                message = await self._websocket.receive()
            if waiting.cancelled_caught or message["type"] == "websocket.disconnect":
                return
            data = _bytes(message)
            try:
                data = await with_pictures(self._fetcher, data)
            except Failure as failure:
                self._put([self._session.error(failure, data)])
                continue
            read = self._session.read
            told = await self._threads.run(lambda: read(data)) if self._session.takes_long(data) else read(data)  # noqa: B023
            await self._do(self._session.take(told))
            await until_heard(self._inbox)


def _bytes(message: MutableMapping[str, Any]) -> bytes:
    text, data = message.get("text"), message.get("bytes")
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else data if isinstance(data, bytes) else b""
