"""The machine that figures were measured on: chip, memory, system, versions, power, and the commit of a checkout."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mlx_gemma4.decoder.machine_memory import machine_memory

Ask = Callable[[Sequence[str]], str | None]
"""Runs a command and returns what it prints; None if it cannot be run or fails."""

PATIENCE = 5.0
"""Seconds that a command of the system may take."""
CPUINFO = Path("/proc/cpuinfo")
CHECKOUT = Path(__file__).resolve().parents[2]
"""The checkout, if this package lies in one."""


@dataclass(frozen=True)
class Machine:
    """What figures depend on besides the model."""

    chip: str
    """The processor's name: "Apple M3 Pro"."""
    model: str | None
    """Apple's name of the machine: "Mac15,6"; None elsewhere."""
    cores: int
    """CPU cores that this process may use."""
    gpu_cores: int | None
    """Of an Apple chip; None if unknown."""
    memory: int
    """Bytes of the machine's memory."""
    device: str
    """What MLX computes on: "gpu, Apple M3 Pro", or "cpu"."""
    device_memory: int | None
    """Bytes that MLX may keep on the GPU without swapping; None on a CPU, or if MLX does not say."""
    power: str | None
    """"mains", "battery" or "low power mode"; None if unknown. A Mac on battery may be slower."""
    system: str
    """"macOS 15.3" or "Linux 6.8"."""
    python: str
    mlx: str
    mlx_lm: str
    mlx_gemma4: str
    commit: str | None
    """Of the checkout, with "+" if files differ from it; None for an installed package."""

    def to_dict(self) -> dict[str, Any]:
        """The fields, for a JSON file."""
        return asdict(self)

    def summary(self) -> str:
        """Two lines for a bug report or below a table."""
        gpu = "" if self.gpu_cores is None else f", {self.gpu_cores} GPU cores"
        model = "" if self.model is None else f" ({self.model})"
        power = "" if self.power in (None, "mains") else f", on {self.power}"
        commit = "" if self.commit is None else f" at {self.commit}"
        return (
            f"{self.chip}{model}, {self.cores} CPU cores{gpu}, {self.memory / 2**30:.0f} GiB, {self.system}{power}\n"
            f"mlx_gemma4 {self.mlx_gemma4}{commit}, MLX {self.mlx} on {self.device}, Python {self.python}"
        )


def machine() -> Machine:
    """This machine, now."""
    import mlx.core as mx

    from mlx_gemma4 import __version__

    is_mac = sys.platform == "darwin"
    on_gpu = mx.default_device() == mx.Device(mx.gpu)
    told = mx.device_info() if on_gpu else {}
    limit = told.get("max_recommended_working_set_size")
    return Machine(
        chip=chip(),
        model=ask(["sysctl", "-n", "hw.model"]) if is_mac else None,
        cores=usable_cores(),
        gpu_cores=gpu_cores() if is_mac else None,
        memory=machine_memory(),
        device=f"gpu, {told.get('device_name', 'unknown')}" if on_gpu else "cpu",
        device_memory=None if limit is None else int(limit),
        power=power() if is_mac else None,
        system=system(),
        python=platform.python_version(),
        mlx=_version("mlx"),
        mlx_lm=_version("mlx-lm"),
        mlx_gemma4=__version__,
        commit=commit(),
    )


def ask(command: Sequence[str]) -> str | None:
    """What a command of the system prints; None if there is none, it fails, or it says nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def chip(ask: Ask = ask, cpuinfo: Path = CPUINFO) -> str:
    """The processor's name; at least its architecture."""
    if sys.platform == "darwin":
        return ask(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.machine()
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    name = re.search(r"^model name\s*:\s*(\S.*)$", text, re.MULTILINE)
    return " ".join(name[1].split()) if name else platform.machine()


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpu_cores(ask: Ask = ask) -> int | None:
    """GPU cores of an Apple chip."""
    count = re.search(r'"gpu-core-count" = (\d+)', ask(["ioreg", "-r", "-d", "1", "-c", "AGXAccelerator"]) or "")
    return int(count[1]) if count else None


def power(ask: Ask = ask) -> str | None:
    """What a Mac runs on, and whether it saves power."""
    if re.search(r"^\s*lowpowermode\s+1\b", ask(["pmset", "-g"]) or "", re.MULTILINE):
        return "low power mode"
    source = re.search(r"Now drawing from '(AC|Battery) Power'", ask(["pmset", "-g", "batt"]) or "")
    return {"AC": "mains", "Battery": "battery"}[source[1]] if source else None


def system() -> str:
    """The operating system and its version."""
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    return f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"


def commit(checkout: Path = CHECKOUT, ask: Ask = ask) -> str | None:
    """The commit of a checkout, with "+" if tracked files differ from it."""
    if not (checkout / ".git").exists():
        return None
    git = ["git", "-C", str(checkout)]
    head = ask([*git, "rev-parse", "--short=12", "HEAD"])
    if head is None:
        return None
    return f"{head}+" if ask([*git, "status", "--porcelain", "--untracked-files=no"]) else head


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
