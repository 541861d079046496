"""Pictures in: files of every kind, broken ones too, sizes, patches and their positions."""

from __future__ import annotations

import io
import random
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference_cases import media_file

from mlx_gemma4.inputs.vision.image import load_image, patchify, target_size, to_patches

DATA = Path(__file__).parent / "data" / "pictures"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def upright() -> Image.Image:
    """3 wide, 2 high, every pixel another: what each orientation is to give back."""
    return Image.fromarray(np.arange(0, 180, 10, dtype=np.uint8).reshape(2, 3, 3))


# patches


def test_patchify() -> None:
    """Patches row by row; inside a patch height, width, channel."""
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    expected = []
    for row in range(2):
        for column in range(3):
            patch = [image[2 * row + y, 2 * column + x, c] for y in range(2) for x in range(2) for c in range(3)]
            expected.append(np.array(patch, np.float32) * np.float32(1 / 255))
    patches = patchify(image, 2)
    assert len(patches) == 6
    assert patches.pixels.dtype == np.float32
    assert np.array_equal(patches.pixels, np.stack(expected))


def test_positions() -> None:
    """(x, y), row by row."""
    patches = patchify(np.zeros((4, 6, 3), np.uint8), 2)
    assert patches.patch_xy.dtype == np.int32
    assert patches.patch_xy.tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]


def test_picture_of_the_right_size_is_not_scaled() -> None:
    """768 × 768 is what a budget of 280 (16 × 16 patches of 48) makes of a square."""
    image = np.random.default_rng(0).integers(0, 256, (768, 768, 3), dtype=np.uint8)
    patches = to_patches(image, 280, 48)
    assert np.array_equal(patches.pixels, patchify(image, 48).pixels)


def test_scaling_keeps_a_plain_colour_and_fits_the_budget() -> None:
    """Antialiasing does not ring where there is nothing to ring at."""
    patches = to_patches(np.full((50, 70, 3), (10, 128, 250), np.uint8), 70, 48)
    assert len(patches) == 7 * 9
    colours = np.unique(patches.pixels.reshape(-1, 3), axis=0)
    assert np.array_equal(colours, np.float32([[10, 128, 250]]) * np.float32(1 / 255))


@pytest.mark.parametrize("budget", [0, 69, 281, -70])
def test_budget_that_is_none(budget: int) -> None:
    """The model was trained with five budgets."""
    message = f"Expected an image budget of 70, 140, 280, 560, 1120 tokens, got {budget}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        to_patches(np.zeros((48, 48, 3), np.uint8), budget, 48)


SIZES = {
    (1, 1): {70: (384, 384), 280: (768, 768), 1120: (1584, 1584)},
    (1, 20000): {70: (48, 3360), 280: (48, 13440), 1120: (48, 53760)},
    (20000, 1): {70: (3360, 48), 280: (13440, 48), 1120: (53760, 48)},
    (3000, 4000): {70: (336, 432), 280: (672, 912), 1120: (1344, 1824)},
    (4000, 3000): {70: (432, 336), 280: (912, 672), 1120: (1824, 1344)},
    (480, 640): {70: (336, 432), 280: (672, 912), 1120: (1344, 1824)},
    (640, 480): {70: (432, 336), 280: (912, 672), 1120: (1824, 1344)},
    (48, 48): {70: (384, 384), 280: (768, 768), 1120: (1584, 1584)},
    (47, 1000): {70: (48, 1824), 280: (144, 3696), 1120: (336, 7392)},
    (1080, 1920): {70: (288, 528), 280: (576, 1056), 1120: (1200, 2112)},
    (100, 10000): {70: (48, 3360), 280: (48, 8016), 1120: (144, 16032)},
    (5000, 30): {70: (3360, 48), 280: (10368, 48), 1120: (20736, 96)},
    (333, 777): {70: (240, 576), 280: (480, 1200), 1120: (1008, 2448)},
}
"""(height, width) → budget → what transformers 5.23 ``get_aspect_ratio_preserving_size`` gives."""


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_target_size(size: tuple[int, int]) -> None:
    """The reference's sizes."""
    assert {budget: target_size(*size, budget, 48) for budget in (70, 280, 1120)} == SIZES[size]


# arrays


def test_array_is_taken_as_it_is() -> None:
    """uint8 [H, W, 3]."""
    image = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    assert load_image(image) is image


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("float32", (2, 3, 3)), ("uint8", (2, 3)), ("uint8", (2, 3, 4)), ("uint8", (3, 2, 3, 3)), ("uint8", (0, 3, 3))],
)
def test_array_that_is_no_picture(dtype: str, shape: tuple[int, ...]) -> None:
    """Wrong type, greys, alpha, films and nothing."""
    message = f"Expected an image as uint8 [H, W, 3], got {dtype} {list(shape)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_image(np.zeros(shape, dtype))


# modes


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int) -> None:
    """Whichever way a camera was held, the pixels come out upright."""
    held = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = upright()
    for turn in held[orientation]:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(load_image(save(tmp_path / "a.png", stored, exif=exif)), np.asarray(upright()))


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("1", 1, WHITE),
        ("1", 0, (0, 0, 0)),
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 0), WHITE),
        ("LA", (77, 255), (77, 77, 77)),
        ("LA", (0, 128), (127, 127, 127)),
        ("La", (0, 128), (127, 127, 127)),
        ("RGBA", (1, 2, 3, 0), WHITE),
        ("RGBA", (1, 2, 3, 255), (1, 2, 3)),
        ("RGBA", (0, 100, 255, 51), (204, 224, 255)),
        ("RGBa", (0, 20, 51, 51), (204, 224, 255)),
        ("PA", (77, 0), WHITE),
        ("CMYK", (0, 0, 0, 0), WHITE),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("I;16", 65535, WHITE),
        ("I;16", 32768, (128, 128, 128)),
        ("I;16", 257, (1, 1, 1)),
        ("I;16", 0, (0, 0, 0)),
        ("I", 65535, WHITE),
    ],
)
def test_modes(mode: str, colour: int | tuple[int, ...], rgb: tuple[int, int, int]) -> None:
    """Every mode becomes RGB; what is transparent lies on white, and 16-bit white stays white."""
    assert load_image(Image.new(mode, (2, 1), colour)).tolist() == [[list(rgb), list(rgb)]]


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bit_files(tmp_path: Path, name: str) -> None:
    """Whichever mode Pillow reads them as."""
    greys = np.array([[0, 257, 32768, 65535]], np.uint16)
    path = save(tmp_path / name, Image.fromarray(greys))
    assert load_image(path).tolist() == [[[0] * 3, [1] * 3, [128] * 3, [255] * 3]]


@pytest.mark.parametrize(("mode", "kind", "value"), [("F", "float32", 0.5), ("I", "int32", 65536), ("I", "int32", -1)])
def test_deeper_than_sixteen_bits(mode: str, kind: str, value: float) -> None:
    """What such numbers mean as colours is not known here."""
    message = f"Expected an image of 8 or 16 bits a channel in the image, got {kind}; convert it first"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_image(Image.new(mode, (1, 1), value))


@pytest.mark.parametrize(
    ("transparency", "first", "second"),
    [(None, RED, BLUE), (0, WHITE, BLUE), (bytes([0, 128]), WHITE, (127, 127, 255))],
)
def test_palette(
    tmp_path: Path, transparency: int | bytes | None, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    """The palette's colours, those that are transparent on white, from a file and from an image."""
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    options = {} if transparency is None else {"transparency": transparency}
    image.info.update(options)
    for source in (image, save(tmp_path / "a.png", image, **options)):
        assert load_image(source).tolist() == [[list(first), list(second)]]


@pytest.mark.parametrize(
    ("mode", "colours", "transparency", "expected"),
    [
        ("L", (7, 8), 7, [[255] * 3, [8] * 3]),
        ("RGB", ((1, 2, 3), (1, 2, 4)), (1, 2, 3), [[255] * 3, [1, 2, 4]]),
        ("I;16", (257, 514), 257, [[255] * 3, [2] * 3]),
    ],
)
def test_a_colour_that_means_transparent(
    tmp_path: Path, mode: str, colours: tuple[object, object], transparency: object, expected: list[list[int]]
) -> None:
    """PNG's other way to say it."""
    image = Image.new(mode, (2, 1))
    for x, colour in enumerate(colours):
        image.putpixel((x, 0), colour)
    path = save(tmp_path / "a.png", image, transparency=transparency)
    assert load_image(path).tolist() == [expected]


def test_transparent_pictures_are_the_references(tmp_path: Path) -> None:
    """Each alpha on each grey, as transformers 5.24 ``convert_to_rgb`` puts it on white."""
    alpha, grey = np.mgrid[0:256:5, 0:256:17].astype(np.uint8)
    path = save(tmp_path / "a.png", Image.fromarray(np.stack([grey, 255 - grey, grey // 2, alpha], axis=-1)))
    with np.load(DATA / "transparent.npz") as reference:
        np.testing.assert_array_equal(load_image(path), reference["on_white"])


def test_rows_are_converted_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The strips are the picture."""
    picture = np.random.default_rng(0).integers(0, 256, (23, 7, 4), dtype=np.uint8)
    path = save(tmp_path / "a.png", Image.fromarray(picture))
    whole = load_image(path)
    monkeypatch.setattr("mlx_gemma4.inputs.vision.image.STRIP", 15)
    np.testing.assert_array_equal(load_image(path), whole)


@pytest.mark.parametrize(("name", "options"), [("a.gif", {}), ("a.webp", {"lossless": True}), ("a.png", {})])
def test_animation(tmp_path: Path, name: str, options: dict[str, bool]) -> None:
    """The first frame."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in (GREEN, RED, BLUE)]
    path = save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], duration=100, **options)
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert np.array_equal(load_image(path), np.full((4, 4, 3), GREEN, np.uint8))


# broken files


def test_no_such_file(tmp_path: Path) -> None:
    """A folder is no file either."""
    for path in (tmp_path / "absent.png", tmp_path):
        with pytest.raises(ValueError, match=f"^There is no image file at {re.escape(str(path))}$"):
            load_image(path)


TAKEN = "AVIF, BMP, GIF, ICO, JPEG, JPEG 2000, PNG, PPM, QOI, TGA, TIFF or WebP"


@pytest.mark.parametrize("content", [b"", b"This is no picture.\n" * 50])
def test_file_that_is_no_picture(tmp_path: Path, content: bytes) -> None:
    """0 bytes, and text."""
    path = tmp_path / "a.png"
    path.write_bytes(content)
    message = (
        f"Expected an image as {TAKEN} in {path}, got something else, or one that is damaged; export it as JPEG or PNG"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_image(path)
    with pytest.raises(ValueError, match=f"^{re.escape(message.replace(str(path), 'the image'))}$"):
        load_image(content)


def test_formats_that_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the file is called: Pillow would run Ghostscript for PostScript."""
    monkeypatch.setattr("subprocess.Popen", lambda *args, **options: pytest.fail(f"{args} was run"))
    for kind in ("EPS", "PCX", "SGI", "DDS", "XBM"):
        path = tmp_path / "a.png"
        Image.new("1" if kind == "XBM" else "RGB", (4, 4)).save(path, format=kind)
        with pytest.raises(ValueError, match=f"^Expected an image as {re.escape(TAKEN)} in .*, got something else"):
            load_image(path)


def test_heic_is_named(tmp_path: Path) -> None:
    """What phones write; Pillow does not read it."""
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    message = f"Expected an image as {TAKEN} in {path}, got HEIC; export it as JPEG or PNG"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_image(path)


KINDS = ["a.png", "a.jpg", "a.webp", "a.gif", "a.tif", "a.qoi", "a.avif"]


@pytest.mark.parametrize("name", KINDS)
def test_content_of_a_file(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, noise())
    assert np.array_equal(load_image(path.read_bytes()), load_image(path))


@pytest.mark.parametrize("name", KINDS)
def test_file_cut_short(tmp_path: Path, name: str) -> None:
    """Half of a picture is refused: none of it is made up in grey."""
    path = save(tmp_path / name, noise())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    where = re.escape(str(path))
    refused = (
        f"^(Pillow cannot read the image {where}: .|Expected an image as .* in {where}, got something else, or one)"
    )
    with pytest.raises(ValueError, match=refused):
        load_image(path)


def test_image_object_cut_short() -> None:
    """Pillow decodes late: an image that was opened well can still end early."""
    file = io.BytesIO()
    noise().save(file, "PNG")
    with (
        Image.open(io.BytesIO(file.getvalue()[:500])) as image,
        pytest.raises(ValueError, match=r"^Pillow cannot read the image the image: image file is truncated"),
    ):
        load_image(image)


def test_image_object_without_pixels() -> None:
    """Pillow has pictures of no size; there is nothing to scale in them."""
    with pytest.raises(ValueError, match=r"^There are no pixels in the image$"):
        load_image(Image.new("RGB", (0, 5)))


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be decoded."""
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("the bomb was unpacked"))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as outside of the tests
@pytest.mark.parametrize(("side", "name"), [(10_000, "a.png"), (14_000, "a.png"), (10_000, "a.gif")])
def test_bomb(tmp_path: Path, sealed: None, side: int, name: str) -> None:
    """Kilobytes that would unpack to a hundred megapixels are refused before they do."""
    path = save(tmp_path / name, Image.new("1", (side, side)))
    assert path.stat().st_size < 1_000_000
    message = f"There are more than 89478485 pixels in {path}; scale it down first"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_image(path)


@pytest.mark.parametrize(
    ("name", "size", "most"),
    [
        ("a.png", (1, 1_000_001), 89478485),
        ("a.png", (1_000_001, 2), 89478485),
        ("a.webp", (8000, 7000), 50_000_000),
    ],
)
def test_too_large_for_its_kind(tmp_path: Path, sealed: None, name: str, size: tuple[int, int], most: int) -> None:
    """Sides without end, and more pixels than a decoder that holds them four times over can take in 1 GB."""
    path = save(tmp_path / name, Image.new("L" if name == "a.png" else "RGB", size))
    message = (
        f"Expected at most {most} pixels and sides of at most 1000000 in {path}, got {size[0]} × {size[1]}; "
        "scale it down first"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_image(path)


def test_an_image_object_is_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_gemma4.inputs.vision.image.MAX_PIXELS", 11)
    message = "Expected at most 11 pixels and sides of at most 1000000 in the image, got 4 × 3; scale it down first"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_image(Image.new("RGB", (4, 3)))


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    """Some decoders read files whole; a sparse file costs its author nothing."""
    path = save(tmp_path / "a.webp", noise())
    with path.open("ab") as file:
        file.truncate(600_000_001)
    message = (
        f"Expected an image file of at most 600000000 bytes, got 600000001 in {path}; "
        "save it compressed, or scale it down"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_image(path)


def test_a_jpeg_of_many_scans(tmp_path: Path) -> None:
    """A scan of a few bytes costs a pass over the whole picture."""
    path = save(tmp_path / "a.jpg", noise(), progressive=True)
    data = path.read_bytes()
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    assert np.array_equal(load_image(path), np.asarray(Image.open(path)))
    path.write_bytes(data[:end] + data[start:end] * 100 + data[end:])
    scans = data.count(b"\xff\xda") + 100
    message = f"Expected a JPEG of at most 100 scans, got {scans} in {path}; save it anew"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_image(path)


@pytest.mark.parametrize("size", [(1, 200_000), (200_000, 1), (20, 100_000)])
def test_long_thin_pictures_take_little_memory(size: tuple[int, int]) -> None:
    """What lies between the two passes of scaling is never there as a whole."""
    import tracemalloc

    pixels = np.broadcast_to(np.uint8(77), (size[1], size[0], 3))
    tracemalloc.start()
    try:
        patches = to_patches(pixels, 280, 48)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.unique(patches.pixels).tolist() == [np.float32(77) * np.float32(1 / 255)]
    assert peak < 40_000_000


KINDS = ["a.png", "a.jpg", "a.gif", "a.webp", "a.bmp", "a.tif", "a.avif", "a.ppm", "a.ico", "a.tga"]


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))


def photo() -> Image.Image:
    with Image.open(media_file("picture-01.png")) as image:
        return image.convert("RGB").resize((60, 40))


@pytest.mark.parametrize("name", KINDS)
def test_truncated_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    """Cut anywhere, a file raises ValueError or gives a picture: never anything else."""
    data = save(tmp_path / name, photo()).read_bytes()
    for count in range(0, len(data), max(50, len(data) // 60)):
        assert _refused_or_picture(tmp_path / name, data[:count])


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    """With bytes changed, more often near the start, a file raises ValueError or gives a picture."""
    data = save(tmp_path / name, photo()).read_bytes()
    source = random.Random(name)
    for _ in range(80):
        damaged = bytearray(data)
        for _ in range(source.choice([1, 3, 10])):
            damaged[source.randrange(source.choice([100, len(data)]))] = source.randrange(256)
        assert _refused_or_picture(tmp_path / name, bytes(damaged))


def _refused_or_picture(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        pixels = load_image(path)
    except ValueError as error:
        beginnings = ("Expected ", "Pillow cannot read ", "There are no ", "There are more ")
        return str(error).startswith(beginnings) and str(path) in str(error)
    return pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size > 0
