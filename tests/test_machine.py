"""What a report says of the machine: parsed from what systems print, and this one."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_gemma4 import __version__
from mlx_gemma4.measure.machine import Machine, ask, chip, commit, gpu_cores, machine, power

MAC = Machine(
    chip="Apple M3 Pro",
    model="Mac15,6",
    cores=12,
    gpu_cores=18,
    memory=18 * 2**30,
    device="gpu, Apple M3 Pro",
    device_memory=12 * 2**30,
    power="battery",
    system="macOS 15.3",
    python="3.12.1",
    mlx="0.32.4",
    mlx_lm="0.32.2",
    mlx_gemma4="0.1.0",
    commit="0123456789ab+",
)


def test_a_report_in_two_lines() -> None:
    assert MAC.summary() == (
        "Apple M3 Pro (Mac15,6), 12 CPU cores, 18 GPU cores, 18 GiB, macOS 15.3, on battery\n"
        "mlx_gemma4 0.1.0 at 0123456789ab+, MLX 0.32.4 on gpu, Apple M3 Pro, Python 3.12.1"
    )


def test_this_machine() -> None:
    here = machine()
    assert here.mlx_gemma4 == __version__
    assert here.mlx == mx.__version__  # type: ignore[attr-defined]
    assert here.python == platform.python_version()
    assert here.cores >= 1
    assert here.memory > 2**28
    assert here.device.startswith("gpu" if mx.default_device() == mx.Device(mx.gpu) else "cpu")
    assert json.loads(json.dumps(here.to_dict()))["chip"] == here.chip


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor : 0\nmodel name\t: AMD  EPYC 7763\nmodel name\t: other\n", "AMD EPYC 7763"),
        ("processor : 0\nBogoMIPS : 50\n", platform.machine()),
        (None, platform.machine()),
    ],
)
def test_the_chip_on_linux(cpuinfo: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert chip(cpuinfo=tmp_path / "cpuinfo") == expected


def test_the_chip_on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert chip(lambda command: "Apple M3 Pro" if command[-1] == "machdep.cpu.brand_string" else None) == "Apple M3 Pro"
    assert chip(lambda command: None) == platform.machine()


@pytest.mark.parametrize(("printed", "expected"), [('  | "gpu-core-count" = 18\n', 18), ("", None), (None, None)])
def test_gpu_cores(printed: str | None, expected: int | None) -> None:
    assert gpu_cores(lambda command: printed) == expected


@pytest.mark.parametrize(
    ("settings", "source", "expected"),
    [
        (" lowpowermode         1\n", "Now drawing from 'AC Power'", "low power mode"),
        (" lowpowermode         0\n", "Now drawing from 'AC Power'\n -InternalBattery-0", "mains"),
        (None, "Now drawing from 'Battery Power'", "battery"),
        (None, None, None),
    ],
)
def test_power(settings: str | None, source: str | None, expected: str | None) -> None:
    assert power(lambda command: source if command[-1] == "batt" else settings) == expected


def test_a_command_that_is_missing_fails_or_says_nothing() -> None:
    assert ask(["no-such-command-anywhere"]) is None
    assert ask([sys.executable, "-c", "print('x'); raise SystemExit(1)"]) is None
    assert ask([sys.executable, "-c", ""]) is None
    assert ask([sys.executable, "-c", "print(' x ')"]) == "x"


def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    assert commit(tmp_path) is None

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    git("init")
    assert commit(tmp_path) is None  # there is none yet
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    head = subprocess.run(["git", "-C", str(tmp_path), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    (tmp_path / "untracked").write_text("")
    assert commit(tmp_path) == head[:12]
    (tmp_path / "file").write_text("two")
    assert commit(tmp_path) == f"{head[:12]}+"


def test_without_git(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()

    def nothing(command: Sequence[str]) -> None:
        return None

    assert commit(tmp_path, nothing) is None
