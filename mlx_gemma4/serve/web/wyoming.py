"""Wyoming over TCP. The protocol has no keys: who can connect may use the model."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence

import anyio
from wyoming.event import Event

from mlx_gemma4 import __version__
from mlx_gemma4.serve.engine import Job
from mlx_gemma4.serve.events import ChatEvent, Finished
from mlx_gemma4.serve.hearing import Hearing
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.wyoming import Ask, WyomingSession, error_event
from mlx_gemma4.serve.protocols.wyoming_answer import Conversations, HandledAnswer
from mlx_gemma4.serve.protocols.wyoming_info import server_info
from mlx_gemma4.serve.protocols.wyoming_wire import LONGEST_LINE, encode
from mlx_gemma4.serve.service import Service
from mlx_gemma4.serve.web.chat import counted
from mlx_gemma4.serve.web.failures import failure_of
from mlx_gemma4.serve.web.pace import LOOK, until_heard
from mlx_gemma4.serve.web.preparing import Preparing
from mlx_gemma4.serve.web.wyoming_input import Input
from mlx_gemma4.serve.work.chat import Question
from mlx_gemma4.serve.work.hearing import Inbox

CONNECTIONS = 64
"""Open connections, at most."""
WAITING_EVENTS, WAITING_TEXTS = 64, 4
LINGER = 0.5
"""Seconds in which a client may close a connection first that the server ends."""


class WyomingServer:
    """Serves Wyoming beside HTTP, in the same event loop.

    Args:
        where: A socket that is bound.
    """

    def __init__(self, service: Service, where: socket.socket) -> None:
        self._service, self._where = service, where
        self._preparing, self._conversations = Preparing(service), Conversations()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._serve, sock=self._where, limit=LONGEST_LINE)

    def drain(self) -> None:
        """Take no more connections; end those that wait for nothing."""
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.drain()

    async def ended(self) -> None:
        """Return when those that wait for an answer have it."""
        while self._connections:
            await anyio.sleep(LOOK)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._connections) >= CONNECTIONS:
                failure = Failure(
                    503, f"{CONNECTIONS} Wyoming connections are open; close one", code="server_overloaded"
                )
                writer.write(encode(error_event(failure)))
                await writer.drain()
                return
            connection = _Connection(self._service, self._preparing, self._conversations, reader, writer)
            self._connections.add(connection)
            try:
                await connection.run()
            finally:
                self._connections.discard(connection)
        except OSError:
            return  # the client has gone
        finally:
            writer.close()


class _Connection:
    """Tasks take the client's events, answer texts, and send what there is to say; another one tells what is heard."""

    def __init__(
        self,
        service: Service,
        preparing: Preparing,
        conversations: Conversations,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._service, self._preparing, self._conversations = service, preparing, conversations
        self._input, self._writer = Input(reader, service.limits), writer
        hears = service.processor.config.audio_config is not None
        info = server_info(service.names, __version__, hears=hears)
        self._session = WyomingSession(info, service.language, service.check_model)
        self._inbox: Inbox | None = None
        self._asked = 0
        """Texts that have no answer yet."""
        self._is_draining = False
        self._has_ended = anyio.Event()
        self._group = anyio.create_task_group()
        self._sender, self._events = anyio.create_memory_object_stream[Event | None](WAITING_EVENTS)
        self._asker, self._asks = anyio.create_memory_object_stream[Ask](WAITING_TEXTS)

    async def run(self) -> None:
        """Serve it until one side ends it."""
        async with self._sender, self._events, self._asker, self._asks, self._group as group:
            for task in (self._send, self._answer_all, self._receive):
                group.start_soon(self._until_failure, task)

    def drain(self) -> None:
        """End when everything that the client waits for is sent."""
        self._is_draining = True
        if not self._is_waiting:
            self._group.cancel_scope.cancel()

    async def _until_failure(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except OSError:
            self._group.cancel_scope.cancel()  # the client has gone
        except Exception as error:
            failure = failure_of(error)
            self._count("other", failure.status)
            await self._put([error_event(failure), None])
            if task == self._receive:
                self._group.start_soon(self._until_failure, self._skip)

    async def _send(self) -> None:
        """Send events up to the end; return if the client does not read them."""
        async for event in self._events:
            if event is None:
                # what the client still sends is read: a connection that is closed before may lose its last events
                self._writer.write_eof()
                self._has_ended.set()
                await anyio.sleep(LINGER)
                break
            with anyio.move_on_after(self._service.limits.idle) as sending:
                await self._write(event)
            if sending.cancelled_caught:
                break
        self._group.cancel_scope.cancel()

    async def _write(self, event: Event) -> None:
        self._writer.write(encode(event))
        await self._writer.drain()

    async def _receive(self) -> None:
        """Take the client's events; end the connection if it goes."""
        while (event := await self._input.next(lambda: self._is_waiting)) is not None:
            if self._has_ended.is_set():
                continue
            events, commands = self._session.receive(event)
            await self._put(events)
            for command in commands:
                if isinstance(command, Ask):
                    self._asked += 1
                    await self._asker.send(command)
                else:
                    self._open_inbox().put(command)
            if self._inbox is not None:
                await until_heard(self._inbox)
        self._group.cancel_scope.cancel()

    async def _skip(self) -> None:
        """Read what the client still sends, and forget it."""
        await self._has_ended.wait()
        await self._input.skip()
        self._group.cancel_scope.cancel()

    def _open_inbox(self) -> Inbox:
        if self._inbox is None:
            inbox, outbox = Inbox(), Outbox[Hearing]()
            job = self._service.hear(inbox, outbox)
            self._inbox = inbox
            self._group.start_soon(self._until_failure, lambda: self._tell(job, outbox))
        return self._inbox

    async def _tell(self, job: Job, outbox: Outbox[Hearing]) -> None:
        """Tell what is heard, up to the transcript. A session is not held between two commands."""
        try:
            while (heard := await outbox.get()) is not None:
                events = self._session.hear(heard)
                if self._session.is_hearing:
                    await self._put(events)
                    continue
                self._inbox = None
                self._count("transcribe", 200)
                await self._put(events)  # the client may leave as soon as it has them
                break
        finally:
            job.cancel()
        await self._end_if_drained()

    async def _answer_all(self) -> None:
        async for ask in self._asks:
            answer = HandledAnswer(ask)
            try:
                await self._answer(ask, answer)
            except Exception as error:
                failure = failure_of(error)
                self._count("handle", failure.status)
                await self._put(answer.failed(failure))
            self._asked -= 1
            await self._end_if_drained()

    async def _answer(self, ask: Ask, answer: HandledAnswer) -> None:
        started = time.monotonic()
        question = await self._prepare(ask)
        outbox: Outbox[ChatEvent] = Outbox()
        job = self._service.ask(question, outbox)
        try:
            async for told in counted(self._service, outbox, started):
                events = answer.told(told)
                if isinstance(told, Finished):
                    self._conversations.keep(ask, answer.text)
                    self._count("handle", 200)
                await self._put(events)  # the client may leave as soon as it has them
        finally:
            job.cancel()

    async def _prepare(self, ask: Ask) -> Question:
        """The question, without the oldest turns of a conversation that has become too long."""
        while True:
            try:
                return (await self._preparing.prepare(self._conversations.request(ask)))[0]
            except Failure as failure:
                if failure.code != "context_length_exceeded" or not self._conversations.shorten(ask):
                    raise

    async def _put(self, events: Sequence[Event | None]) -> None:
        for event in events:
            await self._sender.send(event)

    @property
    def _is_waiting(self) -> bool:
        return self._session.waits or self._asked > 0

    async def _end_if_drained(self) -> None:
        if self._is_draining and not self._is_waiting:
            await self._put([None])

    def _count(self, kind: str, status: int) -> None:
        self._service.metrics.add("requests_total", route=f"wyoming/{kind}", status=str(status))
