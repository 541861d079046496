"""Decodes several sequences side by side: one forward gives each its next token. For recordings, where nobody waits.

A step costs the time to read the weights, and a batch reads them once for all its sequences. Their keys and values are
aligned at the right, so that the next one of every sequence is written at the same index::

    index        0 1 2 3 4 5 | 6 7 8
    sequence 0   a b c d e f | . . .    first = 0    next position 6
    sequence 1   - - - a b c | . . .    first = 3    next position 3
    sequence 2   - a b c d e | . . .    first = 1    next position 5
                             ^ end: the next keys go here; "." is spare, "-" is masked

A sequence keeps its own positions (``offset``), since padding must not change the rotary embedding.
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
    """Keys and values ``[B, K, capacity, head_dim]`` of one layer; sequence b is at ``first[b]`` to ``end - 1``."""

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
        """[B, 1, 1, end + 1] bool: the indices that the next position may see, itself included."""
        index = np.arange(self.end + 1)
        visible = index >= self.first[:, None]
        if window is not None:
            visible &= index > self.end - window
        return mx.array(visible[:, None, None])


class Batch:
    """The caches of several sequences. Each step takes one token of each."""

    def __init__(self, caches: Sequence[Held], layers: Sequence[LayerConfig], *, window: int, spare: int) -> None:
        offset = mx.array([cache.position for cache in caches])
        rows = zip(*(cache.layers for cache in caches), strict=True)
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
    """Decode the answers to several questions, each asked after the session's sequence, as ``draft.answer`` would.

    The session ends as it was.

    Args:
        max_tokens: The most tokens of each answer.
    """
    start = session.position
    caches, tokens = [], []
    for question in questions:
        tokens.append(sampler.greedy(session.extend(question)[None]))
        caches.append(session.held())
        session.rewind(start)
    model, text = session.model, session.model.config.text_config
    batch = Batch(caches, text.layers, window=text.sliding_window, spare=max(max_tokens))
    del caches  # the batch has copies

    def is_over(row: int) -> bool:
        answer = tokens[row]
        return answer[-1] in stop_ids or len(answer) == max_tokens[row] or loop_start(answer) is not None

    over = [is_over(row) for row in range(len(tokens))]
    while not all(over):
        last = mx.array([answer[-1] for answer in tokens])[:, None]
        logits = model.logits(model(model.embed_tokens(last), batch))[:, -1]
        for row, token in enumerate(sampler.greedy(logits)):
            if not over[row]:
                tokens[row].append(token)
                over[row] = is_over(row)
    return tokens


def _stack(rows: Sequence[mx.array], length: int, spare: int) -> mx.array:
    """[1, K, S, head_dim] each → [B, K, length + spare, head_dim], aligned at the right, then the spare."""
    padded = [mx.pad(row, [(0, 0), (0, 0), (length - row.shape[2], spare), (0, 0)]) for row in rows]
    return mx.concatenate(padded, axis=0)
