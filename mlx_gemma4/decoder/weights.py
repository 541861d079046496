"""Tensors on disk into the model's modules: names, shards, stored quantization. Strict: none missing, none left over.

Reads the released layout, which is also that of transformers (``model.language_model.…``), MLX conversions
(``language_model.model.…``, quantized or not), and text-only exports (``model.layers.…``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from mlx_gemma4.checkpoint.tensor_header import read_header
from mlx_gemma4.checkpoint.weight_files import weight_files
from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.drafter import DrafterModel
from mlx_gemma4.decoder.drafter_config import DrafterConfig
from mlx_gemma4.decoder.model import Model

Rename = Callable[[str], str | None]
TYPES = ("BF16", "F16", "F32", "U32", "U8")
"""Types of plain tensors, and of quantized ones and their scales."""
MEDIA_PREFIXES = ("vision_embedder.", "embed_vision.", "embed_audio.")


def load_model(
    folder: Path, *, config: Config | None = None, dtype: mx.Dtype | None = None, lazy: bool = False
) -> Model:
    """Build the model of a checkpoint folder and load its weights, evaluated.

    Args:
        config: The folder's config, if it has been read.
        dtype: Compute in this type; None takes the checkpoint's own (``compute_type``).
        lazy: Do not evaluate the weights: each is read when it is first used.

    Raises:
        ValueError: The folder is not a checkpoint, or its tensors do not fit its config; the message names them.
    """
    config = config or Config.from_file(folder / "config.json")
    weights = read_weights(folder)
    model = build_model(config_of(config, weights), weights, dtype=dtype, where=str(folder))
    if not lazy:
        mx.eval(model.parameters())
    return model


def build_model(
    config: Config, weights: Mapping[str, mx.array], *, dtype: mx.Dtype | None = None, where: str = "memory"
) -> Model:
    """Build a model of weights that are under its own names. Nothing is evaluated.

    Args:
        dtype: As in ``load_model``.
        where: What holds the weights, for messages.

    Raises:
        ValueError: The weights do not fit the config; the message names them.
    """
    model = Model(config)
    _fill(model, config.quantization, weights, dtype, where)
    return model


def load_drafter(folder: Path, *, dtype: mx.Dtype | None = None) -> DrafterModel:
    """Build the drafter of a checkpoint folder and load its weights, evaluated.

    Args:
        dtype: As for ``load_model``.

    Raises:
        ValueError: The folder holds no drafter, or its tensors do not fit its config; the message names them.
    """
    config = DrafterConfig.from_file(folder / "config.json")
    weights = read_weights(folder, drafter_name)
    drafter = DrafterModel(config)
    _fill(drafter, config.quantization, weights, dtype, str(folder))
    mx.eval(drafter.parameters())
    if config.use_ordered_embeddings:
        order = np.array(drafter.masked_embedding.token_ordering)
        if order.min() < 0 or order.max() >= config.text_config.vocab_size:
            raise ValueError(
                f"Expected token ids from 0 to {config.text_config.vocab_size - 1} in masked_embedding.token_ordering "
                f"in {folder}, got {order.min()} to {order.max()}"
            )
    return drafter


def _fill(
    model: nn.Module,
    quantization: Mapping[str, Any] | None,
    weights: Mapping[str, mx.array],
    dtype: mx.Dtype | None,
    where: str,
) -> None:
    """Put weights into a model of their shapes, and set the type that it computes in."""
    _apply_quantization(model, quantization, weights)
    try:
        model.load_weights(list(weights.items()), strict=True)
    except ValueError as error:
        reason = "".join(each if each.isprintable() else " " for each in " ".join(str(error).split()))
        raise ValueError(f"The tensors in {where} do not fit its config.json: {reason[:300]}") from error
    stored = ((tensor.dtype, tensor.shape) for tensor in weights.values())
    model.set_dtype(compute_type(stored) if dtype is None else dtype)


def read_weights(folder: Path, rename: Rename | None = None) -> dict[str, mx.array]:
    """All tensors of a checkpoint folder under the model's names, lazily.

    Args:
        rename: From the names on disk; ``model_name`` by default.
    """
    weights: dict[str, mx.array] = {}
    for path in weight_files(folder):
        wanted = _wanted(path, rename or model_name)
        try:
            tensors = mx.load(str(path))
        except RuntimeError as error:
            raise ValueError(f"MLX cannot read the tensors in {path}: {error}") from error
        assert isinstance(tensors, dict)
        for name, renamed in wanted.items():
            if renamed in weights:
                raise ValueError(f"The tensor {name} is stored twice in {folder}: in {path} and in another file")
            weights[renamed] = tensors[name]
    return weights


def _wanted(path: Path, rename: Rename) -> dict[str, str]:
    """The model's names of the tensors of a file, by their names in the file."""
    wanted = {}
    for name, tensor in read_header(path).items():
        renamed = rename(name)
        if renamed is None:
            continue
        if tensor.dtype not in TYPES and not (tensor.dtype == "I64" and name.endswith(".token_ordering")):
            raise ValueError(f"Expected a type of {', '.join(TYPES)} for {name} in {path}, got {tensor.dtype}")
        wanted[name] = renamed
    return wanted


def compute_type(tensors: Iterable[tuple[mx.Dtype, tuple[int, ...]]]) -> mx.Dtype:
    """The type to compute in: the one that most bytes of the matrices have.

    For quantized matrices it is the type of their scales. Norms are often in float32 and do not count, because they
    would double the memory of everything.

    Args:
        tensors: Type and shape of each tensor.
    """
    sizes: dict[tuple[bool, mx.Dtype], int] = {}
    for dtype, shape in tensors:
        if mx.issubdtype(dtype, mx.floating):
            key = len(shape) > 1, dtype
            sizes[key] = sizes.get(key, 0) + prod(shape) * dtype.size
    # if no matrix is in floating point (scales of mxfp4 are bytes), the other tensors decide
    return max(sizes, key=lambda key: (key[0], sizes[key]), default=(False, mx.bfloat16))[1]


def check_complete(path: Path) -> None:
    """Raise a ValueError if a file is cut short, or is not a safetensors file."""
    read_header(path)


def model_name(name: str) -> str | None:
    """The model's name of a tensor or module in any layout; None for tensors that the model does not store."""
    name = name.removeprefix("model.")
    if name.removeprefix("language_model.").startswith("lm_head.") or "rotary_emb" in name:
        return None  # the head is tied to the embedding; frequencies follow from the config
    if name.startswith(MEDIA_PREFIXES):
        return name
    return "language_model.model." + name.removeprefix("language_model.").removeprefix("model.")


def drafter_name(name: str) -> str | None:
    """A drafter's name of a tensor or module: its own. None for the head, which is tied to the embedding."""
    return None if name.startswith("lm_head.") else name


def config_of(config: Config, weights: Collection[str]) -> Config:
    """The config for the tensors that exist: text-only conversions drop tensors of vision and audio, not the config."""
    absent: dict[str, Any] = {}
    if not any(name.startswith(MEDIA_PREFIXES[:2]) for name in weights):
        absent["vision_config"] = None
    if not any(name.startswith(MEDIA_PREFIXES[2]) for name in weights):
        absent["audio_config"] = None
    return replace(config, **absent)


def parameter_shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the unquantized tensors of a config. Nothing is computed."""
    parameters = dict[str, mx.array](tree_flatten(Model(config).parameters()))
    return {name: parameter.shape for name, parameter in parameters.items()}


def _apply_quantization(model: nn.Module, block: Mapping[str, Any] | None, weights: Mapping[str, mx.array]) -> None:
    """Quantize the modules that have stored scales, each with its own settings."""
    quantized = {name.removesuffix(".scales") for name in weights if name.endswith(".scales")}
    if not quantized:
        return
    if block is None:
        raise ValueError(f"A quantization block is missing in config.json: {len(quantized)} modules have scales")
    defaults = {key: block[key] for key in ("group_size", "bits", "mode") if key in block}
    # as in mlx-lm, what a module's own entry leaves out is MLX's default, not the block's
    own = drafter_name if isinstance(model, DrafterModel) else model_name
    overrides = {own(path): dict(value) for path, value in block.items() if isinstance(value, dict)}

    def settings(path: str, module: nn.Module) -> bool | dict[str, Any]:
        return overrides.get(path, defaults) if path in quantized else False

    nn.quantize(model, class_predicate=settings)
