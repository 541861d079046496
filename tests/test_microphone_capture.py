"""``listen`` on a real capture device: PulseAudio plays recordings into a virtual microphone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from golden import clearest, said
from reference_cases import SHORT, media_file
from virtual_microphone import VirtualMicrophone, missing, virtual_microphone

ROOT = Path(__file__).parent.parent


@pytest.fixture
def virtual(tmp_path: Path) -> Iterator[VirtualMicrophone]:
    if missing():
        pytest.skip(f"a virtual microphone needs {', '.join(missing())}")
    with virtual_microphone(tmp_path) as microphone:
        yield microphone


def start_listening(virtual: VirtualMicrophone) -> subprocess.Popen[str]:
    """``listen`` on the demo checkpoint, when it says that it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mlx_gemma4", "listen", "--model", "demo", "--dtype", "float32", "--prompt", SHORT],
        env=virtual.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = []
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Listening"):
            return process
        said.append(line)
    pytest.fail(f"it ended with {process.wait()}: {''.join(said)}")


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit code, stdout and stderr."""
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


def test_speech_into_a_real_device(virtual: VirtualMicrophone) -> None:
    """PortAudio hears it, the text is written down, Ctrl-C ends it cleanly."""
    virtual.hum()
    process = start_listening(virtual)
    time.sleep(2.5)  # the first block can take 1.9 s, and nothing before it is heard
    virtual.play(media_file(clearest("short")))
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert out.strip() == said(clearest("short"), "short")
    assert code == 0, err
    assert "lost" not in err


def test_silent_device(virtual: VirtualMicrophone) -> None:
    """Nobody plays anything: exact zeros, as from a microphone that is not allowed yet. It is waited for."""
    process = start_listening(virtual)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("The microphone has delivered only zeros for 2 s: it may be muted")
    process.send_signal(signal.SIGINT)
    assert finish(process)[:2] == (0, "")


def test_device_that_goes_away(virtual: VirtualMicrophone) -> None:
    """The server dies while it is listened to: the end is clean, and the reason is said."""
    virtual.hum()
    process = start_listening(virtual)
    time.sleep(2.5)
    virtual.vanish()
    code, out, err = finish(process)
    assert code == 1, err
    assert out.strip() == ""
    assert "The microphone is gone: no sound came for 3 s, and it could not be opened again (" in err
