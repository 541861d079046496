"""Pixel patches and audio frames into the decoder: everything between the input and the first layer.

    patch   48·48·3 values ─ norm ─ matrix ─ norm ─ + x-table[x] + y-table[y] ─ norm ─ RMS norm ─ matrix ─▶ a row
    frame   640 samples ──────────────────────────────────────────────────────────── RMS norm ─ matrix ─▶ a row

Module attributes have the checkpoint's names. The caller checks positions and sizes, in numpy.
"""

from __future__ import annotations

from functools import reduce
from math import gcd

import mlx.core as mx
import mlx.nn as nn

from mlx_gemma4.decoder.config import VisionConfig

PROJECTION_BLOCKS = 8
"""Blocks in which the values of a frame are summed: 80 of 640 samples at a time."""


class PatchNorm(nn.LayerNorm):
    """LayerNorm over the values of a patch, summed pixel row by pixel row.

    One running float32 sum of 6912 numbers loses two digits, and the layers after it amplify the loss; sums of row sums
    do not. Computed in float32 for every input type, as the fused kernel does.
    """

    def __init__(self, side: int) -> None:
        # torch's LayerNorm default, not rms_norm_eps
        super().__init__(side * side * 3, eps=1e-5)
        self.side = side

    def __call__(self, x: mx.array) -> mx.array:
        rows = x.astype(mx.float32).reshape(*x.shape[:-1], self.side, -1)
        rows = rows - _mean(rows)
        rows = rows - _mean(rows)  # what rounding has left
        normed = rows * mx.rsqrt(_mean(mx.square(rows)) + self.eps)
        return normed.reshape(x.shape).astype(x.dtype) * self.weight + self.bias


def _mean(rows: mx.array) -> mx.array:
    return rows.mean(axis=-1, keepdims=True).mean(axis=-2, keepdims=True)


class BlockLinear(nn.Linear):
    """Linear over many raw values. In float32 it sums over blocks, for the same reason as PatchNorm.

    In half precision the plain product is better: it accumulates in float32 and rounds once.
    """

    def __init__(self, input_dims: int, output_dims: int, *, blocks: int, bias: bool) -> None:
        super().__init__(input_dims, output_dims, bias=bias)
        self.blocks = blocks

    def __call__(self, x: mx.array) -> mx.array:
        if x.dtype != mx.float32:
            return super().__call__(x)
        parts = zip(x.split(self.blocks, axis=-1), self.weight.split(self.blocks, axis=-1), strict=True)
        products = [values @ weight.T for values, weight in parts]
        return reduce(mx.add, products, self.bias) if "bias" in self else reduce(mx.add, products)


class VisionEmbedder(nn.Module):
    """patch → LayerNorm → Linear → LayerNorm → + x-table[x] + y-table[y] → LayerNorm.

    transformers ``Gemma4UnifiedVisionEmbedder``, without its projection (``embed_vision``).
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_ln1 = PatchNorm(config.model_patch_size)
        side = config.model_patch_size  # a block is a row of pixels
        self.patch_dense = BlockLinear(config.patch_values, config.mm_embed_dim, blocks=side, bias=True)
        self.patch_ln2 = nn.LayerNorm(config.mm_embed_dim, eps=1e-5)
        self.pos_embedding = mx.zeros((config.mm_posemb_size, 2, config.mm_embed_dim))
        self.pos_norm = nn.LayerNorm(config.mm_embed_dim, eps=1e-5)

    def __call__(self, patches: mx.array, patch_xy: mx.array) -> mx.array:
        # patches [B, P, patch_values] in [0, 1]; patch_xy [B, P, 2] as (x, y)
        h = self.patch_ln1(patches.astype(self.pos_embedding.dtype))
        h = self.patch_ln2(self.patch_dense(h))
        h = h + (self.pos_embedding[patch_xy[..., 0], 0] + self.pos_embedding[patch_xy[..., 1], 1])
        return self.pos_norm(h)


class MultimodalEmbedder(nn.Module):
    """RMSNorm without weight → Linear, into the decoder's width.

    transformers ``Gemma4UnifiedMultimodalEmbedder``. For audio this is everything: a frame of raw samples goes
    in, a row of the sequence comes out.
    """

    def __init__(self, input_dims: int, hidden_size: int, eps: float) -> None:
        super().__init__()
        blocks = gcd(input_dims, PROJECTION_BLOCKS)
        self.embedding_projection = BlockLinear(input_dims, hidden_size, blocks=blocks, bias=False)
        self._eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return self.embedding_projection(mx.fast.rms_norm(x, None, self._eps))
