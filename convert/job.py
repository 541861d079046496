"""A conversion as it was asked for: the source opened, the recipe chosen by what the weights are, the plan made."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import mlx.core as mx

from mlx_gemma4.checkpoint.hub import checkpoint_folder
from mlx_gemma4.checkpoint.recipes import AUTO, DECODER, EMBEDDING, Recipe, Rule, find_recipe, with_rules
from mlx_gemma4.decoder.types import DTYPES, type_name

from .detect import decoder_on_grid, with_grid
from .plan import Plan, is_module, make_plan, module_of
from .progress import shown
from .read import SourceCheckpoint, open_checkpoint
from .tensors import PackedInt4, row_bytes

Note = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """A planned conversion: nothing has been written."""

    name: str
    """The source, as the user named it."""
    source: SourceCheckpoint
    plan: Plan


def plan_conversion(
    hf_path: str | os.PathLike[str],
    recipe: str | Recipe,
    *,
    revision: str | None = None,
    modules: Sequence[str] = (),
    dtype: str | None = None,
    note: Note,
) -> Job:
    """Open a source and choose how each of its modules is stored.

    Args:
        hf_path: Folder, Hub repo or ``demo``.
        recipe: The name of one, ``auto``, or one of your own.
        modules: ``PATTERN=FORMAT`` for modules that are to differ from the recipe.
        dtype: Of what is not quantized, and of scales; None keeps the source's.
        note: Called with what was found in the weights.

    Raises:
        ValueError: The source is no checkpoint, or the recipe does not fit it; the message says what and where.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"Expected a dtype of {', '.join(DTYPES)}, got {dtype!r}")
    source = open_checkpoint(checkpoint_folder(hf_path, revision=revision))
    found = decoder_on_grid(source.tensors)
    if recipe == AUTO:
        trained = bool(found) or any(isinstance(tensor, PackedInt4) for tensor in source.tensors)
        recipe = "qat" if trained else "4bit"
        if trained:
            note("These weights were trained for 4 bits: recipe qat is used, which keeps them exactly")
    if isinstance(recipe, str):
        recipe = find_recipe(recipe, [module_of(tensor) for tensor in source.tensors if is_module(tensor)])
    recipe = _with_rules(recipe, modules, source, note)
    if recipe.keeps_exact:
        source = _with_exact(source, bool(found), note)
    plan = make_plan(source.tensors, recipe, dtype=None if dtype is None else DTYPES[dtype])
    _check_scales(plan)
    _warn_of_loss(plan, set(found), note)
    return Job(str(hf_path), source, plan)


def _with_rules(recipe: Recipe, texts: Sequence[str], source: SourceCheckpoint, note: Note) -> Recipe:
    """The recipe with the user's rules, and behind them the one that a drafter's ordered embedding needs."""
    if not source.raw.get("use_ordered_embeddings"):
        return with_rules(recipe, texts)
    # mlx-vlm looks up its rows by their place in the weight, packed or not, and fails on packed ones
    changed = with_rules(replace(recipe, rules=(Rule(EMBEDDING, None, is_firm=True), *recipe.rules)), texts)
    modules = [module_of(tensor) for tensor in source.tensors if fnmatchcase(module_of(tensor), EMBEDDING)]
    if any(recipe.choose(module) and not changed.choose(module) for module in modules):
        note("The embedding is not quantized: its rows are read as plain numbers (use_ordered_embeddings)")
    return changed


def _with_exact(source: SourceCheckpoint, found: bool, note: Note) -> SourceCheckpoint:
    """The source, with the tensors on the grid as such."""
    if found:
        total = sum(tensor.shape[0] * row_bytes(tensor) for tensor in source.tensors)
        with shown(total, "looking for the Q4_0 grid") as tick:
            source = replace(source, tensors=with_grid(source.tensors, tick))
    decoder = [tensor for tensor in source.tensors if is_module(tensor) and fnmatchcase(module_of(tensor), DECODER)]
    others = [module_of(tensor) for tensor in decoder if tensor.exact is None]
    if len(others) == len(decoder):
        raise ValueError(
            f"Recipe qat needs weights on the Q4_0 grid, but those of {source.folder} are not on it; "
            "use 4bit, or the checkpoint that was trained for 4 bits"
        )
    if others:
        first = ", ".join(others[:3]) + ", …" * (len(others) > 3)
        note(f"{len(others)} of {len(decoder)} modules of the decoder are not on the Q4_0 grid: {first}")
    return source


def _check_scales(plan: Plan) -> None:
    for step in plan.steps:
        scales = step.outputs[1].dtype if step.is_exact else step.tensor.dtype
        if scales not in (step.tensor.dtype, mx.float32, mx.uint8):
            raise ValueError(
                f"Weights that stay quantized keep scales of type "
                f"{type_name(step.tensor.dtype)}, got dtype {type_name(scales)}; leave out --dtype"
            )


def _warn_of_loss(plan: Plan, found: set[str], note: Note) -> None:
    lost = [step for step in plan.steps if module_of(step.tensor) in found and step.setting and not step.is_exact]
    lost += [step for step in plan.steps if isinstance(step.tensor, PackedInt4) and step.setting and not step.is_exact]
    if lost and not plan.recipe.keeps_exact:
        note(
            f"Warning: {len(lost)} modules were trained for Q4_0, and recipe {plan.recipe.name} rounds them again; "
            "--recipe qat keeps them exactly"
        )
