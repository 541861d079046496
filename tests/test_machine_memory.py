"""How much memory the machine has for a model: MLX's recommendation, other programs, containers."""

from __future__ import annotations

import sys
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_gemma4.decoder import machine_memory
from mlx_gemma4.decoder.machine_memory import (
    available_memory,
    container_memory,
    device_budget,
    memory_budget,
)

GIB = 2**30


@pytest.mark.parametrize(
    ("version", "names"),
    [
        (2, ("memory.max", "memory.current", "memory.stat", "inactive_file")),
        (
            1,
            (
                "memory/memory.limit_in_bytes",
                "memory/memory.usage_in_bytes",
                "memory/memory.stat",
                "total_inactive_file",
            ),
        ),
    ],
)
def test_the_memory_of_a_container(tmp_path: Path, version: int, names: tuple[str, ...]) -> None:
    """What it does not use yet; cached files count as free."""
    limit, used, statistics, cached = names
    assert container_memory(tmp_path) is None
    (tmp_path / limit).parent.mkdir(exist_ok=True)
    (tmp_path / limit).write_text(f"{4 * GIB}\n")
    (tmp_path / used).write_text(f"{3 * GIB}\n")
    (tmp_path / statistics).write_text(f"anon 5\n{cached} {GIB // 2}\nactive_file 7\n")
    assert container_memory(tmp_path) == 3 * GIB // 2
    (tmp_path / used).write_text(f"{5 * GIB}\n")
    assert container_memory(tmp_path) == 0
    (tmp_path / limit).write_text("max\n")
    assert container_memory(tmp_path) is None


def test_what_other_programs_leave_on_linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    file = tmp_path / "meminfo"
    assert available_memory(file) is None
    file.write_text("MemTotal:       24737712 kB\nMemFree:         1000000 kB\nMemAvailable:    2000000 kB\n")
    assert available_memory(file) == 2_048_000_000
    file.write_text("MemTotal: 24737712 kB\n")
    assert available_memory(file) is None
    monkeypatch.setattr(sys, "platform", "darwin")
    file.write_text("MemAvailable:    2000000 kB\n")
    assert available_memory(file) is None


@pytest.mark.parametrize(
    ("left", "container", "budget"),
    [(3 * GIB, None, 3 * GIB), (3 * GIB, GIB, GIB), (3 * GIB, 9 * GIB, 3 * GIB), (None, None, 6 * GIB)],
)
def test_the_budget_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, left: int | None, container: int | None, budget: int
) -> None:
    """The least of what other programs and the container leave; three quarters of the machine if neither is known."""
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.cpu))
    monkeypatch.setattr(machine_memory, "available_memory", lambda: left)
    monkeypatch.setattr(machine_memory, "container_memory", lambda: container)
    monkeypatch.setattr(machine_memory, "machine_memory", lambda: 8 * GIB)
    assert memory_budget() == budget


@pytest.mark.parametrize(
    ("info", "budget"),
    [
        ({"max_recommended_working_set_size": 11_453_251_584, "memory_size": 16 * GIB}, 11_453_251_584),
        ({"free_memory": 70 * GIB, "total_memory": 80 * GIB}, 70 * GIB),
        ({"device_name": "unknown"}, 6 * GIB),
    ],
)
def test_the_budget_on_a_gpu(monkeypatch: pytest.MonkeyPatch, info: dict[str, str | int], budget: int) -> None:
    """Of Metal what macOS recommends, of CUDA what is free."""
    monkeypatch.setattr(machine_memory, "machine_memory", lambda: 8 * GIB)
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    monkeypatch.setattr(mx, "device_info", lambda: info)
    assert device_budget(info) == memory_budget() == budget
