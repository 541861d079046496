"""Work that neither the event loop nor the engine should wait for: decoding media, rendering prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

MOST = 2
"""Threads. More would only hold more decoded pictures in memory."""

T = TypeVar("T")


class Threads:
    """A few threads."""

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(MOST)

    async def run(self, function: Callable[[], T]) -> T:
        """Run a function in one of them. If the request is cancelled, its result is dropped."""
        return await anyio.to_thread.run_sync(function, limiter=self._limiter, abandon_on_cancel=True)
