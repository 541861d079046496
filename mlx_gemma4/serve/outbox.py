"""What a job hands to the request that waits for it: from the engine's thread to the event loop, in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

ROOM = 256
"""Items that may wait for a slow reader. The job waits then, and computes nothing."""

T = TypeVar("T")


class Outbox(Generic[T]):
    """A queue with one writer and one reader. Make it in the event loop.

    Attributes:
        on_room: Called when a reader has made room again.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._items: deque[T] = deque()
        self._arrived = asyncio.Event()
        self._has_ended = False
        self._error: BaseException | None = None
        self.on_room: Callable[[], None] = lambda: None

    @property
    def is_full(self) -> bool:
        """Whether the writer should wait."""
        return len(self._items) >= self._room

    def put(self, item: T) -> None:
        """Append an item. From the engine's thread."""
        self._items.append(item)
        self._notify()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing follows. From the engine's thread."""
        self._error, self._has_ended = error, True
        self._notify()

    async def get(self) -> T | None:
        """The next item, or None at the end.

        Raises:
            BaseException: What the job raised, once everything before it was read.
        """
        has_ended = self._has_ended  # read first: what was put before the end is there then
        while not self._items:
            if has_ended:
                if self._error is not None:
                    raise self._error
                return None
            self._arrived.clear()
            await self._arrived.wait()
            has_ended = self._has_ended
        was_full = self.is_full
        item = self._items.popleft()
        if was_full:
            self.on_room()
        return item

    def _notify(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._arrived.set)
