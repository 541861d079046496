"""Listens, serves, and drains when it is told to stop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

CONNECTIONS = 512
"""Open connections, at most; more get 503."""


class Server(uvicorn.Server):
    """A server whose owner handles the signals."""

    def __init__(self, app: ASGIApp, *, started: Callable[[], None]) -> None:
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
        self._started = started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    def drain(self) -> None:
        """Take no more connections, and return from ``run`` when those that are open have their answers."""
        self.should_exit = True

    def listen(self, where: socket.socket) -> None:
        """Serve until ``drain``."""
        asyncio.run(self.serve([where]))


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound, so that a port in use is noticed before a model is loaded.

    Raises:
        ValueError: The address cannot be used; the message says why.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # of the addresses of localhost, the one that most clients try
        family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        where = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"--host {host} is no address of this machine: {error.strerror}") from error
    try:
        where.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        where.bind(address)
    except OSError as error:
        where.close()
        remedy = (
            "choose another --port" if error.errno == 98 or error.errno == 48 else "choose another --host or --port"
        )
        raise ValueError(f"Cannot listen on {host}:{port}: {error.strerror}; {remedy}") from error
    return where
