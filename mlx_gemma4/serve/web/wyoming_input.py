"""Reads a client's Wyoming events, within bounds of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from wyoming.event import Event

from mlx_gemma4.serve.limits import Limits
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.wyoming_wire import LONGEST_LINE, read_event, read_header

T = TypeVar("T")
BLOCK = 65_536


class Input:
    """What comes from a client."""

    def __init__(self, reader: asyncio.StreamReader, limits: Limits) -> None:
        self._reader, self._limits = reader, limits

    async def next(self, is_waiting: Callable[[], bool]) -> Event | None:
        """The next event; None if the client has gone.

        Args:
            is_waiting: Whether the client waits for an answer, and need not say anything.

        Raises:
            Failure: It is too long, no event, or does not come.
        """
        while True:
            try:
                line = await _within(self._limits.session_idle, self._line)
                break
            except Failure:
                if not is_waiting():
                    raise
        if not line.endswith(b"\n"):
            return None
        header = read_header(line)
        try:
            data = await self._bytes(header.data_length)
            return read_event(header, data, await self._bytes(header.payload_length))
        except asyncio.IncompleteReadError:
            return None

    async def skip(self) -> None:
        """Read up to the end, and forget it."""
        while await self._reader.read(BLOCK):
            pass

    async def _line(self) -> bytes:
        try:
            return await self._reader.readline()
        except ValueError:
            raise Failure(
                413, f"The line of an event may have at most {LONGEST_LINE} bytes", code="too_large"
            ) from None

    async def _bytes(self, count: int | None) -> bytes:
        if not count:
            return b""
        return await _within(self._limits.idle, lambda: self._reader.readexactly(count))


async def _within(seconds: float, read: Callable[[], Awaitable[T]]) -> T:
    try:
        with anyio.fail_after(seconds):
            return await read()
    except TimeoutError:
        raise Failure(408, f"Nothing was received for {seconds:g} s", code="timeout") from None
