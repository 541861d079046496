"""``conversion.json``: what a converted folder was made from and how, and what was lost. The model card is its text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mlx_gemma4.checkpoint_file import has_file
from mlx_gemma4.json_file import read_json, typed

from .identity import weights_hash

NAME = "conversion.json"
WEIGHTS = "weights_sha256"
"""What binds a record to its weights (``weights_hash``): a copied or forgotten one tells of others."""
DRAFTER = "gemma4_unified_assistant"
"""The drafter's model type."""


@dataclass(frozen=True)
class Record:
    """A conversion."""

    source: str
    """The Hub repo, or the last part of the folder's name."""
    base_model: str | None
    """The Hub repo of the weights that were converted, where it is known."""
    model_type: str
    """``gemma4_unified``, or ``gemma4_unified_assistant`` for the drafter."""
    license: str | None
    """The licence that the source's card names."""
    recipe: str
    description: str
    """The recipe in a sentence."""
    parameters: int
    size_bytes: int
    """Of the tensors."""
    modules: Mapping[str, int]
    """How many modules are stored in each way: ``{"4 bits, group 64": 328, "bfloat16": 5}``."""
    version: str
    """Of this program."""
    loss: Mapping[str, float] | None = None
    """Measured against the source: ``tokens``, ``kl``, ``top1``, ``perplexity``, ``reference_perplexity``, and where
    sound was heard ``wer`` and ``reference_wer``; rates are fractions of 1."""

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.size_bytes / self.parameters

    @property
    def size(self) -> str:
        """``7.06 GB``, ``4.13 MB``."""
        return size_text(self.size_bytes)

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Read a folder's record.

        Raises:
            ValueError: It has none, one of another form, or one of other weights than those that are there.
        """
        path = record_file(folder)
        raw = read_json(path)
        if raw.get(WEIGHTS) != weights_hash(folder):
            raise ValueError(f"{path} does not describe the weights beside it: convert them, or remove the file")
        with typed(path):
            return cls(**{field.name: raw[field.name] for field in fields(cls)})

    def write(self, folder: Path) -> None:
        """Write the record of the weights in a folder."""
        text = json.dumps({**asdict(self), WEIGHTS: weights_hash(folder)}, ensure_ascii=False, indent=2)
        (folder / NAME).write_text(f"{text}\n", encoding="utf-8")


def record_file(folder: Path) -> Path:
    """Where a folder's record is.

    Raises:
        ValueError: It has none.
    """
    path = folder / NAME
    if not has_file(path):
        raise ValueError(f"Expected a folder that mlx_gemma4 convert made, found no {NAME} in {folder}")
    return path


def size_text(count: int) -> str:
    """Bytes in GB or, where that is too coarse, in MB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
