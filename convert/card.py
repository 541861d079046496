"""The model card: ``README.md`` of a converted checkpoint, made from its record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlx_gemma4.checkpoint.hub import DEFAULT_MODEL
from mlx_gemma4.decoder.config_fields import DRAFTER

from .record import Record

NAME = "README.md"
FLOATS = ("bfloat16", "float16", "float32")
PLACE = "path/to/this/folder"
"""What commands name while the checkpoint is in no repo."""


def write_card(folder: Path, repo: str | None = None) -> None:
    """Write the card of a converted folder.

    Raises:
        ValueError: The folder has no record of a conversion.
    """
    (folder / NAME).write_text(card(Record.read(folder), repo), encoding="utf-8")


def card(record: Record, repo: str | None) -> str:
    """The card of a conversion that is, or will be, at ``repo``."""
    title = f"{_last(record.source)}, {record.recipe}" if repo is None else _last(repo)
    parts = ["\n".join(_front_matter(record)), f"# {title}", _origin(record), _sizes(record)]
    if record.quantization_error is not None:
        parts += ["## What was lost", *_errors(record.quantization_error)]
    return "\n\n".join([*parts, "## Use", _use(record, repo or PLACE)]) + "\n"


def _front_matter(record: Record) -> Iterator[str]:
    yield "---"
    yield "library_name: mlx"
    if record.model_type != DRAFTER:
        yield "pipeline_tag: any-to-any"
    if record.license is not None:
        yield f"license: {json.dumps(record.license)}"
    if record.base_model is not None:
        yield f"base_model: {json.dumps(record.base_model)}"
        if any(stored not in FLOATS for stored in record.modules):
            yield "base_model_relation: quantized"
    yield "tags:"
    yield "- mlx"
    yield "- gemma4"
    if record.model_type == DRAFTER:
        yield "- speculative-decoding"
    yield "---"


def _origin(record: Record) -> str:
    source = record.source if record.base_model is None else _link(record.base_model)
    through = "" if record.base_model in (None, record.source) else f" (through {record.source})"
    return f"{source}{through} in MLX, converted by mlx_gemma4 {record.version}."


def _link(repo: str) -> str:
    return f"[{repo}](https://huggingface.co/{repo})"


def _sizes(record: Record) -> str:
    lines = [
        f"Recipe `{record.recipe}`: {record.description}. {record.size}, {record.bits_per_weight:.2f} bits per weight.",
        "",
        "| stored as | modules |",
        "|---|---:|",
        *(f"| {stored} | {count} |" for stored, count in record.modules.items()),
    ]
    return "\n".join(lines)


def _errors(error: Mapping[str, float]) -> Iterator[str]:
    lines = [
        "| | source | this |",
        "|---|---:|---:|",
        f"| perplexity | {error['reference_perplexity']:.3f} | {error['perplexity']:.3f} |",
    ]
    if "wer" in error:
        lines.append(f"| word error rate | {error['reference_wer']:.1%} | {error['wer']:.1%} |")
    lines += [
        f"| KL divergence from the source, nats | | {error['kl']:.4f} |",
        f"| same likeliest token | | {error['top1']:.1%} |",
    ]
    yield "\n".join(lines)
    yield (
        f"Means over {int(error['tokens'])} tokens that both models read; the predictions at each are compared."
        + (" Both models transcribe the same recordings." if "wer" in error else "")
    )


def _use(record: Record, place: str) -> str:
    vlm = "python -m mlx_vlm.generate"
    if record.model_type == DRAFTER:
        lines = [
            f"mlx_gemma4 chat --model {DEFAULT_MODEL} --draft-model {place}",
            f'{vlm} --model {DEFAULT_MODEL} --draft-model {place} --prompt "Why is the sky blue?"',
        ]
    else:
        lines = [
            f"mlx_gemma4 chat --model {place}",
            f"mlx_gemma4 listen --model {place}",
            f'{vlm} --model {place} --prompt "What is this?" --image photo.jpg',
        ]
    return "\n".join(["```bash", *lines, "```"])


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]
