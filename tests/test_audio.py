"""Sound in: files of every kind, broken ones too, frames, and where long sound is cut."""

from __future__ import annotations

import random
import re
import struct
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_cases import media_file

from mlx_gemma4.inputs.audio.frames import Framer, cut_point, split_audio, to_frames
from mlx_gemma4.inputs.audio.recording import Resampler, load_audio


def sine(count: int, rate: int = 16_000, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * 440 * np.arange(count) / rate)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = 16_000, **options: Any) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def cut_to(path: Path, count: int) -> Path:
    path.write_bytes(path.read_bytes()[:count])
    return path


def wav(data: bytes, *, size: int, riff: int) -> bytes:
    """16 kHz mono s16le under a header with the sizes of one's choice."""
    layout = struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    return b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + layout + b"data" + struct.pack("<I", size) + data


# frames


@pytest.mark.parametrize(("samples", "count"), [(0, 0), (1, 1), (639, 1), (640, 1), (641, 2), (1280, 2), (1281, 3)])
def test_frame_count(samples: int, count: int) -> None:
    """n samples are ceil(n / 640) frames."""
    assert to_frames(np.ones(samples, np.float32), 640).shape == (count, 640)


def test_frames_hold_the_samples_in_order_and_zeros_after_them() -> None:
    """The last frame is padded with zeros, nothing else is."""
    assert to_frames(np.arange(1, 6, dtype=np.float32), 3).tolist() == [[1, 2, 3], [4, 5, 0]]


@given(st.lists(st.integers(0, 1500), max_size=12))
def test_framer_in_any_pieces_is_the_whole(sizes: list[int]) -> None:
    """However sound is cut on its way in, the frames are those of the whole."""
    samples = np.random.default_rng(sum(sizes)).standard_normal(sum(sizes)).astype(np.float32)
    framer = Framer(640)
    pieces = np.split(samples, np.cumsum(sizes)[:-1]) if sizes else []
    got = np.concatenate([*map(framer.push, pieces), framer.flush()])
    assert np.array_equal(got, to_frames(samples, 640))


def test_framer_hands_a_frame_over_when_it_is_complete() -> None:
    """Not a sample earlier, not a sample later."""
    framer = Framer(4)
    assert framer.push(np.array([1.0, 2, 3])).tolist() == []
    assert framer.push(np.array([4.0, 5])).tolist() == [[1, 2, 3, 4]]
    assert framer.flush().tolist() == [[5, 0, 0, 0]]
    assert framer.flush().tolist() == []


# cuts


def test_cut_is_in_the_quietest_pause_and_not_at_a_single_quiet_frame() -> None:
    """120 ms of near silence are a pause; 40 ms of silence are a stop consonant."""
    speech = np.ones((100, 640), np.float32)
    speech[60] = 0
    speech[80:83] = 0.1
    assert cut_point(speech) == 82


def test_cut_is_looked_for_in_the_last_two_seconds_only() -> None:
    """A better pause further back would leave too much for the next stretch."""
    speech = np.ones((100, 640), np.float32)
    speech[46:49] = 0
    speech[70:73] = 0.5
    assert cut_point(speech) == 72
    speech[50:53] = 0.1
    assert cut_point(speech) == 52


@pytest.mark.parametrize("count", [1, 2])
def test_cut_of_less_than_a_pause_takes_all(count: int) -> None:
    """There is nothing to choose from in one or two frames."""
    assert cut_point(np.ones((count, 640), np.float32)) == count


def test_split_cuts_at_the_pauses() -> None:
    """Each cut is the cut point of the longest segment that could have been."""
    speech = np.ones((250, 640), np.float32)
    speech[90:93] = speech[170:173] = 0
    assert list(split_audio(speech.reshape(-1)[:-100], 640, 100)) == [
        (0, 92 * 640),
        (92 * 640, 172 * 640),
        (172 * 640, 250 * 640 - 100),
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_split_covers_everything_once_in_order(count: int, max_frames: int, seed: int) -> None:
    """No sample is lost or read twice, and no segment is too long."""
    samples = np.random.default_rng(seed).standard_normal(count).astype(np.float32)
    spans = list(split_audio(samples, 16, max_frames))
    assert spans[0][0] == 0 and spans[-1][1] == count
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert all(0 < end - start <= 16 * max_frames for start, end in spans)
    assert all(start % 16 == 0 for start, _ in spans)


def test_split_needs_a_length() -> None:
    """Segments of no frames would never end."""
    with pytest.raises(ValueError, match=r"^Expected max_frames of 1 or more, got 0$"):
        list(split_audio(np.ones(10, np.float32), 640, 0))


# arrays


def test_float_array_is_taken_as_it_is() -> None:
    """Samples already at 16 kHz keep their values, as float32."""
    got = load_audio(np.array([0.5, -1.0, 0.1]))
    assert got.dtype == np.float32
    assert np.array_equal(got, np.array([0.5, -1.0, 0.1], np.float32))


def test_int16_array_is_scaled() -> None:
    """-32768 becomes -1."""
    assert load_audio(np.array([-32768, 16384, 0, 1], np.int16)).tolist() == [-1, 0.5, 0, 2**-15]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            np.zeros((2, 3), np.float32),
            "Expected float or int16 samples [n] at 16000 Hz in the array, got float32 [2, 3]",
        ),
        (np.zeros((1, 3), np.int16), "Expected float or int16 samples [n] at 16000 Hz in the array, got int16 [1, 3]"),
        (np.zeros(3, np.int32), "Expected float or int16 samples [n] at 16000 Hz in the array, got int32 [3]"),
        (np.zeros(0, np.float32), "There is no sound in the array: 0 samples"),
        (np.array([0, np.nan]), "Expected finite samples in the array, got nan at sample 1"),
        (np.array([0, 0, -np.inf]), "Expected finite samples in the array, got -inf at sample 2"),
        (np.array([1e300]), "Expected finite samples in the array, got inf at sample 0"),
    ],
)
def test_array_that_is_no_sound(samples: np.ndarray, message: str) -> None:
    """Wrong shape, wrong type, nothing, and numbers that are none."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_audio(samples)


# files


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_keeps_a_tone(tmp_path: Path, rate: int) -> None:
    """440 Hz in stereo at any rate is the same 440 Hz at 16 kHz; the channels are averaged."""
    tone = sine(rate, rate, 1.0)
    path = write(tmp_path / "tone.wav", np.stack([0.2 * tone, 0.6 * tone], axis=1), rate, subtype="FLOAT")
    got = load_audio(path)
    assert len(got) == 16_000
    assert np.abs(got - sine(16_000, amplitude=0.4))[400:-400].max() < 1e-4


def test_sound_at_16_khz_is_not_touched(tmp_path: Path) -> None:
    """The mean of two channels, sample by sample."""
    path = write(tmp_path / "two.wav", np.array([[0.5, 0.0], [-0.5, 0.25], [1.0, 1.0]]), subtype="FLOAT")
    assert load_audio(path).tolist() == [0.25, -0.125, 1.0]


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_U8", 1e-2),
        ("a.wav", "PCM_16", 4e-5),
        ("a.wav", "PCM_24", 2e-7),
        ("a.wav", "FLOAT", 0),
        ("a.flac", "PCM_16", 4e-5),
        ("a.aiff", "PCM_16", 4e-5),
        ("a.caf", "PCM_16", 4e-5),
        ("a.ogg", "VORBIS", 0.05),
        ("a.mp3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_formats(tmp_path: Path, name: str, subtype: str, tolerance: float) -> None:
    """Each format gives the sound that was written into it."""
    path = write(tmp_path / name, sine(8000), subtype=subtype)
    got = load_audio(path)
    assert len(got) == 8000
    assert np.abs(got - sine(8000)).max() <= tolerance


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFF00, 0x80000000, 0xFFFFFFFF])
@pytest.mark.parametrize("riff", [0, 36, 0xFFFFFFFF])
def test_wav_from_a_pipe_tells_no_size(tmp_path: Path, size: int, riff: int) -> None:
    """What gstreamer, sox, arecord and ffmpeg leave in the header when they cannot go back to it."""
    samples = (sine(1000) * 32767).astype("<i2")
    path = tmp_path / "pipe.wav"
    path.write_bytes(wav(samples.tobytes(), size=size, riff=riff))
    assert np.array_equal(load_audio(path), samples.astype(np.float32) / 32768)


def test_no_such_file(tmp_path: Path) -> None:
    """A folder is no file either."""
    with pytest.raises(ValueError, match=f"^There is no audio file {re.escape(str(tmp_path / 'absent.wav'))}$"):
        load_audio(tmp_path / "absent.wav")
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path))} is a folder, not an audio file$"):
        load_audio(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    """0 bytes."""
    path = tmp_path / "empty.wav"
    path.touch()
    with pytest.raises(ValueError, match=r"empty\.wav is empty, not a recording$"):
        load_audio(path)


@pytest.mark.parametrize("name", ["text.wav", "text.mp3", "text"])
def test_text_is_no_sound(tmp_path: Path, name: str) -> None:
    """The name does not make a recording."""
    path = tmp_path / name
    path.write_text("This is no recording.\n" * 100)
    with pytest.raises(ValueError, match=rf"{name} is not a recording; it looks like text$"):
        load_audio(path)


@pytest.mark.parametrize(
    ("name", "promised", "found"), [("a.wav", 2000, 1956), ("a.aiff", 2000, 1946), ("a.caf", 2000, None)]
)
def test_cut_short(tmp_path: Path, name: str, promised: int, found: int | None) -> None:
    """libsndfile reads what is left without a word: the header is compared with the file."""
    path = write(tmp_path / name, sine(1000))
    size = path.stat().st_size
    cut_to(path, 2000 if found else size - 50)
    message = (
        f"{path} holds {found or promised - 50} of the {promised} bytes of sound that its header says: "
        "the file is cut short; record or fetch it again"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_audio(path)


@pytest.mark.parametrize("count", [12, 20, 36, 43])
def test_wav_that_ends_in_its_header(tmp_path: Path, count: int) -> None:
    """There is no sound to be cut short yet."""
    path = cut_to(write(tmp_path / "a.wav", sine(1000)), count)
    with pytest.raises(
        ValueError, match=f"^{re.escape(str(path))} ends before its audio data; record or fetch it again$"
    ):
        load_audio(path)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg"])
def test_compressed_and_cut_short(tmp_path: Path, name: str) -> None:
    """Half of a file is refused, by what its header says or by its last page, which is missing."""
    path = write(tmp_path / name, np.random.default_rng(0).uniform(-0.5, 0.5, 160_000))
    cut_to(path, path.stat().st_size // 2)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} is cut short: "):
        load_audio(path)


def test_wav_without_samples(tmp_path: Path) -> None:
    """A header alone is a valid file, and no sound."""
    path = write(tmp_path / "zero.wav", sine(0))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} holds no sound: 0 samples$"):
        load_audio(path)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_wav_with_numbers_that_are_none(tmp_path: Path, value: float, word: str) -> None:
    """The sample is named as it stands in the file, before channels are mixed and rates changed."""
    samples = np.zeros((100, 2), np.float32)
    samples[70] = [value, -value]
    path = write(tmp_path / "nan.wav", samples, 48_000, subtype="FLOAT")
    message = f"Expected finite samples in {path}, got {word} at sample 70"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_audio(path)


# MP3s: their length stands in a Xing frame, or nowhere


def without_length(path: Path) -> bytes:
    """An MP3's frames without the first, the one that tells how many follow."""
    data = path.read_bytes()
    assert b"Xing" in data[:200] or b"Info" in data[:200]
    return data[data.index(data[:2], 100) :]


def test_mp3_cut_short(tmp_path: Path) -> None:
    """Its first frame tells how long it should have been."""
    path = write(tmp_path / "a.mp3", np.tile(load_audio(media_file("pico-04.wav")), 2))
    cut_to(path, path.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"a\.mp3 is cut short: its header says .* record or fetch it again$"):
        load_audio(path)


def test_mp3_without_a_length_and_with_a_large_tag(tmp_path: Path) -> None:
    """A tag in front, cover art included, is passed over."""
    path = write(tmp_path / "a.mp3", sine(32_000), bitrate_mode="CONSTANT", compression_level=0.5)
    path.write_bytes(b"ID3\x04\x00\x00" + bytes([0, 4, 0, 0]) + bytes(4 << 14) + without_length(path))
    got = load_audio(path)
    assert len(got) >= 32_000
    assert np.abs(np.fft.rfft(got[:32_000])).argmax() == 880  # 440 Hz in two seconds


def test_mp3_whose_frames_shrink(tmp_path: Path) -> None:
    """Loud frames first, small ones after: its length is not guessed from its bytes, and all of it is read."""
    sound = np.concatenate([np.random.default_rng(0).uniform(-1, 1, 16_000), np.zeros(64_000)])
    path = write(tmp_path / "a.mp3", sound, bitrate_mode="VARIABLE")
    path.write_bytes(without_length(path))
    assert len(load_audio(path)) >= 80_000


def test_mp3_after_an_mp3(tmp_path: Path) -> None:
    """Two recordings in one file are read one after the other."""
    path = write(tmp_path / "a.mp3", sine(64_000))
    path.write_bytes(path.read_bytes() * 2)
    assert len(load_audio(path)) >= 128_000


@pytest.mark.parametrize("count", range(5000, 7000, 97))
def test_mp3_of_any_length(tmp_path: Path, count: int) -> None:
    """A last frame that is all padding is not mistaken for more sound."""
    assert len(load_audio(write(tmp_path / "a.mp3", sine(count)))) == count


# broken files


@pytest.mark.parametrize("name", ["a.wav", "f.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff"])
def test_truncated_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    """Cut anywhere, a file raises ValueError or gives sound: never anything else."""
    data = write(tmp_path / name, load_audio(media_file("pico-04.wav"))[8000:9600], **_subtype(name)).read_bytes()
    for count in range(0, len(data), max(50, len(data) // 60)):
        assert _refused_or_finite(tmp_path / name, data[:count])


@pytest.mark.parametrize("name", ["a.wav", "f.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff"])
def test_damaged_files_are_read_or_refused(tmp_path: Path, name: str) -> None:
    """With bytes changed, more often near the start, a file raises ValueError or gives sound."""
    data = write(tmp_path / name, load_audio(media_file("pico-04.wav"))[8000:9600], **_subtype(name)).read_bytes()
    source = random.Random(name)
    for _ in range(80):
        damaged = bytearray(data)
        for _ in range(source.choice([1, 3, 10])):
            damaged[source.randrange(source.choice([100, len(data)]))] = source.randrange(256)
        assert _refused_or_finite(tmp_path / name, bytes(damaged))


def _subtype(name: str) -> dict[str, str]:
    return {"subtype": "FLOAT"} if name == "f.wav" else {}


def _refused_or_finite(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        samples = load_audio(path)
    except ValueError as error:
        return str(path) in str(error) and "\n" not in str(error)
    return len(samples) > 0 and bool(np.isfinite(samples).all())


# resampling


@pytest.mark.parametrize("rates", [[8_000], [16_000], [44_100, 44_100], [8_000, 16_000, 48_000], [48_000, 8_000]])
def test_a_resampler_gives_each_rate_its_whole_sound(rates: list[int]) -> None:
    """In blocks of any size: where the rate changes, what was held back comes before the new sound."""
    noise = np.random.default_rng(0)
    resampler, found, expected = Resampler(), [], []
    for rate, same in groupby(rates):
        sound = noise.normal(0, 0.1, rate * len(list(same)) // 10).astype(np.float32)
        found += [resampler.push(block, rate) for block in np.array_split(sound, 7)]
        expected.append(sound if rate == 16_000 else soxr.resample(sound, rate, 16_000))
    found.append(resampler.finish())
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(expected), atol=1e-6)
    assert len(resampler.finish()) == 0
