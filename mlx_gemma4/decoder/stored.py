"""What a layer stores of a position's key and value: the numbers, and their bytes. Arithmetic; nothing is computed.

On a full layer values are un-normed keys, so that most of a key is its value times a weight. Only the dims that rotate
(RoPE) differ, of which a head has few:

    dims      0 … r-1     r …         d/2 … d/2+r-1     … d-1
    key       rotates     value · w   rotates           value · w      w: the weight of the key norm
    value     v           v           v                 v

    stored    [ rotating dims of the key | still dims of the value | rotating dims of the value ]

Of the 12B that is 128 + 384 + 128 numbers instead of 2 · 512. A weight of the key works as well on the query.
"""

from __future__ import annotations

from mlx_gemma4.decoder.config import LayerConfig, RopeConfig, TextConfig

KV_BITS = (4, 8)
"""Bits of a stored number that can be chosen for full layers; otherwise it has the type that the model computes in."""
PARTS = {2: ("keys", "values"), 3: ("rotating_keys", "still", "rotating_values")}
"""Names of the parts, by their number."""
QUANTIZED = ("codes", "scales", "biases")
"""The arrays that hold a quantized part."""
GROUPS = (64, 32)
"""Numbers that share a scale and a bias; the first that divides a part."""


def rotating_pairs(layer: LayerConfig, rope: RopeConfig) -> int | None:
    """Pairs of a head that are stored of the key; None where the whole key is stored."""
    pairs = layer.head_dim // 2
    rotating = max(1, int(rope.partial_rotary_factor * pairs))
    return rotating if layer.k_eq_v and rotating < pairs else None


def part_widths(layer: LayerConfig, rope: RopeConfig) -> tuple[int, ...]:
    """How many numbers each part has that a head stores of a position."""
    rotating = rotating_pairs(layer, rope)
    if rotating is None:
        return layer.head_dim, layer.head_dim
    return 2 * rotating, layer.head_dim - 2 * rotating, 2 * rotating


def array_names(parts: int, bits: int | None) -> list[str]:
    """Names of the arrays that hold so many parts, which say in what bits they are."""
    names = PARTS[parts]
    if bits is None:
        return list(names)
    return [f"{name}.{kind}{bits}" for name in names for kind in QUANTIZED]


def array_widths(layer: LayerConfig, rope: RopeConfig, bits: int | None) -> dict[str, int]:
    """The widths of these arrays of a layer, by name. Codes are words of 32 bits."""
    widths = part_widths(layer, rope)
    bits = None if layer.is_sliding else bits
    sizes = widths if bits is None else [size for width in widths for size in _quantized_widths(width, bits)]
    return dict(zip(array_names(len(widths), bits), sizes, strict=True))


def group_size(width: int) -> int | None:
    """The size of the groups in which a part is quantized; None if none divides it."""
    return next((group for group in GROUPS if width % group == 0), None)


def can_have_kv_bits(text: TextConfig) -> bool:
    """Whether the keys and values of the full layers can be quantized: groups divide their parts."""
    return _undivided(text) is None


def check_kv_bits(text: TextConfig, bits: int | None) -> None:
    """Raise a ValueError if the keys and values of the full layers cannot be stored in so many bits."""
    if bits is None:
        return
    if bits not in KV_BITS:
        raise ValueError(f"Expected {' or '.join(map(str, KV_BITS))} bits for keys and values, got {bits}")
    widths = _undivided(text)
    if widths is not None:
        raise ValueError(
            f"Keys and values of this checkpoint cannot be stored in {bits} bits: its full layers store heads in parts "
            f"of {', '.join(map(str, widths))} numbers, which groups of {GROUPS[-1]} do not divide; leave out --kv-bits"
        )


def _undivided(text: TextConfig) -> tuple[int, ...] | None:
    """The parts of a full layer that groups do not divide; None if there is none."""
    for layer in text.layers:
        widths = part_widths(layer, text.rope[layer.layer_type])
        if not layer.is_sliding and not all(map(group_size, widths)):
            return widths
    return None


def layer_bytes(layer: LayerConfig, rope: RopeConfig, number: int, bits: int | None = None) -> int:
    """Bytes of a position's key and value in a layer.

    Args:
        number: Bytes of a number in the type that the model computes in.
        bits: As ``check_kv_bits`` allows; full layers only.
    """
    widths = part_widths(layer, rope)
    if bits is None or layer.is_sliding:
        return layer.num_key_value_heads * sum(widths) * number
    return layer.num_key_value_heads * sum(_quantized_bytes(width, number, bits) for width in widths)


def _quantized_bytes(width: int, number: int, bits: int) -> int:
    codes, scales, biases = _quantized_widths(width, bits)
    return 4 * codes + number * (scales + biases)


def _quantized_widths(width: int, bits: int) -> tuple[int, int, int]:
    group = group_size(width)
    assert group is not None, "check_kv_bits was not called"
    return width * bits // 32, width // group, width // group
