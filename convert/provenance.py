"""Where a checkpoint came from, as far as its name, its card and its own record tell."""

from __future__ import annotations

from pathlib import Path

from mlx_gemma4 import __version__

from .prepare import Job
from .record import Record


def make_record(job: Job) -> Record:
    """The record of a conversion, its loss not measured yet."""
    plan, folder = job.plan, job.source.folder
    repo = None if Path(job.name).is_dir() or "/" not in job.name else job.name
    earlier = _earlier(folder)
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


def _earlier(folder: Path) -> Record | None:
    """The record of a source that was converted itself; None where it has none, or another version's."""
    try:
        return Record.read(folder)
    except ValueError:
        return None


def _license(repo: str | None, folder: Path) -> str | None:
    """The licence that a card names; None where it names none or cannot be had."""
    from huggingface_hub import hf_hub_download, metadata_load

    path = folder / "README.md"
    try:
        if repo is not None:
            path = Path(hf_hub_download(repo, "README.md"))
        told = (metadata_load(path) or {}) if path.is_file() else {}
    except Exception:  # no network, no card, no YAML in it: the weights are written, and must not be lost for a line
        return None
    return str(told["license"]) if told.get("license") else None
