"""The ``config.json`` of a drafter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_gemma4.checkpoint.files import has_file
from mlx_gemma4.checkpoint.json_file import flag, read_json, shown, typed
from mlx_gemma4.decoder.config import MOST_WIDTH, TextConfig, text_config_of
from mlx_gemma4.decoder.config_fields import DRAFTER, dimension, quantization_of, section


@dataclass(frozen=True)
class DrafterConfig:
    """A drafter: its decoder, and the width of the model that it drafts for."""

    text_config: TextConfig
    backbone_hidden_size: int
    """The model's ``hidden_size``."""
    use_ordered_embeddings: bool
    """Its head computes the logits of the likeliest clusters of tokens only."""
    num_centroids: int
    centroid_intermediate_top_k: int
    quantization: Mapping[str, Any] | None

    @classmethod
    def from_file(cls, path: Path) -> DrafterConfig:
        """Read ``config.json``.

        Raises:
            ValueError: The file is missing, is not JSON, lacks a size, or is not a drafter's; the message names it.
        """
        if not has_file(path):
            raise ValueError(f"There is no drafter: {path} does not exist")
        with typed(path):
            return cls.from_dict(read_json(path))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> DrafterConfig:
        """Build from the parsed ``config.json``.

        Raises:
            ValueError: A size is missing (named), or the checkpoint is of another architecture.
        """
        if raw.get("model_type") != DRAFTER:
            raise ValueError(
                f"Expected a drafter (model_type {DRAFTER}), got {shown(raw.get('model_type'))}; the one of the 12B is "
                "google/gemma-4-12B-it-assistant"
            )
        text = section(raw, "text_config", "config.json")
        shared = dimension(text, "num_kv_shared_layers", "text_config")
        config = text_config_of({**text, "num_kv_shared_layers": 0})
        if shared != len(config.layers):
            raise ValueError(
                f"Expected a drafter whose {len(config.layers)} layers all share the model's keys and values, "
                f"got num_kv_shared_layers = {shared}"
            )
        ordered = flag(raw.get("use_ordered_embeddings", False), "'use_ordered_embeddings' in config.json")
        centroids = dimension(raw, "num_centroids", "config.json", config.vocab_size) if ordered else 1
        top = dimension(raw, "centroid_intermediate_top_k", "config.json", centroids) if ordered else 1
        if config.vocab_size % centroids:
            raise ValueError(f"The vocabulary of {config.vocab_size} cannot be divided into {centroids} clusters")
        return cls(
            text_config=config,
            backbone_hidden_size=dimension(raw, "backbone_hidden_size", "config.json", MOST_WIDTH),
            use_ordered_embeddings=ordered,
            num_centroids=centroids,
            centroid_intermediate_top_k=top,
            quantization=quantization_of(raw),
        )
