"""A Python file of functions that a model may call, and its calls."""

from __future__ import annotations

from pathlib import Path

from mlx_gemma4.outputs.channels import Kind
from mlx_gemma4.outputs.tools.sources import Tools
from mlx_gemma4.outputs.tools.toolbox import load_tools

LIGHTS = '''
ran = []

def lights(room: str) -> str:
    """Turn on the lights."""
    ran.append(room)
    return f"{room} on"
'''
CALL: tuple[Kind, str] = ("tool_call", 'call:lights{room:<|"|>hall<|"|>}')
BATH: tuple[Kind, str] = ("tool_call", 'call:lights{room:<|"|>bath<|"|>}')


def written(folder: Path, more: str = "") -> Tools:
    """The functions, and more of them, from a file in ``folder``."""
    path = folder / "tools.py"
    path.write_text(LIGHTS + more)
    return load_tools(path)


def ran(tools: Tools) -> list[str]:
    """The rooms that ``lights`` was called for."""
    found: list[str] = tools._functions["lights"].__globals__["ran"]  # type: ignore[attr-defined]
    return found
