"""A connection to one MCP server, in a thread of its own: its event loop never runs in the thread that owns MLX.

    caller ── request ──▶ │ thread: event loop, mcp.Client │ ◀──▶ server
    caller ◀── result ─── │                                │

Each wait is bounded, and each error names the server. Import this module only where a server is opened.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from signal import SIGKILL
from typing import Any, TypeVar

import anyio
from mcp import Client, MCPError
from mcp_types import CONNECTION_CLOSED
from pydantic import ValidationError

from mlx_gemma4.mcp.address import Address
from mlx_gemma4.mcp.bounds import Incoming, Rate
from mlx_gemma4.mcp.http import http
from mlx_gemma4.mcp.stdio import Program, stdio
from mlx_gemma4.printable import printable

START_LIMIT = 60.0
"""Seconds in which a server has to answer first: ``uvx`` and ``npx`` may download it."""
CLOSE_LIMIT = 6.0
"""Seconds after which a server is killed that does not end."""
GRACE = 2.0
"""Seconds for the thread to report that a time limit was reached."""
SETTLING = 0.3
"""Seconds in which the thread ends, where the connection has."""
SHOWN = 300
"""Characters of an error that a server reports."""

T = TypeVar("T")


class ServerError(ValueError):
    """A request to a server failed. The message names the server, and says why."""


class _Closed(Exception):
    """The connection ended during a request. Why is known soon."""


class Connection:
    """Opens a server.

    Args:
        start_limit: Seconds until it has answered first.

    Raises:
        ServerError: It cannot be started or reached, or does not answer in time.
    """

    def __init__(self, address: Address, *, start_limit: float = START_LIMIT) -> None:
        self.address = address
        self._program = Program()
        self._messages = Rate()
        self._failure: BaseException | None = None
        self._client: Client | None = None
        self._scope: anyio.CancelScope | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready, self._stopped = threading.Event(), False
        logging.getLogger("mcp").addHandler(logging.NullHandler())  # it logs what servers do wrong: messages say it
        self._thread = threading.Thread(target=self._run, name=f"mcp {address.name}", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        try:
            is_ready = self._ready.wait(start_limit)
        except BaseException:  # Ctrl-C
            self.close()
            raise
        if not is_ready or self._client is None:
            reason = self._reason() if is_ready else f"it did not answer within {start_limit:g} s"
            self.close()
            raise ServerError(f"The MCP server {address.name} cannot be used: {reason}{self._printed()} ({address})")

    @property
    def capabilities(self) -> Any:
        """What the server says that it offers."""
        assert self._client is not None
        return self._client.server_capabilities

    def request(self, ask: Callable[[Client], Awaitable[T]], what: str, seconds: float) -> T:
        """The server's answer to a request. Any thread may call this, several at once.

        Args:
            ask: Makes the request, in the connection's thread.
            what: What was asked for, for messages.

        Raises:
            ServerError: It reports an error, does not answer in time, or has ended.
        """
        if self._loop is None or not self._thread.is_alive():
            raise self._ended()
        future = asyncio.run_coroutine_threadsafe(self._bounded(ask, what, seconds), self._loop)
        try:
            return future.result(seconds + GRACE)
        except (_Closed, CancelledError) as error:
            self._thread.join(SETTLING)
            raise self._ended() from error
        except TookTooLong as error:
            raise self._late(what, seconds) if self._thread.is_alive() else self._ended() from error
        finally:
            future.cancel()  # also when the caller is interrupted: the server is told

    def close(self) -> None:
        """End the server, with the processes that it started. Another call does nothing."""
        atexit.unregister(self.close)
        try:
            self._stop()
            self._thread.join(CLOSE_LIMIT)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the server at once. Any thread may call this, also one that is about to end the process."""
        self._program.signal(SIGKILL)

    def _stop(self) -> None:
        self._stopped = True
        if self._loop is not None and self._scope is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._scope.cancel)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # reported by whoever waits for the server
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        with anyio.CancelScope() as self._scope:
            if self._stopped:
                return
            async with Client(self._transport(), cache=None) as client:
                self._client = client
                self._ready.set()
                await anyio.sleep_forever()

    def _transport(self) -> AbstractAsyncContextManager[Any]:
        @asynccontextmanager
        async def bounded() -> Any:
            opened = http(self.address) if self.address.url is not None else stdio(self.address, self._program)
            async with opened as (received, sent):
                yield Incoming(received, self._messages), sent

        return bounded()

    async def _bounded(self, ask: Callable[[Client], Awaitable[T]], what: str, seconds: float) -> T:
        assert self._client is not None
        try:
            with anyio.fail_after(seconds):
                return await ask(self._client)
        except TimeoutError as error:
            raise self._late(what, seconds) from error
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise _Closed from error
            raise ServerError(f"The MCP server {self.address.name} refused {what}: {_line(error.message)}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])[:SHOWN]
            raise ServerError(
                f"The MCP server {self.address.name} answered {what} in a way that the protocol does not allow: "
                f"{where}: {_line(first['msg'])}"
            ) from error

    def _late(self, what: str, seconds: float) -> ServerError:
        return ServerError(f"The MCP server {self.address.name} did not answer {what} within {seconds:g} s")

    def _ended(self) -> ServerError:
        return ServerError(f"The MCP server {self.address.name} has ended: {self._reason()}{self._printed()}")

    def _reason(self) -> str:
        """Why the connection ended."""
        problem = self._program.problem or self._messages.problem
        if problem is not None:
            return problem
        if self._program.status is not None:
            return f"exit status {self._program.status}"
        return _line(_said(self._failure)) if self._failure is not None else "it closed the connection"

    def _printed(self) -> str:
        printed = self._program.printed
        return f"; it printed: {printed}" if printed else ""


def _said(error: BaseException) -> str:
    """The message of an error, or of the first one in a group."""
    while isinstance(inner := getattr(error, "exceptions", None), tuple) and inner:
        error = inner[0]
    return str(error) or type(error).__name__


def _line(text: str) -> str:
    line = printable(" ".join(text[: 4 * SHOWN].split()))
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
