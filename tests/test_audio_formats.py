"""Every format of a recording, as a file and through a pipe: the same samples; what is no recording is named."""

from __future__ import annotations

import io
import os
import re
import struct
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from reference_cases import media_file

from mlx_gemma4.inputs.audio.pcm import ENCODINGS, RawFormat
from mlx_gemma4.inputs.audio.recording import load_audio, stream_audio
from mlx_gemma4.live.hear.sources import FileSource

SPEECH = load_audio(media_file("hibari-03.wav"))[8_000:32_000]


def by_soundfile(path: Path, subtype: str, container: str | None = None, endian: str = "FILE") -> Path:
    soundfile.write(path, SPEECH, 16_000, subtype=subtype, format=container, endian=endian)
    return path


def by_ffmpeg(path: Path, codec: str, rate: int = 16_000, container: str | None = None, **options: str) -> Path:
    """``SPEECH`` through one of FFmpeg's encoders."""
    with av.open(str(path), "w", format=container, options=options) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 96_000
        frame = av.AudioFrame.from_ndarray(SPEECH[None], format="fltp", layout="mono")
        frame.rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        converter = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.frame_size)
        for converted in [*converter.resample(frame), *converter.resample(None)]:
            file.mux(stream.encode(converted))
        file.mux(stream.encode(None))
    return path


def through_pipe(path: Path, **options: Any) -> np.ndarray:
    """What a reader gets of a file that another thread writes into a pipe, a few bytes at a time."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe, path.open("rb") as file:
            while data := file.read(3001):
                pipe.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reading, "rb", buffering=0) as pipe, stream_audio(pipe, **options) as stream:
        samples = np.concatenate(list(stream))
    thread.join()
    return samples


def likeness(samples: np.ndarray) -> float:
    """The highest correlation with ``SPEECH``, at any delay that an encoder may have."""
    short = SPEECH[4_000:20_000]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(samples, 4_000), len(short))[5_000:11_000:2]
    products = windows @ short
    return float((products / np.linalg.norm(windows, axis=1) / np.linalg.norm(short)).max())


EXACT: dict[str, tuple[Callable[..., Path], tuple[Any, ...], float]] = {
    "u8.wav": (by_soundfile, ("PCM_U8",), 8e-3),
    "s16.wav": (by_soundfile, ("PCM_16",), 4e-5),
    "s24.wav": (by_soundfile, ("PCM_24",), 2e-7),
    "s32.wav": (by_soundfile, ("PCM_32",), 1e-8),
    "f32.wav": (by_soundfile, ("FLOAT",), 0),
    "f64.wav": (by_soundfile, ("DOUBLE",), 0),
    "alaw.wav": (by_soundfile, ("ALAW",), 2e-2),
    "mulaw.wav": (by_soundfile, ("ULAW",), 2e-2),
    "extensible.wav": (by_soundfile, ("PCM_24", "WAVEX"), 2e-7),
    "rf64.wav": (by_soundfile, ("PCM_16", "RF64"), 4e-5),
    "a.w64": (by_soundfile, ("PCM_24",), 2e-7),
    "s8.aiff": (by_soundfile, ("PCM_S8",), 8e-3),
    "s16.aiff": (by_soundfile, ("PCM_16",), 4e-5),
    "s24.aiff": (by_soundfile, ("PCM_24",), 2e-7),
    "f32.aifc": (by_soundfile, ("FLOAT", "AIFF"), 0),
    "f64.aifc": (by_soundfile, ("DOUBLE", "AIFF"), 0),
    "sowt.aifc": (by_soundfile, ("PCM_16", "AIFF", "LITTLE"), 4e-5),
    "mulaw.aifc": (by_soundfile, ("ULAW", "AIFF"), 2e-2),
    "s16.caf": (by_soundfile, ("PCM_16",), 4e-5),
    "little.caf": (by_soundfile, ("PCM_24", "CAF", "LITTLE"), 2e-7),
    "f32.caf": (by_soundfile, ("FLOAT",), 0),
    "alaw.caf": (by_soundfile, ("ALAW",), 2e-2),
    "s16.au": (by_soundfile, ("PCM_16",), 4e-5),
    "f32.au": (by_soundfile, ("FLOAT",), 0),
    "little.au": (by_soundfile, ("PCM_16", "AU", "LITTLE"), 4e-5),
    "a.flac": (by_soundfile, ("PCM_24",), 2e-7),
    "a.nist": (by_soundfile, ("PCM_16",), 4e-5),
    "a.voc": (by_soundfile, ("PCM_16",), 4e-5),
    "a.mat": (by_soundfile, ("PCM_16", "MAT5"), 4e-5),
    "flac.mkv": (by_ffmpeg, ("flac",), 4e-5),
    "a.wv": (by_ffmpeg, ("wavpack",), 8e-3),
    "a.tta": (by_ffmpeg, ("tta",), 8e-3),
}
CLOSE: dict[str, tuple[Callable[..., Path], tuple[Any, ...], dict[str, Any]]] = {
    "ms.wav": (by_soundfile, ("MS_ADPCM",), {}),
    "ima.wav": (by_soundfile, ("IMA_ADPCM",), {}),
    "gsm.wav": (by_soundfile, ("GSM610",), {}),
    "ima.caf": (by_ffmpeg, ("adpcm_ima_qt", 16_000, "caf"), {}),
    "vorbis.ogg": (by_soundfile, ("VORBIS",), {}),
    "opus.ogg": (by_soundfile, ("OPUS", "OGG"), {}),
    "a.mp3": (by_soundfile, ("MPEG_LAYER_III",), {}),
    "end.m4a": (by_ffmpeg, ("aac",), {}),
    "start.m4a": (by_ffmpeg, ("aac",), {"movflags": "faststart"}),
    "pieces.mp4": (by_ffmpeg, ("aac",), {"movflags": "frag_keyframe+empty_moov"}),
    "a.mov": (by_ffmpeg, ("aac",), {}),
    "a.aac": (by_ffmpeg, ("aac", 16_000, "adts"), {}),
    "a.webm": (by_ffmpeg, ("libopus", 48_000), {}),
    "a.mkv": (by_ffmpeg, ("aac",), {}),
    "a.wma": (by_ffmpeg, ("wmav2", 44_100), {}),
    "a.ts": (by_ffmpeg, ("mp2",), {}),
    "a.ac3": (by_ffmpeg, ("ac3", 48_000), {}),
    "a.flv": (by_ffmpeg, ("aac", 44_100), {}),
    "a.avi": (by_ffmpeg, ("mp2", 48_000), {}),
}


@pytest.mark.parametrize("name", EXACT)
def test_formats_without_loss(tmp_path: Path, name: str) -> None:
    """To the rounding of the format; through a pipe to the last bit what the file gives. Names play no part."""
    make, arguments, tolerance = EXACT[name]
    path = make(tmp_path / name, *arguments)
    samples = load_audio(path.rename(tmp_path / "recording"))
    assert len(samples) == len(SPEECH)
    assert np.abs(samples - SPEECH).max() <= tolerance
    np.testing.assert_array_equal(through_pipe(tmp_path / "recording"), samples)


@pytest.mark.parametrize("name", CLOSE)
def test_formats_with_loss(tmp_path: Path, name: str) -> None:
    """The same speech; through a pipe to the last bit what the file gives. Names play no part."""
    make, arguments, options = CLOSE[name]
    path = make(tmp_path / name, *arguments, **options)
    samples = load_audio(path.rename(tmp_path / "recording"))
    assert len(SPEECH) - 1600 <= len(samples) <= len(SPEECH) + 3200
    assert likeness(samples) > 0.9
    np.testing.assert_array_equal(through_pipe(tmp_path / "recording"), samples)


def test_eight_channels(tmp_path: Path) -> None:
    """What PyAV's own array of such a frame reads beyond the end of, and crashes."""
    with av.open(str(tmp_path / "a.mka"), "w") as file:
        stream = file.add_stream("aac", rate=48_000, layout="7.1")
        stream.bit_rate = 512_000
        data = np.repeat(np.repeat(SPEECH, 3)[None], 8, axis=0).T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), format="flt", layout="7.1")
        frame.rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
        converter = av.AudioResampler("fltp", "7.1", 48_000, frame_size=stream.frame_size)
        for converted in [*converter.resample(frame), *converter.resample(None)]:
            file.mux(stream.encode(converted))
        file.mux(stream.encode(None))
    assert likeness(load_audio(tmp_path / "a.mka", channel=1)) > 0.9
    assert likeness(load_audio(tmp_path / "a.mka", channel=8)) > 0.9


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_raw_encodings(tmp_path: Path, encoding: str) -> None:
    """Each is what libsndfile makes of it, of every value of one byte or of random bytes."""
    subtype = {"u8": "PCM_U8", "s8": "PCM_S8", "alaw": "ALAW", "mulaw": "ULAW"}.get(encoding)
    kind = {"s": "PCM_", "f": ""}.get(encoding[0], "") + encoding[1:3]
    subtype = subtype or {"32": "FLOAT", "64": "DOUBLE"}.get(kind, kind)
    data = np.arange(256, dtype=np.uint8).tobytes()
    if subtype in ("FLOAT", "DOUBLE"):
        order = ">" if encoding.endswith("be") else "<"
        data = np.linspace(-1, 1, 66).astype(order + {"FLOAT": "f4", "DOUBLE": "f8"}[subtype]).tobytes()
    endian = "BIG" if encoding.endswith("be") else "LITTLE"
    data = data[: len(data) // 24 * 24]
    expected, _ = soundfile.read(
        io.BytesIO(data), format="RAW", samplerate=16_000, channels=1, subtype=subtype, endian=endian, dtype="float32"
    )
    raw = RawFormat(encoding)
    with stream_audio(io.BytesIO(data), raw=raw) as stream:
        np.testing.assert_array_equal(np.concatenate(list(stream)), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("s20le",), "Expected raw samples as one of u8, s8, s16le, .*, got 's20le'"),
        (("s16le", 10), "Expected a raw rate of 1000 to 768000 Hz, got 10"),
        (("s16le", 16_000, 0), "Expected 1 to 64 raw channels, got 0"),
    ],
)
def test_raw_formats_that_are_none(arguments: tuple[Any, ...], message: str) -> None:
    """Said before anything is read."""
    with pytest.raises(ValueError, match=f"^{message}$"):
        RawFormat(*arguments)


# channels


def test_choice_of_a_channel(tmp_path: Path) -> None:
    """One of them, as it stands in the file, or the mean of all; a NaN in another does not matter."""
    samples = np.stack([SPEECH, np.full_like(SPEECH, np.nan)], axis=1)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav", channel=1), SPEECH)
    samples[:, 1] = SPEECH / 2
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(load_audio(tmp_path / "a.wav", channel=2), SPEECH / 2)
    np.testing.assert_allclose(load_audio(tmp_path / "a.wav"), SPEECH * 0.75, atol=1e-7)
    source = FileSource(tmp_path / "a.wav", fast=True, channel=2)
    np.testing.assert_array_equal(source.read(), SPEECH[:640] / 2)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.nist", "a.tta"])
def test_channel_that_is_missing(tmp_path: Path, name: str) -> None:
    """Whoever decodes it."""
    make, arguments, _ = EXACT[name if name in EXACT else "s16.wav"]
    path = make(tmp_path / name, *arguments)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} has 1 channel: there is no channel 2$"):
        load_audio(path, channel=2)


def test_channels_count_from_one() -> None:
    """0 is none."""
    with pytest.raises(ValueError, match=r"^Expected a channel from 1 on, got 0$"):
        stream_audio(io.BytesIO(), channel=0)


# what is no recording


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not a recording; it looks like a PNG picture"),
        (b"PK\x03\x04" + bytes(100), "is not a recording; it looks like a ZIP archive (or an office document)"),
        (b"\x1f\x8b\x08" + bytes(100), "is not a recording; it looks like gzip-compressed; unpack it first"),
        (b"#EXTM3U\nfile:///etc/passwd\n", "is not a recording; it looks like a playlist: a list of files"),
        (b"ffconcat version 1.0\nfile a.wav\n", "is not a recording; it looks like text"),
        ("Größe".encode() * 2000, "is not a recording; it looks like text"),
        (
            bytes(10_000),
            "begins with zeros: raw samples need --raw and their encoding, for example --raw s16le "
            "(from Python: raw=RawFormat())",
        ),
        (
            np.random.default_rng(0).bytes(20_000),
            "is in no known audio format: raw samples need --raw and their encoding, for example --raw s16le "
            "(from Python: raw=RawFormat())",
        ),
    ],
)
def test_what_is_no_recording(data: bytes, what: str) -> None:
    """Named in one line, never played as noise."""
    with pytest.raises(ValueError, match=f"^the stream {re.escape(what)}$"):
        stream_audio(io.BytesIO(data))


def test_random_bytes_are_never_played() -> None:
    """Neither are samples of speech, wherever they begin."""
    generator = np.random.default_rng(1)
    speech = (SPEECH * 32767).astype("<i2").tobytes()
    for _ in range(200):
        at = int(generator.integers(len(speech) - 20_000))
        for data in (generator.bytes(10_000), speech[at : at + 10_000]):
            with pytest.raises(ValueError, match=r"^the stream "):
                stream_audio(io.BytesIO(data))


def test_picture_without_sound(tmp_path: Path) -> None:
    """A film that is silent."""
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        file.mux(stream.encode(None))
    message = f"{tmp_path / 'a.mp4'} has no audio track that FFmpeg decodes"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_audio(tmp_path / "a.mp4")


def test_stdin_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed, whatever its number stands for by then; and a terminal, on which nobody types sound."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr("os.isatty", lambda number: True)
    with pytest.raises(ValueError, match=r"^Standard input is a terminal; pipe a recording into it, or name a file$"):
        stream_audio("-")
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ValueError, match=r"^Standard input is closed; pipe a recording into it, or name a file$"):
        stream_audio("-")


def test_pipe_that_is_too_large_to_be_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A format that must be whole: the copy of a pipe is bounded."""
    monkeypatch.setattr("mlx_gemma4.inputs.audio.byte_input.MOST_SPOOLED", 1 << 10)
    path = by_ffmpeg(tmp_path / "a.m4a", "aac")
    assert load_audio(path).size
    message = "the stream is in a format that must be read as a whole, but is larger than 0 GB; save it as a file first"
    with path.open("rb") as file, pytest.raises(ValueError, match=f"^{message}$"):
        stream_audio(io.BytesIO(file.read()))


# headers that cost too much


def wav_header(rate: int, channels: int, size: int) -> bytes:
    layout = struct.pack("<IHHIIHH", 16, 1, channels, rate, 0, 0, 16)
    return b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt " + layout + b"data" + struct.pack("<I", size)


@pytest.mark.parametrize(
    ("rate", "channels", "message"),
    [
        (1, 1, "says its sample rate is 1 Hz: expected 1000 to 768000 Hz; its header is damaged, "),
        (10**9, 1, r"says its sample rate is 1e\+09 Hz: expected 1000 to 768000 Hz; its header is damaged, "),
        (16_000, 65_535, "says it has 65535 channels: expected 1 to 64; export it with fewer channels"),
        (16_000, 0, "says it has 0 channels: expected 1 to 64; "),
    ],
)
def test_rates_and_channels_that_no_recording_has(rate: int, channels: int, message: str) -> None:
    """One second at 1 Hz would become 16,000 samples for each of its own."""
    with pytest.raises(ValueError, match=f"^the stream {message}"):
        stream_audio(io.BytesIO(wav_header(rate, channels, 16_000) + bytes(16_000)))


def test_a_limit_ends_the_decoding(tmp_path: Path) -> None:
    """A small file of ten minutes is not decoded to find out that it is longer than 30 s."""
    soundfile.write(tmp_path / "a.flac", np.zeros(16_000 * 600, np.int16), 16_000)
    samples = load_audio(tmp_path / "a.flac", limit=30)
    assert 30 * 16_000 < len(samples) < 31 * 16_000


def test_promises_are_not_believed() -> None:
    """A header that announces gigabytes reserves none of them."""
    with (
        stream_audio(io.BytesIO(wav_header(16_000, 1, 0x7FFE_0000) + SPEECH.astype("<i2").tobytes())) as stream,
        pytest.raises(ValueError, match=r"^the stream is cut short: its header says 67104\.77 s of sound, there are "),
    ):
        assert sum(map(len, stream)) == len(SPEECH)


def test_a_tag_is_passed_over(tmp_path: Path) -> None:
    """ID3 in front of anything, as podcasts and HLS have it."""
    path = by_ffmpeg(tmp_path / "a.aac", "aac", 16_000, "adts")
    expected = load_audio(path)
    path.write_bytes((b"ID3\x04\x00\x00" + bytes([0, 0, 2, 0]) + bytes(256)) * 2 + path.read_bytes())
    np.testing.assert_array_equal(load_audio(path), expected)


def test_stream_that_is_joined_within_a_frame(tmp_path: Path) -> None:
    """As a radio station's is."""
    path = by_soundfile(tmp_path / "a.mp3", "MPEG_LAYER_III")
    path.write_bytes(path.read_bytes()[1500:])
    assert likeness(np.pad(load_audio(path), (4_000, 0))) > 0.9


def test_damage_is_told_behind_what_was_decoded(tmp_path: Path) -> None:
    """Half of a FLAC is random: what decodes comes, then the error."""
    path = by_soundfile(tmp_path / "a.flac", "PCM_16")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    blocks = []
    with stream_audio(path) as stream, pytest.raises(ValueError, match=rf"^{re.escape(str(path))} is "):
        blocks.extend(stream)
    assert np.abs(np.concatenate(blocks)[:4_000] - SPEECH[:4_000]).max() < 1e-4
