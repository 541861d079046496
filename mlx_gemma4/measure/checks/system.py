"""The machine, its system and the installed versions."""

from __future__ import annotations

import platform
import re
import sys

from mlx_gemma4.decoder.machine_memory import SHARE, available_memory, container_memory
from mlx_gemma4.measure.checks.finding import Finding, Findings, Known, Verdict
from mlx_gemma4.measure.machine import Ask, Machine, ask, machine

ROSETTA = "Install a Python for arm64: this one runs under Rosetta."
OLDEST_MACOS = 14
"""MLX has no wheels for older ones."""


def check(known: Known) -> Findings:
    """Start with what needs no import, so that it is reported even if MLX is broken."""
    yield system()
    try:
        found = machine()
    except ImportError as error:
        text = f"MLX cannot be imported: {' '.join(str(error).split())}"
        yield Finding("device", "problem", text, "Install it again: pip install --force-reinstall mlx")
        return
    yield versions(found)
    yield device(found)
    yield memory(found, container_memory(), unused_memory())
    if found.power not in (None, "mains"):
        yield power(found)


def system() -> Finding:
    """The operating system and Python."""
    name = f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else f"{platform.system()} {platform.release()}"
    text, remedy = f"{name}, {platform.machine()}, Python {platform.python_version()}", ""
    if sys.platform == "darwin" and platform.machine() != "arm64":
        translated = ask(["sysctl", "-n", "sysctl.proc_translated"]) == "1"
        text += ". MLX needs Apple silicon."
        remedy = ROSETTA if translated else "Use a Mac with an M chip."
    elif sys.platform == "darwin" and int(platform.mac_ver()[0].partition(".")[0] or 0) < OLDEST_MACOS:
        text += f". MLX needs macOS {OLDEST_MACOS}."
        remedy = f"Update to macOS {OLDEST_MACOS} or newer."
    figures = {"name": name, "architecture": platform.machine(), "python": platform.python_version()}
    return Finding("system", "problem" if remedy else "ok", text, remedy, figures)


def versions(machine: Machine) -> Finding:
    """What is installed."""
    commit = "" if machine.commit is None else f" at {machine.commit}"
    text = f"mlx_gemma4 {machine.mlx_gemma4}{commit}, MLX {machine.mlx}, mlx-lm {machine.mlx_lm}"
    names = ("mlx_gemma4", "commit", "mlx", "mlx_lm")
    return Finding("versions", "ok", text, figures={name: getattr(machine, name) for name in names})


def device(machine: Machine) -> Finding:
    """The chip, and whether MLX uses its GPU."""
    model = "" if machine.model is None else f" ({machine.model})"
    gpu = "" if machine.gpu_cores is None else f", {machine.gpu_cores} GPU cores"
    text = f"{machine.chip}{model}, {machine.cores} CPU cores{gpu}. "
    verdict: Verdict = "ok"
    remedy = ""
    if machine.device != "cpu":
        _, _, name = machine.device.partition(", ")
        where = "through Metal" if sys.platform == "darwin" else f"{name} through CUDA"
        text += f"MLX computes on the GPU {where}."
    elif sys.platform == "darwin":
        verdict, text = "problem", text + "MLX finds no GPU and computes on the CPU."
        remedy = "Run it outside of a virtual machine and of a remote login without a screen."
    else:
        verdict, text = "warning", text + "MLX computes on the CPU. Tests and the demo work; the 12B is slow."
        remedy = "Use a Mac with an M chip for the 12B."
    names = ("chip", "model", "cores", "gpu_cores", "device")
    return Finding("device", verdict, text, remedy, {name: getattr(machine, name) for name in names})


def memory(machine: Machine, limit: int | None = None, available: int | None = None) -> Finding:
    """How much memory a model may use.

    Args:
        limit: Bytes that the container may use; None outside of one.
        available: Bytes that other programs leave now; None if unknown.
    """
    budget = round(SHARE * machine.memory) if machine.device_memory is None else machine.device_memory
    text = f"{machine.memory / 2**30:.0f} GiB"
    if limit is not None and limit < budget:
        budget = limit
        text += f", of which this container may use {budget / 1e9:.1f} GB."
    else:
        text += f", of which a model may use {budget / 1e9:.1f} GB."
    if available is not None:
        text += f" Other programs leave {available / 1e9:.1f} GB now."
    figures = {"bytes": machine.memory, "budget": budget, "available": available}
    return Finding("memory", "ok", text, figures=figures)


def power(machine: Machine) -> Finding:
    """What slows the machine down."""
    return Finding(
        "power",
        "warning",
        f"The machine is on {machine.power}, which may make it slower.",
        "Connect it to the mains, and switch the low power mode off.",
        {"power": machine.power},
    )


def unused_memory(ask: Ask = ask) -> int | None:
    """Bytes that programs can have without anything being swapped; None if unknown."""
    return _free_pages(ask(["vm_stat"]) or "") if sys.platform == "darwin" else available_memory()


def _free_pages(vm_stat: str) -> int | None:
    """Free memory and what macOS can take back at once, of what ``vm_stat`` prints."""
    size = re.search(r"page size of (\d+) bytes", vm_stat)
    pages = re.findall(r"^Pages (?:free|inactive|speculative):\s*(\d+)\.", vm_stat, re.MULTILINE)
    return int(size[1]) * sum(map(int, pages)) if size and pages else None
