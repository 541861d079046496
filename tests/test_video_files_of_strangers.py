"""Videos that would reach too far or cost too much: playlists, names like addresses, leaps of time, giant frames."""

from __future__ import annotations

import re
import struct
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from test_upright import MATRICES
from video_writer import needs, write_video

from mlx_gemma4.inputs.vision.clip import stretches
from mlx_gemma4.inputs.vision.image import load_image, patchify
from mlx_gemma4.inputs.vision.video import Selection, video_frames
from mlx_gemma4.inputs.vision.video_container import MAX_PIXELS, TAKEN
from mlx_gemma4.inputs.vision.video_file import Picture, VideoFile
from mlx_gemma4.live.see.camera import Camera


def noise(count: int, height: int = 4, width: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def watched(source: Path | str) -> list[tuple[float, np.ndarray]]:
    with Camera(source, fast=True) as camera:
        shots = []
        while (shot := camera.read()) is not None:
            shots.append((shot.time, shot.pixels))
        return shots


def refused(source: Path, problem: str) -> None:
    """By both readers, in a line."""
    with pytest.raises(
        ValueError, match=f"^(FFmpeg cannot|There are no) .* {re.escape(str(source))}{re.escape(problem)}$"
    ):
        VideoFile(source)
    with (
        pytest.raises(
            ValueError, match=f"^(FFmpeg cannot|There are no) .* {re.escape(str(source))}{re.escape(problem)}$"
        ),
        Camera(source),
    ):
        pass


NOT_TAKEN = f": a playlist, frames of over {MAX_PIXELS} pixels, or a format other than {TAKEN}; convert it to MP4"


# names, playlists


@pytest.mark.parametrize(
    "name", ["http:a.mkv", "concat:a.mkv", "subfile:a.mkv", "http://127.0.0.1:9/a.mkv", "rtmp:a.mkv"]
)
def test_a_file_named_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is opened, and nothing is fetched."""
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    pictures = noise(2)
    (tmp_path / name).write_bytes(write_video(tmp_path / "plain.mkv", pictures).read_bytes())
    np.testing.assert_array_equal([pixels for _, pixels in video_frames(name)], pictures)
    np.testing.assert_array_equal([pixels for _, pixels in watched(name)], pictures)


def test_protocols_that_no_user_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``concat:`` and the like are names of files."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mkv", noise(1))
    for name in ("concat:a.mkv|a.mkv", "file:a.mkv", "ftp://127.0.0.1/a.mkv", "data:video/mp4;base64,AAAA"):
        with pytest.raises(ValueError, match=f"^There is no video file at {re.escape(name)}(; download |$)"):
            VideoFile(name)
        with pytest.raises(ValueError, match=f"^There is no video file at {re.escape(name)}(; download |$)"):
            Camera(name)


def test_a_list_of_files_is_not_read(tmp_path: Path) -> None:
    """Whatever it is called."""
    write_video(tmp_path / "secret.mkv", noise(2))
    path = tmp_path / "a.mp4"
    path.write_text("ffconcat version 1.0\nfile secret.mkv\n")
    refused(path, NOT_TAKEN)


def test_a_playlist_is_not_read(tmp_path: Path) -> None:
    write_video(tmp_path / "secret.ts", noise(2, 48, 64), codec="mpeg2video", rate=25)
    path = tmp_path / "a.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n")
    refused(path, NOT_TAKEN)


# cost


def test_giant_frames(tmp_path: Path) -> None:
    """None of them is decoded, also before a camera."""
    path = write_video(tmp_path / "a.avi", np.zeros((1, 6001, 6001, 3), np.uint8), codec="png")
    with pytest.raises(
        ValueError, match=f"^FFmpeg cannot read the video {re.escape(str(path))}{re.escape(NOT_TAKEN)}$"
    ):
        VideoFile(path)
    nothing = f"^There are no pictures from {re.escape(str(path))}: it has 0 video frames$"
    with Camera(path, fast=True) as camera, pytest.raises(ValueError, match=nothing):
        camera.read()
    assert (camera.seen, camera.broken) == (0, 1)


def test_an_age_without_pictures(tmp_path: Path) -> None:
    """A time stamp of thirty years ends at once, and times stay close."""
    pictures = noise(3, 48, 64)
    path = write_video(tmp_path / "a.mkv", pictures, times=(0.0, 1.0, 1e9))
    assert [seconds for seconds, _ in video_frames(path)] == pytest.approx([0.0, 1.0, 1.5])
    assert [seconds for seconds, _ in watched(path)] == pytest.approx([0.0, 1.0, 1.5])


def test_hours_of_nothing_are_passed_over(tmp_path: Path) -> None:
    """A thousand stretches in which nothing is seen or heard; no silence is made for them."""
    sound = np.full((1600, 1), 8000, np.int16)
    path = write_video(tmp_path / "a.mkv", noise(2, 48, 48), times=(0.0, 80_000.0), sound=sound)
    tracemalloc.start()
    try:
        cut = list(
            stretches(
                VideoFile(path, sound=True), 0.1, Selection(fps=1.0), lambda pixels: patchify(pixels, 48), sound=True
            )
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [stretch.film.seconds for stretch in cut if stretch.film is not None] == [(0.0,), (80_000.0,)]
    assert [round(stretch.start, 3) for stretch in cut] == [0.0, 80_000.0]
    assert [len(stretch.samples) for stretch in cut] == [1600, 0]
    assert peak < 20_000_000


def test_a_wait_is_bounded(tmp_path: Path) -> None:
    """A file at its own pace goes on after ten seconds without a picture."""
    path = write_video(tmp_path / "a.mkv", noise(3), times=(0.0, 7200.0, 7201.0))
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    with Camera(path, clock=lambda: now[0], sleep=sleep) as camera:
        while camera.read() is not None:
            pass
    assert sum(slept) == pytest.approx(11.0)


def test_sound_of_a_few_samples_a_second(tmp_path: Path) -> None:
    """A few bytes would be hours."""
    path = write_video(tmp_path / "a.avi", noise(2), codec="png", sound=np.zeros((50, 1), np.int16), sound_rate=10)
    message = f"Expected sound of 1000 to 768000 Hz in {path}, got 10 Hz; leave out --with-audio"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        VideoFile(path, sound=True)


# clocks


def test_joined_recordings(tmp_path: Path) -> None:
    """Times go on where a clock restarts; none is lost, whatever the start."""
    part = write_video(tmp_path / "a.ts", noise(50, 48, 64), rate=25, codec="mpeg2video").read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(part * 3)
    expected = [index / 25 for index in range(150)]
    assert [item.seconds for item in VideoFile(path).decode() if isinstance(item, Picture)] == pytest.approx(expected)
    assert [seconds for seconds, _ in watched(path)] == pytest.approx(expected)
    assert [seconds for seconds, _ in video_frames(path, Selection(100, start=3.0))] == pytest.approx(expected[75:])
    with pytest.raises(ValueError, match=r"^Expected at most 5 frames, got 6 at 1 a second; raise --max-frames"):
        list(video_frames(path, Selection(max_video_frames=5, fps=1.0)))


@pytest.mark.parametrize("address", ["https://example.org/a.mp4", "http://127.0.0.1:9/a.mp4"])
def test_addresses_are_no_files(address: str) -> None:
    """They are not fetched; what to do is said."""
    for read, message in (
        (VideoFile, f"There is no video file at {address}; download it first"),
        (load_image, f"There is no image file at {address}; download it first"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            read(address)


def test_animated_webp_is_named(tmp_path: Path) -> None:
    """FFmpeg does not read it."""
    path = tmp_path / "a.webp"
    first, second = (Image.new("RGB", (48, 48), color) for color in ("red", "blue"))
    first.save(path, save_all=True, append_images=[second], duration=500)
    message = f"FFmpeg reads no animated WebP, as {path} may be; convert it to GIF or MP4"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        VideoFile(path)


# what is seen


@pytest.mark.parametrize("orientation", MATRICES)
def test_films_are_upright(tmp_path: Path, orientation: int) -> None:
    """Turned and mirrored as the display matrix says, in a film and before a camera."""
    [pixels] = noise(1, 48, 64)
    path = write_video(tmp_path / "a.mov", pixels[None], codec="qtrle")
    data = bytearray(path.read_bytes())
    a, b, c, d = (number << 16 for number in MATRICES[orientation])
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    turns = [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM]
    turns += [Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE]
    image = Image.fromarray(pixels)
    expected = image if orientation == 1 else image.transpose([*turns, Image.Transpose.ROTATE_90][orientation - 2])
    for [(_, shown)] in (list(video_frames(path)), watched(path)):
        np.testing.assert_array_equal(shown, np.asarray(expected))


@pytest.mark.parametrize("orientation", [2, 4, 5, 7])
def test_a_picture_before_a_camera_is_upright(tmp_path: Path, orientation: int) -> None:
    """EXIF's mirrored ones, as ``--image`` shows them."""
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.repeat(np.repeat(noise(1, 3, 4)[0], 16, 0), 16, 1)).save(path, exif=exif, quality=95)
    [(_, shown)] = watched(path)
    np.testing.assert_array_equal(shown, load_image(path))


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    """The width is scaled, as players do."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(needs("mpeg4"), rate=2)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 10)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((16, 32, 3), 99, np.uint8), format="rgb24")))
        container.mux(stream.encode())
    for [(_, shown)] in (list(video_frames(path)), watched(path)):
        assert shown.shape == (16, 51, 3) and np.abs(shown.astype(int) - 99).max() < 4


def test_a_cover_is_no_film(tmp_path: Path) -> None:
    """A song with a picture on it."""
    path = tmp_path / "a.mka"
    with av.open(str(path), "w", format="matroska") as container:
        track = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        container.add_attachment("cover.png", "image/png", png_bytes(tmp_path))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="mono")
        sound.sample_rate = 16_000
        container.mux(track.encode(sound))
    refused(path, ": it has a cover picture alone")


def png_bytes(folder: Path) -> bytes:
    path = folder / "cover.png"
    Image.fromarray(noise(1)[0]).save(path)
    return path.read_bytes()
