"""A stand-in for the package sounddevice: microphones that deliver what a test says."""

from __future__ import annotations

from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


class PortAudioError(Exception):
    pass


class Stream:
    """One opening of a device."""

    def __init__(self, device: FakeSoundDevice, options: dict[str, Any]) -> None:
        self._device = device
        self._callback = options["callback"]
        self.options = {name: value for name, value in options.items() if name != "callback"}
        self.closed = False

    def start(self) -> None:
        error = self._device.start_errors.get(len(self._device.streams))
        if error is not None:
            raise error
        thread = Thread(target=self.speak, args=self._device.at_start)
        thread.start()
        thread.join()

    def speak(self, *blocks: np.ndarray | float, overflow: bool = False) -> None:
        """Call back as PortAudio does: a number stands for a block of it."""
        for block in blocks:
            samples = np.full(self.options["blocksize"], block) if isinstance(block, float) else block
            buffer = samples[:, None].astype(np.float32)
            self._callback(buffer, len(buffer), None, SimpleNamespace(input_overflow=overflow))
            buffer[:] = 99  # PortAudio reuses its memory

    def close(self) -> None:
        self.closed = True


class FakeSoundDevice(ModuleType):
    """As much of sounddevice as is used."""

    PortAudioError = PortAudioError

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.devices = [
            {"index": 0, "name": "Speaker", "max_input_channels": 0, "default_samplerate": 44_100.0},
            {"index": 1, "name": "Built-in", "max_input_channels": 1, "default_samplerate": 48_000.0},
            {"index": 12, "name": "USB", "max_input_channels": 2, "default_samplerate": 44_100.0},
        ]
        self.default: dict[str, Any] | None = self.devices[1]
        self.rates: tuple[int, ...] = (16_000,)
        self.at_start: tuple[float, ...] = ()
        self.open_errors: dict[int, Exception] = {}
        self.start_errors: dict[int, Exception] = {}
        """For the n-th opening, counted from 1."""
        self.streams: list[Stream] = []
        self.calls: list[str] = []

    def query_devices(self, device: int | str | None = None, kind: str | None = None) -> Any:
        if kind is None:
            return self.devices
        if self.default is None:
            raise PortAudioError("Error querying device -1")
        return self.default

    def InputStream(self, **options: Any) -> Stream:
        error = self.open_errors.get(len(self.streams) + 1)
        if error is not None:
            raise error
        if options["samplerate"] not in self.rates:
            raise PortAudioError("Error opening InputStream: Invalid sample rate [PaErrorCode -9997]")
        self.streams.append(Stream(self, options))
        return self.streams[-1]

    def _terminate(self) -> None:
        assert all(stream.closed for stream in self.streams)
        self.calls.append("terminate")

    def _initialize(self) -> None:
        self.calls.append("initialize")
