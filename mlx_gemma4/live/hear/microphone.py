"""A microphone as a source of sound. It notices when sound is lost, when access is denied, and when the device is gone.

PortAudio's callback only puts blocks into a queue; everything else happens in ``read``, in the reader's thread. No mlx.
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
"""Only exact zeros for this long means muted or denied: a real room is never perfectly silent."""
SETTLE_SECONDS = 0.5
"""If blocks were only late, early ones follow them within this time."""
LOST_SECONDS = 0.2
"""Less missing sound than this is taken for jitter. With the driver's overflow flag, more than one block counts: some
drivers set the flag although nothing is missing."""
DRIFT = 0.002
"""How much the clocks of the device and of this machine may differ: twice what real ones do, 1 ms a second."""
LISTED = "mlx_gemma4 listen --list-devices lists them"


@dataclass(frozen=True)
class Device:
    """A microphone of this machine."""

    index: int
    name: str
    channels: int
    rate: int
    """Its default, in Hz."""
    is_default: bool


def list_devices() -> list[Device]:
    """The microphones of this machine.

    Raises:
        ImportError: The package sounddevice or the library PortAudio is missing.
    """
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
    """One line for a list of devices; a star marks the system's default."""
    channels = "1 channel" if device.channels == 1 else f"{device.channels} channels"
    return f"{'*' if device.is_default else ' '} {device.index:2} {device.name} ({channels}, {device.rate} Hz)"


class Microphone:
    """A microphone. A context manager: opened on entry, closed on exit.

    Args:
        device: PortAudio's index, or part of the device's name; None for the system's default.
        tell: Called once, in the thread that reads, if the microphone delivers only zeros, with what to do about it.
            Reading goes on: the system may just be asking the user for permission.
        channel: The device's channel to use, from 1 on; None for the first.
        stall_seconds: If no sound comes for this long, the device is opened again, once; if that does not help, the
            sound ends with a ``problem``.

    Raises:
        ImportError: The package sounddevice or the library PortAudio is missing.
        ValueError: On entry, the device cannot be opened.
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
        """Why the sound ended, in a sentence, unless ``stop`` ended it."""
        self._device = int(device) if isinstance(device, str) and device.isdecimal() else device
        self._tell = tell
        self._channels = 1 if channel is None else channel
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._queue: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self._ended = False
        self._reopened = False
        self._zero_seconds = 0.0
        self._is_heard = False
        self._has_told = False
        self._dropped = DroppedAudioMeter()
        self._sounddevice = _sounddevice()

    def __enter__(self) -> Microphone:
        try:
            self._open()
        except (self._sounddevice.PortAudioError, ValueError) as error:
            wanted = "The default microphone" if self._device is None else f"Microphone {self._device!r}"
            if self._channels > 1:
                wanted += f" with {self._channels} channels"
            raise ValueError(f"{wanted} cannot be opened: {_line(error)} ({LISTED})") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()

    @property
    def lost_seconds(self) -> float:
        """Sound that was lost so far. The last half second is not counted yet."""
        return self._dropped.seconds

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
                self._zero_seconds += len(block) / self._rate
                block = self._resampler.push(block, self._rate)
            if len(block):
                sound.append(block)
        if not self._is_heard and not self._has_told and self._zero_seconds >= DENIED_SECONDS:
            self._has_told = True
            self._tell(" ".join(denied()))
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
        self._dropped.add(self._heard_at, frames / self._rate, bool(status and status.input_overflow))
        self._queue.put(data[:, self._channels - 1].copy())

    def _reopen(self) -> bool:
        """Open the device, or what is the default device now, once more after it stalled. Return whether it worked."""
        silent = f"no sound came for {self._stall_seconds:g} s"
        if self._reopened and self._heard_at - self._opened_at < self._stall_seconds:
            self.problem = f"The microphone stalled: {silent}, and opening it again did not help."
            return False
        self._reopened = True
        self._stream.close()
        self._dropped.pause()
        try:
            # PortAudio lists devices once, when it starts. This closes other streams of this process as well.
            self._sounddevice._terminate()
            self._sounddevice._initialize()
            self._open()
        except (self._sounddevice.PortAudioError, ValueError) as error:
            self.problem = f"The microphone is gone: {silent}, and it could not be opened again ({_line(error)})."
            return False
        return True


class DroppedAudioMeter:
    """Estimates how much sound was lost, from when blocks came and how much sound is in them.

    A block is as late as the time since the first block exceeds the sound since then. Lost sound makes all later blocks
    late, for good. A block that was only delayed is followed by others that catch up:

        lateness    ▁▁▁▁▁▁▁▇▅▃▁▁▁▁▁▁▁▁▁▁▁▄▄▄▄▄▄▄▄▄▄▄▄
                           delayed        lost

    So the least lateness of each half second counts. By as much as it exceeds the floor, sound was lost, and the floor
    rises to it. Otherwise the floor follows it down at once, and up no faster than clocks drift apart.
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
        """Take note of a block.

        Args:
            now: When it came.
            seconds: How much sound is in it.
            overflow: Whether the driver says that sound was lost before it.
        """
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
        """The device is closed: all sound until the next block is lost."""
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
        # a flag on the last block of the half second before: the loss shows only now
        if missing > (BLOCK / SAMPLE_RATE if self._flag or self._flag_before else LOST_SECONDS):
            self.seconds += missing
            self._floor = self._least
        else:
            self._floor = min(floor, self._least)
        self._settled = now
        self._least = math.inf
        self._flag, self._flag_before = False, self._flag


def denied() -> tuple[str, str]:
    """What is wrong with a microphone that delivers only zeros, and what to do about it."""
    symptom = f"The microphone has delivered only zeros for {DENIED_SECONDS:g} s"
    if sys.platform == "darwin":
        return (
            f"{symptom}: macOS may not have allowed the terminal to use it.",
            "Allow it in System Settings > Privacy & Security > Microphone, then restart the terminal if the "
            "microphone stays silent.",
        )
    return f"{symptom}: it may be muted or not connected.", f"Unmute it, or choose another device ({LISTED})."


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _sounddevice() -> Any:
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the package is installed, PortAudio is not
        raise ImportError(
            "Microphone input needs the package sounddevice: pip install sounddevice "
            f"(on Linux also: apt install libportaudio2). {error}"
        ) from error
    return sounddevice
