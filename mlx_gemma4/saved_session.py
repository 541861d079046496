"""What a file keeps of a session, besides what binds it to its model (``decoder.saved_file``).

layers.0.keys …       what each layer holds, without spare room
snapshots.512.0 …     the windows of the sliding layers at a position
content               token ids and types, and hashes of media: what a prompt is compared with
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from mlx_gemma4.checkpoint.json_file import array, shown, whole
from mlx_gemma4.decoder.cache import Cache
from mlx_gemma4.decoder.config import Config, LayerConfig, TextConfig
from mlx_gemma4.decoder.points import Points
from mlx_gemma4.decoder.saved_file import Saved
from mlx_gemma4.decoder.stored import KV_BITS, QUANTIZED, array_widths
from mlx_gemma4.inputs.content import WORDS, Content

SNAPSHOTS = 700_000_000
"""Bytes of snapshots in a file, at most: two of the 12B. The latest ones are kept."""

Packed = tuple[dict[str, Any], dict[str, mx.array | np.ndarray]]
"""A header, and tensors by their names."""


def pack(cache: Cache, points: Points, content: Content) -> Packed:
    """What a file keeps. Keys and values are lazy views."""
    tensors: dict[str, mx.array | np.ndarray] = {}
    for number, state in enumerate(cache.state()):
        tensors |= {f"layers.{number}.{name}": each for name, each in state.items()}
    kept = points.kept(SNAPSHOTS)
    for at, windows in kept.items():
        tensors |= {f"snapshots.{at}.{number}": each for number, each in enumerate(windows)}
    if len(content):
        tensors["content"] = content.rows
    header = {
        "position": cache.position,
        "room": cache.room,
        "kv_bits": cache.kv_bits,
        "snapshots": points.places,
        "kept": sorted(kept),
    }
    return header, tensors


def unpack(saved: Saved, config: Config, cache: Cache, points: Points) -> Content:
    """Fill an empty cache and its points; return the content.

    Raises:
        ValueError: The file does not fit the model or is damaged. Sizes are checked before anything is read.
    """
    try:
        position = position_of(saved)
        places = _places(saved.header.get("snapshots"), position)
        kept = _places(saved.header.get("kept"), position)
    except ValueError as error:
        raise saved.damaged(str(error)) from error
    text = config.text_config
    content = _content(saved, position)
    _check_bits(saved, cache.kv_bits)
    layers = _layers(saved, text, cache.kv_bits, position) if position else []
    windows = {at: _windows(saved, text.layers, at, text.sliding_window) for at in kept}
    if position:
        states = ({name: saved.take(tensor) for name, tensor in layer.items()} for layer in layers)
        cache.restore(states, position)
    points.restore(content.images, places, {at: list(map(saved.take, tensors)) for at, tensors in windows.items()})
    return content


def position_of(saved: Saved) -> int:
    """How long the sequence is."""
    return _number(saved, "position", 0)


def room_of(saved: Saved) -> int:
    """The room that the session had."""
    return _number(saved, "room", 1)


def _number(saved: Saved, name: str, least: int) -> int:
    try:
        return whole(saved.header.get(name), name, least=least)
    except ValueError as error:
        raise saved.damaged(str(error)) from error


def _check_bits(saved: Saved, bits: int | None) -> None:
    written = saved.header.get("kv_bits")
    if written != bits:
        ways = {None: "without --kv-bits"} | {each: f"with --kv-bits {each}" for each in KV_BITS}
        if written not in ways:
            raise saved.damaged(f"expected 4 or 8 as its kv_bits, got {shown(written)}")
        raise ValueError(
            f"{saved.path} was written {ways[written]}, and this session is {ways[bits]}: start {ways[written]}, or "
            "name another file"
        )


def _layers(saved: Saved, text: TextConfig, bits: int | None, position: int) -> list[dict[str, str]]:
    """The tensors of each layer's state, by the names of its arrays. They are lazy, and of the sizes they must have."""
    layers, lengths, window = [], set(), text.sliding_window
    for number, layer in enumerate(text.layers):
        tensors = {}
        for name, width in array_widths(layer, text.rope[layer.layer_type], bits).items():
            dtype = mx.uint32 if f".{QUANTIZED[0]}" in name else saved.dtype
            tensor = saved.array(f"layers.{number}.{name}", dtype, 1, layer.num_key_value_heads, None, width)
            tensors[name] = f"layers.{number}.{name}"
            lengths.add((layer.is_sliding, tensor.shape[2]))
        layers.append(tensors)
    sliding = {length for is_sliding, length in lengths if is_sliding}
    full = {length for is_sliding, length in lengths if not is_sliding}
    if full - {position} or len(sliding) > 1 or any(not min(position, window - 1) <= n <= position for n in sliding):
        raise saved.damaged(f"its layers do not hold {position} positions")
    return layers


def _windows(saved: Saved, layers: tuple[LayerConfig, ...], at: int, window: int) -> list[str]:
    """The tensors of a snapshot. They are lazy, and of the sizes that they must have."""
    sliding = [layer for layer in layers if layer.is_sliding]
    names = [f"snapshots.{at}.{number}" for number in range(len(sliding))]
    for name, layer in zip(names, sliding, strict=True):
        saved.array(name, saved.dtype, 2, 1, layer.num_key_value_heads, min(at, window - 1), layer.head_dim)
    return names


def _places(value: object, position: int) -> list[int]:
    return [whole(place, "a snapshot", least=0, most=position) for place in array(value, "the snapshots")]


def _content(saved: Saved, position: int) -> Content:
    if position == 0:
        return Content()
    saved.array("content", mx.uint32, position, WORDS)
    return Content(np.array(saved.take("content")))
