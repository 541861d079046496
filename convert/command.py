"""Convert Hugging Face weights to MLX, quantized or not, in little memory.

The flags are those of mlx_lm.convert where it has them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_gemma4.checkpoint.recipes import Recipe

    from .job import Job
    from .record import Record


UNQUANTIZED = "bf16"
"""The recipe where none is asked for."""

COMMON = (
    "--help",
    "--help-all",
    "--hf-path",
    "--mlx-path",
    "--overwrite",
    "--dry-run",
    "--quantize",
    "--recipe",
    "--list-recipes",
    "--q-module",
    "--verify",
    "--upload-repo",
)
"""The options that ``--help`` shows."""
EXAMPLES = ("mlx_gemma4 convert --hf-path google/gemma-4-12B-it --mlx-path out -q --verify",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hf-path", "--model", metavar="REPO|FOLDER", help="repo, folder or 'demo' to convert")
    parser.add_argument("--revision", help="branch, tag or commit of the repo")
    parser.add_argument(
        "--mlx-path", default="mlx_model", metavar="FOLDER", help="folder to write (default: mlx_model)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing checkpoint")
    parser.add_argument("--dry-run", action="store_true", help="print what would be written, and write nothing")

    how = parser.add_argument_group("how weights are stored", "Without these, weights are not quantized.")
    how.add_argument("--recipe", metavar="NAME", help="recipe, one of --list-recipes")
    how.add_argument(
        "--list-recipes", action="store_true", help="list the recipes with their sizes for the 12B, and exit"
    )
    how.add_argument(
        "-q", "--quantize", action="store_true", help="quantize: recipe qat for weights trained for it, otherwise 4bit"
    )
    how.add_argument("--q-bits", type=int, metavar="N", help="bits of attention and MLP (default: the mode's)")
    how.add_argument(
        "--q-group-size", type=int, metavar="N", help="number of weights that share a scale (default: the mode's)"
    )
    how.add_argument("--q-mode", metavar="MODE", help="affine, mxfp4, mxfp8 or nvfp4 (default: affine)")
    how.add_argument(
        "--q-module",
        action="append",
        default=[],
        metavar="PATTERN=FORMAT",
        help="override the format of modules that match a pattern: '*.v_proj=8', '*layers.0.*=none'; FORMAT is BITS, "
        "BITS/GROUP, mxfp4, mxfp8, nvfp4 or none; can be repeated, the last match decides",
    )
    how.add_argument("-d", "--dequantize", action="store_true", help="dequantize a quantized checkpoint")
    how.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="type of unquantized weights (default: the source's)",
    )

    after = parser.add_argument_group("afterwards")
    after.add_argument("--verify", action="store_true", help="measure what was lost, and add it to the model card")
    after.add_argument("--upload-repo", metavar="OWNER/NAME", help="upload the result to the Hugging Face Hub")
    after.add_argument("--private", action="store_true", help="make the uploaded repo private")


def run(arguments: argparse.Namespace) -> None:
    if arguments.list_recipes:
        from .sizes import recipe_table

        print(recipe_table())
        return
    if arguments.hf_path is None:
        raise ValueError("There is nothing to convert: name a Hugging Face repo or a folder with --hf-path")
    if arguments.private and arguments.upload_repo is None:
        raise ValueError("--private needs --upload-repo: name the repo to upload to")
    recipe = chosen_recipe(arguments)
    if arguments.upload_repo is not None and not arguments.dry_run:
        from .publish import check_token

        check_token(arguments.upload_repo)

    from .config_files import left_out_text
    from .folder import check_target
    from .job import plan_conversion
    from .run import run_job

    target = Path(arguments.mlx_path)
    if not arguments.dry_run:
        check_target(target, arguments.overwrite)
    job = plan_conversion(
        arguments.hf_path,
        recipe,
        revision=arguments.revision,
        modules=arguments.q_module,
        dtype=arguments.dtype,
        note=note,
    )
    if arguments.dequantize and not job.source.is_quantized:
        raise ValueError(f"There is nothing to dequantize: {job.source.folder} is not quantized; leave out -d")
    if job.source.is_quantized and recipe == UNQUANTIZED and not (arguments.dequantize or arguments.recipe):
        raise ValueError(f"Pass -d, -q or --recipe for {job.source.folder}: it is quantized already")
    if arguments.dry_run:
        print(described(job))
        return
    left_out = left_out_text(job.source.folder)
    if left_out is not None:
        note(left_out)
    record = run_job(job, target, overwrite=arguments.overwrite, verify=arguments.verify, note=note)
    print(summary(record, target))
    if arguments.upload_repo is not None:
        from .publish import upload

        print(upload(target, arguments.upload_repo, private=arguments.private, note=note))


def chosen_recipe(arguments: argparse.Namespace) -> str | Recipe:
    """The recipe that the options ask for.

    Raises:
        ValueError: They ask for two things at once, or for a mode, bits or groups that there are not.
    """
    from mlx_gemma4.checkpoint.recipes import AUTO, uniform_recipe
    from mlx_gemma4.checkpoint.setting import Setting

    own = {
        name: value
        for name, value in (
            ("--q-bits", arguments.q_bits),
            ("--q-group-size", arguments.q_group_size),
            ("--q-mode", arguments.q_mode),
        )
        if value is not None
    }
    asked = [name for name, given in (("-q", arguments.quantize), ("--recipe", arguments.recipe)) if given]
    if arguments.dequantize and (asked or own):
        raise ValueError(f"-d cannot be combined with {', '.join([*asked, *own])}")
    if arguments.recipe is not None and own:
        raise ValueError(
            f"--recipe cannot be combined with {', '.join(own)}; --q-module changes single modules of a recipe"
        )
    if own:
        return uniform_recipe(Setting.of(arguments.q_mode or "affine", arguments.q_bits, arguments.q_group_size))
    if arguments.recipe is not None:
        return str(arguments.recipe)
    return AUTO if arguments.quantize else UNQUANTIZED


def described(job: Job) -> str:
    """What a conversion would write (``--dry-run``)."""
    from .config_files import copies_text
    from .record import size_text

    plan = job.plan
    lines = [
        f"{job.name} to {plan.recipe.name}: {plan.recipe.description}",
        f"{size_text(plan.nbytes)} in {len(plan.shards())} file(s), {plan.bits_per_weight:.2f} bits per weight",
        *(f"{count:6d} modules: {form}" for form, count in plan.modules.items()),
        copies_text(job.source.folder),
    ]
    return "\n".join(lines)


def summary(record: Record, target: Path) -> str:
    """The result in a line."""
    line = f"{target}: {record.recipe}, {record.size}, {record.bits_per_weight:.2f} bits per weight"
    error = record.quantization_error
    return line if error is None else f"{line}; KL {error['kl']:.4f}, same likeliest token {error['top1']:.1%}"


def note(text: str) -> None:
    print(text, file=sys.stderr)
