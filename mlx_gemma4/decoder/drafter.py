"""The drafter of Gemma 4 12B (``gemma4_unified_assistant``): a small decoder that guesses what the model says next.

It holds no keys and values. Its layers look into the model's own: the sliding ones into those of the model's last
sliding layer, the full one into those of its last full layer. So it needs no prefill, and drafts after text, sound and
pictures alike.

         token t ── the model's embedding ──┐
                                            ├─ pre_projection ─ 4 layers ─ norm ─┬─ head ─ the next token
    hidden state ── of the row before t ────┘       │                            │
                                            the model's keys, values             └─ post_projection ─ hidden state
                                                                                    for the next step

Every step of a draft has the position of ``t``: what is drafted has no keys yet.
transformers ``Gemma4UnifiedAssistantForCausalLM`` and ``SinglePositionMultiTokenCandidateGenerator``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlx_gemma4.decoder.attention import Rope, Seen
from mlx_gemma4.decoder.config import LayerConfig, TextConfig
from mlx_gemma4.decoder.drafter_config import DrafterConfig
from mlx_gemma4.decoder.model import MLP


class Shared(NamedTuple):
    """What a layer of the drafter looks into."""

    seen: Seen
    """The model's keys and values."""
    position: int
    """Of the token that the draft continues; the same for all steps of a draft."""


class DrafterAttention(nn.Module):
    """softmax(rope(norm(q)) · keys) · values: the model's ``Attention`` with the model's keys and values."""

    def __init__(self, config: TextConfig, layer: LayerConfig) -> None:
        super().__init__()
        self.n_heads = config.num_attention_heads
        self.head_dim = layer.head_dim
        self.q_proj = nn.Linear(config.hidden_size, self.n_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.n_heads * self.head_dim, config.hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(self.head_dim, eps=config.rms_norm_eps)
        self._rope = Rope(config.rope[layer.layer_type], self.head_dim)

    def __call__(self, x: mx.array, shared: Shared) -> mx.array:
        B, L, _ = x.shape
        queries = self.q_proj(x).reshape(B, L, self.n_heads, -1)
        queries = self._rope(self.q_norm(queries).transpose(0, 2, 1, 3), shared.position)
        out = shared.seen.attend(queries, None)
        return self.o_proj(out.transpose(0, 2, 1, 3).reshape(B, L, -1))


class DrafterLayer(nn.Module):
    """As the model's ``DecoderLayer``."""

    def __init__(self, config: TextConfig, layer: LayerConfig) -> None:
        super().__init__()
        self.self_attn = DrafterAttention(config, layer)
        self.mlp = MLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.pre_feedforward_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_feedforward_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.layer_scalar = mx.ones((1,))

    def __call__(self, x: mx.array, shared: Shared) -> mx.array:
        r = self.self_attn(self.input_layernorm(x), shared)
        h = x + self.post_attention_layernorm(r)
        r = self.mlp(self.pre_feedforward_layernorm(h))
        return (h + self.post_feedforward_layernorm(r)) * self.layer_scalar


class DrafterText(nn.Module):
    """Holds the layers under the names that the checkpoint gives them."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [DrafterLayer(config, layer) for layer in config.layers]
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class OrderedHead(nn.Module):
    """Logits of the likeliest clusters of tokens only: the head is most of what a drafter reads.

    The vocabulary is divided into clusters of equal size. Their centroids choose ``top_k`` clusters, and only the
    embeddings of those are multiplied; all other tokens get a logit below the lowest of them. transformers
    ``Gemma4UnifiedAssistantMaskedEmbedder``.
    """

    def __init__(self, config: DrafterConfig) -> None:
        super().__init__()
        self.centroids = nn.Linear(config.text_config.hidden_size, config.num_centroids, bias=False)
        self.token_ordering = mx.zeros((config.text_config.vocab_size,), dtype=mx.int64)
        self.top_k = config.centroid_intermediate_top_k
        self.freeze(keys="token_ordering")

    def __call__(self, h: mx.array, embedding: nn.Embedding) -> tuple[mx.array, mx.array]:
        """[D] → logits and token ids of the chosen clusters, [top_k · cluster] each."""
        scores = self.centroids(h)
        chosen = mx.argpartition(-scores, self.top_k - 1)[: self.top_k]
        tokens = self.token_ordering.reshape(scores.size, -1)[chosen].reshape(-1)
        return embedding(tokens) @ h, tokens


class DrafterModel(nn.Module):
    """Drafts tokens from the model's last hidden state and its keys and values."""

    def __init__(self, config: DrafterConfig) -> None:
        super().__init__()
        text = config.text_config
        self.config = config
        self.model = DrafterText(text)
        self.pre_projection = nn.Linear(2 * config.backbone_hidden_size, text.hidden_size, bias=False)
        self.post_projection = nn.Linear(text.hidden_size, config.backbone_hidden_size, bias=False)
        if config.use_ordered_embeddings:
            self.masked_embedding = OrderedHead(config)

    def __call__(self, embedded: mx.array, hidden: mx.array, shared: Mapping[str, Shared]) -> tuple[mx.array, mx.array]:
        """One step.

        Args:
            embedded: [B, 1, D] the last token, as the model embeds it.
            hidden: [B, 1, D] the model's hidden state before it, or this drafter's own of the step before.
            shared: By type of layer.

        Returns:
            The normed state [B, 1, d], for ``logits``, and the hidden state [B, 1, D] for the next step.
        """
        h = self.pre_projection(mx.concatenate([embedded, hidden], axis=-1))
        for layer, config in zip(self.model.layers, self.config.text_config.layers, strict=True):
            h = layer(h, shared[config.layer_type])
        h = self.model.norm(h)
        return h, self.post_projection(h)

    def logits(self, h: mx.array) -> tuple[mx.array, mx.array]:
        """[d] state → logits and the token ids that they belong to: the whole vocabulary, or its likeliest clusters."""
        if self.config.use_ordered_embeddings:
            return self.masked_embedding(h, self.model.embed_tokens)
        return self.model.embed_tokens.as_linear(h), mx.arange(self.config.text_config.vocab_size)
