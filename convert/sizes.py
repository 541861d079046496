"""What each recipe makes of the 12B: sizes from its shapes, without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.weights import parameter_shapes

from . import grid
from .plan import Plan, is_module, make_plan, module_of
from .recipes import RECIPES, find_recipe
from .setting import Setting
from .tensors import Rows, Tensor

TWELVE_B: dict[str, Any] = {
    "model_type": "gemma4_unified",
    "text_config": {
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "num_hidden_layers": 48,
        "layer_types": [*["sliding_attention"] * 5, "full_attention"] * 8,
        "num_attention_heads": 16,
        "head_dim": 256,
        "num_key_value_heads": 8,
        "global_head_dim": 512,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "vocab_size": 262144,
        "sliding_window": 1024,
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
        },
    },
    "vision_config": {"model_patch_size": 48, "mm_embed_dim": 3840, "mm_posemb_size": 1120},
    "audio_config": {"audio_embed_dim": 640},
}
"""The sizes of the 12B, as its config.json has them."""


@dataclass(frozen=True)
class Shape:
    """A tensor of which nothing but its size is known."""

    name: str
    shape: tuple[int, ...]
    exact: Setting | None
    dtype: mx.Dtype = mx.bfloat16

    def fetch(self, start: int, stop: int) -> Rows:
        raise NotImplementedError(f"{self.name} is a shape")

    def values(self, rows: Rows) -> mx.array:
        raise NotImplementedError(f"{self.name} is a shape")

    def stored(self, rows: Rows) -> tuple[mx.array, ...]:
        raise NotImplementedError(f"{self.name} is a shape")


def recipe_table() -> str:
    """The recipes in a table: size, bits per weight, description."""
    rows = [("recipe", "GB", "bits", "what is stored how")]
    for name in RECIPES:
        plan = plan_of_12b(name)
        rows.append((name, f"{plan.nbytes / 1e9:.2f}", f"{plan.bits_per_weight:.2f}", plan.recipe.description))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}" for row in rows]
    return "\n".join(
        [*lines, "", "Sizes are those of Gemma 4 12B. auto takes qat where weights were trained for it, or 4bit."]
    )


def plan_of_12b(recipe: str) -> Plan:
    """What a recipe makes of the 12B; of ``qat``, of its checkpoint trained for Q4_0."""
    shapes = parameter_shapes(Config.from_dict(TWELVE_B))
    tensors: list[Tensor] = [Shape(name, shape, None) for name, shape in shapes.items()]
    modules = [module_of(tensor) for tensor in tensors if is_module(tensor)]
    if recipe == "qat":
        tensors = [
            Shape(tensor.name, tensor.shape, grid.GRID if ".layers." in tensor.name and is_module(tensor) else None)
            for tensor in tensors
        ]
    return make_plan(tensors, find_recipe(recipe, modules))
