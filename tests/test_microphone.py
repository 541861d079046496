"""A microphone: what it hands over, lost sound, denied, stalled and vanished devices."""

from __future__ import annotations

import itertools
import re
import sys
import time
from threading import Timer

import numpy as np
import pytest
import soxr
from sound_device import FakeSoundDevice, PortAudioError

from mlx_gemma4.live.hear.microphone import Device, Microphone, describe, list_devices
from mlx_gemma4.live.hear.sources import BLOCK


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> FakeSoundDevice:
    module = FakeSoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def rest(microphone: Microphone) -> np.ndarray:
    """What it still hands over."""
    blocks = [np.zeros(0, np.float32)]
    while (block := microphone.read()) is not None:
        blocks.append(block)
    return np.concatenate(blocks)


# what is heard


def test_hands_over_what_was_heard(device: FakeSoundDevice) -> None:
    """Blocks from the callback's thread come together, in order, as copies; then the end."""
    device.at_start = (0.125, 0.25, 0.375)
    with Microphone("USB") as microphone:
        microphone.stop()
        heard = microphone.read()
        assert heard is not None
        assert heard.dtype == np.float32
        assert np.array_equal(heard, np.repeat(np.float32([0.125, 0.25, 0.375]), BLOCK))
        assert microphone.read() is None
        assert microphone.read() is None
        assert not device.streams[0].closed
    [stream] = device.streams
    assert stream.closed
    assert stream.options == {
        "samplerate": 16_000,
        "channels": 1,
        "blocksize": 640,
        "device": "USB",
        "dtype": "float32",
    }
    assert microphone.problem is None
    assert microphone.lost_seconds == 0


def test_channel_of_a_device(device: FakeSoundDevice) -> None:
    """An interface with its microphone in the second socket: as many channels as needed are opened, one is heard."""
    with Microphone("USB", channel=2) as microphone:
        [stream] = device.streams
        assert stream.options["channels"] == 2
        stream._callback(np.array([[0.25, 0.5]] * BLOCK, np.float32), BLOCK, None, None)
        microphone.stop()
        assert np.array_equal(microphone.read(), np.full(BLOCK, 0.5, np.float32))


def test_channel_that_a_device_lacks(device: FakeSoundDevice) -> None:
    """The message says how many were asked for."""
    device.open_errors[1] = device.open_errors[2] = PortAudioError("Invalid number of channels [PaErrorCode -9998]")
    with (
        pytest.raises(ValueError, match="Microphone 'USB' with 3 channels cannot be opened"),
        Microphone("USB", channel=3),
    ):
        pass


def test_stopped_ends_though_it_goes_on_hearing(device: FakeSoundDevice) -> None:
    """A device delivers until it is closed: a reader slower than it must still come to the end."""
    device.at_start = (0.5,)
    with Microphone() as microphone:
        microphone.stop()
        device.streams[0].speak(0.5)
        assert len(microphone.read()) == BLOCK
        device.streams[0].speak(0.5)
        assert microphone.read() is None


def test_read_waits_for_sound(device: FakeSoundDevice) -> None:
    """And comes back when there is some, or when it is stopped meanwhile."""
    with Microphone() as microphone:
        Timer(0.02, device.streams[0].speak, [0.5]).start()
        assert len(microphone.read()) == BLOCK
        Timer(0.02, microphone.stop).start()
        assert microphone.read() is None


@pytest.mark.parametrize(("name", "opened"), [(None, None), ("USB", "USB"), (3, 3), ("3", 3), ("2i2", "2i2")])
def test_choosing_a_device(device: FakeSoundDevice, name: int | str | None, opened: int | str | None) -> None:
    """A number is an index however it is written."""
    with Microphone(name):
        assert device.streams[0].options["device"] == opened


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    message = "Microphone input needs the package sounddevice: pip install sounddevice (on Linux also: apt install "
    for wanted in (Microphone, list_devices):
        with pytest.raises(ImportError, match=f"^{re.escape(message)}"):
            wanted()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (
            None,
            PortAudioError("Error querying device -1"),
            "The default microphone cannot be opened: Error querying device -1",
        ),
        (
            "7",
            PortAudioError("Error querying device 7"),
            "Microphone 7 cannot be opened: Error querying device 7",
        ),
        (
            "USB",
            ValueError("Multiple input devices found for 'USB':\n[0] USB one\n[1] USB two"),
            "Microphone 'USB' cannot be opened: Multiple input devices found for 'USB': [0] USB one [1] USB two",
        ),
    ],
)
def test_no_microphone(device: FakeSoundDevice, name: str | None, error: Exception, message: str, late: bool) -> None:
    """One line that says what was wanted, and where to look; nothing stays open."""
    assert device.default is not None
    device.default["default_samplerate"] = 16_000.0
    (device.start_errors if late else device.open_errors)[1] = error
    with (
        pytest.raises(ValueError, match=f"^{re.escape(message)} \\(mlx_gemma4 listen --list-devices lists them\\)$"),
        Microphone(name),
    ):
        pytest.fail("it was opened")
    assert all(stream.closed for stream in device.streams)


# the list of devices


def test_list_devices(device: FakeSoundDevice) -> None:
    """Those one can speak into."""
    devices = list_devices()
    assert devices == [Device(1, "Built-in", 1, 48_000, True), Device(12, "USB", 2, 44_100, False)]
    assert [describe(each) for each in devices] == [
        "*  1 Built-in (1 channel, 48000 Hz)",
        "  12 USB (2 channels, 44100 Hz)",
    ]


def test_list_devices_without_a_default(device: FakeSoundDevice) -> None:
    """The system may have chosen none; there may be none."""
    device.default = None
    assert [each.is_default for each in list_devices()] == [False, False]
    device.devices = []
    assert list_devices() == []


# other rates


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100, 48_000])
def test_device_without_16_khz(device: FakeSoundDevice, rate: int) -> None:
    """It is opened at its own rate; what is handed over equals the whole resampled at once, to the end."""
    assert device.default is not None
    device.default["default_samplerate"] = float(rate)
    device.rates = (rate,)
    rng = np.random.default_rng(0)
    samples = np.convolve(rng.uniform(-1, 1, rate), np.ones(16) / 16, "same").astype(np.float32)
    with Microphone() as microphone:
        [stream] = device.streams
        assert (stream.options["samplerate"], stream.options["blocksize"]) == (rate, rate // 25)
        stream.speak(*np.split(samples, 25))
        microphone.stop()
        got = rest(microphone)
    assert len(got) == 16_000
    assert np.abs(got - soxr.resample(samples, rate, 16_000)).max() < 1e-4


def test_every_read_has_sound_in_it(device: FakeSoundDevice) -> None:
    """A resampler keeps its first samples back: read waits for more instead of returning none."""
    device.rates = (48_000,)
    with Microphone() as microphone:
        device.streams[0].speak(0.5, 0.5, 0.5)
        first = microphone.read()
        microphone.stop()
        assert 0 < len(first) < 3 * BLOCK
        assert len(first) + len(rest(microphone)) == 3 * BLOCK


# lost sound


def test_microphone_counts_what_it_lost(device: FakeSoundDevice) -> None:
    """By the injected clock."""
    clock = Clock()
    with Microphone(clock=clock) as microphone:
        for index in range(100):
            clock.now += 0.04 if index != 50 else 0.79
            device.streams[0].speak(0.5)
        microphone.stop()
        assert len(rest(microphone)) == 100 * BLOCK
        assert microphone.lost_seconds == pytest.approx(0.75, abs=0.002)


# denied


@pytest.mark.parametrize(
    ("platform", "message"),
    [
        (
            "darwin",
            "The microphone has delivered only zeros for 2 s: macOS may not have allowed the terminal to use it. Allow "
            "it in System Settings > Privacy & Security > Microphone, then restart the terminal if the microphone "
            "stays silent.",
        ),
        (
            "linux",
            "The microphone has delivered only zeros for 2 s: it may be muted or not connected. Unmute it, or choose "
            "another device (mlx_gemma4 listen --list-devices lists them).",
        ),
    ],
)
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_only_zeros(
    device: FakeSoundDevice, monkeypatch: pytest.MonkeyPatch, platform: str, message: str, rate: int
) -> None:
    """Exact zeros for 2 s: the way out is said once, and the sound goes on."""
    device.rates = (rate,)
    told: list[str] = []
    with Microphone(tell=told.append) as microphone:
        device.streams[0].speak(*[0.0] * 49)
        assert not microphone.read().any() and told == []
        device.streams[0].speak(0.0)
        monkeypatch.setattr(sys, "platform", platform)
        microphone.read()
        device.streams[0].speak(*[0.0] * 100)
        microphone.read()
        device.streams[0].speak(*[0.5] * 50)
        assert microphone.read().any()
    assert told == [message]


@pytest.mark.parametrize("before", [49, 51, 500])
def test_late_sound_is_not_denied(device: FakeSoundDevice, before: int) -> None:
    """If there is any sound by the time one looks, it is allowed; a mute button later is no error."""
    told: list[str] = []
    with Microphone(tell=told.append) as microphone:
        device.streams[0].speak(*[0.0] * before, 2**-15)
        assert len(microphone.read()) == (before + 1) * BLOCK
        device.streams[0].speak(*[0.0] * 500)
        assert len(microphone.read()) == 500 * BLOCK
    assert told == []


# stalled and vanished


def test_stalled_device_is_opened_again(device: FakeSoundDevice) -> None:
    """The list of devices is read anew, the sound goes on, and what was missed is counted."""
    device.at_start = (0.25,)
    with Microphone("USB", stall_seconds=0.03) as microphone:
        started = time.monotonic()
        assert np.array_equal(microphone.read(), np.full(BLOCK, 0.25, np.float32))
        device.at_start = (0.5,)
        assert np.array_equal(microphone.read(), np.full(BLOCK, 0.5, np.float32))
        assert time.monotonic() - started >= 0.02
        assert microphone.problem is None
        microphone.stop()
        assert microphone.read() is None
    first, second = device.streams
    assert first.closed
    assert second.closed
    assert first.options == second.options
    assert device.calls == ["terminate", "initialize"]


def test_time_without_a_device_is_lost(device: FakeSoundDevice) -> None:
    """From the last block to the first one after it."""
    clock = Clock()
    device.at_start = (0.25,)
    with Microphone(clock=clock) as microphone:
        microphone.read()
        clock.now += 4
        microphone.read()
        assert microphone.lost_seconds == pytest.approx(4 - 0.04)


def test_opened_again_at_another_rate(device: FakeSoundDevice) -> None:
    """Headphones that changed theirs: what follows is resampled anew."""
    device.at_start = (0.25,)
    clock = Clock()
    with Microphone(clock=clock) as microphone:
        assert len(microphone.read()) == BLOCK
        clock.now += 4
        device.rates = (48_000,)
        device.at_start = (0.5,) * 25
        Timer(0.02, microphone.stop).start()
        got = rest(microphone)
    assert [stream.options["samplerate"] for stream in device.streams] == [16_000, 48_000]
    assert len(got) == 25 * BLOCK
    assert np.abs(got[BLOCK:-BLOCK] - 0.5).max() < 1e-3


def test_vanished_device(device: FakeSoundDevice) -> None:
    """What was heard is handed over, then the sound ends, and why is known."""
    device.at_start = (0.25, 0.5)
    device.open_errors[2] = PortAudioError("Error querying device -1")
    with Microphone(stall_seconds=0.02) as microphone:
        assert len(microphone.read()) == 2 * BLOCK
        assert microphone.read() is None
        assert microphone.read() is None
    assert microphone.problem == (
        "The microphone is gone: no sound came for 0.02 s, and it could not be opened again (Error querying device -1)."
    )


def test_device_that_never_speaks(device: FakeSoundDevice) -> None:
    """Opened once more, not for ever, and without asking all the time."""
    asked = itertools.count()

    def clock() -> float:
        next(asked)
        return time.monotonic()

    with Microphone(stall_seconds=0.02, clock=clock) as microphone:
        assert microphone.read() is None
    assert microphone.problem == (
        "The microphone stalled: no sound came for 0.02 s, and opening it again did not help."
    )
    assert len(device.streams) == 2
    assert next(asked) < 20


def test_device_that_stalls_again(device: FakeSoundDevice) -> None:
    """A block after each opening is not enough to try for ever; sound for as long as a stall is."""
    clock = Clock()
    device.at_start = (0.5,)
    with Microphone(clock=clock) as microphone:
        for _ in range(3):
            assert len(microphone.read()) == BLOCK
            clock.now += 3.5
            device.streams[-1].speak(0.5)  # it works after all
            assert len(microphone.read()) == BLOCK
            clock.now += 4
        assert len(microphone.read()) == BLOCK
        clock.now += 4
        assert microphone.read() is None
    assert len(device.streams) == 4
    assert microphone.problem == "The microphone stalled: no sound came for 3 s, and opening it again did not help."


def test_busy_reader_is_no_stall(device: FakeSoundDevice) -> None:
    """While the model was loaded, nobody read; the device was there."""
    clock = Clock()
    with Microphone(clock=clock) as microphone:
        for _ in range(500):
            clock.now += 0.04
            device.streams[0].speak(0.5)
        clock.now += 2.9
        assert len(microphone.read()) == 500 * BLOCK
    assert len(device.streams) == 1
