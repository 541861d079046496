"""A microphone as a source of sound: what it lost, whether it is allowed, whether it still is there.

PortAudio's callback only queues; everything else happens in ``read``, in the reader's thread. numpy only.
"""

from __future__ import annotations

import math
import queue
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE, Resampler
from mlx_gemma4.live.hear.sources import BLOCK

DENIED_SECONDS = 2.0
"""Exact zeros for this long, and nothing else so far, mean muted or not yet allowed: every real room has noise."""
SETTLE_SECONDS = 0.5
"""Late blocks are followed by early ones within this time, if they were only late."""
LOST_SECONDS = 0.2
"""What is missing must be more than this, or, with an overflow flag, more than a block: spurious flags exist."""
DRIFT = 0.002
"""Clocks differ: real ones by up to 0.001."""
LISTED = "mlx_gemma4 listen --list-devices lists them"


@dataclass(frozen=True)
class Device:
    """A microphone that could be opened."""

    index: int
    name: str
    channels: int
    rate: int
    """Its default, in Hz."""
    is_default: bool


def list_devices() -> list[Device]:
    """The microphones of this machine."""
    sounddevice = _sounddevice()
    try:
        default = sounddevice.query_devices(kind="input")["index"]
    except (sounddevice.PortAudioError, ValueError):  # there is none
        default = None
    return [
        Device(
            device["index"],
            device["name"],
            device["max_input_channels"],
            round(device["default_samplerate"]),
            device["index"] == default,
        )
        for device in sounddevice.query_devices()
        if device["max_input_channels"] > 0
    ]


def describe(device: Device) -> str:
    """A line about it; a star marks the system's choice."""
    channels = "1 channel" if device.channels == 1 else f"{device.channels} channels"
    return f"{'*' if device.is_default else ' '} {device.index:2} {device.name} ({channels}, {device.rate} Hz)"


class Microphone:
    """A microphone, until it is closed. Opened on entry.

    Args:
        device: PortAudio's index, or part of the device's name; None for the system's choice.
        tell: Called once, in the thread that reads, with what to do about a microphone that gives only zeros. It is
            waited for: the system may be asking whether it is allowed.
        channel: Take this one of the device's, from 1 on; None for the first.
        stall_seconds: Without sound for this long, it is opened once more; if that does not help, the sound ends.
    """

    can_wait = False

    def __init__(
        self,
        device: int | str | None = None,
        *,
        tell: Callable[[str], None] = lambda text: None,
        channel: int | None = None,
        stall_seconds: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.problem: str | None = None
        """Why the sound ended, in a sentence, if it was not stopped."""
        self._device = int(device) if isinstance(device, str) and device.isdecimal() else device
        self._tell = tell
        self._channels = 1 if channel is None else channel
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._queue: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self._ended = False
        self._reopened = False
        self._silence = 0.0
        self._is_heard = False
        self._is_told = False
        self._loss = Loss()
        self._sounddevice = _sounddevice()

    def __enter__(self) -> Microphone:
        try:
            self._open()
        except (self._sounddevice.PortAudioError, ValueError) as error:
            wanted = "a microphone"
            if self._device is not None:
                wanted += f" {'numbered' if isinstance(self._device, int) else 'called'} {self._device!r}"
            if self._channels > 1:
                wanted += f" with {self._channels} channels"
            raise ValueError(f"Expected {wanted}, got: {_line(error)} ({LISTED})") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()

    @property
    def lost_seconds(self) -> float:
        """Sound that never came, so far; what was lost in the last half second is not counted yet."""
        return self._loss.seconds

    def stop(self) -> None:
        """Let the sound end here. Safe to call from a signal handler."""
        self._queue.put(None)

    def read(self) -> np.ndarray | None:
        """Wait for sound, return what has arrived as float32 [n] at 16 kHz; None when it has ended."""
        sound: list[np.ndarray] = []
        while not self._ended and not (sound and self._queue.empty()):
            block = self._wait()
            if block is None:
                self._ended = True
                block = self._resampler.finish()
            else:
                self._is_heard = self._is_heard or bool(block.any())
                self._silence += len(block) / self._rate
                block = self._resampler.push(block, self._rate)
            if len(block):
                sound.append(block)
        if not self._is_heard and not self._is_told and self._silence >= DENIED_SECONDS:
            self._is_told = True
            self._tell(_denied())
        return np.concatenate(sound) if sound else None

    def _wait(self) -> np.ndarray | None:
        """The next block at the device's rate; None when there will be none."""
        while True:
            try:
                return self._queue.get(timeout=max(0.0, self._heard_at + self._stall_seconds - self._clock()))
            except queue.Empty:
                if self._clock() - self._heard_at >= self._stall_seconds and not self._reopen():
                    return None

    def _open(self) -> None:
        try:
            self._start(SAMPLE_RATE)
        except self._sounddevice.PortAudioError:
            rate = round(self._sounddevice.query_devices(self._device, "input")["default_samplerate"])
            if rate == SAMPLE_RATE:
                raise
            self._start(rate)
        self._opened_at = self._heard_at = self._clock()

    def _start(self, rate: int) -> None:
        self._rate = rate
        self._resampler = Resampler()
        self._stream = self._sounddevice.InputStream(
            samplerate=rate,
            channels=self._channels,
            blocksize=BLOCK * rate // SAMPLE_RATE,
            device=self._device,
            dtype="float32",
            callback=self._heard,
        )
        try:
            self._stream.start()
        except (self._sounddevice.PortAudioError, ValueError):
            self._stream.close()
            raise

    def _heard(self, data: np.ndarray, frames: int, times: Any, status: Any) -> None:
        self._heard_at = self._clock()
        self._loss.add(self._heard_at, frames / self._rate, bool(status and status.input_overflow))
        self._queue.put(data[:, self._channels - 1].copy())

    def _reopen(self) -> bool:
        """Whether the device, or the one that is now the default, could be opened once more after it stalled."""
        silent = f"no sound came for {self._stall_seconds:g} s"
        if self._reopened and self._heard_at - self._opened_at < self._stall_seconds:
            self.problem = f"The microphone stalled: {silent}, and opening it again did not help."
            return False
        self._reopened = True
        self._stream.close()
        self._loss.pause()
        try:
            # PortAudio lists devices once, when it starts. This closes other streams of this process as well.
            self._sounddevice._terminate()
            self._sounddevice._initialize()
            self._open()
        except (self._sounddevice.PortAudioError, ValueError) as error:
            self.problem = f"The microphone vanished: {silent}, and it could not be opened again ({_line(error)})."
            return False
        return True


class Loss:
    """Counts sound that never came, from when blocks came and how much is in them.

    A block's lateness, the time since the first block less the sound since, jumps up where sound is lost, and stays up.
    A block that is only late is followed by early ones, so the least lateness of half a second counts. The floor that
    it is compared with follows it down at once, and up no faster than clocks drift.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last: float | None = None
        self._running = False
        self._due = 0.0
        self._floor, self._settled = 0.0, 0.0
        self._least, self._since = math.inf, 0.0
        self._flag, self._flag_before = False, False

    def add(self, now: float, seconds: float, overflow: bool = False) -> None:
        """A block of so many seconds came ``now``; ``overflow``: the driver says that some were lost before it."""
        if self._running:
            self._due += seconds
            self._settle(now, now - self._due, overflow)
        else:
            if self._last is not None:
                self.seconds += max(0.0, now - self._last - seconds)
            self._running = True
            self._due = self._settled = now
            self._floor = 0.0
            self._least = math.inf
            self._flag = self._flag_before = False
        self._last = now

    def pause(self) -> None:
        """The device is closed: all the time until the next block is lost."""
        self._running = False

    def _settle(self, now: float, late: float, overflow: bool) -> None:
        if self._least == math.inf:
            self._since = now
        self._least = min(self._least, late)
        self._flag = self._flag or overflow
        if now - self._since < SETTLE_SECONDS:
            return
        floor = self._floor + DRIFT * (now - self._settled)
        missing = self._least - floor
        # the flag may have come with the last block of the half second before: the loss shows in this one only
        if missing > (BLOCK / SAMPLE_RATE if self._flag or self._flag_before else LOST_SECONDS):
            self.seconds += missing
            self._floor = self._least
        else:
            self._floor = min(floor, self._least)
        self._settled = now
        self._least = math.inf
        self._flag, self._flag_before = False, self._flag


def _denied() -> str:
    if sys.platform == "darwin":
        way_out = (
            "macOS may not let the terminal hear it. Allow the terminal in System Settings > Privacy & Security > "
            "Microphone; if nothing is heard then, start it again"
        )
    else:
        way_out = f"it may be muted, or nobody plays into it. Unmute it, or choose another device ({LISTED})"
    return f"Only zeros have come from the microphone for {DENIED_SECONDS:g} s: {way_out}."


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _sounddevice() -> Any:
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the package is there, PortAudio itself is not
        raise ImportError(
            "Microphone input needs the package sounddevice: pip install sounddevice "
            f"(on Linux also: apt install libportaudio2). {error}"
        ) from error
    return sounddevice
