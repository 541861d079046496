"""Several sequences decoded side by side: one forward gives a token to each. For recordings, where nobody waits.

Reading the weights is what a step costs, and a batch reads them once for all. Sequences end together at the right, with
unused keys before the shorter ones; each keeps its own positions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import mlx.core as mx
import numpy as np

from mlx_gemma4.decoder.cache import Held
from mlx_gemma4.decoder.config import LayerConfig
from mlx_gemma4.decoder.masks import Mask
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.guards import loop_start
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.session import Session


class BatchLayer:
    """Keys and values ``[B, K, capacity, head_dim]`` of one layer, of which index ``first[b]`` to ``end`` are valid."""

    def __init__(self, rows: Sequence[tuple[mx.array, mx.array]], offset: mx.array, spare: int) -> None:
        self.offset = offset
        lengths = [keys.shape[2] for keys, _ in rows]
        self.end = max(lengths)
        self.first = np.array([self.end - length for length in lengths])
        self.keys = _stack([keys for keys, _ in rows], self.end, spare)
        self.values = _stack([values for _, values in rows], self.end, spare)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        end = self.end + 1
        self.keys[..., self.end : end, :] = keys
        self.values[..., self.end : end, :] = values
        self.end = end
        self.offset = self.offset + 1
        return self.keys[..., :end, :], self.values[..., :end, :]

    def mask(self, window: int | None) -> Mask:
        """[B, 1, 1, end + 1]: what the next position may see, itself included."""
        index = np.arange(self.end + 1)
        visible = index >= self.first[:, None]
        if window is not None:
            visible &= index > self.end - window
        return mx.array(visible[:, None, None])


class Batch:
    """The caches of several sequences, for one token each a step."""

    def __init__(self, held: Sequence[Held], layers: Sequence[LayerConfig], *, window: int, spare: int) -> None:
        offset = mx.array([each.position for each in held])
        rows = zip(*(each.layers for each in held), strict=True)
        self.layers = [BatchLayer(row, offset, spare) for row in rows]
        self._window = window
        self._full = next((i for i, layer in enumerate(layers) if not layer.is_sliding), None)
        self._sliding = next((i for i, layer in enumerate(layers) if layer.is_sliding), None)

    def masks(self, queries: int, image_ids: np.ndarray | None) -> tuple[Mask, Mask]:
        assert queries == 1 and image_ids is None, "a batch takes one text token of each sequence a step"
        full = None if self._full is None else self.layers[self._full].mask(None)
        return full, None if self._sliding is None else self.layers[self._sliding].mask(self._window)


def decode_batch(
    session: Session,
    questions: Sequence[Prompt],
    sampler: Sampler,
    *,
    stop_ids: Collection[int],
    max_tokens: Sequence[int],
) -> list[list[int]]:
    """What ``draft.answer`` gives for each question behind the session's sequence, decoded side by side.

    The session is as it was before.
    """
    start = session.position
    held, tokens = [], []
    for question in questions:
        tokens.append(sampler.greedy(session.extend(question)[None]))
        held.append(session.held())
        session.rewind(start)
    model, text = session.model, session.model.config.text_config
    batch = Batch(held, text.layers, window=text.sliding_window, spare=max(max_tokens))
    del held

    def is_over(row: int) -> bool:
        said = tokens[row]
        return said[-1] in stop_ids or len(said) == max_tokens[row] or loop_start(said) is not None

    over = [is_over(row) for row in range(len(tokens))]
    while not all(over):
        last = mx.array([said[-1] for said in tokens])[:, None]
        logits = model.logits(model(model.embed_tokens(last), batch))[:, -1]
        for row, token in enumerate(sampler.greedy(logits)):
            if not over[row]:
                tokens[row].append(token)
                over[row] = is_over(row)
    return tokens


def _stack(rows: Sequence[mx.array], length: int, spare: int) -> mx.array:
    """[1, K, S, head_dim] each → [B, K, length + spare, head_dim], right-aligned before the spare."""
    padded = [mx.pad(row, [(0, 0), (0, 0), (length - row.shape[2], spare), (0, 0)]) for row in rows]
    return mx.concatenate(padded, axis=0)
