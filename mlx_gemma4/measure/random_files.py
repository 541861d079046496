"""Random checkpoints as folders: what stands beside the weights is the demo's, with a tokenizer of the model's size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlx_gemma4.checkpoint.files import SMALL_FILES
from mlx_gemma4.checkpoint.hub import demo_folder
from mlx_gemma4.inputs.processor import Limits, Processor
from mlx_gemma4.measure.random_model import RandomCheckpoint

DEMO = demo_folder() / "checkpoint"


def random_processor(checkpoint: RandomCheckpoint) -> Processor:
    """The processor of a random checkpoint: the demo's words and chat template, and the 12B's budgets for media."""
    with TemporaryDirectory(prefix="mlx_gemma4-") as folder:
        write_files(checkpoint, Path(folder))
        return Processor.from_folder(Path(folder), checkpoint.config)


def write_files(checkpoint: RandomCheckpoint, folder: Path) -> None:
    """Write everything but the weights."""
    for name in SMALL_FILES:
        if (DEMO / name).is_file():
            shutil.copyfile(DEMO / name, folder / name)
    _write(folder / "config.json", checkpoint.raw_config)
    _write(folder / "tokenizer.json", _tokenizer(checkpoint.config.text_config.vocab_size))
    processor = _read(DEMO / "processor_config.json")
    processor["image_seq_length"] = processor["image_processor"]["max_soft_tokens"] = Limits.image_tokens
    _write(folder / "processor_config.json", processor)


def _tokenizer(size: int) -> dict[str, Any]:
    """The demo's tokenizer with as many further tokens as the vocabulary has room for: pairs of its own tokens."""
    tokenizer = _read(DEMO / "tokenizer.json")
    vocabulary, merges = tokenizer["model"]["vocab"], tokenizer["model"]["merges"]
    special = {token["content"] for token in tokenizer["added_tokens"]}
    words = [token for token in vocabulary if token not in special]
    for first in words:
        for second in words:
            if len(vocabulary) >= size:
                return tokenizer
            if first + second not in vocabulary:
                vocabulary[first + second] = len(vocabulary)
                merges.append([first, second])
    return tokenizer


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
