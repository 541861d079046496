"""The decoder of Gemma 4 12B.

Notable: two kinds of layers with two head sizes (sliding window, and full attention whose values are its keys),
an attention scale of 1, four norms and a scalar per layer, tied embeddings, capped logits. Media are rows of the
sequence like any other; this file knows neither tokens' meaning nor how rows are made.

Shape letters: ``B`` batch, ``L`` sequence, ``D`` model width, ``H`` query heads, ``K`` KV heads, ``P`` patches,
``F`` audio frames, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_gemma4.decoder.attention import Attention, Seen
from mlx_gemma4.decoder.batch_cache import BatchCache
from mlx_gemma4.decoder.budget import Budget
from mlx_gemma4.decoder.cache import Cache, LayerCache, ModelCache
from mlx_gemma4.decoder.config import Config, LayerConfig, TextConfig
from mlx_gemma4.decoder.embedders import MultimodalEmbedder, VisionEmbedder
from mlx_gemma4.decoder.masks import Mask
from mlx_gemma4.decoder.memory import DEFAULT_ROOM
from mlx_gemma4.decoder.snapshots import Snapshots
from mlx_gemma4.decoder.stored import check_kv_bits


def _fused(function: Callable[..., mx.array]) -> Callable[..., mx.array]:
    """Compile to one kernel on a GPU. On the CPU mlx would call a C++ compiler: a second of start-up for nothing."""
    compiled = mx.compile(function, shapeless=True)

    @wraps(function)
    def fused(*arrays: mx.array | float) -> mx.array:
        return compiled(*arrays) if mx.default_device().type == mx.gpu else function(*arrays)

    return fused


@_fused
def geglu(gate: mx.array, x: mx.array) -> mx.array:
    """gelu(gate) · x, by the tanh approximation (``gelu_pytorch_tanh``)."""
    inner = 0.7978845608028654 * (gate + 0.044715 * gate * gate * gate)  # sqrt(2 / pi)
    return 0.5 * gate * (1 + mx.tanh(inner)) * x


@_fused
def softcap(logits: mx.array, cap: float) -> mx.array:
    return mx.tanh(logits / cap) * cap


@_fused
def scaled_sum(x: mx.array, y: mx.array, scale: mx.array) -> mx.array:
    return (x + y) * scale


class MLP(nn.Module):
    """down(gelu(gate(x)) · up(x))."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(geglu(self.gate_proj(x), self.up_proj(x)))


class DecoderLayer(nn.Module):
    """h = x + norm(attention(norm(x))); (h + norm(mlp(norm(h)))) · layer_scalar."""

    def __init__(self, config: TextConfig, layer: LayerConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = MLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.pre_feedforward_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_feedforward_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.layer_scalar = mx.ones((1,))

    def __call__(self, x: mx.array, mask: Mask, cache: LayerCache, read_from: int = 0) -> mx.array:
        # [B, L, D] → [B, L - read_from, D]; the keys and values of all L rows enter the cache
        r = self.self_attn(self.input_layernorm(x), mask, cache, read_from)
        h = (x[:, read_from:] if read_from else x) + self.post_attention_layernorm(r)
        r = self.mlp(self.pre_feedforward_layernorm(h))
        return scaled_sum(h, self.post_feedforward_layernorm(r), self.layer_scalar)


class TextModel(nn.Module):
    """Embeddings, layers and the final norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [DecoderLayer(config, layer) for layer in config.layers]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self._is_sliding = [layer.is_sliding for layer in config.layers]

    def __call__(self, h: mx.array, cache: ModelCache, image_ids: np.ndarray | None, read_from: int) -> mx.array:
        full, sliding = cache.masks(h.shape[1], image_ids)
        for layer, is_sliding, layer_cache in zip(self.layers, self._is_sliding, cache.layers, strict=True):
            # later layers need every row; after the last one, only what is read
            first = read_from if layer is self.layers[-1] else 0
            h = layer(h, sliding if is_sliding else full, layer_cache, first)
        return self.norm(h)


class LanguageModel(nn.Module):
    """Holds the text model under the name that MLX checkpoints give it: ``language_model.model``."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.model = TextModel(config)


class Model(nn.Module):
    """Rows of the sequence in, hidden states out.

    ``embed_tokens``, ``embed_image`` and ``embed_frames`` make rows; ``logits`` reads hidden states.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        text, vision, audio = config.text_config, config.vision_config, config.audio_config
        self.config = config
        self.budget = Budget()
        self._kv_bits: int | None = None
        self.snapshots = Snapshots()
        self.language_model = LanguageModel(text)
        if vision is not None:
            self.vision_embedder = VisionEmbedder(vision)
            self.embed_vision = MultimodalEmbedder(vision.mm_embed_dim, text.hidden_size, vision.rms_norm_eps)
        if audio is not None:
            self.embed_audio = MultimodalEmbedder(audio.audio_embed_dim, text.hidden_size, audio.rms_norm_eps)

    @property
    def dtype(self) -> mx.Dtype:
        """The type that the model computes in."""
        return self.language_model.model.norm.weight.dtype

    @property
    def kv_bits(self) -> int | None:
        """Bits of the keys and values of full layers, 4 or 8, in caches made from now on; None: as they are computed.

        Raises:
            ValueError: There are no such bits, or the heads of this checkpoint cannot be stored in them.
        """
        return self._kv_bits

    @kv_bits.setter
    def kv_bits(self, bits: int | None) -> None:
        check_kv_bits(self.config.text_config, bits)
        self._kv_bits = bits

    def make_cache(self, room: int = DEFAULT_ROOM) -> Cache:
        """An empty cache, with room to rewind by ``room`` positions on sliding layers."""
        text = self.config.text_config
        return Cache(text.layers, window=text.sliding_window, room=room, kv_bits=self.kv_bits)

    def make_batch_cache(self) -> BatchCache:
        """An empty cache of sequences that are decoded side by side."""
        text = self.config.text_config
        return BatchCache(text.layers, window=text.sliding_window, kv_bits=self.kv_bits)

    def shared(self, cache: Cache) -> dict[str, Seen]:
        """What a drafter sees: keys and values of the last layer of each type."""
        layers = zip(self.config.text_config.layers, self.language_model.model.layers, cache.layers, strict=True)
        return {config.layer_type: layer.self_attn.seen(each.shared()) for config, layer, each in layers}

    @property
    def window_bytes(self) -> int:
        """Bytes of the keys and values that a position sees on sliding layers, at most: those of a snapshot."""
        text = self.config.text_config
        heads = sum(layer.num_key_value_heads * layer.head_dim for layer in text.layers if layer.is_sliding)
        return 2 * self.dtype.size * heads * (text.sliding_window - 1)

    def embed_tokens(self, token_ids: mx.array) -> mx.array:
        """[B, L] ids → [B, L, D]."""
        # a Python float: as in the reference, the scale takes the weights' precision (62.0 for the 12B in bf16)
        return self.language_model.model.embed_tokens(token_ids) * self.config.text_config.hidden_size**0.5

    def embed_image(self, patches: mx.array, patch_xy: mx.array) -> mx.array:
        """[B, P, patch_values] in [0, 1] and [B, P, 2] as (x, y) → [B, P, D]."""
        return self.embed_vision(self.vision_embedder(patches, patch_xy))

    def embed_frames(self, frames: mx.array) -> mx.array:
        """[B, F, frame_samples] in [-1, 1] → [B, F, D]."""
        return self.embed_audio(frames.astype(self.dtype))

    def __call__(
        self, h: mx.array, cache: ModelCache, image_ids: np.ndarray | None = None, *, read_from: int = 0
    ) -> mx.array:
        """[B, L, D] rows → [B, L - read_from, D] hidden states, after the final norm.

        If nobody reads them, the last layer computes its keys and values only: hidden states are lazy.

        Args:
            image_ids: [L], the image that each row belongs to, -1 for none; None where there is no image.
            read_from: The first row whose hidden state is read, less than L. The last layer computes its queries and
                its MLP from there on.
        """
        images = image_ids if self.config.text_config.image_blocks else None
        return self.language_model.model(h, cache, images, read_from)

    def logits(self, hidden: mx.array) -> mx.array:
        """[B, L, D] hidden states → [B, L, V]."""
        logits = self.language_model.model.embed_tokens.as_linear(hidden)
        cap = self.config.text_config.final_logit_softcapping
        return logits if cap is None else softcap(logits, cap)
