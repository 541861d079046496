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

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_gemma4.decoder.cache import LayerCache
from mlx_gemma4.decoder.config import LayerConfig, RopeConfig, TextConfig
from mlx_gemma4.decoder.masks import Mask, Tile, causal_tiles, mask_from
from mlx_gemma4.decoder.memory import SCORE_BYTES


def attend(queries: mx.array, keys: mx.array, values: mx.array, mask: Mask) -> mx.array:
    """softmax(queries · keys) · values, with a scale of 1: ``[B, H, L, head_dim]`` like the queries.

    The only place where scores are made. One array of them has at most SCORE_BYTES, unless a single query has more.

    Args:
        keys: [B, K, S, head_dim], and values as well. Each of the K heads serves ``H / K`` heads of queries.
        mask: Which of the S keys the queries see.
    """
    if not isinstance(mask, tuple):
        batch, heads, length, _ = queries.shape
        row_bytes = batch * heads * keys.shape[2] * queries.dtype.size
        if length == 1 or length * row_bytes <= SCORE_BYTES or mask != "causal":
            return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=1.0, mask=mask)
        mask = causal_tiles(length, keys.shape[2], SCORE_BYTES // row_bytes)
    done = list[mx.array]()
    for tile in mask:
        done.append(_attend_tile(queries[:, :, tile.rows], keys, values, tile, done[-1:]))
    return mx.concatenate(done, axis=2)


def _attend_tile(queries: mx.array, keys: mx.array, values: mx.array, tile: Tile, before: list[mx.array]) -> mx.array:
    """The rows of a tile, which are computed when those of the tile ``before`` are."""
    if before:
        [queries] = mx.depends([queries], before)
    keys, values = keys[:, :, tile.keys], values[:, :, tile.keys]
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=1.0, mask=tile.mask)


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
        self._rope = Rope(config.rope[layer.layer_type], self.head_dim)

    def __call__(self, x: mx.array, mask: Mask, cache: LayerCache, read_from: int = 0) -> mx.array:
        B, L, _ = x.shape
        offset = cache.offset
        keys = self.k_proj(x).reshape(B, L, self.n_kv_heads, -1)
        # values are the keys before norm and RoPE on full layers: k_eq_v
        values = keys if self.k_eq_v else self.v_proj(x).reshape(B, L, self.n_kv_heads, -1)
        keys = self._rope(self.k_norm(keys).transpose(0, 2, 1, 3), offset)
        values = mx.fast.rms_norm(values, None, self.eps).transpose(0, 2, 1, 3)
        keys, values = cache.update_and_fetch(keys, values)

        if read_from:
            x, mask, offset, L = x[:, read_from:], mask_from(mask, read_from, L), offset + read_from, L - read_from
        queries = self.q_proj(x).reshape(B, L, self.n_heads, -1)
        queries = self._rope(self.q_norm(queries).transpose(0, 2, 1, 3), offset)
        out = attend(queries, keys, values, mask)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(B, L, -1))
