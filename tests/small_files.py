"""Copies of the demo checkpoint whose small files are changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlx_gemma4 import demo_folder

DEMO = demo_folder() / "checkpoint"


def demo_copy(folder: Path, *, weights: bool = False) -> Path:
    """The demo's small files in a folder of their own, or all of them."""
    folder.mkdir(parents=True)
    for path in DEMO.iterdir():
        if path.is_file() and (weights or path.suffix != ".safetensors"):
            shutil.copyfile(path, folder / path.name)
    return folder


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file."""
    table = json.loads(path.read_text(encoding="utf-8"))
    change(table)
    path.write_text(json.dumps(table), encoding="utf-8")


def write(path: Path, table: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(table), encoding="utf-8")
