"""A microphone for a machine that has none: what is played into PulseAudio is what PortAudio hears. Linux only.

A null sink → its monitor as a source → ALSA's pulse plugin → PortAudio. Idle, it gives exact zeros.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile

ALSA = """
pcm.!default { type pulse }
ctl.!default { type pulse }
"""
PULSE = """
.fail
load-module module-native-protocol-unix auth-anonymous=1 socket={socket}
load-module module-null-sink sink_name=speaker rate=16000 channels=1 format=s16le
load-module module-remap-source source_name=mic master=speaker.monitor
set-default-sink speaker
set-default-source mic
"""
PROGRAMS = ("pulseaudio", "paplay", "pactl")
PLUGIN = "libasound_module_pcm_pulse.so"


def missing() -> list[str]:
    """What it needs and is not installed."""
    needed = [program for program in PROGRAMS if shutil.which(program) is None]
    if find_spec("sounddevice") is None:
        needed.append("sounddevice")
    if find_library("portaudio") is None:
        needed.append("libportaudio2")
    if not any(Path("/usr").glob(f"lib*/**/alsa-lib/{PLUGIN}")):
        needed.append(f"{PLUGIN} (libasound2-plugins)")
    return needed


class VirtualMicrophone:
    """A PulseAudio server of its own.

    Attributes:
        environment: For the processes that are to hear it.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        home, run, socket = folder / "home", folder / "run", folder / "pulse.sock"
        home.mkdir()
        run.mkdir(mode=0o700)
        (home / ".asoundrc").write_text(ALSA)
        (folder / "pulse.pa").write_text(PULSE.format(socket=socket))
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "XDG_"))
        }
        self.environment |= {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(run),
            "PULSE_RUNTIME_PATH": str(run),
            "PULSE_SERVER": f"unix:{socket}",
        }
        self._folder = folder
        self._stack = stack
        log = folder / "pulse.log"
        self._server = self._start(
            *("pulseaudio", "-n", "-F", str(folder / "pulse.pa"), "--daemonize=no", "--exit-idle-time=-1"),
            *("--use-pid-file=no", "--disallow-exit", f"--log-target=file:{log}"),
        )
        for _ in range(100):
            if subprocess.run(["pactl", "info"], env=self.environment, capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError(f"PulseAudio does not answer: {log.read_text() if log.exists() else 'it logged nothing'}")

    def play(self, path: Path) -> None:
        """Say a recording, to its end."""
        subprocess.run(["paplay", "--device=speaker", path], env=self.environment, check=True, timeout=60)

    def hum(self) -> None:
        """Make the least noise there is, from now on: no real room is exactly silent."""
        noise = np.random.default_rng(0).integers(-1, 2, 60 * 16_000).astype(np.int16)
        soundfile.write(self._folder / "room.wav", noise, 16_000)
        self._start("paplay", "--device=speaker", str(self._folder / "room.wav"))

    def vanish(self) -> None:
        """Take the device away."""
        self._server.kill()
        self._server.wait()

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        nowhere = subprocess.DEVNULL
        process = subprocess.Popen(command, env=self.environment, stdin=nowhere, stdout=nowhere, stderr=nowhere)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


@contextmanager
def virtual_microphone(folder: Path) -> Iterator[VirtualMicrophone]:
    """It lives in the empty ``folder`` until the end."""
    with ExitStack() as stack:
        yield VirtualMicrophone(folder, stack)
