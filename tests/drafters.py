"""Drafters for tests: of random weights for any model, a pace that always drafts, and drafts that are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from mlx_gemma4 import Model
from mlx_gemma4.decoder.config_fields import DRAFTER
from mlx_gemma4.decoder.drafter import DrafterModel
from mlx_gemma4.decoder.drafter_config import DrafterConfig
from mlx_gemma4.outputs.drafter import Draft, Drafter
from mlx_gemma4.outputs.pace import Pace

SLIDING, FULL = "sliding_attention", "full_attention"


def config_for(model: Model, *, centroids: int | None = None) -> dict[str, Any]:
    """The config.json of a drafter that fits ``model``."""
    text = model.config.text_config
    layers = {layer.layer_type: layer for layer in text.layers}
    ropes = {
        name: {
            "rope_theta": rope.rope_theta,
            "partial_rotary_factor": rope.partial_rotary_factor,
            "rope_type": "default" if name == SLIDING else "proportional",
        }
        for name, rope in text.rope.items()
    }
    return {
        "model_type": DRAFTER,
        "backbone_hidden_size": text.hidden_size,
        "use_ordered_embeddings": centroids is not None,
        "num_centroids": centroids or 1,
        "centroid_intermediate_top_k": 4,
        "text_config": {
            "model_type": "gemma4_unified_text",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_kv_shared_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": layers[SLIDING].head_dim,
            "global_head_dim": layers[FULL].head_dim,
            "num_global_key_value_heads": layers[FULL].num_key_value_heads,
            "attention_k_eq_v": True,
            "layer_types": [SLIDING, FULL],
            "rms_norm_eps": 1e-6,
            "hidden_activation": "gelu_pytorch_tanh",
            "rope_parameters": ropes,
            "sliding_window": text.sliding_window,
            "tie_word_embeddings": True,
            "vocab_size": text.vocab_size,
        },
    }


def random_model(model: Model, *, centroids: int | None = None, seed: int = 0) -> DrafterModel:
    """A drafter's model of random weights that fits ``model``."""
    drafter = DrafterModel(DrafterConfig.from_dict(config_for(model, centroids=centroids)))
    mx.random.seed(seed)
    drafter.update(tree_map(lambda each: 0.3 * mx.random.normal(each.shape), drafter.parameters()))
    if centroids is not None:
        order = np.random.default_rng(seed).permutation(model.config.text_config.vocab_size)
        drafter.masked_embedding.token_ordering = mx.array(order)
    return drafter


def save_random(model: Model, folder: Path) -> None:
    """Write a drafter that fits ``model`` as a checkpoint."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_for(model)))
    random_model(model).save_weights(str(folder / "model.safetensors"))


class Eager(Pace):
    """Drafts always, from any source and in any length, whatever it costs."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self._random = np.random.default_rng(seed)

    def choose(self, sources: dict[str, int]) -> tuple[str, int]:
        if not sources:
            return "", 0
        source = str(self._random.choice(sorted(sources)))
        return source, int(self._random.integers(1, sources[source] + 1))


def eager(model: DrafterModel | None = None, *, ngrams: bool = True, seed: int = 0) -> Drafter:
    drafter = Drafter(model, ngrams=ngrams)
    drafter.pace = Eager(seed)
    return drafter


class Known:
    """Drafts of a fixed length from an answer that is known; each token is right with a probability of ``right``."""

    def __init__(self, answer: Sequence[int], length: int, right: float = 1.0, seed: int = 0) -> None:
        self._answer, self._length, self._right = list(answer), length, right
        self._random, self._at = np.random.default_rng(seed), 0

    def waits(self, left: int) -> bool:
        return True

    def propose(self, token: mx.array, left: int) -> Draft | None:
        following = self._answer[self._at : self._at + min(self._length, left)]
        wrong = self._random.random(len(following)) >= self._right
        drafted = [token + 1 if is_wrong else token for token, is_wrong in zip(following, wrong, strict=True)]
        return Draft(mx.array(drafted), "known") if drafted else None

    def take(self, tokens: Sequence[int], draft: Draft | None = None, *, waited: bool = False) -> None:
        self._at += len(tokens)
