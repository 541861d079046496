"""What each recipe makes of the 12B: sizes from its shapes, without its weights."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from mlx_gemma4.checkpoint.recipes import Q4_0, RECIPES, find_recipe
from mlx_gemma4.checkpoint.setting import Setting
from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.twelve_b import TWELVE_B
from mlx_gemma4.decoder.weights import parameter_shapes

from .plan import Plan, is_module, make_plan, module_of
from .tensors import Rows, Tensor


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
            Shape(tensor.name, tensor.shape, Q4_0 if ".layers." in tensor.name and is_module(tensor) else None)
            for tensor in tensors
        ]
    return make_plan(tensors, find_recipe(recipe, modules))
