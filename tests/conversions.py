"""What tests of interrupted and failing conversions share."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma4.cli import main
from mlx_gemma4.convert import convert, write

SHARD_BYTES = 3 << 20


DRIVER = f"""
import signal, sys
from mlx_gemma4.cli import main
from mlx_gemma4.convert import tensors, write
from mlx_gemma4.convert.plan import Plan

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without
tensors.BLOCK_BYTES, write._RECORD_BYTES, Plan.shards.__defaults__ = 1 << 16, 1 << 18, ({SHARD_BYTES},)
sys.exit(main(["convert", *sys.argv[1:]]))
"""
"""A conversion in many small pieces and files."""


Refused = Callable[..., str]


def beside(target: Path) -> set[str]:
    """All that lies where the target is to be."""
    return {path.name for path in target.parent.iterdir()}


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> float:
    """When the path was there, or the process had ended."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.001)
    return time.monotonic()


def finished(source: Path, target: Path, *, overwrite: bool = False) -> int:
    """A conversion that is not killed; how many tensors an earlier one had left to it."""
    said: list[str] = []
    convert(source, target, overwrite=overwrite, note=said.append)
    return int(said[0].partition("run: ")[2].partition(" of ")[0]) if said else 0


def put(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int, *arguments: str | Path) -> None:
    """Convert up to that many tensors, and press Ctrl-C."""
    compute, count = write._compute_block, iter(range(after))

    def pressed(step: Any, rows: Any) -> Any:
        if next(count, None) is None:
            raise KeyboardInterrupt
        return compute(step, rows)

    with monkeypatch.context() as patch:
        patch.setattr(write, "_compute_block", pressed)
        assert main(["convert", *map(str, arguments)]) == 130
