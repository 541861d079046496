"""Slows down clients that send sound faster than it is heard."""

from __future__ import annotations

import anyio

from mlx_gemma4.serve.work.hearing import Inbox

AHEAD = 20.0
"""Seconds of sound that may wait to be heard. A client that sends more waits, as TCP makes it."""
LOOK = 0.02
"""Seconds between two looks at whether something is done."""


async def until_heard(inbox: Inbox) -> None:
    """Return when little sound waits."""
    while inbox.seconds > AHEAD:
        await anyio.sleep(LOOK)
