"""Write what a plan says: shards block by block, then the index, the config and the copied files.

step ─ row_blocks ─▶ fetch (a thread reads ahead) ─▶ _compute_block ─▶ TensorWriter ─▶ shard
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlx.core as mx

from mlx_gemma4 import __version__
from mlx_gemma4.checkpoint.weight_files import weight_files
from mlx_gemma4.decoder.weights import check_complete

from .config_files import copied_files, copy_files, shard_names, write_config, write_index
from .folder import PartialFolder
from .plan import Plan, Step
from .progress import Tick, silent
from .quantize import quantize
from .read import SourceCheckpoint
from .record import size_text
from .tensor_file import TensorWriter
from .tensors import Rows, fetched, row_blocks, row_bytes

Parts = tuple[mx.array, ...]
_RECORD_BYTES = 256 * 2**20
"""Bytes between two records of progress: what an interruption costs at most."""


def write_checkpoint(source: SourceCheckpoint, plan: Plan, partial: PartialFolder, tick: Tick = silent) -> None:
    """Compute and write everything in a plan, from where an interrupted run stopped.

    Raises:
        ValueError: A tensor is damaged (named), or the disk is full; nothing is left behind then.
    """
    shards = plan.shards()
    names = shard_names(len(shards))
    first = 0
    with partial.writing():
        for name, steps in zip(names, shards, strict=True):
            if first + len(steps) > partial.done:
                _write_shard(partial, name, steps, first, tick)
            first += len(steps)
        for name in names:
            check_complete(partial.folder / name)
        write_index(partial.folder, names, shards)
        write_config(partial.folder, source.raw, source.config, plan.quantization)
        copy_files(source.folder, partial.folder)


def check_disk(source: SourceCheckpoint, plan: Plan, target: Path, already: int = 0) -> None:
    """Raise a ValueError unless the disk has room for what a plan writes.

    Args:
        already: Bytes of it that an earlier run has written.
    """
    place = next(folder for folder in (target.absolute(), *target.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    needed = plan.nbytes + sum(path.stat().st_size for path in copied_files(source.folder)) - already
    if needed > free:
        raise ValueError(
            f"{target} needs {size_text(needed)} of free disk, {place} has {size_text(free)}; "
            "free some, or name another disk with --mlx-path"
        )


def fingerprint(source: SourceCheckpoint, plan: Plan) -> str:
    """A text that identifies the source files and everything that is written from them: only the same plan resumes."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weight_files(source.folder)]
    steps = [[(output.name, str(output.dtype), output.shape) for output in step.outputs] for step in plan.steps]
    exact = [step.is_exact for step in plan.steps]
    return json.dumps([__version__, os.fspath(source.folder.resolve()), files, steps, exact, plan.quantization])


def _write_shard(partial: PartialFolder, name: str, steps: Sequence[Step], first: int, tick: Tick) -> None:
    """Write the steps of one file that are not done; ``first`` is the number of its first step."""
    left = [(number, step) for number, step in enumerate(steps, first) if number >= partial.done]
    rows_ahead = fetched([(step.tensor, *block) for _, step in left for block in row_blocks(step.tensor)])
    unrecorded = 0
    with TensorWriter(partial.folder / name, [output for step in steps for output in step.outputs]) as writer:
        for number, step in left:
            for start, parts in _compute_blocks(step, rows_ahead):
                for output, part in zip(step.outputs, parts, strict=True):
                    writer.write(output, start, part)
                tick(step.tensor, parts[0].shape[0] * row_bytes(step.tensor))
            mx.clear_cache()
            unrecorded += step.nbytes
            if unrecorded >= _RECORD_BYTES or number == first + len(steps) - 1:
                writer.sync()
                partial.record(number + 1)
                unrecorded = 0


def _compute_blocks(step: Step, rows_ahead: Iterator[Rows]) -> Iterator[tuple[int, Parts]]:
    """The first row and the parts of each block. The next block is computed while this one is written."""
    ahead = None
    for start, _ in row_blocks(step.tensor):
        parts = _compute_block(step, next(rows_ahead))
        mx.async_eval(parts)
        if ahead is not None:
            yield ahead
        ahead = start, parts
    if ahead is not None:
        yield ahead


def _compute_block(step: Step, rows: Rows) -> Parts:
    """The parts that a tensor is stored in, of these rows."""
    tensor, setting = step.tensor, step.setting
    types = [output.dtype for output in step.outputs]
    if setting is None:
        return (tensor.values(rows).astype(types[0]),)
    if step.is_exact:
        parts = tensor.stored(rows)
    else:
        values = tensor.values(rows)
        if setting.mode == "affine":
            values = values.astype(types[1])  # scales are derived in the type that they are stored in
        parts = quantize(values, setting)
    return tuple(part.astype(kind) for part, kind in zip(parts, types, strict=True))
