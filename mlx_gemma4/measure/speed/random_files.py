"""Random checkpoints as folders: what stands beside the weights is the demo's, with a tokenizer of the model's size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx

from mlx_gemma4.checkpoint.files import SMALL_FILES
from mlx_gemma4.checkpoint.hub import demo_folder
from mlx_gemma4.checkpoint.weight_files import INDEX
from mlx_gemma4.inputs.processor import Limits, Processor
from mlx_gemma4.measure.speed.random_model import RandomCheckpoint

DEMO = demo_folder() / "checkpoint"
SHARD_BYTES = 2_000_000_000
SPARE_BYTES = 200_000_000
"""Left free on the disk, beside the weights: for a tokenizer, and for others."""

Progress = Callable[[int], None]


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


def write_checkpoint(checkpoint: RandomCheckpoint, folder: Path, progress: Progress = lambda done: None) -> None:
    """Write the checkpoint as MLX conversions are laid out, so that MLX programs load it.

    Args:
        progress: Called with the bytes that were written so far.

    Raises:
        ValueError: The disk has no room for it.
    """
    free = shutil.disk_usage(folder).free
    if checkpoint.nbytes + SPARE_BYTES > free:
        raise ValueError(
            f"A checkpoint of {checkpoint.nbytes / 1e9:.1f} GB does not fit on the disk of {folder}, which has "
            f"{free / 1e9:.1f} GB left; set TMPDIR to a folder on another disk"
        )
    write_files(checkpoint, folder)
    shards, done = _Shards(folder), 0
    for name, tensor in checkpoint.tensors():
        mx.eval(tensor)
        shards.add(name, tensor)
        done += tensor.nbytes
        mx.clear_cache()
        progress(done)
    shards.end()


class _Shards:
    """Tensors in files of about SHARD_BYTES, and the index that says where each is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tensors: dict[str, mx.array] = {}
        self._files: dict[str, str] = {}
        self._count = 0

    def add(self, name: str, tensor: mx.array) -> None:
        self._tensors[name] = tensor
        if sum(tensor.nbytes for tensor in self._tensors.values()) > SHARD_BYTES:
            self._write()

    def end(self) -> None:
        self._write()
        _write(self._folder / INDEX, {"metadata": {}, "weight_map": self._files})

    def _write(self) -> None:
        if self._tensors:
            self._count += 1
            file = f"model-{self._count:05d}.safetensors"
            mx.save_safetensors(str(self._folder / file), self._tensors, metadata={"format": "mlx"})
            self._files |= dict.fromkeys(self._tensors, file)
            self._tensors = {}


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
