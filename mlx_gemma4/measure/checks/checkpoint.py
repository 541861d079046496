"""Whether the checkpoint that commands use is on this machine, or has room. Nothing is requested from a network."""

from __future__ import annotations

from pathlib import Path

from mlx_gemma4.checkpoint.hub import (
    DEFAULT_BYTES,
    DEFAULT_MODEL,
    DEFAULT_REVISION,
    DEMO,
    ELSEWHERE,
    MODEL_VARIABLE,
    cached_folder,
    default_model,
    free_space,
    is_complete,
)
from mlx_gemma4.measure.checks.finding import Finding, Findings, Known


def check(known: Known) -> Findings:
    name = default_model()
    if name == DEMO:
        yield Finding("checkpoint", "ok", f"${MODEL_VARIABLE} names the demo, which is part of the package.")
    elif Path(name).is_dir():
        yield in_folder(name)
    else:
        yield in_cache(name)


def in_folder(name: str) -> Finding:
    """A checkpoint on disk."""
    if is_complete(Path(name)):
        return Finding("checkpoint", "ok", f"${MODEL_VARIABLE} is a folder with a whole checkpoint.")
    text = f"${MODEL_VARIABLE} is a folder, but not one with a whole checkpoint: {name}"
    return Finding("checkpoint", "problem", text, "Name another, or download it again.")


def in_cache(repo: str) -> Finding:
    """A repo of the Hub: in the cache, or to be downloaded."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HFValidationError

    is_default = repo == DEFAULT_MODEL
    try:
        cached = cached_folder(repo, DEFAULT_REVISION if is_default else None)
    except HFValidationError:
        text = f"${MODEL_VARIABLE} is {repo!r}, which is neither a folder nor a Hugging Face repo id."
        return Finding("checkpoint", "problem", text, "Correct or unset it.")
    if cached is not None:
        return Finding("checkpoint", "ok", f"{repo} is in the Hugging Face cache.", figures={"cached": True})
    free = free_space(Path(HF_HUB_CACHE))
    figures = {"cached": False, "free": free}
    needed = f" ({DEFAULT_BYTES / 1e9:.1f} GB)" if is_default else ""
    text = f"{repo}{needed} is not downloaded yet; the disk of the Hugging Face cache has {free / 1e9:.1f} GB free."
    if is_default and free < DEFAULT_BYTES:
        return Finding("checkpoint", "problem", text, f"Free some space, or {ELSEWHERE}.", figures)
    return Finding("checkpoint", "ok", text, figures=figures)
