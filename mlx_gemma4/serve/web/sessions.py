"""The Realtime connections that are open, for the end of the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import anyio

LOOK = 0.02
"""Seconds between two looks at whether all have ended."""


class Drains(Protocol):
    """A connection that can be asked to end."""

    def drain(self) -> None:
        """Take no more events, tell what was promised, and end."""


class Sessions:
    """Begins and ends with the server (``Beside``).

    Attributes:
        is_ending: Whether new ones should not begin.
    """

    def __init__(self) -> None:
        self._open: set[Drains] = set()
        self.is_ending = False

    @contextmanager
    def holding(self, connection: Drains) -> Iterator[None]:
        """A block in which a connection is open."""
        self._open.add(connection)
        try:
            yield
        finally:
            self._open.discard(connection)

    async def start(self) -> None:
        """The application begins them."""

    def drain(self) -> None:
        """Let all of them end."""
        self.is_ending = True
        for connection in list(self._open):
            connection.drain()

    async def ended(self) -> None:
        """Return when they have ended."""
        while self._open:
            await anyio.sleep(LOOK)
