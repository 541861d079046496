"""Moving pictures in: which frames are taken, their times, and files."""

from __future__ import annotations

import re
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakSet

import av
import numpy as np
import pytest
import soundfile
from test_prompt import assert_same_prompt
from test_reference import ROUNDING
from video_writer import needs, write_video

from mlx_gemma4 import Model, Processor, Session
from mlx_gemma4.inputs.processor import Limits
from mlx_gemma4.inputs.vision.video import Selection, sample_indices, timestamp, video_frames
from mlx_gemma4.inputs.vision.video_file import Picture, VideoFile

COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (40, 200, 200)]


def plain(count: int, width: int = 64) -> np.ndarray:
    """Frames 48 high, in the colours' turn, with a white square at the top left."""
    frames = np.stack([np.full((48, width, 3), COLOURS[index % len(COLOURS)], np.uint8) for index in range(count)])
    frames[:, :16, :16] = 255
    return frames


def write(path: Path, count: int, *, codec: str = "mpeg4", kind: str | None = None, width: int = 64) -> Path:
    return write_video(path, plain(count, width), codec=codec, kind=kind)


def taken(source: Path | tuple[np.ndarray, float], **selection: Any) -> tuple[list[float], np.ndarray]:
    """The times of the frames, and the frames."""
    shown = list(video_frames(source, Selection(**selection)))
    return [seconds for seconds, _ in shown], np.stack([pixels for _, pixels in shown])


def random_frames(count: int, height: int = 24, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


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
    pixels = random_frames(6)
    times, shown = taken((pixels, 4.0), max_video_frames=3)
    assert times == [0.0, 0.5, 1.0]
    np.testing.assert_array_equal(shown, pixels[[0, 2, 4]])


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("float32", (2, 3, 3, 3)), ("uint8", (2, 3, 3)), ("uint8", (2, 3, 3, 4)), ("uint8", (0, 3, 3, 3))],
)
def test_array_that_is_no_video(dtype: str, shape: tuple[int, ...]) -> None:
    """Wrong type, one picture, alpha, and no frames."""
    message = f"Expected video frames as uint8 [T, H, W, 3], got {dtype} {list(shape)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        video_frames((np.zeros(shape, dtype), 1.0))


@pytest.mark.parametrize("rate", [0, -1.0, float("nan")])
def test_rate_that_is_none(rate: float) -> None:
    """Times cannot follow from it."""
    with pytest.raises(ValueError, match=f"^Expected a positive number of frames per second, got {rate}$"):
        video_frames((np.zeros((2, 3, 3, 3), np.uint8), rate))


# which frames are taken

JUMPY = [0, 0.1, 0.2, 1.5, 1.6, 4, 4.04, 7, 7.5, 20]
"""The times of a variable frame rate."""


@pytest.mark.parametrize(
    ("selection", "indices"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"max_video_frames": 4}, [0, 2, 5, 7]),
        ({"max_video_frames": 3, "start": 1}, [3, 5, 7]),
        ({"max_video_frames": 2, "start": 1.5, "end": 4}, [3, 4]),
        ({"fps": 1}, [0, 3, 5, 7, 9]),
        ({"fps": 2}, [0, 3, 5, 7, 8, 9]),
        ({"fps": 10}, [0, 1, 2, 3, 4, 5, 7, 8, 9]),
        ({"fps": 1000}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"fps": 0.1}, [0, 9]),
        ({"fps": 1, "start": 0.15}, [2, 3, 5, 7, 8, 9]),
        ({"fps": 1, "start": 0.2, "end": 7}, [2, 3, 5]),
        ({"fps": 1, "start": 20}, [9]),
        ({"fps": 1, "end": 7.5, "max_video_frames": 4}, [0, 3, 5, 7]),
    ],
)
def test_a_variable_frame_rate(tmp_path: Path, selection: dict[str, Any], indices: list[int]) -> None:
    """By the times in the file: the first frame at or after each; a moment without a new frame adds none."""
    pixels = random_frames(10)
    times, shown = taken(write_video(tmp_path / "a.mkv", pixels, times=JUMPY), **selection)
    assert times == [JUMPY[index] for index in indices]
    np.testing.assert_array_equal(shown, pixels[indices])


@pytest.mark.parametrize(
    ("selection", "indices"),
    [
        ({}, [index * 100 // 32 for index in range(32)]),
        ({"max_video_frames": 8}, [0, 12, 25, 37, 50, 62, 75, 87]),
        ({"max_video_frames": 200}, list(range(100))),
        ({"fps": 1}, [0, 30, 60, 90]),
        ({"fps": 30, "end": 1}, list(range(30))),
        ({"fps": 7, "end": 1}, [0, 5, 9, 13, 18, 22, 26]),
        ({"fps": 1, "start": 0.5}, [15, 45, 75]),
        ({"fps": 1, "start": 0.51}, [16, 46, 76]),
        ({"max_video_frames": 3, "start": 1, "end": 2}, [30, 40, 50]),
    ],
)
@pytest.mark.parametrize("name", ["a.mkv", "a.mov", "in memory"])
def test_a_constant_frame_rate(tmp_path: Path, name: str, selection: dict[str, Any], indices: list[int]) -> None:
    """30 a second, in milliseconds (Matroska), exactly (QuickTime), and as an array: the same frames."""
    pixels = random_frames(100)
    source: Any = (pixels, 30)
    if name != "in memory":
        source = write_video(tmp_path / name, pixels, rate=30, codec="ffv1" if name == "a.mkv" else "qtrle")
    times, shown = taken(source, **selection)
    np.testing.assert_allclose(times, [index / 30 for index in indices], atol=0.0006)
    np.testing.assert_array_equal(shown, pixels[indices])


def test_more_frames_than_are_allowed() -> None:
    """At a rate, none is dropped in silence: the message counts them, and names the ways out."""
    video = (random_frames(100), 10.0)
    message = (
        "Expected at most 32 frames, got 50 at 5 a second; raise --max-frames, lower --fps, or use mlx_gemma4 describe"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        next(video_frames(video, Selection(fps=5)))
    assert len(taken(video, fps=5, max_video_frames=50)[0]) == 50


NAN = float("nan")


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"max_video_frames": 0}, "Expected a maximum of 1 frame or more, got 0"),
        ({"fps": 0}, "Expected a positive number of frames per second, got 0"),
        ({"fps": -1}, "Expected a positive number of frames per second, got -1"),
        ({"fps": NAN}, "Expected a positive number of frames per second, got nan"),
        ({"fps": float("inf")}, "Expected a positive number of frames per second, got inf"),
        ({"start": -0.5}, "Expected times of 0 s or more, got -0.5"),
        ({"start": NAN}, "Expected times of 0 s or more, got nan"),
        ({"end": NAN}, "Expected times of 0 s or more, got nan"),
        ({"end": float("inf")}, "Expected times of 0 s or more, got inf"),
        ({"start": 2, "end": 2}, "Expected a start before the end, got 2 s and 2 s"),
        ({"start": 61, "end": 7.5}, "Expected a start before the end, got 61 s and 7.5 s"),
    ],
)
def test_selections_that_are_none(selection: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Selection(**selection)


@pytest.mark.parametrize("fps", [None, 1.0])
def test_a_time_without_frames(tmp_path: Path, fps: float | None) -> None:
    """Behind the last one, and between two."""
    path = write_video(tmp_path / "a.mkv", random_frames(10), times=JUMPY)
    message = f"Expected a start of at most 20 s, where {path} shows its last frame, got 21 s"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        next(video_frames(path, Selection(fps=fps, start=21, end=22)))
    message = f"There is no frame from 2 to 3.5 s in {path}; choose a longer time"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        next(video_frames(path, Selection(fps=fps, start=2, end=3.5)))
    message = "Expected a start of at most 0.5 s, where the array shows its last frame, got 1 s"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        next(video_frames((random_frames(2), 2.0), Selection(fps=fps, start=1)))


def test_one_frame_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels are made of a frame when it is asked for, and of those that are taken only; none is kept."""
    made = 0
    alive: WeakSet[Picture] = WeakSet()
    pixels = Picture.pixels

    def counted(picture: Picture) -> np.ndarray:
        nonlocal made
        made += 1
        alive.add(picture)
        return pixels(picture)

    monkeypatch.setattr(Picture, "pixels", counted)
    shown = video_frames(write_video(tmp_path / "a.mkv", random_frames(90), rate=30), Selection(fps=10))
    for count in range(1, 31):
        next(shown)
        assert made == count and len(alive) == 1


# files


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [("a.mp4", "mpeg4", None), ("a.mkv", "mpeg4", None), ("a.avi", "mpeg4", None), ("a.m4v", "mpeg4", "m4v")],
)
def test_file(tmp_path: Path, name: str, codec: str, kind: str | None) -> None:
    """Every frame, at its time, in its colours."""
    times, shown = taken(write(tmp_path / name, 5, codec=codec, kind=kind))
    assert times == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert shown.shape == (5, 48, 64, 3)
    assert np.abs(shown[:, 40, 50].astype(int) - COLOURS).max() < 12
    assert shown[:, 4, 4].min() > 240


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "ffv1"), ("a.mov", "qtrle"), ("a.mov", "png")])
def test_lossless_file(tmp_path: Path, name: str, codec: str) -> None:
    """To the last bit."""
    pixels = random_frames(7)
    np.testing.assert_array_equal(taken(write_video(tmp_path / name, pixels, codec=codec))[1], pixels)


def test_smallest_frames(tmp_path: Path) -> None:
    """One pixel each."""
    pixels = random_frames(3, 1, 1)
    times, shown = taken(write_video(tmp_path / "a.mkv", pixels))
    assert times == [0.0, 0.5, 1.0]
    np.testing.assert_array_equal(shown, pixels)


def test_a_single_frame(tmp_path: Path) -> None:
    """A photograph as a video."""
    pixels = random_frames(1)
    for selection in ({}, {"fps": 1}, {"max_video_frames": 1, "end": 0.1}):
        times, shown = taken(write_video(tmp_path / "a.mkv", pixels), **selection)
        assert times == [0.0]
        np.testing.assert_array_equal(shown, pixels)


def test_frames_that_are_stored_in_another_order(tmp_path: Path) -> None:
    """H.264 with frames between others that come later: in the order in which they are shown."""
    options = {"bf": "3", "g": "40", "crf": "1"}
    path = write_video(tmp_path / "a.mp4", plain(60), rate=30, codec=needs("libx264"), options=options)
    times, shown = taken(path, fps=30, max_video_frames=60)
    np.testing.assert_allclose(times, np.arange(60) / 30)
    assert np.abs(shown[:, 40, 50].astype(int) - COLOURS * 12).max() < 12


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mkv", "ffv1", {"g": "1"}),
        ("a.mp4", "libx264", {"bf": "3", "g": "20", "x264-params": "open-gop=1:scenecut=0"}),
        ("a.ts", "libx264", {"bf": "2", "g": "25", "x264-params": "open-gop=1:scenecut=0"}),
        ("a.mkv", "libx264", {"g": "1000", "x264-params": "scenecut=0"}),
        ("a.webm", "libvpx-vp9", {"g": "20"}),
        ("a.avi", "mpeg4", {"g": "12"}),
        ("a.h264", "libx264", {"g": "20", "x264-params": "scenecut=0"}),
    ],
)
def test_frames_from_a_moment_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str, options: dict[str, str]
) -> None:
    """They are what decoding all of the file gives, whether or not those before could be left out."""
    path = write_video(tmp_path / name, plain(100), rate=20, codec=needs(codec), options=options)
    times, pixels = taken(path, max_video_frames=100)
    for index in (1, 19, 20, 21, 50, 99):
        later, shown = taken(path, max_video_frames=100, start=times[index])
        assert later == times[index:]
        np.testing.assert_array_equal(shown, pixels[index:])
    monkeypatch.setattr("mlx_gemma4.inputs.vision.video_file.HELD", 7)
    np.testing.assert_array_equal(taken(path, max_video_frames=100, start=times[90])[1], pixels[90:])


def test_frames_before_a_moment_are_not_decoded(tmp_path: Path) -> None:
    """But for those from the last key frame on."""
    options = {"g": "20", "bf": "2", "x264-params": "scenecut=0"}
    path = write_video(tmp_path / "a.mkv", plain(60), rate=20, codec=needs("libx264"), options=options)
    pictures = list(VideoFile(path).decode(start=2.5))
    assert [round(20 * each.seconds) for each in pictures] == list(range(40, 60))


def test_times_begin_with_the_first_frame(tmp_path: Path) -> None:
    """A transport stream starts its clock anywhere."""
    path = write_video(tmp_path / "a.ts", plain(5), codec=needs("libx264"))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).time > 0.5
    assert taken(path)[0] == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_bare_stream_has_no_times(tmp_path: Path) -> None:
    """Outside any container, H.264 tells its rate at best: the times follow from that, they are not all zero."""
    path = write(tmp_path / "a.h264", 3, codec=needs("libx264"), kind="h264")
    assert taken(path)[0] == [0.0, 0.5, 1.0]


def test_size_that_changes(tmp_path: Path) -> None:
    """Frames of another size are brought to that of the first."""
    first = write(tmp_path / "1.m4v", 2, kind="m4v").read_bytes()
    second = write(tmp_path / "2.m4v", 2, kind="m4v", width=32).read_bytes()
    path = tmp_path / "a.m4v"
    path.write_bytes(first + second)
    _, shown = taken(path)
    assert shown.shape == (4, 48, 64, 3)
    assert np.abs(shown[:, 40, 60].astype(int) - [*COLOURS[:2], *COLOURS[:2]]).max() < 12


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
    _, shown = taken(path)
    assert shown.shape[1:3] == shape
    assert shown[0][corner].min() > 240
    assert [shown[0][y, x].min() > 240 for y in (4, -4) for x in (4, -4)].count(True) == 1


# broken files


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mkv", "ffv1", {}),
        ("a.mp4", "libx264", {"movflags": "faststart"}),
        ("a.ts", "libx264", {}),
        ("a.avi", "mpeg4", {}),
    ],
)
def test_file_cut_short(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    """What is there of it is taken, evenly too."""
    path = write_video(tmp_path / name, plain(60), codec=needs(codec), container_options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    times, shown = taken(path, max_video_frames=60)
    assert 5 < len(times) < 55
    assert times == [index / 2 for index in range(len(times))]
    assert np.abs(shown[:-1, 40, 50].astype(int) - (COLOURS * 12)[: len(times) - 1]).max() < 12
    assert taken(path, max_video_frames=4)[0] == [times[index] for index in sample_indices(len(times), 4)]


def test_packets_that_are_broken(tmp_path: Path) -> None:
    """They are passed over, and the frames around them keep their times."""
    pixels = random_frames(40)
    path = write_video(tmp_path / "a.mov", pixels, codec="png")
    data = bytearray(path.read_bytes())
    starts = [found.start() for found in re.finditer(b"IHDR", data)]
    for index in (0, 7, 8, 39):
        data[starts[index] : starts[index] + 4] = b"NONE"
    path.write_bytes(data)
    kept = [index for index in range(40) if index not in (0, 7, 8, 39)]
    times, shown = taken(path, max_video_frames=40)
    assert times == [(index - 1) / 2 for index in kept]
    np.testing.assert_array_equal(shown, pixels[kept])
    for start in starts:
        data[start : start + 4] = b"NONE"
    path.write_bytes(data)
    message = f"FFmpeg cannot read the video {path}: Invalid data found when processing input"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        video_frames(path)


def test_file_cut_before_its_index(tmp_path: Path) -> None:
    """An MP4 as cameras write it says at its end what is in it."""
    path = write(tmp_path / "a.mp4", 20)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov")])
    with pytest.raises(ValueError, match=f"^FFmpeg cannot read the video {re.escape(str(path))}: "):
        video_frames(path)


def test_no_such_file(tmp_path: Path) -> None:
    """A folder is no file either."""
    for path in (tmp_path / "absent.mp4", tmp_path):
        with pytest.raises(ValueError, match=f"^There is no video file at {re.escape(str(path))}$"):
            video_frames(path)


@pytest.mark.parametrize("content", ["", "This is no video.\n" * 50])
def test_file_that_is_no_video(tmp_path: Path, content: str) -> None:
    """0 bytes, and text."""
    path = tmp_path / "a.mp4"
    path.write_text(content)
    message = f"FFmpeg cannot read the video {path}: Invalid data found when processing input"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        video_frames(path)


def test_sound_is_no_video(tmp_path: Path) -> None:
    """A file that FFmpeg reads, with nothing to see in it."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(1000), 16_000)
    message = f"There are no pictures in {path}: it has no video stream, or is cut short before it"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        video_frames(path)


def test_file_without_frames(tmp_path: Path) -> None:
    """A stream that ends before its first picture."""
    path = write_video(tmp_path / "a.avi", [], codec="mpeg4")
    with pytest.raises(ValueError, match=f"^There are no pictures in {re.escape(str(path))}: it has 0 video frames$"):
        video_frames(path)


# as the model takes them


def test_a_file_is_its_frames(tmp_path: Path, released: tuple[Model, Processor]) -> None:
    """Ids, patches and positions of a prompt: a file's, and those of the same frames in memory, prepared or not."""
    _, processor = released
    pixels = random_frames(3, 96, 160)
    path = write_video(tmp_path / "a.mkv", pixels)
    prompts = [
        processor.prompt([{"role": "user", "content": [{"type": "video", "video": source}]}])
        for source in (path, str(path), (pixels, 2.0), processor.film(path))
    ]
    for prompt in prompts[1:]:
        assert_same_prompt(prompt, prompts[0])


def test_a_film_of_a_selection(tmp_path: Path, released: tuple[Model, Processor]) -> None:
    """Its frames are pictures of the chosen budget; without one, they are as many as the checkpoint says."""
    _, processor = released
    pixels = random_frames(10, 96, 160)
    path = write_video(tmp_path / "a.mkv", pixels)
    film = processor.film(path, Selection(fps=1, start=3), image_tokens=140)
    assert film.seconds == (3.0, 4.0)
    for index, frame in zip((6, 8), film.video_frames, strict=True):
        expected = processor.patches(pixels[index], image_tokens=140)
        np.testing.assert_array_equal(frame.pixels, expected.pixels)
        np.testing.assert_array_equal(frame.patch_xy, expected.patch_xy)
    few = Processor(processor.config, processor.tokenizer, processor.template, limits=Limits(video_frames=2))
    assert few.film(path).seconds == (0.0, 2.5)


def test_the_model_is_told_the_times_in_the_file(tmp_path: Path, released: tuple[Model, Processor]) -> None:
    """Minutes and seconds from its beginning, whatever the selection."""
    _, processor = released
    path = write_video(tmp_path / "a.mkv", random_frames(4), times=[0, 59.9, 61.5, 125])
    film = processor.film(path, Selection(fps=1, start=59.9))
    prompt = processor.prompt([{"role": "user", "content": [{"type": "video", "video": film}]}])
    text = processor.tokenizer.decode(prompt.token_ids[~prompt.is_vision].tolist())
    assert re.findall(r"\d\d:\d\d", text) == ["00:59", "01:01", "02:05"]


def test_frames_fed_one_by_one_are_the_whole_prompt(tmp_path: Path, released: tuple[Model, Processor]) -> None:
    """The same logits at every position, whether a film enters at once or frame after frame."""
    model, processor = released
    path = write_video(tmp_path / "a.mkv", random_frames(6, 96, 160))
    content = [{"type": "video", "video": processor.film(path, Selection(fps=1))}, {"type": "text", "text": "What?"}]
    prompt = processor.prompt([{"role": "user", "content": content}])
    whole = np.array(Session(model).extend(prompt, logits_from=0))
    session, starts = Session(model), np.flatnonzero(np.diff(prompt.is_vision.astype(int), append=0) == -1) + 1
    cuts = [0, *starts.tolist(), len(prompt)]
    assert len(cuts) == 5
    pieces = [session.extend(prompt[start:stop], logits_from=0) for start, stop in pairwise(cuts)]
    assert np.abs(np.concatenate(pieces) - whole).max() < 4 * ROUNDING["released-video"]
