"""The microphone: whether there is one, and whether it hears anything. Nothing that it hears is kept."""

from __future__ import annotations

import math
import sys

import numpy as np

from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
from mlx_gemma4.live.hear.microphone import DENIED_SECONDS, LISTED, Device, Microphone, denied, list_devices
from mlx_gemma4.measure.checks.finding import Finding, Findings, Known

LISTENED = 1.0
"""Seconds of sound that are enough, if they are not all zeros."""
STALL_SECONDS = 2.0
"""Seconds without any sound after which the device counts as stalled."""
INSTALL = "pip install sounddevice" + ("" if sys.platform == "darwin" else ", and apt install libportaudio2")
OTHERWISE = "listen --input takes recordings and pipes"


def check(known: Known) -> Findings:
    try:
        devices = list_devices()
    except ImportError as error:
        missing = "package sounddevice" if "No module" in str(error) else "library PortAudio"
        yield Finding("microphone", "not tested", f"The {missing} is missing.", f"{INSTALL}.")
        return
    device = known.get("options", {}).get("device")
    if not devices:
        yield Finding("microphone", "warning", "There is no microphone.", f"Connect one; {OTHERWISE}.")
    elif device is None and not any(each.is_default for each in devices):
        names = ", ".join(each.name for each in devices)
        text = f"None of the microphones is the system's default: {names}."
        remedy = f"Choose one in the system's settings, or with --device ({LISTED})."
        yield Finding("microphone", "warning", text, remedy)
    else:
        yield listen(name_of(device, devices), Microphone(device, stall_seconds=STALL_SECONDS))


def name_of(device: str | None, devices: list[Device]) -> str:
    """The name of the microphone that is listened to."""
    wanted = [each for each in devices if each.is_default if device is None]
    wanted += [each for each in devices if device is not None and (str(each.index) == device or device in each.name)]
    return wanted[0].name if wanted else str(device)


def listen(name: str, microphone: Microphone) -> Finding:
    """Listen until something is heard, or too long."""
    sound = np.zeros(0, np.float32)
    try:
        with microphone:
            while not is_enough(sound) and (block := microphone.read()) is not None:
                sound = np.concatenate([sound, block])
    except ValueError as error:
        return Finding("microphone", "problem", f"{error}.", "Close programs that use it, or connect it again.")
    seconds = len(sound) / SAMPLE_RATE
    figures = {"name": name, "seconds": round(seconds, 2), "lost_seconds": round(microphone.lost_seconds, 2)}
    if microphone.problem is not None:
        return Finding("microphone", "problem", microphone.problem, "Connect it again, or choose another.", figures)
    if not sound.any():
        return Finding("microphone", "problem", *denied(), figures)
    if microphone.lost_seconds:
        text = f"'{name}' lost {microphone.lost_seconds:.2f} s of sound in {seconds:.1f} s."
        return Finding("microphone", "warning", text, "Close programs that keep the machine busy.", figures)
    level = 10 * math.log10(np.mean(np.square(sound, dtype=np.float64)))
    text = f"'{name}' delivers sound, at {level:.0f} dBFS."
    return Finding("microphone", "ok", text, figures={**figures, "dbfs": round(level, 1)})


def is_enough(sound: np.ndarray) -> bool:
    """Whether to stop listening: after a second, or if that is all zeros, when they mean that access is denied."""
    return len(sound) >= SAMPLE_RATE * (LISTENED if sound.any() else DENIED_SECONDS)
