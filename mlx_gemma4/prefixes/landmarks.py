"""Where a prompt is worth a snapshot: behind messages and media, where another prompt may go on otherwise."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from mlx_gemma4.inputs.prompt import AUDIO, Prompt

APART = 64
"""Positions from one landmark to the next, at least. One that is left out costs so many positions, computed again."""
RARER = 8
"""Far from the end, landmarks lie at least one part in so many of their distance from it apart: a long prompt that is
computed at once has few. One that grows turn by turn has had those of each turn at its end."""


def landmarks(prompt: Prompt, ends: Collection[int], *, start: int = 0) -> list[int]:
    """Rows of a prompt before which to take snapshots (``Session.extend``).

        system … <turn|> user picture picture picture question <turn|> model
                        │                             │                a question of less than APART positions
                        snapshot                      snapshot         is computed again with its answer

    Args:
        ends: Token ids that end a message: ``processor.stop_ids``.
        start: The first row that is not computed yet. Rows are counted from it, and those before it have landmarks.
    """
    kind = np.where(prompt.is_vision, 1, np.where(prompt.token_types == AUDIO, 2, 0))
    is_end = np.isin(prompt.token_ids, list(ends)) & (kind == 0)
    is_end[:-1] |= (kind[:-1] != 0) & (kind[1:] != kind[:-1])
    chosen: list[int] = []
    for row in (np.flatnonzero(is_end) + 1).tolist():
        if not chosen or row - chosen[-1] >= max(APART, (len(prompt) - row) // RARER):
            chosen.append(row)
    return [row - start for row in chosen if row > start]
