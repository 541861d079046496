"""A checkpoint to convert: its config, its files, and its tensors under the names that they will have.

Read are the released layout and transformers' own, sharded or not, MLX conversions, and compressed-tensors' W4A16
exports; the 12B, or its drafter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_gemma4.checkpoint.json_file import read_json, table, typed
from mlx_gemma4.checkpoint.setting import Setting
from mlx_gemma4.checkpoint.weight_files import weight_files
from mlx_gemma4.decoder.config import Config, with_text_config
from mlx_gemma4.decoder.config_fields import DRAFTER
from mlx_gemma4.decoder.per_layer import per_layer_sizes
from mlx_gemma4.decoder.types import type_name
from mlx_gemma4.decoder.weights import compute_type, config_of, drafter_name, model_name, parameter_shapes

from .tensor_file import Entry, read_entries
from .tensors import PackedInt4, Plain, Quantized, Tensor

_FLOATING = (mx.bfloat16, mx.float16, mx.float32)


@dataclass(frozen=True)
class SourceCheckpoint:
    """A checkpoint, opened: no tensor has been read."""

    folder: Path
    raw: Mapping[str, Any]
    """config.json without what it says of quantization."""
    config: Config | None
    """None for the drafter."""
    tensors: tuple[Tensor, ...]

    @property
    def model_type(self) -> str:
        return str(self.raw["model_type"])

    @property
    def is_quantized(self) -> bool:
        return any(tensor.exact for tensor in self.tensors)


def open_checkpoint(folder: Path) -> SourceCheckpoint:
    """Open a checkpoint folder.

    Raises:
        ValueError: It is no checkpoint of Gemma 4 12B or its drafter, it is cut short, its tensors are not those of its
            config, or they are quantized in a way that is not known here; the message says what and where.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"There is no config.json of a checkpoint at {path}")
    raw = with_text_config(read_json(path))
    with typed(path):
        plain = _without_quantization(raw)
        is_drafter = raw.get("model_type") == DRAFTER
        if is_drafter:
            _check_drafter(plain, path)
        config = None if is_drafter else Config.from_dict(plain)
        compressed = _compressed_block(raw)
        group_size = None if compressed is None else _compressed_group(compressed, path)
    entries = _entries(folder, is_drafter=is_drafter)
    tensors = _stored(entries, raw, path) if compressed is None else _compressed(entries, group_size)
    if config is None:
        return SourceCheckpoint(folder, plain, None, tensors)
    config = config_of(config, entries)
    _check_shapes(config, tensors, folder)
    return SourceCheckpoint(folder, plain, config, tensors)


def _without_quantization(raw: Mapping[str, Any]) -> dict[str, Any]:
    blocks = ("quantization", "quantization_config")
    plain = {key: value for key, value in raw.items() if key not in blocks}
    if isinstance(plain.get("text_config"), dict):
        plain["text_config"] = {key: value for key, value in plain["text_config"].items() if key not in blocks}
    return plain


def _check_drafter(raw: Mapping[str, Any], path: Path) -> None:
    """The drafter is converted, not run: of its config only this is needed."""
    text = raw.get("text_config") or {}
    if not text.get("layer_types"):
        raise ValueError(f"There are no layer_types in text_config in {path}")
    per_layer_sizes(text, len(text["layer_types"]))


def _entries(folder: Path, *, is_drafter: bool) -> dict[str, Entry]:
    """The tensors on disk by the names that they will have."""
    entries: dict[str, Entry] = {}
    for path in weight_files(folder):
        for entry in read_entries(path):
            name = drafter_name(entry.name) if is_drafter else model_name(entry.name)
            if name is None:
                continue
            if name in entries:
                raise ValueError(f"The tensor {entry.name} is stored twice in {folder}: in {path} and in another file")
            entries[name] = entry
    return entries


def _stored(entries: Mapping[str, Entry], raw: Mapping[str, Any], path: Path) -> tuple[Tensor, ...]:
    """Plain tensors, and modules that MLX has quantized."""
    block = table(raw.get("quantization") or raw.get("quantization_config") or {}, f"'quantization' in {path}")
    stored = {name.removesuffix(".scales") for name in entries if name.endswith(".scales")}
    if stored and "bits" not in block:
        raise ValueError(f"A quantization block is missing in {path}: {len(stored)} modules have scales")
    computed = compute_type((entry.dtype, entry.shape) for entry in entries.values())
    tensors: list[Tensor] = []
    for name, entry in entries.items():
        module, _, parameter = name.rpartition(".")
        if module in stored and parameter == "weight":
            tensors.append(_quantized(name, entries, _stored_setting(block, module), computed))
        elif module not in stored or parameter not in ("scales", "biases"):
            tensors.append(_plain(name, entry))
    return tuple(tensors)


def _quantized(name: str, entries: Mapping[str, Entry], setting: Setting, computed: mx.Dtype) -> Quantized:
    module, packed = name.removesuffix(".weight"), entries[name]
    rows, words = _matrix(packed)
    groups = (rows, words * 32 // setting.bits // setting.group_size)
    parts = []
    for part in ("scales", "biases") if setting.mode == "affine" else ("scales",):
        entry = entries.get(f"{module}.{part}")
        if entry is None or entry.shape != groups:
            found = "none" if entry is None else str(list(entry.shape))
            raise ValueError(
                f"Expected {part} of {list(groups)} for {packed.name} ({setting}) in {packed.path}, got {found}"
            )
        parts.append(entry)
    scales = parts[0].dtype
    return Quantized(name, (packed, *parts), setting, scales if scales in _FLOATING else computed)


def _matrix(entry: Entry) -> tuple[int, int]:
    if len(entry.shape) != 2:
        raise ValueError(f"Expected a matrix for {entry.name} in {entry.path}, got {list(entry.shape)}")
    return entry.shape[0], entry.shape[1]


def _plain(name: str, entry: Entry) -> Plain:
    if entry.dtype not in _FLOATING and not name.endswith("token_ordering"):
        raise ValueError(
            f"Expected floating-point weights, got {type_name(entry.dtype)} for {entry.name} in {entry.path}"
        )
    return Plain(name, entry)


def _stored_setting(block: Mapping[str, Any], module: str) -> Setting:
    """How MLX has stored a module: its own entry in the block, which stands alone, or the block's defaults."""
    own = next(
        (value for path, value in block.items() if isinstance(value, dict) and module in (path, model_name(path))),
        block,
    )
    return Setting.of(own.get("mode", "affine"), own.get("bits"), own.get("group_size"))


def _compressed_block(raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What another tool says of its quantization; where MLX's own block is, that counts."""
    if raw.get("quantization"):
        return None
    for part in (raw, raw.get("text_config") or {}):
        block = part.get("quantization_config") or {}
        if "quant_method" in block:
            return dict(block)
    return None


def _compressed(entries: Mapping[str, Entry], group_size: int | None) -> tuple[Tensor, ...]:
    """Plain tensors, and modules that compressed-tensors has packed; without a group size, with one scale a row."""
    tensors: list[Tensor] = []
    for name, entry in entries.items():
        module, _, parameter = name.rpartition(".")
        if parameter in ("weight_g_idx", "weight_zero_point"):
            raise ValueError(
                f"Only symmetric groups in their order can be read, not those of {entry.name} in {entry.path}"
            )
        if parameter in ("weight_scale", "weight_shape"):
            continue
        if parameter != "weight_packed":
            tensors.append(_plain(name, entry))
            continue
        rows, columns = _matrix(entry)[0], _matrix(entry)[1] * 8
        size = group_size or next((size for size in (128, 64, 32) if columns % size == 0), 32)
        if columns % size:
            raise ValueError(f"Groups of {size} do not divide the {columns} inputs of {entry.name}")
        groups, scales = (rows, columns // size if group_size else 1), entries.get(f"{module}.weight_scale")
        if scales is None or scales.shape != groups:
            found = "none" if scales is None else str(list(scales.shape))
            raise ValueError(f"Expected a weight_scale of {list(groups)} for {entry.name} in {entry.path}, got {found}")
        tensors.append(PackedInt4(f"{module}.weight", entry, scales, Setting.of("affine", 4, size)))
    return tuple(tensors)


def _compressed_group(block: Mapping[str, Any], path: Path) -> int | None:
    """The group size of a compressed-tensors config; None for one scale a row."""
    schemes = [group.get("weights") or {} for group in (block.get("config_groups") or {}).values()]
    formats = {group.get("format") or block.get("format") for group in (block.get("config_groups") or {}).values()}
    wanted = {"num_bits": 4, "type": "int", "symmetric": True}
    fits = all(scheme.get(key) == value for scheme in schemes for key, value in wanted.items())
    if (
        block.get("quant_method") != "compressed-tensors"
        or formats - {"pack-quantized", None}
        or not schemes
        or not fits
    ):
        raise ValueError(
            "Expected weights in floating point, quantized by MLX, or in compressed-tensors' pack-quantized symmetric "
            f"int4 (W4A16), got quant_method {block.get('quant_method')!r}, format {block.get('format')!r} and "
            f"weights {schemes!r} in {path}"
        )
    strategies = {scheme.get("strategy") for scheme in schemes}
    sizes = {scheme.get("group_size") for scheme in schemes}
    if len(sizes) > 1 or strategies - {"group", "channel"}:
        raise ValueError(f"Expected one group size for all modules in {path}, got {schemes!r}")
    return sizes.pop() if strategies == {"group"} else None


def _check_shapes(config: Config, tensors: tuple[Tensor, ...], folder: Path) -> None:
    """The tensors are those of the model, no more and no less."""
    expected = parameter_shapes(config)
    found = {tensor.name: tensor.shape for tensor in tensors}
    for what, names in (("lacks", expected.keys() - found.keys()), ("has unknown", found.keys() - expected.keys())):
        if names:
            first = ", ".join(sorted(names)[:3])
            raise ValueError(
                f"The tensors are not those of config.json in {folder}: it {what} {first} ({len(names)} in all)"
            )
    for name, shape in expected.items():
        if found[name] != shape:
            raise ValueError(f"Expected {name} as {list(shape)} in {folder}, got {list(found[name])}")
