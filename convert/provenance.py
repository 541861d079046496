"""Where a checkpoint came from, as far as its name, its card and its own record tell."""

from __future__ import annotations

from pathlib import Path

from mlx_gemma4 import __version__

from .prepare import Job
from .record import NAME, Record


def make_record(job: Job) -> Record:
    """The record of a conversion, its loss not measured yet."""
    plan, folder = job.plan, job.source.folder
    repo = None if Path(job.name).is_dir() or "/" not in job.name else job.name
    earlier = Record.read(folder) if (folder / NAME).is_file() else None
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


def _license(repo: str | None, folder: Path) -> str | None:
    """The licence that a card names; None where it names none or cannot be had."""
    from huggingface_hub import hf_hub_download, metadata_load
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    path = folder / "README.md"
    if repo is not None:
        try:
            path = Path(hf_hub_download(repo, "README.md"))
        except (EntryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError):
            return None
    told = (metadata_load(path) or {}) if path.is_file() else {}
    return str(told["license"]) if told.get("license") else None
