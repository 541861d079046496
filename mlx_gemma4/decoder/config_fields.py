"""Single fields of ``config.json``: each is checked, and an error names the key and the file's part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_gemma4.checkpoint.json_file import MOST_INT, real, shown, table, token_id, whole

DRAFTER = "gemma4_unified_assistant"
"""The model type of a drafter."""
MODES = ("affine", "mxfp4", "mxfp8", "nvfp4")
"""Modes of MLX's quantization."""

DEFAULT_EPS = 1e-6
"""Norm epsilon if the vision or audio part names none: the reference's default. An epsilon is not a size."""


def missing(key: str, where: str) -> ValueError:
    return ValueError(f"{where} has no {key!r}: the checkpoint's config.json is incomplete")


def need(raw: Mapping[str, Any], key: str, where: str) -> Any:
    if raw.get(key) is None:
        raise missing(key, where)
    return raw[key]


def epsilon(raw: Mapping[str, Any], where: str) -> float:
    value = raw.get("rms_norm_eps")
    return DEFAULT_EPS if value is None else real(value, f"'rms_norm_eps' in {where}", most=1.0)


def dimension(raw: Mapping[str, Any], key: str, where: str, most: int = MOST_INT) -> int:
    return whole(need(raw, key, where), f"{key!r} in {where}", most=most)


def section(raw: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    return table(need(raw, key, where), f"{key!r} in {where}")


def positive(value: object, name: str) -> float:
    number = real(value, name)
    if number == 0:
        raise ValueError(f"Expected a number above 0 for {name}, got {shown(value)}")
    return number


def optional_token_id(raw: Mapping[str, Any], key: str) -> int | None:
    value = raw.get(key)
    return None if value is None else token_id(value, f"{key!r} in config.json")


def quantization_of(raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The quantization block. MLX writes it under two names; other tools use the second for their own formats."""
    own = raw.get("quantization") is not None
    name = "quantization" if own else "quantization_config"
    if raw.get(name) is None:
        return None
    block = section(raw, name, "config.json")
    if "bits" not in block or ("quant_method" in block and not own):
        method = block.get("quant_method")
        raise ValueError(
            f"Expected MLX quantization or none in config.json, got quant_method {shown(method)}; "
            "use the bf16 checkpoint, or one converted to MLX"
        )
    _check_setting(block, name)
    for module, own_setting in block.items():
        if isinstance(own_setting, dict):
            _check_setting(own_setting, f"{name}.{shown(module)}")
    return block


def _check_setting(block: Mapping[str, Any], where: str) -> None:
    """Check the values of a block. MLX itself checks their combination."""
    for key, most in (("bits", 8), ("group_size", 1024)):
        if block.get(key) is not None:
            whole(block[key], f"{key!r} in {where} in config.json", most=most)
    if block.get("mode", "affine") not in MODES:
        raise ValueError(f"Expected a mode of {', '.join(MODES)} in {where} in config.json, got {shown(block['mode'])}")
