"""Media of requests: what the processor gets, and what is refused, without a word about this machine."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import loaded
from reference_cases import media_file
from video_writer import write_video

from mlx_gemma4 import Processor, load_audio
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.work.media import Media


@pytest.fixture
def processor() -> Processor:
    return loaded("demo")[1]


@pytest.mark.parametrize(
    ("detail", "budget"), [("low", 70), ("high", 560), ("original", 1120), (None, None), ("auto", None)]
)
def test_details_are_budgets_of_pictures(processor: Processor, detail: str | None, budget: int | None) -> None:
    path = media_file("picture-01.png")
    patches = Media(processor, 1).decode("image", path.read_bytes(), detail, "here")
    expected = processor.patches(path, image_tokens=budget)
    assert np.array_equal(patches.pixels, expected.pixels) and np.array_equal(patches.patch_xy, expected.patch_xy)


def test_sound_of_any_format(processor: Processor) -> None:
    path = media_file("pico-04.wav")
    samples = Media(processor, 1).decode("audio", flac(path), None, "here")
    assert np.array_equal(samples, load_audio(path))


def test_pictures_and_sound_are_never_written_to_disk(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is killed cannot leave them there."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    media = Media(processor, 2)
    assert len(media.decode("image", media_file("picture-01.png").read_bytes(), None, "here")) > 0
    assert len(media.decode("audio", flac(media_file("pico-04.wav")), None, "here")) > 0


def flac(path: Path) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, load_audio(path), 16_000, format="FLAC")
    return file.getvalue()


def test_a_video_is_frames_with_times(processor: Processor, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    path = write_video(tmp_path / "film.mkv", frames)
    film = Media(processor, 1).decode("video", path.read_bytes(), None, "here")
    expected = processor.film(path)
    assert film.seconds == expected.seconds and len(film) > 1
    assert all(
        np.array_equal(a.pixels, b.pixels) for a, b in zip(film.video_frames, expected.video_frames, strict=True)
    )


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("image", b"nothing", "here: Expected an image as AVIF, "),
        ("audio", b"nothing", "here: the stream is not a recording"),
        ("video", b"nothing", "here: "),
    ],
)
def test_media_that_cannot_be_read(processor: Processor, kind: str, data: bytes, message: str) -> None:
    with pytest.raises(Failure) as refused:
        Media(processor, 1).decode(kind, data, None, "here")
    assert refused.value.message.startswith(message) and "/" not in refused.value.message.replace("/v1/", "")
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, "here", f"invalid_{kind}")


def test_sound_that_is_too_long(processor: Processor) -> None:
    longest = processor.limits.audio_tokens * processor.frame_samples
    file = io.BytesIO()
    soundfile.write(file, np.zeros(longest + 1, np.float32), 16_000, format="FLAC")
    with pytest.raises(Failure) as refused:
        Media(processor, 1).decode("audio", file.getvalue(), None, "here")
    assert refused.value.message == (
        f"here: A message takes at most {longest / 16_000:g} s of sound in one part; send longer recordings to "
        "/v1/audio/transcriptions"
    )
