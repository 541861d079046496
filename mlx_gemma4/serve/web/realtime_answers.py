"""The answers of a Realtime conversation: each a task around a job of the engine, and one that computes ahead."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
from anyio.abc import TaskGroup

from mlx_gemma4.serve.engine import Job
from mlx_gemma4.serve.events import ChatEvent
from mlx_gemma4.serve.hearing import History
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.realtime_conversation import Prefetch, Respond
from mlx_gemma4.serve.protocols.realtime_session import Done, RealtimeSession
from mlx_gemma4.serve.service import Service
from mlx_gemma4.serve.web.chat import counted
from mlx_gemma4.serve.web.failures import failure_of
from mlx_gemma4.serve.web.pace import LOOK
from mlx_gemma4.serve.web.threads import Threads
from mlx_gemma4.serve.work.histories import FittedHistory


class Answering:
    """The answers of a connection.

    Args:
        do: Does what the session says.
        put: Takes what is to be computed ahead.

    Attributes:
        group: Where its tasks run. Set before the first of them.
    """

    group: TaskGroup

    def __init__(
        self,
        service: Service,
        session: RealtimeSession,
        threads: Threads,
        do: Callable[[Done], Awaitable[None]],
        put: Callable[[History], None],
    ) -> None:
        self._service, self._session, self._threads, self._do, self._put = service, session, threads, do, put
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._wanted: Prefetch | None = None
        self._version = 0
        """Of what is wanted: what was made of an older one is dropped."""
        self._changed = anyio.Event()

    def begin(self, command: Respond) -> None:
        """Begin an answer."""
        self._scopes[command.response_id] = anyio.CancelScope()
        self.group.start_soon(self._answer, command)

    def cancel(self, response_id: str) -> None:
        """End an answer before its next forward."""
        scope = self._scopes.get(response_id)
        if scope is not None:
            scope.cancel()

    async def ended(self) -> None:
        """Return when no answer is being made."""
        while self._scopes:
            await anyio.sleep(LOOK)

    def want(self, command: Prefetch | None) -> None:
        """Compute something ahead, instead of what was wanted before."""
        self._version += 1
        self._wanted = command
        self._changed.set()

    async def prefetch(self) -> None:
        """Render what is wanted, and hand it on."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            command, version = self._wanted, self._version
            if command is None:
                continue
            try:
                history = await self._threads.run(partial(self._history, command))
            except Failure:  # the answer tells it
                continue
            if version == self._version:
                self._session.leave(history.left)
                self._put(History(history.prompt, command.heard))

    def _history(self, command: Prefetch) -> FittedHistory:
        histories = self._service.histories
        return histories.history(command.request, command.truncation, listens=command.heard is not None)

    async def _answer(self, command: Respond) -> None:
        job: Job | None = None
        with self._scopes[command.response_id]:
            try:
                started = time.monotonic()
                prepared = await self._threads.run(
                    lambda: self._service.histories.fit(command.request, command.truncation)
                )
                self._session.leave(prepared.left, command.response_id)
                outbox = Outbox[ChatEvent]()
                job = self._service.ask(prepared.question, outbox, takes_place=False)
                async for told in counted(self._service, outbox, started):
                    await self._do(self._session.answer(command.response_id, told))
            except Exception as error:
                await self._do(self._session.fail(command.response_id, failure_of(error)))
            finally:
                if job is not None:
                    job.cancel()
        del self._scopes[command.response_id]
