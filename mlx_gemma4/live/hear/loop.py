"""The loop: sound from a source into a listener while it arrives, events out."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from mlx_gemma4.live.hear.events import DroppedAudio, ListenerEvent
from mlx_gemma4.live.hear.listener import Listener
from mlx_gemma4.live.hear.sources import Source

Events = Generator[ListenerEvent, None, None]


def listen(source: Source, listener: Listener, *, hear: Callable[[np.ndarray], None] | None = None) -> Events:
    """Yield what happens until the source ends. Each pass takes all that has arrived in the meantime.

    An error of the source or the model is raised after the last events: the text of what was heard until then.
    So is KeyboardInterrupt, without waiting for the model: the last guess stands.

    Args:
        hear: Called with each block of sound, float32 [n] at 16 kHz, before it is worked off.
    """
    try:
        yield from _follow(source, listener, hear)
        yield from listener.finish()
    except Exception:
        yield from _last_events(listener)
        raise
    except KeyboardInterrupt:
        yield from listener.abandon()
        raise


def _follow(source: Source, listener: Listener, hear: Callable[[np.ndarray], None] | None) -> Events:
    lost = 0.0
    while (block := source.read()) is not None:
        listener.feed(block)
        if hear is not None:
            hear(block)
        yield from listener.step()
        if source.lost_seconds > lost:
            yield DroppedAudio(source.lost_seconds - lost)
            lost = source.lost_seconds


def _last_events(listener: Listener) -> list[ListenerEvent]:
    try:
        return listener.finish()
    except Exception:  # it was the model: the reason is raised by the caller
        return listener.abandon()
