"""Where sound comes from: a recording at its own pace, a pipe; no clock is needed."""

from __future__ import annotations

import io
import os
import re
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_gemma4.inputs.audio.pcm import RawFormat
from mlx_gemma4.inputs.audio.recording import load_audio
from mlx_gemma4.live.hear.sources import FileSource, PipeSource, Source, open_recording


class Clock:
    """Time that passes only when someone sleeps or takes long."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def ramp(count: int) -> np.ndarray:
    """Samples that are all different, and exact in 16 bits."""
    return (np.arange(count) % 30_000).astype("<i2")


def as_float(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float32) / 32768


def recording(folder: Path, count: int) -> Path:
    soundfile.write(folder / "a.wav", ramp(count), 16_000)
    return folder / "a.wav"


def drain(source: Source) -> list[np.ndarray]:
    blocks = []
    while (block := source.read()) is not None:
        blocks.append(block)
    return blocks


def wav(samples: np.ndarray, rate: int = 16_000, *, size: int | None = None, before: bytes = b"") -> bytes:
    """A 16-bit WAV of samples [n, channels], with a data size and chunks of one's choice."""
    data = samples.astype("<i2").tobytes()
    channels = samples.shape[1]
    layout = struct.pack("<IHHIIHH", 16, 1, channels, rate, 2 * rate * channels, 2 * channels, 16)
    length = struct.pack("<I", len(data) if size is None else size)
    return b"RIFF" + b"\xff" * 4 + b"WAVEfmt " + layout + before + b"data" + length + data


# a recording


def test_recording_comes_at_its_own_pace(tmp_path: Path) -> None:
    """A quick reader gets 40 ms every 40 ms, and the rest at the end."""
    clock = Clock()
    source = FileSource(recording(tmp_path, 1500), clock=clock, sleep=clock.sleep)
    blocks, times = [], []
    while (block := source.read()) is not None:
        blocks.append(block)
        times.append(clock.now - 1000)
    assert [len(block) for block in blocks] == [640, 640, 220]
    assert times == pytest.approx([0.04, 0.08, 1500 / 16_000])
    assert np.array_equal(np.concatenate(blocks), as_float(ramp(1500)))


def test_slow_reader_gets_all_that_has_arrived(tmp_path: Path) -> None:
    """While the model was busy for 100 ms, two more blocks were spoken: they come at once, without waiting."""
    clock = Clock()
    source = FileSource(recording(tmp_path, 16_000), clock=clock, sleep=clock.sleep)
    assert len(source.read()) == 640
    clock.now += 0.101
    before = clock.now
    assert len(source.read()) == 2 * 640
    assert clock.now == before
    assert len(source.read()) == 640


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20_000), st.lists(st.floats(0, 0.5), max_size=40))
def test_nothing_comes_before_it_was_spoken(
    tmp_path_factory: pytest.TempPathFactory, count: int, pauses: list[float]
) -> None:
    """However slow the reader is: never too early, everything once, in order."""
    clock = Clock()
    source = FileSource(recording(tmp_path_factory.mktemp("a"), count), clock=clock, sleep=clock.sleep)
    got = np.zeros(0, np.float32)
    waiting = iter(pauses)
    while (block := source.read()) is not None:
        got = np.concatenate([got, block])
        assert len(got) / 16_000 <= clock.now - 1000 + 1e-6
        clock.now += next(waiting, 0)
    assert np.array_equal(got, as_float(ramp(count)))


def test_fast_recording_does_not_wait(tmp_path: Path) -> None:
    """Block by block, and no one looks at the clock."""

    def never() -> float:
        pytest.fail("the clock was read")

    source = FileSource(recording(tmp_path, 1500), fast=True, clock=never, sleep=lambda seconds: pytest.fail("slept"))
    blocks = drain(source)
    assert [len(block) for block in blocks] == [640, 640, 220]
    assert np.array_equal(np.concatenate(blocks), as_float(ramp(1500)))


def test_stopped_recording_ends_with_what_was_spoken(tmp_path: Path) -> None:
    """Stopped 100 ms after the last read: those 100 ms are still handed over, what follows is not."""
    clock = Clock()
    source = FileSource(recording(tmp_path, 16_000), clock=clock, sleep=clock.sleep)
    first = source.read()
    clock.now += 0.1
    source.stop()
    clock.now += 5
    got = np.concatenate([first, *drain(source)])
    assert len(got) == pytest.approx(640 + 1600, abs=1)
    assert np.array_equal(got, as_float(ramp(16_000))[: len(got)])


@pytest.mark.parametrize("fast", [True, False])
def test_recording_stopped_before_it_began(tmp_path: Path, fast: bool) -> None:
    """Nothing was spoken."""
    source = FileSource(recording(tmp_path, 16_000), fast=fast)
    source.stop()
    assert drain(source) == []


def test_stopped_fast_recording(tmp_path: Path) -> None:
    """Without a pace, what was read is what was spoken."""
    source = FileSource(recording(tmp_path, 16_000), fast=True)
    source.read()
    source.stop()
    assert drain(source) == []


def test_recording_that_is_damaged_on_its_way(tmp_path: Path) -> None:
    """It is decoded while it is played: what comes before is heard, then the sound ends with a problem."""
    samples = np.zeros(100_000, np.float32)
    samples[90_000] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    source = FileSource(tmp_path / "a.wav", fast=True)
    assert sum(map(len, drain(source))) == 90_000
    assert source.problem == f"Expected finite samples in {tmp_path / 'a.wav'}, got nan at sample 90000"


def test_reader_that_was_away_for_long_gets_a_bounded_block(tmp_path: Path) -> None:
    """At most 30 s at once, the rest on the next reads."""
    clock = Clock()
    source = FileSource(recording(tmp_path, 16_000 * 80), clock=clock, sleep=clock.sleep)
    source.read()
    clock.now += 100
    assert [len(block) for block in drain(source)] == [480_640, 480_640, 318_080]


# a pipe


class Trickle(io.RawIOBase):
    """A stream that hands over a byte at a time, however many are asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(1 if size else 0)


@pytest.mark.parametrize("stream", [io.BytesIO, Trickle])
def test_raw_pipe(stream: Callable[[bytes], Any]) -> None:
    """Samples without a header, of which the caller says what they are: none of the beginning is lost."""
    blocks = drain(PipeSource(stream(ramp(1500).tobytes()), raw=RawFormat()))
    assert np.array_equal(np.concatenate(blocks), as_float(ramp(1500)))


@pytest.mark.parametrize(("data", "samples"), [(b"\x00\x40\x01", [0.5]), (b"\x00\x80", [-1.0])])
def test_short_raw_pipe(data: bytes, samples: list[float]) -> None:
    """Half a sample at the end is none."""
    got = [value for block in drain(PipeSource(io.BytesIO(data), raw=RawFormat())) for value in block.tolist()]
    assert got == samples


@pytest.mark.parametrize("data", [b"", b"\x01"])
def test_pipe_without_a_sample(data: bytes) -> None:
    """The sound ends with a problem: whoever should have written some did not."""
    source = PipeSource(io.BytesIO(data), raw=RawFormat())
    assert source.read() is None
    assert source.problem == "the stream holds no sound: 0 samples"


@pytest.mark.parametrize("stream", [io.BytesIO, Trickle])
@pytest.mark.parametrize("size", [None, 0, 0x7FFFF000, 0xFFFFFFFF])
def test_wav_pipe(stream: Callable[[bytes], Any], size: int | None) -> None:
    """A WAV at 16 kHz, whether or not its writer knew how long it would be."""
    source = PipeSource(stream(wav(ramp(1500)[:, None], size=size)))
    assert np.array_equal(np.concatenate(drain(source)), as_float(ramp(1500)))
    assert source.problem is None


def test_wav_pipe_with_other_chunks() -> None:
    """Tags before the sound and after it are not heard."""
    tag = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    data = wav(ramp(700)[:, None], before=tag) + b"LIST" + struct.pack("<I", 4000) + bytes(4000)
    assert np.array_equal(np.concatenate(drain(PipeSource(io.BytesIO(data)))), as_float(ramp(700)))


def test_stereo_wav_pipe() -> None:
    """The mean of the channels."""
    samples = np.stack([ramp(1000), 2 * ramp(1000)], axis=1)
    got = np.concatenate(drain(PipeSource(io.BytesIO(wav(samples)))))
    assert np.array_equal(got, as_float(samples).mean(axis=1))


def test_wav_pipe_in_the_extensible_layout() -> None:
    """What ffmpeg writes for some channel layouts: the format's number stands further on."""
    layout = struct.pack("<HHIIHHHHIH", 0xFFFE, 1, 16_000, 32_000, 2, 16, 22, 16, 4, 1) + bytes(14)
    header = b"RIFF" + bytes(4) + b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + b"data" + bytes(4)
    got = np.concatenate(drain(PipeSource(io.BytesIO(header + ramp(700).tobytes()))))
    assert np.array_equal(got, as_float(ramp(700)))


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_resampled_wav_pipe_is_the_resampled_file(tmp_path: Path, rate: int) -> None:
    """A stream resampled piece by piece equals the whole resampled at once, to the end."""
    rng = np.random.default_rng(0)
    samples = (np.convolve(rng.uniform(-1, 1, rate), np.ones(16) / 16, "same") * 30_000).astype("<i2")
    data = wav(samples[:, None], rate)
    (tmp_path / "a.wav").write_bytes(data)
    whole = load_audio(tmp_path / "a.wav")
    got = np.concatenate(drain(PipeSource(io.BytesIO(data))))
    assert len(got) == len(whole) == 16_000
    assert np.abs(got - whole).max() < 1e-4


def pipe() -> tuple[io.FileIO, io.FileIO]:
    """(reading end, writing end), neither buffered."""
    reading, writing = os.pipe()
    return io.FileIO(reading, "r"), io.FileIO(writing, "w")


def when(condition: Callable[[], bool]) -> None:
    """Wait for another thread to get there."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.001)


def test_slow_reader_of_a_pipe_gets_all_that_has_arrived() -> None:
    """Not a block at a time: what came while the model was busy comes at once."""
    reading, writing = pipe()
    with reading, writing:
        writing.write(wav(ramp(640)[:, None], size=0))
        source = PipeSource(reading)
        when(lambda: source.backlog == 640 / 16_000)
        writing.write(ramp(16_000).tobytes())
        when(lambda: source.backlog == 16_640 / 16_000)
        assert np.array_equal(source.read(), as_float(np.concatenate([ramp(640), ramp(16_000)])))
        assert source.backlog == 0
        source.stop()
        writing.write(bytes(2))  # lets its thread end


def test_pipe_that_is_not_read_stops_its_writer() -> None:
    """What waits is bounded, and nothing is lost."""

    class Endless(io.RawIOBase):
        read_bytes = 0

        def read(self, size: int = -1) -> bytes:
            data = bytes(size) if self.read_bytes < 1 << 24 else b""
            self.read_bytes += len(data)
            return data

    stream = Endless()
    source = PipeSource(stream, raw=RawFormat())
    when(lambda: source.backlog >= 30)
    assert source.backlog < 33
    assert stream.read_bytes <= 2 * 16_000 * 36
    assert sum(map(len, drain(source))) == 1 << 23


def test_stopped_pipe_hands_over_what_has_arrived() -> None:
    """And then it has ended, though its writer goes on."""
    reading, writing = pipe()
    with reading, writing:
        writing.write(wav(ramp(700)[:, None], size=0))
        source = PipeSource(reading)
        when(lambda: source.backlog == 700 / 16_000)
        source.stop()
        assert np.array_equal(source.read(), as_float(ramp(700)))
        assert source.read() is None
        writing.write(bytes(2))


def test_quiet_pipe_can_be_stopped() -> None:
    """``read`` returns, though nobody writes."""
    reading, writing = pipe()
    with reading, writing:
        writing.write(wav(ramp(0)[:, None], size=0))
        source = PipeSource(reading)
        heard: list[np.ndarray | None] = []
        thread = threading.Thread(target=lambda: heard.append(source.read()))
        thread.start()
        source.stop()
        thread.join(20)
        assert heard == [None]
        writing.write(bytes(2))


def test_pipe_that_is_cut_short() -> None:
    """What came is heard; then the sound ends with a problem."""
    source = PipeSource(io.BytesIO(wav(ramp(8000)[:, None], size=32_000)))
    assert np.array_equal(np.concatenate(drain(source)), as_float(ramp(8000)))
    assert source.problem == (
        "the stream is cut short: its header says 1.00 s of sound, there are 0.50 s; record or fetch it again"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pipe_with_numbers_that_are_none(value: float) -> None:
    """What came before is heard; then the sound ends with a problem."""
    samples = np.linspace(-1, 1, 1000, dtype="<f4")
    samples[900] = value
    source = PipeSource(io.BytesIO(samples.tobytes()), raw=RawFormat("f32le"))
    assert np.array_equal(np.concatenate(drain(source)), samples[:900])
    assert source.problem == f"Expected finite samples in the stream, got {value} at sample 900"


def test_stream_that_raises() -> None:
    """An error of the caller's own stream reaches the caller, behind what came."""

    class Unplugged(io.RawIOBase):
        def __init__(self) -> None:
            self._data = io.BytesIO(ramp(500).tobytes())

        def read(self, size: int = -1) -> bytes:
            data = self._data.read(size)
            if not data:
                raise RuntimeError("unplugged")
            return data

    source = PipeSource(Unplugged(), raw=RawFormat())
    assert np.array_equal(source.read(), as_float(ramp(500)))
    with pytest.raises(RuntimeError, match=r"^unplugged$"):
        source.read()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the stream is empty, not a recording"),
        (wav(ramp(10)[:, None])[:30], "the stream ends before its audio data; record or fetch it again"),
        (b"%PDF-1.7\n", "the stream is not a recording; it looks like a PDF document"),
    ],
)
def test_pipe_that_is_no_recording(data: bytes, message: str) -> None:
    """Said at once, not when the first sound is waited for."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        PipeSource(io.BytesIO(data))


def test_named_pipe(tmp_path: Path) -> None:
    """It is heard as it arrives; a file is played."""
    os.mkfifo(tmp_path / "fifo")
    data = wav(ramp(1500)[:, None])
    writer = threading.Thread(target=(tmp_path / "fifo").write_bytes, args=(data,))
    writer.start()
    source = open_recording(tmp_path / "fifo")
    writer.join()
    assert isinstance(source, PipeSource)
    assert np.array_equal(np.concatenate(drain(source)), as_float(ramp(1500)))
    assert isinstance(open_recording(recording(tmp_path, 100)), FileSource)
