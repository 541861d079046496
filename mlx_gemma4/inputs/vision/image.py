"""Images to patches of raw pixels. numpy only.

    640 × 480 ── target_size ──▶ 912 × 672 ── cut row by row ──▶ 266 patches of 48 × 48 × 3 values from 0 to 1
                 (budget 280)    19 × 14 patches                 patch_xy (0,0) (1,0) … (18,0) (0,1) …

The sizes are those of transformers ``get_aspect_ratio_preserving_size``; the side of a patch comes from the checkpoint.
"""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from mlx_gemma4.inputs.vision.resize import resize
from mlx_gemma4.inputs.vision.upright import turn

if TYPE_CHECKING:
    from PIL import Image

BUDGETS = (70, 140, 280, 560, 1120)
"""Budgets of an image, in soft tokens: one for each patch."""
FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "HEIF",
    "ICO",
    "JPEG",
    "MPO",
    "JPEG2000",
    "PNG",
    "PPM",
    "QOI",
    "TGA",
    "TIFF",
    "WEBP",
)
"""Pillow's names of the formats that are read; HEIF only if a plugin has registered it."""
TAKEN = "AVIF, BMP, GIF, ICO, JPEG, JPEG 2000, PNG, PPM, QOI, TGA, TIFF or WebP"
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
MAX_PIXELS = 89_478_485
"""Pillow's own limit. More would need over 1 GB."""
HELD_TWICE = ("AVIF", "ICO", "JPEG2000", "WEBP")
"""Formats whose decoders hold several copies of a picture in memory."""
MAX_PIXELS_HELD_TWICE = 50_000_000
MAX_SIDE = 1_000_000
MAX_BYTES = 600_000_000
"""Size of a file: the largest picture with 16 bits a channel."""
MAX_SCANS = 100
"""Scans of a JPEG; encoders write about ten."""
JPEG_SCAN = b"\xff\xda"
STRIP = 1_000_000
"""Pixels that are converted at a time, about."""
ORIENTATION = 0x0112
"""The EXIF tag."""
BYTE = np.float32(1 / 255)
"""The factor from a byte of a picture to what the model takes."""


@dataclass(frozen=True, eq=False)
class Patches:
    """An image as the model takes it."""

    pixels: np.ndarray
    """[P, side·side·3] float32 in [0, 1]: inside a patch height, width, channel."""
    patch_xy: np.ndarray
    """[P, 2] int32: (x, y) of each patch, row by row."""

    def __len__(self) -> int:
        return len(self.pixels)


def load_image(source: str | os.PathLike[str] | bytes | Image.Image | np.ndarray) -> np.ndarray:
    """Read a picture as uint8 [H, W, 3].

    Turned upright by its EXIF data; the first picture of an animation; transparent parts on white, as in transformers
    5.24.

    Args:
        source: A path, the content of a file, a PIL image, or uint8 [H, W, 3].

    Raises:
        ValueError: No such file; no picture in it; a format that is not read; cut short; or too large.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or source.size == 0:
            raise ValueError(f"Expected an image as uint8 [H, W, 3], got {source.dtype} {list(source.shape)}")
        return source
    from PIL import Image

    if isinstance(source, Image.Image):
        with _reading("the image"):
            return _decode(source, "the image")
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), "the image")
    path = Path(source)
    if not path.is_file():
        raise no_file("image", source)
    with path.open("rb") as file:
        return _read(file, str(path))


def no_file(kind: str, path: str | os.PathLike[str]) -> ValueError:
    """The error for a missing file of this kind. An address is not opened: it could be anything."""
    remedy = "; download it first" if re.search(r"^\w+:/", os.fspath(path)) else ""
    return ValueError(f"There is no {kind} file at {os.fspath(path)}{remedy}")


def _read(file: BinaryIO, name: str) -> np.ndarray:
    _check_cost(file, name)
    with _reading(name), _open(file, name) as image:
        return _decode(image, name)


def _check_cost(file: BinaryIO, name: str) -> None:
    """Raise a ValueError if a file would cost too much, before a pixel is decoded."""
    size = file.seek(0, os.SEEK_END)
    if size > MAX_BYTES:
        raise ValueError(
            f"Expected an image file of at most {MAX_BYTES} bytes, got {size} in {name}; save it compressed, or scale "
            "it down"
        )
    # each scan of a progressive JPEG goes over the whole picture, and may be written in a few bytes
    scans = _from_start(file).count(JPEG_SCAN) if _from_start(file, 2) == b"\xff\xd8" else 0
    if scans > MAX_SCANS:
        raise ValueError(f"Expected a JPEG of at most {MAX_SCANS} scans, got {scans} in {name}; save it anew")


def _open(file: BinaryIO, name: str) -> Image.Image:
    """Open a picture in one of the ``FORMATS``. Pillow reads others too, and runs programs for some of them.

    Raises:
        ValueError: It has another format.
    """
    from PIL import Image, UnidentifiedImageError

    Image.init()
    file.seek(0)
    try:
        return Image.open(file, formats=[each for each in FORMATS if each in Image.OPEN])
    except UnidentifiedImageError as error:
        told = "HEIC" if _from_start(file, 12)[8:] in HEIC_BRANDS else "something else, or one that is damaged"
        raise _Refused(f"Expected an image as {TAKEN} in {name}, got {told}; export it as JPEG or PNG") from error


def _from_start(file: BinaryIO, count: int = -1) -> bytes:
    """The first bytes of a file, by default all."""
    file.seek(0)
    return file.read(count)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn whatever Pillow and its decoders raise into a ValueError that names the picture."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about broken metadata beside intact pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"There are more than {MAX_PIXELS} pixels in {name}; scale it down first") from error
    except _Refused:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, RuntimeError, struct.error and more
        raise ValueError(f"Pillow cannot read the image {name}: {error}") from error


class _Refused(ValueError):
    """Raised here; everything else comes from Pillow."""


def _decode(image: Image.Image, name: str) -> np.ndarray:
    """The pixels, turned upright: uint8 [H, W, 3]."""
    check_size(image, name)
    image.load()
    check_size(image, name)  # an icon may hold pictures of other sizes than it declares
    pixels = _to_rgb(image, name)
    return turn(pixels, image.getexif().get(ORIENTATION, 1))


def check_size(image: Image.Image, name: str) -> None:
    """Raise a ValueError if a picture has too many pixels, or none. It need not be decoded yet."""
    width, height = image.size
    if width * height == 0:
        raise _Refused(f"There are no pixels in {name}")
    most = MAX_PIXELS_HELD_TWICE if image.format in HELD_TWICE else MAX_PIXELS
    if width * height > most or max(width, height) > MAX_SIDE:
        raise _Refused(
            f"Expected at most {most} pixels and sides of at most {MAX_SIDE} in {name}, got {width} × {height}; "
            "scale it down first"
        )


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    """uint8 [H, W, 3], converted some rows at a time: Pillow uses four bytes a pixel and copies freely."""
    width, height = image.size
    convert = _deep_to_rgb if image.mode.startswith("I") or image.mode == "F" else _on_white
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        pixels[top : top + rows] = convert(strip, name)
    return pixels


def _on_white(image: Image.Image, name: str) -> np.ndarray:
    """transformers ``convert_to_rgb``."""
    from PIL import Image

    if not (image.mode.lower().endswith("a") or image.info.get("transparency") is not None):
        return np.asarray(image.convert("RGB"))
    if image.mode == "La":
        image = image.convert("LA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))


def _deep_to_rgb(image: Image.Image, name: str) -> np.ndarray:
    """16-bit grey to 8 bits: Pillow's own conversion would clip it to white."""
    values = np.asarray(image)
    if values.dtype == np.float32 or values.max() > 65535 or values.min() < 0:
        raise _Refused(f"Expected an image of 8 or 16 bits a channel in {name}, got {values.dtype}; convert it first")
    grey = ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255
    return np.repeat(grey[..., None], 3, axis=2)


def target_size(height: int, width: int, max_soft_tokens: int, side: int) -> tuple[int, int]:
    """The size (height, width) to which a picture is scaled: at most ``max_soft_tokens`` patches of ``side`` pixels.

    Keeps the aspect ratio and floors both sides to whole patches; each side has at least one.
    """
    factor = math.sqrt(max_soft_tokens * side**2 / (height * width))
    rows = math.floor(factor * height / side)
    columns = math.floor(factor * width / side)
    if rows == 0:
        rows, columns = 1, min(width // height, max_soft_tokens)
    elif columns == 0:
        rows, columns = min(height // width, max_soft_tokens), 1
    return rows * side, columns * side


def check_budget(max_soft_tokens: int) -> None:
    """Raise a ValueError unless the reference's processor has this budget."""
    if max_soft_tokens not in BUDGETS:
        raise ValueError(f"Expected an image budget of {', '.join(map(str, BUDGETS))} tokens, got {max_soft_tokens}")


def to_patches(pixels: np.ndarray, max_soft_tokens: int, side: int) -> Patches:
    """uint8 [H, W, 3] → patches: scaled (bicubic, antialiased), cut row by row, divided by 255."""
    check_budget(max_soft_tokens)
    height, width = target_size(pixels.shape[0], pixels.shape[1], max_soft_tokens, side)
    return patchify(resize(pixels, height, width), side)


def patchify(pixels: np.ndarray, side: int) -> Patches:
    """uint8 [rows·side, columns·side, 3] → patches, without scaling."""
    rows, columns = pixels.shape[0] // side, pixels.shape[1] // side
    blocks = pixels.reshape(rows, side, columns, side, 3).transpose(0, 2, 1, 3, 4)
    values = blocks.reshape(rows * columns, side * side * 3).astype(np.float32) * BYTE
    y, x = np.divmod(np.arange(rows * columns, dtype=np.int32), columns)
    return Patches(values, np.stack([x, y], axis=1))


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Pixels of patches as the bytes that they were made of, a quarter of the size; unchanged if there are none."""
    whole = np.rint(pixels * 255).clip(0, 255).astype(np.uint8)
    return whole if np.array_equal(from_bytes(whole), pixels) else pixels


def from_bytes(pixels: np.ndarray) -> np.ndarray:
    """What ``to_bytes`` returned → float32."""
    return pixels.astype(np.float32) * BYTE if pixels.dtype == np.uint8 else pixels
