"""The loop: sound from a source into a listener while it arrives, events out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mlx_gemma4.live.events import Event, Lost
from mlx_gemma4.live.listener import Listener
from mlx_gemma4.live.sources import Source


def listen(source: Source, listener: Listener, *, hear: Callable[[np.ndarray], None] | None = None) -> Iterator[Event]:
    """Yield what happens until the source ends. Each pass takes all that has arrived in the meantime.

    Args:
        hear: Called with each block of sound, float32 [n] at 16 kHz, before it is worked off.
    """
    lost = 0.0
    while (block := source.read()) is not None:
        if hear is not None:
            hear(block)
        listener.feed(block)
        yield from listener.step()
        if source.lost_seconds > lost:
            yield Lost(source.lost_seconds - lost)
            lost = source.lost_seconds
    yield from listener.finish()
