"""A video and its sound, stretch by stretch: the right frames, the samples of ``load_audio``, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from video_writer import needs, write_video

from mlx_gemma4 import Model, Processor, load_audio
from mlx_gemma4.inputs.vision.clip import Stretch, Track, stretches
from mlx_gemma4.inputs.vision.image import Patches
from mlx_gemma4.inputs.vision.video import Selection
from mlx_gemma4.inputs.vision.video_file import Sound, VideoFile

RATE = 16_000


def noise(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(1).integers(-9999, 9999, (round(seconds * rate), channels)).astype(np.int16)


def numbered(count: int) -> np.ndarray:
    """Frames whose pixels are their numbers."""
    return np.repeat(np.arange(count, dtype=np.uint8), 4 * 4 * 3).reshape(count, 4, 4, 3)


def numbers(stretch: Stretch) -> list[int]:
    """Which of ``numbered`` frames are in a stretch."""
    return [] if stretch.film is None else [int(frame.pixels[0, 0]) for frame in stretch.film.video_frames]


def as_patches(pixels: np.ndarray) -> Patches:
    return Patches(pixels.reshape(1, -1).astype(np.float32), np.zeros((1, 2), np.int32))


def cut(path: Path, seconds: float, *, sound: bool = True, **selection: Any) -> list[Stretch]:
    return list(stretches(VideoFile(path), seconds, Selection(**selection), as_patches, sound=sound))


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (48_000, 1), (8_000, 2), (22_050, 1)])
@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "pcm_s16le"), ("a.mkv", "flac"), ("a.mov", "pcm_s16le")])
def test_sound_is_that_of_a_recording(tmp_path: Path, rate: int, channels: int, name: str, codec: str) -> None:
    """To the last bit what ``load_audio`` reads of the same track: whole, in stretches, and from any moment on."""
    sound = noise(5.01, rate, channels)
    video = {"codec": "ffv1" if name == "a.mkv" else "qtrle", "sound_rate": rate, "sound_codec": codec}
    path = write_video(tmp_path / name, numbered(10), sound=sound, **video)
    soundfile.write(tmp_path / "a.wav", sound, rate)
    recording = load_audio(tmp_path / "a.wav")
    (whole,) = cut(path, 30, fps=1)
    np.testing.assert_array_equal(whole.samples, recording)
    assert (whole.start, whole.end) == (0, len(recording) / RATE)
    for each in cut(path, 1.7, fps=1) + cut(path, 1.25, start=0.4, end=4.3):
        np.testing.assert_array_equal(
            each.samples, recording[round(each.start * RATE) : round(each.end * RATE)], strict=True
        )


def test_stretches_are_consecutive(tmp_path: Path) -> None:
    """Of the length asked for, from the selected start to the selected end."""
    path = write_video(tmp_path / "a.mkv", numbered(20), sound=noise(10))
    times = [(each.start, each.end) for each in cut(path, 2, fps=1, start=1, end=8.5)]
    assert times == [(1, 3), (3, 5), (5, 7), (7, 8.5)]
    assert [(each.start, each.end) for each in cut(path, 4, fps=1)] == [(0, 4), (4, 8), (8, 10)]
    assert [(each.start, each.end) for each in cut(path, 4, fps=1, sound=False)] == [(0, 4), (4, 8), (8, 10)]


@pytest.mark.parametrize(
    ("selection", "shown"),
    [
        ({"fps": 1}, [[0, 2], [3, 5], [6, 8], [9]]),
        ({"fps": 100}, [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]),
        ({"fps": 0.1}, [[0], [3], [6], [9]]),
        ({"fps": 1, "start": 0.5, "end": 3}, [[1, 3], [4]]),
        ({"max_video_frames": 4}, [[0, 2], [5], [7], []]),
        ({"max_video_frames": 2, "start": 2}, [[4], [7]]),
    ],
)
@pytest.mark.parametrize("sound", [False, True])
def test_frames_of_stretches(tmp_path: Path, selection: dict[str, Any], shown: list[list[int]], sound: bool) -> None:
    """At a rate, each stretch begins with its first frame; evenly, the frames are those of the whole."""
    path = write_video(tmp_path / "a.mkv", numbered(10), sound=noise(5))
    found = cut(path, 1.5, sound=sound, **selection)
    assert [numbers(each) for each in found] == [each for each in shown if sound or each]
    for each in found:
        assert each.film is None or each.film.seconds == tuple(number / 2 for number in numbers(each))


def test_a_variable_frame_rate(tmp_path: Path) -> None:
    """A stretch without a frame has none, and one without anything is left out."""
    path = write_video(tmp_path / "a.mkv", numbered(6), times=[0, 0.2, 3.9, 4, 4.4, 9], sound=noise(5.5))
    assert [(each.start, numbers(each)) for each in cut(path, 2, fps=1, sound=False)] == [
        (0, [0]),
        (2, [2]),
        (4, [3]),
        (8, [5]),
    ]
    assert [(each.start, numbers(each), len(each.samples)) for each in cut(path, 2, fps=5)] == [
        (0, [0, 1], 32_000),
        (2, [2], 32_000),
        (4, [3, 4], 24_000),
        (8, [5], 0),
    ]


def test_sound_that_begins_late_is_in_its_place(tmp_path: Path) -> None:
    """Silence stands before it."""
    sound = noise(2)
    path = write_video(tmp_path / "a.mkv", numbered(10), sound=sound, sound_start=1.5)
    (whole,) = cut(path, 30, fps=1)
    expected = np.concatenate([np.zeros(24_000), sound[:, 0] / 32768]).astype(np.float32)
    np.testing.assert_array_equal(whole.samples, expected)


def test_sound_without_a_time_follows_the_sound_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several frames in a packet, FFmpeg tells the time of the first."""
    frames = VideoFile._frames

    def timeless(file: VideoFile, packets: Any) -> Iterator[Any]:
        for frame in frames(file, packets):
            if isinstance(frame, av.AudioFrame) and frame.time != 1:
                frame.pts = None
            yield frame

    sound = noise(2)
    path = write_video(tmp_path / "a.mov", numbered(4), codec="qtrle", sound=sound, sound_start=1)
    monkeypatch.setattr(VideoFile, "_frames", timeless)
    (whole,) = cut(path, 30, fps=1)
    np.testing.assert_array_equal(whole.samples[16_000:], (sound[:, 0] / 32768).astype(np.float32))


def test_a_message_of_a_stretch(tmp_path: Path) -> None:
    """What is seen, then what is heard."""
    path = write_video(tmp_path / "a.mkv", numbered(4), sound=noise(1))
    first, second = cut(path, 1, fps=1)
    assert first.content == [{"type": "video", "video": first.film}, {"type": "audio", "audio": first.samples}]
    assert second.content == [{"type": "video", "video": second.film}]
    (heard,) = (each for each in cut(path, 0.5, max_video_frames=1) if each.film is None)
    assert heard.content == [{"type": "audio", "audio": heard.samples}]


@pytest.mark.parametrize(
    ("name", "codec", "sound_codec"),
    [("a.mp4", "libx264", "aac"), ("a.ts", "libx264", "aac"), ("a.mkv", "mpeg4", "mp3")],
)
def test_lossy_sound_keeps_its_time(tmp_path: Path, name: str, codec: str, sound_codec: str) -> None:
    """A tone from 2 s on begins in the stretch from 2 s on, not 50 ms before; padding makes no stretch of its own."""
    tone = np.sin(2 * np.pi * 440 * np.arange(4 * 48_000) / 48_000) * 9999
    tone[: 2 * 48_000] = 0
    frames = np.repeat(numbered(8), 16, axis=1).repeat(16, axis=2)
    path = write_video(
        tmp_path / name, frames, codec=needs(codec), sound=tone.astype(np.int16)[:, None], sound_rate=48_000,
        sound_codec=needs(sound_codec),
    )  # fmt: skip
    found = cut(path, 1, fps=1)
    assert [each.start for each in found] == [0, 1, 2, 3]
    loud = [np.abs(each.samples) > 0.05 for each in found]
    assert not loud[0].any() and not loud[1][:-800].any()
    assert loud[2][800:].mean() > 0.8 and loud[3][:-800].mean() > 0.8


# how much is held


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What has been decoded so far: it grows."""
    items: list[Any] = []
    decode = VideoFile.decode

    def counted(file: VideoFile, **options: Any) -> Iterator[Any]:
        for item in decode(file, **options):
            items.append(item.seconds)
            yield item

    monkeypatch.setattr(VideoFile, "decode", counted)
    return items


def test_a_stretch_is_out_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing further is decoded, and what comes behind the selected end never is."""
    path = write_video(tmp_path / "a.mkv", numbered(120), sound=noise(60))
    items = decoded(monkeypatch)
    for each in stretches(VideoFile(path), 5, Selection(fps=1, end=20), as_patches, sound=True):
        assert each.end <= max(items) < each.end + 1
    assert max(items) < 21


@pytest.mark.parametrize("lengths", [(60, 3), (3, 60)])
def test_a_track_that_ends_early_does_not_hold_up_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, int]
) -> None:
    """Ten seconds later it is taken to be over."""
    seen, heard = lengths
    path = write_video(tmp_path / "a.mkv", numbered(2 * seen), sound=noise(heard))
    items = decoded(monkeypatch)
    found = []
    for each in stretches(VideoFile(path), 2, Selection(fps=1), as_patches, sound=True):
        assert max(items) <= each.end + 11
        found.append((each.start, len(numbers(each)), len(each.samples)))
    assert found == [
        (start, min(2, max(0, seen - start)), RATE * min(2, max(0, heard - start))) for start in range(0, 60, 2)
    ]


# the track


def sound(seconds: float, samples: Any, rate: int = RATE) -> Sound:
    return Sound(seconds, np.asarray(samples, np.float32).reshape(-1, 1), rate)


def test_small_errors_of_time_are_not_heard() -> None:
    """Up to 40 ms: the pieces follow each other."""
    track = Track(0)
    for index, error in enumerate((0.01, -0.02, 0.039, 0)):
        track.push(sound(index / 10 + error, np.full(1600, index + 1)))
    assert track.seconds == 0.4
    np.testing.assert_array_equal(track.take(1), np.repeat([1, 2, 3, 4], 1600))


def test_a_hole_is_silent() -> None:
    """And makes nothing of its own, however long it is."""
    track = Track(0)
    track.push(sound(0, np.ones(800)))
    track.push(sound(0.1, np.full(800, 2)))
    track.push(sound(1e6, np.full(800, 3)))
    np.testing.assert_array_equal(track.take(5), np.repeat([1, 0, 2], 800))
    assert len(track.take(1e6)) == 0
    np.testing.assert_array_equal(track.take(1e6 + 1), np.full(800, 3))


def test_what_begins_before_the_pictures_is_left_out() -> None:
    track = Track(0)
    track.push(sound(-0.1, np.arange(3200)))
    np.testing.assert_array_equal(track.take(1), np.arange(1600, 3200))


def test_what_comes_twice_is_heard_once() -> None:
    """Times that go back: the later piece stands."""
    track = Track(0)
    track.push(sound(0, np.ones(1600)))
    track.push(sound(0.05, np.full(1600, 2)))
    np.testing.assert_array_equal(track.take(1), np.repeat([1, 2], [800, 1600]))
    track.push(sound(0.05, np.full(1600, 3)))
    assert len(track.take(2)) == 0


def test_a_rate_that_changes() -> None:
    """Each part is resampled from its own."""
    track = Track(0)
    track.push(sound(0, np.ones(8000), 8000))
    track.push(sound(1, np.ones(48_000), 48_000))
    track.finish()
    samples = track.take(3)
    assert len(samples) == 32_000
    assert np.abs(samples[500:15_500] - 1).max() < 1e-3 and np.abs(samples[16_500:31_500] - 1).max() < 1e-3


# what is refused


@pytest.mark.parametrize("seconds", [0, -1, 0.09, float("nan"), float("inf")])
def test_stretches_of_no_length(tmp_path: Path, seconds: float) -> None:
    path = write_video(tmp_path / "a.mkv", numbered(2))
    with pytest.raises(ValueError, match=rf"^Expected segments of 0\.1 s or more, got {seconds:g}$"):
        cut(path, seconds, sound=False)


@pytest.mark.parametrize("fps", [None, 1.0])
def test_a_time_without_frames(tmp_path: Path, fps: float | None) -> None:
    """Sound alone is no video."""
    path = write_video(tmp_path / "a.mkv", numbered(4), sound=noise(10))
    message = f"Expected a start of at most 1.5 s, where {path} shows its last frame, got 3 s"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        cut(path, 20, fps=fps, start=3)


def test_more_sound_than_the_model_takes(tmp_path: Path, released: tuple[Model, Processor]) -> None:
    """Told before anything is decoded; without sound, a stretch may be longer."""
    _, processor = released
    path = write_video(tmp_path / "a.mkv", numbered(4), sound=noise(2))
    with pytest.raises(ValueError, match=r"^Expected segments of at most 30 s, the longest sound, got 30\.5$"):
        processor.stretches(path, 30.5)
    (whole,) = processor.stretches(path, 30.5, sound=False)
    assert (whole.end, len(whole.samples)) == (2, 0)
    (whole,) = processor.stretches(path, 30)
    assert whole.film is not None and whole.film.seconds == processor.film(path).seconds
    assert len(whole.samples) == 32_000


def test_sound_that_does_not_decode(tmp_path: Path) -> None:
    """A codec that FFmpeg does not know, or no sound in the track."""
    path = write_video(tmp_path / "a.mkv", numbered(4), sound=noise(2), sound_codec="flac")
    path.write_bytes(path.read_bytes().replace(b"A_FLAC", b"A_NONE"))
    message = f"FFmpeg cannot read the video {path}: Decoder not found"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        VideoFile(path, sound=True)
    path = write_video(tmp_path / "a.mkv", numbered(4), sound=noise(0))
    message = f"There is no sound in {path}: its audio track is empty; leave out --with-audio"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        VideoFile(path, sound=True)


def test_no_sound_where_it_is_asked_for(tmp_path: Path, released: tuple[Model, Processor]) -> None:
    path = write_video(tmp_path / "a.mkv", numbered(4))
    message = f"There is no sound in {path}: it has no audio track; leave out --with-audio"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        released[1].stretches(path, 10)
