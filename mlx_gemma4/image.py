"""Pictures in: any Pillow format to 48-pixel patches and their positions. numpy only.

The sizes are those of transformers ``get_aspect_ratio_preserving_size``; the patch side comes from the checkpoint.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlx_gemma4.resize import resize

if TYPE_CHECKING:
    from PIL import Image

BUDGETS = (70, 140, 280, 560, 1120)
"""Soft tokens that an image may take, at most."""


@dataclass(frozen=True, eq=False)
class Patches:
    """An image as the model takes it."""

    pixels: np.ndarray
    """[P, side·side·3] float32 in [0, 1]: inside a patch height, width, channel."""
    positions: np.ndarray
    """[P, 2] int32: (x, y) of each patch, row by row."""

    def __len__(self) -> int:
        return len(self.pixels)


def load_image(source: str | os.PathLike[str] | Image.Image | np.ndarray) -> np.ndarray:
    """Read a picture as uint8 [H, W, 3].

    Upright as its EXIF data says; the first frame of an animation; alpha is dropped, as in the reference.

    Args:
        source: A path, a PIL image, or uint8 [H, W, 3].

    Raises:
        ValueError: No such file, no picture in it, cut short, or larger than Pillow's limit.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or source.size == 0:
            raise ValueError(f"Expected an image as uint8 [H, W, 3], got {source.dtype} {list(source.shape)}")
        return source
    from PIL import Image

    name = "the image" if isinstance(source, Image.Image) else str(source)
    if not isinstance(source, Image.Image) and not Path(source).is_file():
        raise ValueError(f"Expected an image file, found none at {name}")
    with _reading(name):
        pixels = _decode(source)
    if pixels.size == 0:
        raise ValueError(f"Expected pixels in {name}, it has none")
    return pixels if pixels.ndim == 3 else _deep_to_rgb(pixels, name)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn whatever Pillow and its decoders raise into a ValueError that says where."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of broken metadata beside whole pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(
            f"Expected at most {Image.MAX_IMAGE_PIXELS} pixels in {name}, it has more: {error} Scale it down first"
        ) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, RuntimeError, struct.error and more
        raise ValueError(f"Expected an image that Pillow reads in {name}, got: {error}") from error


def _decode(source: str | os.PathLike[str] | Image.Image) -> np.ndarray:
    """The pixels, upright: uint8 [H, W, 3]; or as they are, [H, W], where they have more than 8 bits."""
    from PIL import Image, ImageOps

    if not isinstance(source, Image.Image):
        with Image.open(source) as image:
            return _decode(image)
    upright = ImageOps.exif_transpose(source)
    deep = upright.mode.startswith("I") or upright.mode == "F"
    return np.asarray(upright if deep else upright.convert("RGB"))


def _deep_to_rgb(values: np.ndarray, name: str) -> np.ndarray:
    """16-bit greys to 8 bits: Pillow's own conversion would clip them to white."""
    if values.dtype == np.float32 or values.max() > 65535 or values.min() < 0:
        raise ValueError(f"Expected an image of 8 or 16 bits a channel in {name}, got {values.dtype}; convert it first")
    grey = (values.astype(np.uint32) * 255 + 32767) // 65535
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def target_size(height: int, width: int, max_soft_tokens: int, side: int) -> tuple[int, int]:
    """The size (height, width) to which a picture is scaled: at most ``max_soft_tokens`` patches of ``side``.

    The aspect ratio is kept and both sides are floored to whole patches; a side that would vanish gets one.
    """
    factor = math.sqrt(max_soft_tokens * side**2 / (height * width))
    rows = math.floor(factor * height / side)
    columns = math.floor(factor * width / side)
    if rows == 0:
        rows, columns = 1, min(width // height, max_soft_tokens)
    elif columns == 0:
        rows, columns = min(height // width, max_soft_tokens), 1
    return rows * side, columns * side


def to_patches(pixels: np.ndarray, max_soft_tokens: int, side: int) -> Patches:
    """uint8 [H, W, 3] → patches: scaled (bicubic, antialiased), cut row by row, divided by 255."""
    if max_soft_tokens not in BUDGETS:
        raise ValueError(f"Expected an image budget of {', '.join(map(str, BUDGETS))} tokens, got {max_soft_tokens}")
    height, width = target_size(pixels.shape[0], pixels.shape[1], max_soft_tokens, side)
    return patchify(resize(pixels, height, width), side)


def patchify(pixels: np.ndarray, side: int) -> Patches:
    """uint8 [rows·side, columns·side, 3] → patches, without scaling."""
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    blocks = pixels.reshape(rows, side, columns, side, 3).transpose(0, 2, 1, 3, 4)
    values = blocks.reshape(rows * columns, side * side * 3).astype(np.float32) * np.float32(1 / 255)
    y, x = np.divmod(np.arange(rows * columns, dtype=np.int32), columns)
    return Patches(values, np.stack([x, y], axis=1))
