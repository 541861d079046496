"""``per_layer_config``: the table in which transformers saves the sizes of single layers that differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlx_gemma4.checkpoint.json_file import shown, table

SIZES = ("head_dim", "num_key_value_heads")
"""The sizes that may differ between layers."""


def per_layer_sizes(text: Mapping[str, Any], count: int, where: str = "text_config") -> dict[int, Mapping[str, Any]]:
    """The entries of ``per_layer_config`` by layer number; none without such a table.

    Args:
        text: The table that contains ``per_layer_config``.
        count: Number of layers.
        where: The name of the table in messages.

    Raises:
        ValueError: A key is not a layer number, two keys name the same layer, or an entry changes more than sizes.
    """
    if text.get("per_layer_config") is None:
        return {}
    entries: dict[int, Mapping[str, Any]] = {}
    names: dict[int, str] = {}
    for key, entry in table(text["per_layer_config"], f"'per_layer_config' in {where}").items():
        layer = _layer_number(key, count, where)
        if layer in entries:
            raise ValueError(
                f"{where}.per_layer_config has two entries for layer {layer}: {shown(names[layer])} and {shown(key)}"
            )
        entries[layer], names[layer] = _checked(entry, text, f"{where}.per_layer_config[{shown(key)}]"), key
    return entries


def _layer_number(key: str, count: int, where: str) -> int:
    """transformers pads the numbers with zeros to one width: "05" beside "47"."""
    if not (key.isascii() and key.isdigit()):
        raise ValueError(f"Expected layer numbers as the keys of {where}.per_layer_config, got {shown(key)}")
    digits = key.lstrip("0") or "0"
    if len(digits) > len(str(count)) or int(digits) >= count:  # int() refuses thousands of digits
        raise ValueError(
            f"{where}.per_layer_config has an entry {shown(key)}, but the model has {count} layers (from 0)"
        )
    return int(digits)


def _checked(entry: object, text: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    sizes = table(entry, where)
    for name, value in sizes.items():
        if name not in SIZES and value != text.get(name):
            raise ValueError(f"{where} sets {shown(name)}, which is the same for all layers in Gemma 4 12B")
    return sizes
