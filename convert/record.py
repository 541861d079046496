"""``conversion.json``: what a checkpoint was converted from, how, and what that lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mlx_gemma4.checkpoint.files import has_file
from mlx_gemma4.checkpoint.json_file import read_json, real, shown, table, text, whole
from mlx_gemma4.checkpoint.tensor_header import read_header
from mlx_gemma4.checkpoint.weight_files import weight_files

NAME = "conversion.json"
WEIGHTS = "weights_sha256"
"""Binds a record to its weights (``weights_hash``): a record that was copied along would describe others."""
MOST_LINE = 300
_LINES = ("source", "model_type", "recipe", "description", "version")
_ERROR = "loss"
"""The field of what was lost in ``conversion.json``."""
_ERRORS = ("tokens", "kl", "top1", "perplexity", "reference_perplexity", "wer", "reference_wer")
"""What is measured. The last two are there only if recordings were transcribed."""


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
    """Number of modules by the way they are stored: ``{"4 bits, group 64": 328, "bfloat16": 5}``."""
    version: str
    """Of this program."""
    quantization_error: Mapping[str, float] | None = None
    """Measured against the source: ``tokens``, ``kl`` (nats a token), ``top1``, ``perplexity``,
    ``reference_perplexity`` and, if recordings were transcribed, ``wer`` and ``reference_wer``. Rates are fractions."""

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
        names = [_ERROR if field.name == "quantization_error" else field.name for field in fields(cls)]
        missing = [name for name in names if name not in raw]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}: another version wrote it; convert the weights again")
        return cls(
            **{name: _line(raw[name], f"{name!r} in {path}") for name in _LINES},
            base_model=_optional_line(raw["base_model"], f"'base_model' in {path}"),
            license=_optional_line(raw["license"], f"'license' in {path}"),
            parameters=whole(raw["parameters"], f"'parameters' in {path}", most=10**15),
            size_bytes=whole(raw["size_bytes"], f"'size_bytes' in {path}", most=10**18),
            modules={
                _line(name, f"a key of 'modules' in {path}"): whole(count, f"'modules' in {path}", least=0)
                for name, count in table(raw["modules"], f"'modules' in {path}").items()
            },
            quantization_error=None
            if raw[_ERROR] is None
            else _quantization_error(raw[_ERROR], f"{_ERROR!r} in {path}"),
        )

    def write(self, folder: Path) -> None:
        """Write the record of the weights in a folder."""
        raw = asdict(self)
        raw[_ERROR] = raw.pop("quantization_error")
        text = json.dumps({**raw, WEIGHTS: weights_hash(folder)}, ensure_ascii=False, indent=2)
        (folder / NAME).write_text(f"{text}\n", encoding="utf-8")


def _line(value: object, name: str) -> str:
    """A line of text, as it will stand in a model card."""
    line = text(value, name)
    if len(line) > MOST_LINE or not line.isprintable():
        raise ValueError(f"Expected one line of at most {MOST_LINE} characters for {name}, got {shown(line)}")
    return line


def _optional_line(value: object, name: str) -> str | None:
    return None if value is None else _line(value, name)


def _quantization_error(value: object, name: str) -> dict[str, float]:
    error = {key: real(number, f"{key!r} of {name}") for key, number in table(value, name).items() if key in _ERRORS}
    needed = {*_ERRORS[:5], *(_ERRORS[5:] if "wer" in error else ())}
    if needed - error.keys():
        raise ValueError(f"{name} lacks {', '.join(sorted(needed - error.keys()))}")
    return error


def record_file(folder: Path) -> Path:
    """Where a folder's record is.

    Raises:
        ValueError: It has none.
    """
    path = folder / NAME
    if not has_file(path):
        raise ValueError(f"This folder was not made by mlx_gemma4 convert: there is no {NAME} in {folder}")
    return path


def size_text(count: int) -> str:
    """Bytes in GB or, where that is too coarse, in MB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


_SAMPLE = 64
"""Bytes from the middle of each tensor. Training changes nearly all of them, and names and shapes stay."""


def weights_hash(folder: Path) -> str:
    """A hash of every tensor's header and a sample of its bytes, whatever files they are in and in whatever order.

    Raises:
        ValueError: The folder holds no weights, or broken ones.
    """
    found = {}
    for path in weight_files(folder):
        with path.open("rb") as file:
            for name, tensor in read_header(path).items():
                file.seek(max(tensor.start, (tensor.start + tensor.stop - _SAMPLE) // 2))
                sample = file.read(min(_SAMPLE, tensor.stop - tensor.start))
                found[name] = f"{tensor.dtype} {list(tensor.shape)} {sample.hex()}"
    return hashlib.sha256("\n".join(f"{name} {found[name]}" for name in sorted(found)).encode()).hexdigest()
