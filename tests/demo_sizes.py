"""Sizes of the demo's checkpoint and of its conversions, computed from its config and its file's header."""

from __future__ import annotations

import json
from math import prod
from typing import Any

from mlx_gemma4 import demo_folder

DEMO = demo_folder() / "checkpoint"
WEIGHTS = DEMO / "model.safetensors"


def _config() -> dict[str, Any]:
    config: dict[str, Any] = json.loads((DEMO / "config.json").read_text(encoding="utf-8"))["text_config"]
    return config


def _shapes() -> dict[str, tuple[int, ...]]:
    with WEIGHTS.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


LAYER_TYPES: list[str] = _config()["layer_types"]
LAYERS, SLIDING = len(LAYER_TYPES), LAYER_TYPES.count("sliding_attention")
VOCABULARY: int = _config()["vocab_size"]
SHAPES = _shapes()
PARAMETERS = sum(map(prod, SHAPES.values()))


def matrices(layer_type: str) -> int:
    """q, k, o, gate, up and down; full layers have no v: their values are their keys."""
    return 7 if layer_type == "sliding_attention" else 6


DECODER = sum(map(matrices, LAYER_TYPES))


def four_bits() -> int:
    """Bytes of the tensors in the recipe 4bit; scale and bias of 64 weights have 16 bits each."""
    bits = 0.0
    for name, shape in SHAPES.items():
        is_decoder = ".layers." in name and len(shape) == 2
        bits += prod(shape) * (4 + 32 / 64 if is_decoder else 6 + 32 / 64 if "embed_tokens" in name else 16)
    return round(bits / 8)


def megabytes(count: float) -> str:
    return f"{count / 1e6:.2f} MB"


FOUR_BITS = f"{megabytes(four_bits())}, {8 * four_bits() / PARAMETERS:.2f} bits per weight"
"""As ``convert -q`` prints it."""
