"""What full layers store of keys and values: once what they share, in 8 or 4 bits, and what that costs."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from graphs import primitives
from mlx.utils import tree_map

from mlx_gemma4.decoder import attention, quantized
from mlx_gemma4.decoder.attention import Attention, attend
from mlx_gemma4.decoder.cache import Cache
from mlx_gemma4.decoder.config import FULL, Config, LayerConfig, RopeConfig, TextConfig
from mlx_gemma4.decoder.full_cache import FullCache
from mlx_gemma4.decoder.masks import full_mask
from mlx_gemma4.decoder.quantized import Quantized, decode, encode
from mlx_gemma4.decoder.stored import (
    array_widths,
    check_kv_bits,
    layer_bytes,
    part_widths,
    rotating_pairs,
)
from mlx_gemma4.decoder.twelve_b import TWELVE_B

TEXT = Config.from_dict(TWELVE_B).text_config
FULL_LAYER, ROPE = TEXT.layers[5], TEXT.rope[FULL]


def layer(head_dim: int, heads: int = 1, *, k_eq_v: bool = True) -> LayerConfig:
    return LayerConfig(FULL, head_dim, heads, k_eq_v)


def small_attention(head_dim: int, heads: int, factor: float, *, k_eq_v: bool = True) -> Attention:
    """A full layer's attention with random weights, those of its norms far from 1."""
    text = replace(
        loaded("released")[0].config.text_config,
        layers=(layer(head_dim, heads, k_eq_v=k_eq_v),),
        rope={FULL: RopeConfig(1e4, factor)},
    )
    module = Attention(text, text.layers[0])
    mx.random.seed(head_dim)
    module.update(
        tree_map(
            lambda p: mx.random.normal(p.shape) * p.shape[-1] ** -0.5 * (1 if p.ndim > 1 else 4), module.parameters()
        )
    )
    return module


def outputs(module: Attention, pieces: list[int], bits: int | None = None) -> tuple[np.ndarray, FullCache]:
    """What comes out for rows that go in piece by piece."""
    cache = FullCache(bits)
    rows = mx.random.normal((1, sum(pieces), module.q_proj.weight.shape[1]), key=mx.random.key(1))
    out, start = [], 0
    for length in pieces:
        out.append(module(rows[:, start : start + length], full_mask(length), cache))
        start += length
    return np.array(mx.concatenate(out, axis=1)), cache


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.25, 0.5, 0.75, 0.99, 1.0])
@pytest.mark.parametrize(("head_dim", "heads"), [(2, 1), (6, 2), (32, 4), (64, 1)])
def test_what_is_shared_is_stored_once_and_nothing_changes(
    head_dim: int, heads: int, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rounding, for every share of rotating dims and any cut: the attention that stores whole keys and values."""
    module = small_attention(head_dim, heads, factor)
    shared, cache = outputs(module, [1, 7, 1, 20, 3])
    monkeypatch.setattr(module, "_split", None)
    whole, plain = outputs(module, [1, 7, 1, 20, 3])
    np.testing.assert_allclose(shared, whole, atol=3e-5 * np.abs(whole).max())
    numbers = sum(array.shape[-1] for array in cache.arrays)
    rotating = max(1, int(factor * (head_dim // 2)))
    assert numbers == min(head_dim + 2 * rotating, 2 * head_dim)
    assert sum(array.shape[-1] for array in plain.arrays) == 2 * head_dim


def test_layers_with_values_of_their_own_store_whole_keys() -> None:
    assert rotating_pairs(layer(64, k_eq_v=False), ROPE) is None
    module = small_attention(32, 2, 0.25, k_eq_v=False)
    _, cache = outputs(module, [5])
    assert [array.shape[-1] for array in cache.arrays] == [32, 32]


def test_tiles_of_parts_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With scores cut into tiles, as in a long context."""
    module = small_attention(32, 2, 0.25)
    whole, _ = outputs(module, [40, 30])
    monkeypatch.setattr(attention, "SCORE_BYTES", 4 * 4 * 70 * 8)
    tiles, _ = outputs(module, [40, 30])
    np.testing.assert_allclose(tiles, whole, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("bits", [8, 4])
def test_metal_multiplies_what_is_quantized(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without making a plain copy; the numbers are those of a device that makes one."""
    module = small_attention(128, 1, 0.25)
    plain, cache = outputs(module, [9, 1], bits)
    monkeypatch.setattr(quantized, "has_fast_products", lambda: True)
    multiplied, _ = outputs(module, [9, 1], bits)
    np.testing.assert_allclose(multiplied, plain, atol=1e-4 * np.abs(plain).max())
    queries = [mx.zeros((1, 4, 1, width)) for width in (32, 96)]
    rotating, still, values = cache.shared()
    counts = primitives(attend(queries, [rotating, still], [values, still], None))
    assert counts["QuantizedMatmul"] == 4 and not counts["RightShift"]
    monkeypatch.undo()
    counts = primitives(attend(queries, [rotating, still], [values, still], None))
    assert not counts["QuantizedMatmul"] and counts["RightShift"]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("seed", range(3))
def test_a_position_is_quantized_by_itself(bits: int, seed: int) -> None:
    """However the sequence is cut, the arrays are equal to the bit; also after rewinds."""
    random = np.random.default_rng(seed)
    parts = [mx.array(random.normal(size=(1, 2, 700, width)).astype(np.float32)) for width in (32, 96, 32)]
    whole, cut = FullCache(bits), FullCache(bits)
    whole.update_and_fetch(*parts)
    while cut.position < 700:
        stop = min(700, cut.position + int(random.integers(1, 200)))
        cut.update_and_fetch(*(part[:, :, cut.position : stop] for part in parts))
        if random.random() < 0.3:
            cut.rewind(int(random.integers(0, stop + 1)))
    for one, other in zip(whole.held(), cut.held(), strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(other))


@pytest.mark.parametrize(("bits", "step"), [(8, 1 / 255), (4, 1 / 15)])
def test_what_a_number_loses(bits: int, step: float) -> None:
    """About a step of its group's range, at most; in groups of 64 where they divide a part, or else of 32."""
    for width, group in ((128, 64), (384, 64), (96, 32)):
        part = mx.random.normal((1, 1, 50, width), key=mx.random.key(width))
        [stored] = decode(encode([part], bits), bits)
        assert isinstance(stored, Quantized) and (stored.group, stored.shape) == (group, part.shape)
        groups = np.array(part).reshape(-1, group)
        error = np.abs(np.array(stored.plain()).reshape(-1, group) - groups) / np.ptp(groups, axis=1, keepdims=True)
        assert error.max() < 1.1 * step and error.mean() < 0.3 * step
    assert encode([part], None)[0] is part


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("position", [0, 1, 40])
def test_a_state_goes_into_another_cache(bits: int | None, position: int) -> None:
    """Under names that say what it is."""
    parts = [mx.random.normal((1, 1, 60, width), key=mx.random.key(width)) for width in (32, 96, 32)]
    cache, other = FullCache(bits), FullCache(bits)
    cache.update_and_fetch(*parts)
    state = cache.state(position)
    widths = array_widths(layer(128), ROPE, bits)
    assert {name: array.shape[-1] for name, array in state.items()} == (widths if position else {})
    other.restore(state, position)
    assert other.position == position
    other.update_and_fetch(*(part[:, :, position:] for part in parts))
    for one, two in zip(cache.held(), other.held(), strict=True):
        np.testing.assert_array_equal(np.array(one), np.array(two))


def test_a_state_in_other_bits_is_refused() -> None:
    cache = FullCache(8)
    cache.update_and_fetch(*(mx.zeros((1, 1, 3, 32)) for _ in range(2)))
    for bits, kind in ((None, "as they are computed"), (4, "in 4 bits")):
        with pytest.raises(ValueError) as refused:
            FullCache(bits).restore(cache.state(), 3)
        assert str(refused.value) == (
            f"Expected keys and values of full layers {kind}, got keys.biases8, keys.codes8, keys.scales8, "
            "values.biases8, values.codes8, values.scales8: set the kv_bits that they were stored with"
        )


def test_bytes_of_a_position_of_the_12b() -> None:
    """10 KB instead of 16, 5.3 in 8 bits and 2.8 in 4."""
    assert part_widths(FULL_LAYER, ROPE) == (128, 384, 128)
    each = [layer_bytes(FULL_LAYER, ROPE, 2, bits) for bits in (None, 8, 4)]
    assert [8 * nbytes for nbytes in each] == [10_240, 5_440, 2_880]
    sliding = TEXT.layers[0]
    rope = TEXT.rope[sliding.layer_type]
    assert {layer_bytes(sliding, rope, 2, bits) for bits in (None, 8, 4)} == {2 * 2 * 8 * 256}


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_bytes_that_are_really_allocated(bits: int | None) -> None:
    """To the byte, spare positions included."""
    cache = Cache([FULL_LAYER], window=1024, kv_bits=bits)
    parts = (mx.zeros((1, 1, 512, width), mx.bfloat16) for width in part_widths(FULL_LAYER, ROPE))
    cache.layers[0].update_and_fetch(*parts)
    assert cache.nbytes == 512 * layer_bytes(FULL_LAYER, ROPE, 2, bits)


def test_bits_that_cannot_be() -> None:
    """Known before anything is computed."""
    text = loaded("released")[0].config.text_config
    check_kv_bits(TEXT, 4)
    check_kv_bits(text, None)
    with pytest.raises(ValueError, match=r"^Expected 4 or 8 bits for keys and values, got 3$"):
        check_kv_bits(TEXT, 3)
    message = (
        "Keys and values of this checkpoint cannot be stored in 8 bits: its full layers store heads in parts of 16, "
        "48, 16 numbers, which groups of 32 do not divide; leave out --kv-bits"
    )
    with pytest.raises(ValueError) as refused:
        check_kv_bits(text, 8)
    assert str(refused.value) == message
    model = loaded("released")[0]
    with pytest.raises(ValueError) as refused:
        model.kv_bits = 8
    assert str(refused.value) == message and model.kv_bits is None


def without_full_layers(text: TextConfig) -> TextConfig:
    return replace(text, layers=text.layers[:5])


def test_a_model_without_full_layers_takes_any_bits() -> None:
    check_kv_bits(without_full_layers(loaded("released")[0].config.text_config), 8)
