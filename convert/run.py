"""The whole of a conversion: prepare, write, measure, describe, and put the folder in its place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from mlx_gemma4.checkpoint.weight_files import weight_files

from .blocks import row_bytes
from .card import write_card
from .folder import Unfinished, check_target, partial_of
from .prepare import Job, Note, prepare
from .progress import shown
from .provenance import make_record
from .recipes import AUTO, Recipe
from .record import Record, size_text
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
    """Convert a checkpoint into a folder, in little memory. What an interrupted call has written is gone on with.

    Args:
        hf_path: Folder, Hub repo or ``demo``.
        mlx_path: The folder to make.
        recipe: A name of ``--list-recipes``, or ``auto``.
        modules: ``PATTERN=FORMAT`` for modules that are to differ from the recipe: ``"*.v_proj=8"``.
        dtype: ``"bfloat16"``, ``"float16"`` or ``"float32"`` for what is not quantized; None keeps the source's.
        overwrite: Replace a checkpoint that is there.
        verify: Measure what was lost, against the source.
        note: Told what the user should know.

    Raises:
        ValueError: The source, the recipe, the place or the disk will not do; the message says why. Nothing is left
            behind.
    """
    target = Path(mlx_path)
    check_target(target, overwrite)
    job = prepare(hf_path, recipe, revision=revision, modules=modules, dtype=dtype, note=note)
    return make(job, target, overwrite=overwrite, verify=verify, note=note)


def make(job: Job, target: Path, *, overwrite: bool = False, verify: bool = False, note: Note) -> Record:
    """Write a prepared conversion.

    Raises:
        ValueError: As ``convert``; and what was lost cannot be measured, where the written folder is kept.
    """
    _check_apart(job.source.folder, target)
    if verify and job.source.config is None:
        raise ValueError(f"--verify cannot measure a drafter by itself: {job.name} is a drafter; leave out --verify")
    with Unfinished(target, fingerprint(job.source, job.plan), overwrite=overwrite) as unfinished:
        if not unfinished.is_locked:
            note(f"The disk of {target} has no file locks: do not start a second conversion to the same folder")
        try:
            _write(job, unfinished, note)
            record = make_record(job, note)
            if verify:
                record = _measured(record, job.source.folder, unfinished, note)
        except KeyboardInterrupt:
            note(f"Interrupted: the same command goes on from here. To give it up, delete {partial_of(target)}")
            raise
        with unfinished.writing():
            record.write(unfinished.folder)
            write_card(unfinished.folder)
            unfinished.complete()
    return record


def _write(job: Job, unfinished: Unfinished, note: Note) -> None:
    steps, done = job.plan.steps, job.plan.steps[: unfinished.done]
    if done:
        note(f"Going on where an earlier run has stopped ({len(done)} of {len(steps)} tensors are there)")
    try:
        check_disk(job.source, job.plan, unfinished.target, already=sum(step.nbytes for step in done))
    except ValueError:
        if not done:
            unfinished.discard()
        raise
    total, seen = (sum(step.tensor.shape[0] * row_bytes(step.tensor) for step in each) for each in (steps, done))
    with shown(total, f"converting to {job.plan.recipe.name}", seen) as tick:
        write_checkpoint(job.source, job.plan, unfinished, tick)


def _check_apart(source: Path, target: Path) -> None:
    source, target = source.resolve(), target.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise ValueError(f"The target overlaps the source: {target} for {source}; name another --mlx-path")


def _measured(record: Record, source: Path, unfinished: Unfinished, note: Note) -> Record:
    """The record with what was lost, by the short form of ``eval quality``."""
    from mlx_gemma4.measure.quality import measure

    try:
        quality = measure(source, unfinished.folder, hear=_can_hear(source, note), progress=note)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"What was lost cannot be measured: {error}. Without --verify, the same command has nothing more to "
            f"compute; to give it up, delete {partial_of(unfinished.target)}"
        ) from error
    loss = {
        "tokens": quality.tokens,
        "kl": quality.kl,
        "top1": quality.top1,
        "perplexity": quality.perplexity,
        "reference_perplexity": quality.reference_perplexity,
    }
    if quality.wer is not None and quality.reference_wer is not None:
        loss |= {"wer": quality.wer, "reference_wer": quality.reference_wer}
    return replace(record, loss=loss)


def _can_hear(source: Path, note: Note) -> bool:
    """Whether to transcribe with both for their word error rates: takes the [eval] extra, and the source in memory."""
    size = sum(path.stat().st_size for path in weight_files(source))
    if size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2:
        note(f"Word error rates are left out: {size_text(size)} of {source} do not fit in memory")
        return False
    if find_spec("jiwer") is None or find_spec("whisper_normalizer") is None:
        note("Word error rates are left out: they need two packages (pip install jiwer whisper-normalizer)")
        return False
    return True
