"""Changes of a scene: block means as anyone would compute them, what counts as a change, and what is only noise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from reference_cases import PICTURES, media_file

from mlx_gemma4.inputs.vision.image import load_image
from mlx_gemma4.live.see.scene import GRID, SAMPLES, THRESHOLD, Scene, block_means, difference


def noise(pixels: np.ndarray, seed: int, sigma: float) -> np.ndarray:
    """As a sensor adds it."""
    added = np.random.default_rng(seed).normal(0, sigma, pixels.shape)
    return np.clip(pixels + added, 0, 255).round().astype(np.uint8)


def grey(height: int = 480, width: int = 640, value: int = 120) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def naive(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Block by block."""
    height, width = pixels.shape[:2]
    tops, lefts = (
        [index * size // count for index in range(count + 1)] for size, count in ((height, rows), (width, columns))
    )
    blocks = [
        [
            pixels[top : max(bottom, top + 1), left : max(right, left + 1)].mean(axis=(0, 1)) / 255
            for left, right in pairwise(lefts)
        ]
        for top, bottom in pairwise(tops)
    ]
    return np.array(blocks)


def test_block_means_of_a_small_picture() -> None:
    """By hand: four blocks of two by two pixels, the channels apart."""
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2, :2, 0] = [[0, 51], [102, 51]]
    pixels[2:, 2:, 2] = 255
    np.testing.assert_allclose(block_means(pixels, 2, 2), [[[0.2, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 1]]], rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (5, 3), (16, 16), (17, 33), (384, 384), (511, 300)])
def test_block_means_of_any_size(shape: tuple[int, int]) -> None:
    """Sizes that no grid divides, and fewer pixels than blocks."""
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    np.testing.assert_allclose(block_means(pixels, GRID, GRID), naive(pixels, GRID, GRID), atol=1e-6)


def test_large_pictures_are_sampled() -> None:
    """Every fourth pixel of 4K, say: means stay where they are."""
    ramp = np.linspace(0, 255, 4 * SAMPLES).astype(np.uint8)
    pixels = np.repeat(np.repeat(ramp[:, None, None], 2 * SAMPLES, axis=1), 3, axis=2)
    np.testing.assert_allclose(block_means(pixels, GRID, GRID), naive(pixels, GRID, GRID), atol=0.01)


def test_the_difference_is_that_of_the_blocks_that_differ_most() -> None:
    """The mean of four, each by its most different channel: whatever the others do."""
    one = np.full((GRID, GRID, 3), 0.5, np.float32)
    other = one.copy()
    other[0, 0] += [0.1, 0.4, 0.2]
    other[3, 7] -= [0.2, 0.0, 0.0]
    assert difference(one, one) == 0
    assert difference(one, other) == pytest.approx((0.4 + 0.2) / 4)
    other[10:, :, 1] += 0.3
    assert difference(other, one) == pytest.approx((0.4 + 3 * 0.3) / 4)
    assert difference(np.zeros_like(one), np.ones_like(one)) == 1


def test_the_first_picture_is_a_change_until_it_is_accepted() -> None:
    scene = Scene()
    assert [scene.changed(grey()) for _ in range(2)] == [True, True]
    scene.accept()
    assert not scene.changed(grey())


def test_changes_are_from_what_was_accepted() -> None:
    """Not from the picture before: what creeps is seen once it has gone far enough, and only then."""
    scene = Scene()
    step = int(255 * THRESHOLD) // 3
    scene.changed(grey())
    scene.accept()
    assert [scene.changed(grey(value=120 + index * step)) for index in range(6)] == [False] * 4 + [True] * 2
    scene.accept()
    assert not scene.changed(grey(value=120 + 5 * step))
    assert scene.changed(grey())


@pytest.mark.parametrize(("size", "sigma"), [((48, 64), 10), ((480, 640), 5), ((480, 640), 25), ((1080, 1920), 25)])
def test_noise_is_no_change(size: tuple[int, int], sigma: float) -> None:
    """Of a bad sensor in the dark; a small picture has fewer pixels in which it averages out."""
    scene = Scene()
    pixels = grey(*size)
    pixels[: size[0] // 3, size[1] // 2 :] = (200, 60, 90)
    scene.changed(noise(pixels, 0, sigma))
    scene.accept()
    assert not any(scene.changed(noise(pixels, seed, sigma)) for seed in range(1, 6))


def test_colour_alone_is_a_change() -> None:
    """Red to green of the same brightness, where a hash of greys would see nothing."""
    scene = Scene()
    pixels, other = grey(), grey()
    pixels[200:260, 300:360] = (200, 60, 60)
    other[200:260, 300:360] = (60, 131, 60)
    weights = (0.299, 0.587, 0.114)
    assert abs(pixels @ weights - other @ weights).max() < 1
    scene.changed(noise(pixels, 0, 5))
    scene.accept()
    assert scene.changed(noise(other, 1, 5))


def test_what_moves_is_a_change() -> None:
    """A thing of a fortieth of the width and height, by its own size."""
    scene = Scene(0.02)
    for left in (300, 316):
        pixels = grey()
        pixels[200:212, left : left + 16] = 255
        assert scene.changed(noise(pixels, left, 5))
        scene.accept()


def test_the_demos_pictures_are_all_different() -> None:
    """Each from every other, and none from itself with noise on it."""
    pictures = [load_image(media_file(told["image"])) for told in PICTURES]
    for index, accepted in enumerate(pictures):
        scene = Scene()
        scene.changed(accepted)
        scene.accept()
        assert [not scene.changed(noise(each, index, 10)) for each in pictures].count(True) == 1


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_that_is_none(threshold: float) -> None:
    with pytest.raises(ValueError, match=f"^Expected a threshold from 0 to 1, got {threshold}$"):
        Scene(threshold)
