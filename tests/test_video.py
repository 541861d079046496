"""Moving pictures in: which frames are taken, their times, and files."""

from __future__ import annotations

import re
import struct
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from mlx_gemma4.video import load_video, sample_indices, timestamp

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (40, 200, 200)]


def write(
    path: Path, count: int, *, codec: str = "mpeg4", kind: str | None = None, rate: int = 2, width: int = 64
) -> Path:
    """Plain frames, 48 high, in the colours' turn, with a white square at the top left."""
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        for index in range(count):
            pixels = np.full((48, width, 3), COLOURS[index % len(COLOURS)], np.uint8)
            pixels[:16, :16] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("total", "count", "indices"),
    [
        (0, 32, []),
        (1, 32, [0]),
        (5, 32, [0, 1, 2, 3, 4]),
        (5, 5, [0, 1, 2, 3, 4]),
        (10, 4, [0, 2, 5, 7]),
        (100, 8, [0, 12, 25, 37, 50, 62, 75, 87]),
        (7, 3, [0, 2, 4]),
        (3, 1, [0]),
        (3, 0, []),
    ],
)
def test_sample_indices(total: int, count: int, indices: list[int]) -> None:
    """Evenly, from the first frame on."""
    assert sample_indices(total, count).tolist() == indices


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00"), (0.999, "00:00"), (1, "00:01"), (59.99, "00:59"), (60, "01:00"), (754.2, "12:34"), (6000, "100:00")],
)
def test_timestamp(seconds: float, text: str) -> None:
    """mm:ss, rounded down; minutes go on past the hour."""
    assert timestamp(seconds) == text


def test_array() -> None:
    """Frames and their rate: the times follow from them."""
    frames = np.arange(6 * 2 * 2 * 3, dtype=np.uint8).reshape(6, 2, 2, 3)
    clip = load_video((frames, 4.0), max_frames=3)
    assert clip.seconds == (0.0, 0.5, 1.0)
    assert np.array_equal(clip.frames, frames[[0, 2, 4]])


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("float32", (2, 3, 3, 3)), ("uint8", (2, 3, 3)), ("uint8", (2, 3, 3, 4)), ("uint8", (0, 3, 3, 3))],
)
def test_array_that_is_no_video(dtype: str, shape: tuple[int, ...]) -> None:
    """Wrong type, one picture, alpha, and no frames."""
    message = f"Expected video frames as uint8 [T, H, W, 3], got {dtype} {list(shape)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_video((np.zeros(shape, dtype), 1.0))


@pytest.mark.parametrize("rate", [0, -1.0, float("nan")])
def test_rate_that_is_none(rate: float) -> None:
    """Times cannot follow from it."""
    with pytest.raises(ValueError, match=f"^Expected a positive number of frames per second, got {rate}$"):
        load_video((np.zeros((2, 3, 3, 3), np.uint8), rate))


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [("a.mp4", "mpeg4", None), ("a.mkv", "mpeg4", None), ("a.avi", "mpeg4", None), ("a.m4v", "mpeg4", "m4v")],
)
def test_file(tmp_path: Path, name: str, codec: str, kind: str | None) -> None:
    """Every frame, at its time, in its colours."""
    clip = load_video(write(tmp_path / name, 5, codec=codec, kind=kind))
    assert clip.seconds == (0.0, 0.5, 1.0, 1.5, 2.0)
    assert clip.frames.shape == (5, 48, 64, 3)
    assert np.abs(clip.frames[:, 40, 50].astype(int) - COLOURS).max() < 12
    assert clip.frames[:, 4, 4].min() > 240


def test_file_with_more_frames_than_are_taken(tmp_path: Path) -> None:
    """Evenly sampled, each with its own time."""
    clip = load_video(write(tmp_path / "a.mp4", 10), max_frames=4)
    assert clip.seconds == (0.0, 1.0, 2.5, 3.5)
    expected = [COLOURS[index % 5] for index in (0, 2, 5, 7)]
    assert np.abs(clip.frames[:, 40, 50].astype(int) - expected).max() < 12


def test_thirty_two_frames_by_default(tmp_path: Path) -> None:
    """The reference's number."""
    assert load_video(write(tmp_path / "a.mp4", 40)).seconds == tuple(index * 40 // 32 / 2 for index in range(32))


def test_bare_stream_has_no_times(tmp_path: Path) -> None:
    """Outside any container, H.264 tells its rate at best: the times follow from that, they are not all zero."""
    if "libx264" not in av.codecs_available:
        pytest.skip("this PyAV has no H.264 encoder")
    clip = load_video(write(tmp_path / "a.h264", 3, codec="libx264", kind="h264"))
    assert clip.seconds == (0.0, 0.5, 1.0)


def test_size_that_changes(tmp_path: Path) -> None:
    """Frames of another size are brought to that of the first."""
    first = write(tmp_path / "1.m4v", 2, kind="m4v").read_bytes()
    second = write(tmp_path / "2.m4v", 2, kind="m4v", width=32).read_bytes()
    path = tmp_path / "a.m4v"
    path.write_bytes(first + second)
    clip = load_video(path)
    assert clip.frames.shape == (4, 48, 64, 3)
    assert np.abs(clip.frames[:, 40, 60].astype(int) - [*COLOURS[:2], *COLOURS[:2]]).max() < 12


@pytest.mark.parametrize(
    ("matrix", "shape", "corner"),
    [
        ((0, 1, -1, 0), (64, 48), (4, -4)),
        ((-1, 0, 0, -1), (48, 64), (-4, -4)),
        ((0, -1, 1, 0), (64, 48), (-4, 4)),
    ],
)
def test_rotation(tmp_path: Path, matrix: tuple[int, ...], shape: tuple[int, int], corner: tuple[int, int]) -> None:
    """A phone held upright films on its side and says so; the white corner turns with the picture."""
    path = write(tmp_path / "a.mp4", 2)
    data = bytearray(path.read_bytes())
    a, b, c, d = (number << 16 for number in matrix)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    clip = load_video(path)
    assert clip.frames.shape[1:3] == shape
    assert clip.frames[0][corner].min() > 240
    assert [clip.frames[0][y, x].min() > 240 for y in (4, -4) for x in (4, -4)].count(True) == 1


def test_no_such_file(tmp_path: Path) -> None:
    """A folder is no file either."""
    for path in (tmp_path / "absent.mp4", tmp_path):
        with pytest.raises(ValueError, match=f"^Expected a video file, found none at {re.escape(str(path))}$"):
            load_video(path)


@pytest.mark.parametrize("content", ["", "This is no video.\n" * 50])
def test_file_that_is_no_video(tmp_path: Path, content: str) -> None:
    """0 bytes, and text."""
    path = tmp_path / "a.mp4"
    path.write_text(content)
    message = f"Expected a video that FFmpeg reads in {path}, got: Invalid data found when processing input"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_video(path)


def test_sound_is_no_video(tmp_path: Path) -> None:
    """A file that FFmpeg reads, with nothing to see in it."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(1000), 16_000)
    message = f"Expected pictures in {path}, it has no video stream, or is cut short before it"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_video(path)


def test_file_without_frames(tmp_path: Path) -> None:
    """A stream that ends before its first picture."""
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(ValueError, match=f"^Expected pictures in {re.escape(str(path))}, it has 0 video frames$"):
        load_video(path)


def test_file_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install; arrays need nothing."""
    path = write(tmp_path / "a.mp4", 1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        ImportError, match=r"^Video files need the \[camera\] extra: pip install 'mlx-gemma4\[camera\]'$"
    ):
        load_video(path)
    assert load_video((np.zeros((1, 2, 2, 3), np.uint8), 1.0)).seconds == (0.0,)
