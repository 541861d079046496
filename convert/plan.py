"""What a conversion will write: every tensor, how it is stored, its size and its shard. Nothing is computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import Any

import mlx.core as mx

from mlx_gemma4.checkpoint.recipes import Recipe
from mlx_gemma4.checkpoint.setting import MODES, Setting
from mlx_gemma4.decoder.types import type_name

from .tensor_file import Output
from .tensors import Tensor

SHARD_BYTES = 2_000_000_000
"""Size of a shard, unless one tensor is larger: an upload that is cut off loses one file at most."""


@dataclass(frozen=True)
class Step:
    """One tensor and how it is stored."""

    tensor: Tensor
    setting: Setting | None
    outputs: tuple[Output, ...]
    """The tensor itself, or its packed codes, scales and, in affine mode, biases."""

    @property
    def nbytes(self) -> int:
        return sum(output.nbytes for output in self.outputs)

    @property
    def is_exact(self) -> bool:
        """Whether the tensor's own quantized form is written."""
        return self.setting is not None and self.setting == self.tensor.exact


@dataclass(frozen=True)
class Plan:
    """All steps, in the order in which they are written."""

    recipe: Recipe
    steps: tuple[Step, ...]

    @property
    def nbytes(self) -> int:
        return sum(step.nbytes for step in self.steps)

    @property
    def parameters(self) -> int:
        return sum(prod(step.tensor.shape) for step in self.steps)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / self.parameters

    @property
    def quantization(self) -> dict[str, Any] | None:
        """config.json's block: the commonest setting, and an entry for each module of another; None without any."""
        settings = {module_of(step.tensor): step.setting for step in self.steps if step.setting is not None}
        if not settings:
            return None
        commonest = Counter(settings.values()).most_common(1)[0][0]
        own = {module: setting.block for module, setting in settings.items() if setting != commonest}
        return {**commonest.block, **own}

    @property
    def modules(self) -> dict[str, int]:
        """How many matrices are stored in each way, the commonest first."""
        forms = Counter(
            str(step.setting or type_name(step.outputs[0].dtype)) for step in self.steps if is_module(step.tensor)
        )
        return dict(forms.most_common())

    def shards(self, limit: int = SHARD_BYTES) -> list[list[Step]]:
        """The steps of each file."""
        files: list[list[Step]] = [[]]
        for step in self.steps:
            if files[-1] and sum(other.nbytes for other in files[-1]) + step.nbytes > limit:
                files.append([])
            files[-1].append(step)
        return files


def make_plan(tensors: Iterable[Tensor], recipe: Recipe, *, dtype: mx.Dtype | None = None) -> Plan:
    """Choose for every tensor how it is stored.

    Args:
        dtype: Of what is not quantized, and of scales; None keeps the source's.

    Raises:
        ValueError: Groups do not divide a dimension, or a pattern fits no module; the message names them.
    """
    # vectors last, so that what has four bytes a number begins at a multiple of four
    ordered = sorted(tensors, key=lambda tensor: len(tensor.shape) < 2)
    modules = [module_of(tensor) for tensor in ordered if is_module(tensor)]
    for rule in recipe.rules:
        if rule.is_firm and not any(fnmatchcase(module, rule.pattern) for module in modules):
            raise ValueError(f"No module matches {rule.pattern!r}; modules are {_some(modules)}")
    return Plan(recipe, tuple(_step(tensor, recipe, dtype) for tensor in ordered))


def module_of(tensor: Tensor) -> str:
    """The path of the module whose weight a tensor is."""
    return tensor.name.removesuffix(".weight")


def is_module(tensor: Tensor) -> bool:
    """Whether a tensor is the matrix of a module, which MLX can quantize."""
    return tensor.name.endswith(".weight") and len(tensor.shape) == 2


def _step(tensor: Tensor, recipe: Recipe, dtype: mx.Dtype | None) -> Step:
    setting = recipe.choose(module_of(tensor), tensor.exact) if is_module(tensor) else None
    kept = dtype if dtype is not None and mx.issubdtype(tensor.dtype, mx.floating) else tensor.dtype
    if setting is None:
        return Step(tensor, None, (Output(tensor.name, kept, tensor.shape),))
    return Step(tensor, setting, _quantized_outputs(tensor, setting, kept))


def _quantized_outputs(tensor: Tensor, setting: Setting, dtype: mx.Dtype) -> tuple[Output, ...]:
    rows, columns = tensor.shape
    if columns % setting.group_size:
        module = module_of(tensor)
        fitting = [str(size) for size in MODES[setting.mode][1] if columns % size == 0]
        way = f"{', '.join(fitting)} would (--q-group-size)" if fitting else f"none that {setting.mode} has would"
        raise ValueError(
            f"Expected a group size that divides the {columns} inputs of {module}, got {setting.group_size}; {way}; "
            f"--q-module '{module}=none' leaves it as it is"
        )
    module, groups = module_of(tensor), (rows, columns // setting.group_size)
    packed = Output(tensor.name, mx.uint32, (rows, columns * setting.bits // 32))
    if setting.mode != "affine":
        return packed, Output(f"{module}.scales", mx.uint8, groups)
    return packed, Output(f"{module}.scales", dtype, groups), Output(f"{module}.biases", dtype, groups)


def _some(modules: Sequence[str]) -> str:
    return f"{', '.join(modules[:3])}, …"
