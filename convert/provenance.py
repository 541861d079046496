"""Where a checkpoint came from: by its name, its model card and its own record."""

from __future__ import annotations

import re
from pathlib import Path

from mlx_gemma4 import __version__
from mlx_gemma4.checkpoint.files import has_file, read_bytes

from .job import Job, Note
from .record import NAME, Record

MOST_CARD = 2**20
_FRONT = re.compile(r"---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
"""The metadata of a model card."""
_LICENSE = re.compile(r"^license:[ \t]*[\"']?([\w.+-]{1,100})[\"']?[ \t]*\r?$", re.MULTILINE)


def make_record(job: Job, note: Note) -> Record:
    """The record of a conversion; what was lost is not measured yet.

    Args:
        note: Called if the source has a record that cannot be used.
    """
    plan, folder = job.plan, job.source.folder
    repo = None if Path(job.name).is_dir() or "/" not in job.name else job.name
    earlier = _earlier(folder, note)
    return Record(
        source=repo or Path(job.name).resolve().name,
        base_model=earlier.base_model if earlier else repo,
        model_type=job.source.model_type,
        license=earlier.license if earlier else _license(repo, folder),
        recipe=plan.recipe.name,
        description=plan.recipe.description,
        parameters=plan.parameters,
        size_bytes=plan.nbytes,
        modules=plan.modules,
        version=__version__,
    )


def _earlier(folder: Path, note: Note) -> Record | None:
    """The record of a source that was converted itself; None where it has none, or one that is not its own."""
    if not has_file(folder / NAME):
        return None
    try:
        return Record.read(folder)
    except ValueError as error:
        note(f"The source's {NAME} is ignored: {error}")
        return None


def _license(repo: str | None, folder: Path) -> str | None:
    """The licence that a card names; None where it names none or cannot be had."""
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(repo, "README.md")) if repo is not None else folder / "README.md"
        text = read_bytes(path, MOST_CARD).decode("utf-8") if has_file(path) else ""
    except Exception:  # no network, no card, no text in it: the weights are written, and must not be lost for a line
        return None
    # one line is looked for: a whole YAML document may be made to take forever
    front = _FRONT.match(text)
    found = _LICENSE.search(front[1]) if front else None
    return found[1] if found else None
