"""Listens, serves, and drains when it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp

CONNECTIONS = 512
"""Open connections, at most; more get 503."""


class Beside(Protocol):
    """A server of another protocol in the same event loop."""

    async def start(self) -> None:
        """Take connections."""

    def drain(self) -> None:
        """Take no more connections; end those that wait for nothing."""

    async def ended(self) -> None:
        """Return when those that wait for an answer have it."""


class Server(uvicorn.Server):
    """A server whose owner handles the signals.

    Args:
        started: Called when clients can connect.
        beside: Servers that begin and end with this one.
    """

    def __init__(self, app: ASGIApp, *, started: Callable[[], None], beside: Sequence[Beside] = ()) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=CONNECTIONS,
                ws_max_size=32_000_000,
                timeout_keep_alive=30,
            )
        )
        self._started, self._beside = started, beside

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for each in self._beside:
            await each.start()
        self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for each in self._beside:
            each.drain()
        for server in self.servers:
            server.close()
        websocket = self.config.ws_protocol_class
        for connection in list(self.server_state.connections):
            if websocket is None or not isinstance(connection, websocket):
                connection.shutdown()
        for each in self._beside:
            await each.ended()
        await super().shutdown(sockets)  # which cuts WebSockets, and waits for the rest

    def drain(self) -> None:
        """Take no more connections, and return from ``run`` when those that are open have their answers."""
        self.should_exit = True

    def listen(self, where: socket.socket) -> None:
        """Serve until ``drain``."""
        asyncio.run(self.serve([where]))


def open_socket(host: str, port: int, *, options: tuple[str, str] = ("--host", "--port")) -> socket.socket:
    """A socket that is bound, so that a port in use is noticed before a model is loaded.

    Args:
        options: The options that set host and port, for messages.

    Raises:
        ValueError: The address cannot be used; the message says why.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # of the addresses of localhost, the one that most clients try
        family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        where = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"{options[0]} {host} is no address of this machine: {error.strerror}") from error
    try:
        where.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        where.bind(address)
    except OSError as error:
        where.close()
        is_port = error.errno == errno.EADDRINUSE
        remedy = f"choose another {options[1] if is_port else ' or '.join(dict.fromkeys(options))}"
        raise ValueError(f"Cannot listen on {host}:{port}: {error.strerror}; {remedy}") from error
    return where
