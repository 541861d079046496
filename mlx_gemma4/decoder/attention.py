"""Attention in memory that does not grow with the context: scores are made a tile at a time.

MLX has no fused kernel for the head size of full layers, so their scores are arrays of [heads, queries, keys]. Those of
512 queries and 131,072 keys would take 2 GB of the 12B. So the queries of a long forward are cut into tiles:

             keys ─────────────────▶
    queries  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒ ·        a full layer: every tile with all keys, of which "·" are masked
       │     ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
       ▼         ▒▒▒▒▒▒▒▒▒▒▒           a sliding layer: every tile with the keys that its window needs
                   ▒▒▒▒▒▒▒▒▒▒▒

A query's scores are all in one tile, so its numbers are those of attention without tiles. A tile waits for the one
before it: MLX would compute the scores of all tiles before it reads any.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_gemma4.decoder.apart import ApartLayer
from mlx_gemma4.decoder.cache import LayerCache
from mlx_gemma4.decoder.config import LayerConfig, RopeConfig, TextConfig
from mlx_gemma4.decoder.masks import Mask, causal_tiles, mask_from
from mlx_gemma4.decoder.memory import SCORE_BYTES
from mlx_gemma4.decoder.quantized import Stored, cut, product, readable, sum_of_products
from mlx_gemma4.decoder.stored import rotating_pairs


def attend(queries: Sequence[mx.array], keys: Sequence[Stored], values: Sequence[Stored], mask: Mask) -> list[mx.array]:
    """softmax(queries · keys) · values, with a scale of 1: ``[B, H, L, width]`` of each part of the values.

    The only place where scores are made. One array of them has at most SCORE_BYTES, unless a single query has more.

    Args:
        queries: [B, H, L, width] in one part or in several, whose scores add up.
        keys: [B, K, S, width] in the same parts. Each of the K heads serves ``H / K`` heads of queries.
        values: [B, K, S, width], in parts of their own.
        mask: Which of the S keys the queries see.
    """
    keys, values = readable(keys), readable(values)
    batch, heads, length, _ = queries[0].shape
    if not isinstance(mask, tuple):
        seen = keys[0].shape[2]
        row_bytes = batch * heads * seen * queries[0].dtype.size
        if length == 1 or length * row_bytes <= SCORE_BYTES or mask != "causal":
            return _attend(queries, keys, values, mask)
        mask = causal_tiles(length, seen, SCORE_BYTES // row_bytes)
    done = list[list[mx.array]]()
    for tile in mask:
        rows = [part[:, :, tile.rows] for part in queries]
        if done:  # a tile is computed when the one before it is
            rows = mx.depends(rows, done[-1])
        done.append(_attend(rows, cut(keys, tile.keys), cut(values, tile.keys), tile.mask))
    return [mx.concatenate(list(parts), axis=2) for parts in zip(*done, strict=True)]


def _attend(
    queries: Sequence[mx.array], keys: Sequence[Stored], values: Sequence[Stored], mask: mx.array | str | None
) -> list[mx.array]:
    """``attend``, all queries at once."""
    if len(keys) == len(values) == 1 and isinstance(keys[0], mx.array) and isinstance(values[0], mx.array):
        return [mx.fast.scaled_dot_product_attention(queries[0], keys[0], values[0], scale=1.0, mask=mask)]
    batch, heads, length, _ = queries[0].shape
    shared = keys[0].shape[1]
    # the heads that share keys are rows of one product
    rows = [part.reshape(batch, shared, heads // shared * length, -1) for part in queries]
    scores = mx.softmax(_masked(sum_of_products(rows, keys), length, mask), axis=-1, precise=True)
    return [product(scores, part).reshape(batch, heads, length, -1) for part in values]


def _masked(scores: mx.array, queries: int, mask: mx.array | str | None) -> mx.array:
    """Scores [B, K, n · queries, S], the lowest where a query does not see a key."""
    if mask is None:
        return scores
    batch, shared, _, seen = scores.shape
    if isinstance(mask, str):
        mask = mx.arange(seen - queries, seen)[:, None] >= mx.arange(seen)
    lowest = mx.array(mx.finfo(scores.dtype).min, dtype=scores.dtype)
    apart = scores.reshape(batch, shared, -1, queries, seen)
    return mx.where(mask if mask.ndim == 2 else mask[:, :, None], apart, lowest).reshape(scores.shape)


class Split:
    """Divides heads [..., head_dim] into the dims that rotate and those that stand still (``stored``).

    Args:
        rotating: Pairs that rotate. A pair is dim i and i + head_dim / 2.
    """

    def __init__(self, rotating: int) -> None:
        self._rotating = rotating

    def rotating(self, x: mx.array) -> mx.array:
        return _halves(x)[..., : self._rotating].flatten(-2)

    def still(self, x: mx.array, weight: mx.array | None = None) -> mx.array:
        """The dims that stand still; times a weight [head_dim]."""
        part = _halves(x)[..., self._rotating :]
        return (part if weight is None else part * _halves(weight)[:, self._rotating :]).flatten(-2)

    def join(self, rotating: mx.array, still: mx.array) -> mx.array:
        """Heads of the two parts."""
        return mx.concatenate([_halves(rotating), _halves(still)], axis=-1).flatten(-2)


def _halves(x: mx.array) -> mx.array:
    return x.reshape(*x.shape[:-1], 2, -1)


class Seen:
    """The keys and values of a layer, as its cache stores them, for queries of the layer or of a drafter.

    Args:
        parts: Keys and values; or with ``split`` the three parts of ``stored``.
        weight: [head_dim], of the key norm.
    """

    def __init__(self, parts: Sequence[Stored], split: Split | None, weight: mx.array) -> None:
        self.parts = parts
        self._split, self._weight = split, weight

    def attend(self, queries: mx.array, mask: Mask) -> mx.array:
        """``[B, H, L, head_dim]`` queries → the same of values."""
        if self._split is None:
            keys, values = self.parts
            return attend([queries], [keys], [values], mask)[0]
        rotating_keys, still, rotating_values = self.parts
        # the weight of the key norm works on the query: keys and values share what is stored
        parts = [self._split.rotating(queries), self._split.still(queries, self._weight)]
        rotating, standing = attend(parts, [rotating_keys, still], [rotating_values, still], mask)
        return self._split.join(rotating, standing)


class Rope:
    """Rotary embedding with halves paired (dim i with i + head_dim / 2).

    Of the ``head_dim / 2`` pairs the first ``partial_rotary_factor`` rotate, at theta^(-2i / head_dim): the
    exponent runs over the whole head. The others stand still ("proportional" RoPE).
    """

    def __init__(self, config: RopeConfig, head_dim: int) -> None:
        pairs = head_dim // 2
        rotating = int(config.partial_rotary_factor * pairs)
        self.head_dim = head_dim
        # mx.fast.rope takes periods: an infinite one is a frequency of 0
        periods = np.full(pairs, np.inf, dtype=np.float32)
        periods[:rotating] = config.rope_theta ** (np.arange(0, 2 * rotating, 2, dtype=np.float32) / head_dim)
        self.periods = mx.array(periods)

    def __call__(self, x: mx.array, offset: int | mx.array) -> mx.array:
        return mx.fast.rope(
            x, self.head_dim, traditional=False, base=None, scale=1.0, offset=offset, freqs=self.periods
        )


class Attention(nn.Module):
    """softmax(rope(norm(q)) · rope(norm(k))) · norm(v), with a scale of 1."""

    def __init__(self, config: TextConfig, layer: LayerConfig) -> None:
        super().__init__()
        self.n_heads = config.num_attention_heads
        self.n_kv_heads = layer.num_key_value_heads
        self.head_dim = layer.head_dim
        self.k_eq_v = layer.k_eq_v
        self.eps = config.rms_norm_eps
        self.q_proj = nn.Linear(config.hidden_size, self.n_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, self.n_kv_heads * self.head_dim, bias=False)
        if not self.k_eq_v:
            self.v_proj = nn.Linear(config.hidden_size, self.n_kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.n_heads * self.head_dim, config.hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=self.eps)
        self.k_norm = nn.RMSNorm(self.head_dim, eps=self.eps)
        rope = config.rope[layer.layer_type]
        self._rope = Rope(rope, self.head_dim)
        rotating = rotating_pairs(layer, rope)
        self._split = None if rotating is None else Split(rotating)

    def __call__(self, x: mx.array, mask: Mask, cache: LayerCache | ApartLayer, read_from: int = 0) -> mx.array:
        B, L, _ = x.shape
        keys = self.k_proj(x).reshape(B, L, self.n_kv_heads, -1)
        # values are the keys before norm and RoPE on full layers: k_eq_v
        values = keys if self.k_eq_v else self.v_proj(x).reshape(B, L, self.n_kv_heads, -1)
        keys = self.k_norm(keys).transpose(0, 2, 1, 3)
        values = mx.fast.rms_norm(values, None, self.eps).transpose(0, 2, 1, 3)
        if read_from:
            x, mask, L = x[:, read_from:], mask_from(mask, read_from, L), L - read_from
        queries = self.q_norm(self.q_proj(x).reshape(B, L, self.n_heads, -1)).transpose(0, 2, 1, 3)
        if isinstance(cache, ApartLayer):
            parts = [
                self._attend(queries[:, :, rows], keys[:, :, rows], values[:, :, rows], own, each)
                for rows, each, own in cache.parts
            ]
            out = mx.concatenate(parts, axis=2)
        else:
            out = self._attend(queries, keys, values, mask, cache, read_from)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(B, L, -1))

    def _attend(
        self, queries: mx.array, keys: mx.array, values: mx.array, mask: Mask, cache: LayerCache, read_from: int = 0
    ) -> mx.array:
        """Rows of one sequence, or of each in a batch, before RoPE: [B, H or K, L, head_dim]."""
        offset = cache.offset
        seen = self.seen(cache.update_and_fetch(*self._stored(self._rope(keys, offset), values)))
        return seen.attend(self._rope(queries, offset + read_from if read_from else offset), mask)

    def seen(self, parts: Sequence[Stored]) -> Seen:
        """What the layer's cache has returned, for queries."""
        return Seen(parts, self._split, self.k_norm.weight)

    def _stored(self, keys: mx.array, values: mx.array) -> tuple[mx.array, ...]:
        """What is stored of keys and values [B, K, L, head_dim]."""
        if self._split is None:
            return keys, values
        return self._split.rotating(keys), self._split.still(values), self._split.rotating(values)
