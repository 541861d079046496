"""How much memory this machine has for a model.

Metal    MLX's recommended working set: what macOS keeps on the GPU without swapping, two thirds to three quarters
CUDA     what is free on the GPU
CPU      what other programs leave (Linux), within the limit of the container
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

SHARE = 0.75
"""Of the machine's memory, where neither MLX nor the system says more: about what macOS recommends."""
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
"""Where Linux says how much memory a container may use, how much it uses, and the cached files among that: of version
2 and 1."""


def memory_budget() -> int:
    """Bytes that a model may use on the device that MLX computes on, without the machine swapping."""
    import mlx.core as mx

    if mx.default_device().type == mx.gpu:
        return device_budget(mx.device_info())
    left = [each for each in (available_memory(), container_memory()) if each is not None]
    return min(left, default=round(SHARE * machine_memory()))


def device_budget(info: Mapping[str, str | int]) -> int:
    """Bytes that a model may use on a GPU, from what MLX says about it."""
    for name in ("max_recommended_working_set_size", "free_memory"):
        if name in info:
            return int(info[name])
    return round(SHARE * machine_memory())


def machine_memory() -> int:
    """Bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory(meminfo: Path = MEMINFO) -> int | None:
    """Bytes that programs can have on Linux without anything being swapped; None elsewhere."""
    if sys.platform == "darwin":
        return None
    with suppress(OSError):
        found = re.search(r"^MemAvailable:\s*(\d+) kB", meminfo.read_text(), re.MULTILINE)
        return 1024 * int(found[1]) if found else None
    return None


def container_memory(folder: Path = CGROUP) -> int | None:
    """Bytes that this container may still use; None if nothing limits it. Cached files give way."""
    for limit, used, statistics, cached in CGROUP_FILES:
        with suppress(OSError, ValueError):  # not there, or "max"
            most = int((folder / limit).read_text())
            taken = int((folder / used).read_text())
            found = re.search(rf"^{cached} (\d+)$", (folder / statistics).read_text(), re.MULTILINE)
            return max(most - taken + (int(found[1]) if found else 0), 0)
    return None
