"""The doctor on machines that are not here: what it says of their system, chip, memory, and what fits."""

from __future__ import annotations

import platform
import sys
from dataclasses import replace
from typing import Any

import pytest

from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.twelve_b import TWELVE_B
from mlx_gemma4.measure.checks import fit as fit_check
from mlx_gemma4.measure.checks import system as system_check
from mlx_gemma4.measure.checks.finding import Finding
from mlx_gemma4.measure.checks.fit import fit
from mlx_gemma4.measure.checks.system import device, memory, power, system, unused_memory, versions
from mlx_gemma4.measure.machine import Machine
from mlx_gemma4.measure.speed.random_model import RandomCheckpoint

GIB = 2**30
M1 = Machine(
    chip="Apple M1",
    model="MacBookAir10,1",
    cores=8,
    gpu_cores=7,
    memory=16 * GIB,
    device="gpu, Apple M1",
    device_memory=11_453_251_584,
    power="mains",
    system="macOS 15.3",
    python="3.12.3",
    mlx="0.32.4",
    mlx_lm="0.32.2",
    mlx_gemma4="0.1.0",
    commit="0123456789ab",
)
SERVER = replace(
    M1,
    chip="AMD EPYC",
    model=None,
    cores=2,
    gpu_cores=None,
    memory=24 * GIB,
    device="cpu",
    device_memory=None,
    power=None,
    system="Linux 6.8",
    commit=None,
)
WEIGHTS = {recipe: RandomCheckpoint("12b", recipe).nbytes for recipe in fit_check.RECIPES}
TEXT = Config.from_dict(TWELVE_B).text_config


def on(monkeypatch: pytest.MonkeyPatch, platform_name: str, architecture: str, macos: str = "") -> None:
    monkeypatch.setattr(sys, "platform", platform_name)
    monkeypatch.setattr(platform, "machine", lambda: architecture)
    monkeypatch.setattr(platform, "python_version", lambda: "3.12.3")
    monkeypatch.setattr(platform, "mac_ver", lambda: (macos, ("", "", ""), architecture))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "release", lambda: "6.8.0-45-generic")


@pytest.mark.parametrize(
    ("machine", "translated", "verdict", "text", "remedy"),
    [
        (("darwin", "arm64", "15.3"), None, "ok", "macOS 15.3, arm64, Python 3.12.3", ""),
        (("darwin", "arm64", "14.0"), None, "ok", "macOS 14.0, arm64, Python 3.12.3", ""),
        (
            ("darwin", "arm64", "13.6.9"),
            None,
            "problem",
            "macOS 13.6.9, arm64, Python 3.12.3. MLX needs macOS 14.",
            "Update to macOS 14 or newer.",
        ),
        (
            ("darwin", "x86_64", "15.3"),
            "1",
            "problem",
            "macOS 15.3, x86_64, Python 3.12.3. MLX needs Apple silicon.",
            "Install a Python for arm64: this one runs under Rosetta.",
        ),
        (
            ("darwin", "x86_64", "13.6"),
            "0",
            "problem",
            "macOS 13.6, x86_64, Python 3.12.3. MLX needs Apple silicon.",
            "Use a Mac with an M chip.",
        ),
        (("linux", "x86_64"), None, "ok", "Linux 6.8.0-45-generic, x86_64, Python 3.12.3", ""),
    ],
)
def test_the_system(
    monkeypatch: pytest.MonkeyPatch, machine: Any, translated: str | None, verdict: str, text: str, remedy: str
) -> None:
    on(monkeypatch, *machine)
    monkeypatch.setattr(system_check, "ask", lambda command: translated)
    found = system()
    assert (found.subject, found.verdict, found.text, found.remedy) == ("system", verdict, text, remedy)
    assert found.figures["architecture"] == machine[1]


@pytest.mark.parametrize(
    ("platform_name", "machine", "verdict", "text", "remedy"),
    [
        (
            "darwin",
            M1,
            "ok",
            "Apple M1 (MacBookAir10,1), 8 CPU cores, 7 GPU cores. MLX computes on the GPU through Metal.",
            "",
        ),
        (
            "darwin",
            replace(M1, device="cpu", device_memory=None, gpu_cores=None),
            "problem",
            "Apple M1 (MacBookAir10,1), 8 CPU cores. MLX finds no GPU and computes on the CPU.",
            "Run it outside of a virtual machine and of a remote login without a screen.",
        ),
        (
            "linux",
            SERVER,
            "warning",
            "AMD EPYC, 2 CPU cores. MLX computes on the CPU. Tests and the demo work; the 12B is slow.",
            "Use a Mac with an M chip for the 12B.",
        ),
        (
            "linux",
            replace(SERVER, device="gpu, NVIDIA H100"),
            "ok",
            "AMD EPYC, 2 CPU cores. MLX computes on the GPU NVIDIA H100 through CUDA.",
            "",
        ),
    ],
)
def test_the_device(
    monkeypatch: pytest.MonkeyPatch, platform_name: str, machine: Machine, verdict: str, text: str, remedy: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform_name)
    found = device(machine)
    assert (found.subject, found.verdict, found.text, found.remedy) == ("device", verdict, text, remedy)
    assert found.figures["device"] == machine.device


def test_versions() -> None:
    assert versions(M1).text == "mlx_gemma4 0.1.0 at 0123456789ab, MLX 0.32.4, mlx-lm 0.32.2"
    assert versions(SERVER).text == "mlx_gemma4 0.1.0, MLX 0.32.4, mlx-lm 0.32.2"
    assert versions(M1).figures == {
        "mlx_gemma4": "0.1.0",
        "commit": "0123456789ab",
        "mlx": "0.32.4",
        "mlx_lm": "0.32.2",
    }


@pytest.mark.parametrize(
    ("machine", "limit", "text", "budget"),
    [
        (M1, None, "16 GiB, of which a model may use 11.5 GB.", 11_453_251_584),
        (SERVER, None, "24 GiB, of which a model may use 19.3 GB.", 18 * GIB),
        (SERVER, 8 * GIB, "24 GiB, of which this container may use 8.6 GB.", 8 * GIB),
        (SERVER, 64 * GIB, "24 GiB, of which a model may use 19.3 GB.", 18 * GIB),
    ],
)
def test_memory(machine: Machine, limit: int | None, text: str, budget: int) -> None:
    found = memory(machine, limit)
    assert (found.verdict, found.text) == ("ok", text)
    assert found.figures == {"bytes": machine.memory, "budget": budget, "available": None}
    crowded = memory(machine, limit, 3 * 10**9)
    assert crowded.text == f"{text} Other programs leave 3.0 GB now." and crowded.figures["available"] == 3 * 10**9


VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Pages active:                            300000.
Pages inactive:                           50000.
Pages speculative:                         1000.
Pages throttled:                              0.
Pages wired down:                        120000.
Pages purgeable:                           2000.
"Translation faults":                 123456789.
File-backed pages:                       100000.
"""


@pytest.mark.parametrize(
    ("printed", "available"), [(VM_STAT, 61_000 * 16_384), ("", None), (None, None), ("Pages free: 3.", None)]
)
def test_what_other_programs_leave_on_a_mac(
    monkeypatch: pytest.MonkeyPatch, printed: str | None, available: int | None
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert unused_memory(lambda command: printed if command == ["vm_stat"] else "") == available


def test_power() -> None:
    found = power(replace(M1, power="low power mode"))
    assert (found.verdict, found.text, found.remedy) == (
        "warning",
        "The machine is on low power mode, which may make it slower.",
        "Connect it to the mains, and switch the low power mode off.",
    )


@pytest.mark.parametrize(
    ("state", "subjects"),
    [
        ("mains", ["system", "versions", "device", "memory"]),
        (None, ["system", "versions", "device", "memory"]),
        ("battery", ["system", "versions", "device", "memory", "power"]),
    ],
)
def test_power_is_mentioned_if_it_matters(
    monkeypatch: pytest.MonkeyPatch, state: str | None, subjects: list[str]
) -> None:
    monkeypatch.setattr(system_check, "machine", lambda: replace(M1, power=state))
    assert [finding.subject for finding in system_check.check({})] == subjects


def test_a_broken_mlx_is_told_after_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Machine:
        raise ImportError("dlopen(core.so):\n Symbol not found")

    monkeypatch.setattr(system_check, "machine", broken)
    first, second = system_check.check({})
    assert first.subject == "system"
    assert (second.subject, second.verdict) == ("device", "problem")
    assert second.text == "MLX cannot be imported: dlopen(core.so): Symbol not found"
    assert second.remedy == "Install it again: pip install --force-reinstall mlx" and second.figures == {}


def fits(budget: int, *, is_ahead: bool = True) -> Finding:
    return fit(budget, WEIGHTS, TEXT, is_ahead=is_ahead)


@pytest.mark.parametrize(
    ("budget", "verdict", "text"),
    [
        (
            5_726_633_984,  # of 8 GB
            "problem",
            "The 12B does not fit into 5.7 GB: live speech needs 8.1 GB with mxfp4.",
        ),
        (
            11_453_251_584,  # of 16 GB
            "ok",
            "Live speech with the 12B fits into 11.5 GB with 4bit, mxfp4, nvfp4, mixed, qat. Computed, not measured.",
        ),
        (
            17_179_885_568,  # of 24 GB
            "ok",
            "Live speech with the 12B fits into 17.2 GB with 4bit, mxfp4, nvfp4, mixed, qat, 8bit, mxfp8. Computed, "
            "not measured.",
        ),
        (
            103_079_215_104,  # of 128 GB
            "ok",
            "Live speech with the 12B fits into 103.1 GB with 4bit, mxfp4, nvfp4, mixed, qat, 8bit, mxfp8, bf16. "
            "Computed, not measured.",
        ),
    ],
)
def test_what_fits_into_macs(budget: int, verdict: str, text: str) -> None:
    found = fits(budget)
    assert (found.subject, found.verdict, found.text) == ("fit", verdict, text)
    assert found.remedy == ("Use a machine with 16 GB or more." if verdict == "problem" else "")


def test_the_table_of_recipes() -> None:
    """On 24 GB, and within 9.5: sizes as in the docs, and contexts by the plan of memory."""
    table = {row[0]: row[1:] for row in fits(17_179_885_568).table}
    assert table["recipe"] == ("weights", "live speech needs", "context up to")
    assert {recipe: row[0] for recipe, row in table.items() if recipe != "recipe"} == {
        "4bit": "7.1 GB",
        "mxfp4": "6.7 GB",
        "nvfp4": "7.1 GB",
        "mixed": "7.4 GB",
        "qat": "8.0 GB",
        "8bit": "12.8 GB",
        "mxfp8": "12.4 GB",
        "bf16": "23.9 GB",
    }
    assert table["4bit"] == ("7.1 GB", "8.5 GB", "131,000 or more")
    assert table["bf16"] == ("23.9 GB", "25.3 GB", "-")
    assert {row[0]: row[3] for row in fits(9_500_000_000).table}["mixed"] == "19,000"
    assert {row[0]: row[3] for row in fits(10**12).table}["8bit"] == "131,000 or more"
    assert fits(17_179_885_568).figures["4bit"]["weights"] == 7_055_409_248


@pytest.mark.parametrize("device_name", ["cpu", "gpu, Apple M1"])
def test_the_check_takes_the_budget_of_the_machine(device_name: str) -> None:
    known: dict[str, Any] = {
        "device": {"device": device_name},
        "memory": {"budget": 17_179_885_568, "available": 12 * 10**9},
    }
    assert [*fit_check.check(known)] == [fits(17_179_885_568, is_ahead=device_name != "cpu")]


@pytest.mark.parametrize(("available", "is_told"), [(5 * 10**9, True), (9 * 10**9, False), (None, False)])
def test_other_programs_that_leave_too_little(available: int | None, is_told: bool) -> None:
    known = {
        "device": {"device": "gpu, Apple M1"},
        "memory": {"budget": 11_453_251_584, "available": available},
    }
    first, *rest = fit_check.check(known)
    assert first == fits(11_453_251_584)
    text = "Other programs leave 5.0 GB now; live speech needs 8.1 GB with mxfp4."
    remedy = "Close some of them before you load the 12B: a machine that swaps is slow."
    assert rest == ([Finding("room", "warning", text, remedy)] if is_told else [])


def test_what_does_not_fit_anyway() -> None:
    """Needs no second complaint."""
    known = {"device": {"device": "gpu, Apple M1"}, "memory": {"budget": 5_726_633_984, "available": 10**9}}
    assert [finding.verdict for finding in fit_check.check(known)] == ["problem"]
