"""A conversion from beginning to end.

plan     open the source (read.open_checkpoint), choose the recipe by what
         the weights are, and say for every tensor how it is stored           job.plan_conversion
write    block by block: fetch rows, quantize, append to the shard            write.write_checkpoint
record   where it came from; with --verify, what was lost                      provenance, measure.quality
         conversion.json and the model card                                   record, card
folder   put the complete folder in its place                                 folder.PartialFolder
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from mlx_gemma4.checkpoint.recipes import AUTO, Recipe
from mlx_gemma4.checkpoint.weight_files import weight_files
from mlx_gemma4.decoder.machine_memory import machine_memory

from .card import write_card
from .folder import PartialFolder, check_target, partial_of
from .job import Job, Note, plan_conversion
from .progress import shown
from .provenance import make_record
from .record import Record, size_text
from .tensors import row_bytes
from .write import check_disk, fingerprint, write_checkpoint


def convert(
    hf_path: str | os.PathLike[str],
    mlx_path: str | os.PathLike[str] = "mlx_model",
    *,
    recipe: str | Recipe = AUTO,
    modules: Sequence[str] = (),
    dtype: str | None = None,
    revision: str | None = None,
    overwrite: bool = False,
    verify: bool = False,
    note: Note = print,
) -> Record:
    """Convert a checkpoint into a folder, in little memory. Resumes an interrupted run.

    Args:
        hf_path: Folder, Hub repo or ``demo``.
        mlx_path: The folder to write.
        recipe: A name of ``--list-recipes``, or ``auto``.
        modules: ``PATTERN=FORMAT`` for modules that differ from the recipe: ``"*.v_proj=8"``.
        dtype: ``"bfloat16"``, ``"float16"`` or ``"float32"`` for what is not quantized; None keeps the source's.
        overwrite: Replace an existing checkpoint.
        verify: Measure what was lost, against the source.
        note: Called with what the user should know.

    Raises:
        ValueError: The source, the recipe, the target or the disk cannot be used; the message says why. Nothing is
            left behind but what a resumed run, or one whose ``verify`` failed, can still use.
    """
    target = Path(mlx_path)
    check_target(target, overwrite)
    job = plan_conversion(hf_path, recipe, revision=revision, modules=modules, dtype=dtype, note=note)
    return run_job(job, target, overwrite=overwrite, verify=verify, note=note)


def run_job(job: Job, target: Path, *, overwrite: bool = False, verify: bool = False, note: Note) -> Record:
    """Run a planned conversion.

    Raises:
        ValueError: As ``convert``; or what was lost cannot be measured, in which case the written folder is kept.
    """
    _check_apart(job.source.folder, target)
    if verify and job.source.config is None:
        raise ValueError(f"--verify cannot measure a drafter by itself: {job.name} is a drafter; leave out --verify")
    with PartialFolder(target, fingerprint(job.source, job.plan), overwrite=overwrite) as partial:
        if not partial.is_locked:
            note(f"The disk of {target} has no file locks: do not start a second conversion to the same folder")
        try:
            _write_weights(job, partial, note)
            record = make_record(job, note)
            if verify:
                record = _measured(record, job.source.folder, partial, note)
        except KeyboardInterrupt:
            note(f"Interrupted: run the same command to resume, or delete {partial_of(target)}")
            raise
        with partial.writing():
            record.write(partial.folder)
            write_card(partial.folder)
            partial.complete()
    return record


def _write_weights(job: Job, partial: PartialFolder, note: Note) -> None:
    steps, done = job.plan.steps, job.plan.steps[: partial.done]
    if done:
        note(f"Resuming an interrupted run: {len(done)} of {len(steps)} tensors are written")
    try:
        check_disk(job.source, job.plan, partial.target, already=sum(step.nbytes for step in done))
    except ValueError:
        if not done:
            partial.discard()
        raise
    total, seen = (sum(step.tensor.shape[0] * row_bytes(step.tensor) for step in each) for each in (steps, done))
    with shown(total, f"converting to {job.plan.recipe.name}", seen) as tick:
        write_checkpoint(job.source, job.plan, partial, tick)


def _check_apart(source: Path, target: Path) -> None:
    source, target = source.resolve(), target.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise ValueError(f"The target overlaps the source: {target} for {source}; name another --mlx-path")


def _measured(record: Record, source: Path, partial: PartialFolder, note: Note) -> Record:
    """The record with what was lost, by the short form of ``eval quality``."""
    from mlx_gemma4.measure.quality import measure

    try:
        quality = measure(source, partial.folder, hear=_can_hear(source, note), progress=note)
    except (ValueError, OSError) as problem:
        raise ValueError(
            f"What was lost cannot be measured: {problem}. The weights are written: run the same command "
            f"without --verify to finish, or delete {partial_of(partial.target)}"
        ) from problem
    error = {
        "tokens": quality.tokens,
        "kl": quality.kl,
        "top1": quality.top1,
        "perplexity": quality.perplexity,
        "reference_perplexity": quality.reference_perplexity,
    }
    if quality.wer is not None and quality.reference_wer is not None:
        error |= {"wer": quality.wer, "reference_wer": quality.reference_wer}
    return replace(record, quantization_error=error)


def _can_hear(source: Path, note: Note) -> bool:
    """Whether to transcribe with both for their word error rates: takes the [eval] extra, and the source in memory."""
    size = sum(path.stat().st_size for path in weight_files(source))
    if size > machine_memory() // 2:
        note(f"Word error rates are left out: {size_text(size)} of {source} do not fit in memory")
        return False
    if find_spec("jiwer") is None or find_spec("whisper_normalizer") is None:
        note("Word error rates are left out: they need two packages (pip install jiwer whisper-normalizer)")
        return False
    return True
