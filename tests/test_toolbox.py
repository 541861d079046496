"""Functions of a user's file: described, called, and refused where they cannot be described."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_gemma4.live.toolbox import Toolbox

FILE = '''
from pathlib import Path

def lights(room: str, on: bool = True) -> str:
    """Turn the lights of a room on or off."""
    return f"{room}: {on}"

def fails(count: int) -> str:
    """Raise."""
    raise KeyError(count)

def _private(x):
    pass
'''


def toolbox(folder: Path, text: str) -> Toolbox:
    path = folder / "tools.py"
    path.write_text(text)
    return Toolbox(path)


def test_functions_are_described_by_their_signatures(tmp_path: Path) -> None:
    """Private ones and imported ones are not offered."""
    lights, fails = toolbox(tmp_path, FILE).schemas
    assert lights == {
        "type": "function",
        "function": {
            "name": "lights",
            "description": "Turn the lights of a room on or off.",
            "parameters": {
                "type": "object",
                "properties": {"room": {"type": "string"}, "on": {"type": "boolean"}},
                "required": ["room"],
            },
        },
    }
    assert fails["function"]["parameters"] == {
        "type": "object",
        "properties": {"count": {"type": "integer"}},
        "required": ["count"],
    }


def test_calls(tmp_path: Path) -> None:
    """What goes wrong is told to the model."""
    tools = toolbox(tmp_path, FILE)
    assert tools.call("lights", {"room": "hall"}) == "hall: True"
    assert tools.call("fails", {"count": 3}) == "error: KeyError: 3"
    assert tools.call("lights", {"colour": "red"}).startswith("error: TypeError: ")
    assert tools.call("doors", {}) == "error: there is no function doors, only lights, fails"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"^Expected functions in .*tools\.py, it defines none without a leading underscore$"),
        ("def f(): pass", r"^Expected a docstring that tells what f does, found none$"),
        ('def f(x):\n    "x"', r"^Expected a type for x of f \(str, int, float, bool, list, dict\), got x$"),
        ('def f(x: set):\n    "x"', r"^Expected a type for x of f \(str, int, float, bool, list, dict\), got x: set$"),
        ('def f(*x: int):\n    "x"', r"^Expected a type for x of f \(.*\), got \*x: int$"),
        ("1 / 0", r"^Expected a Python file that runs, .*tools\.py raises ZeroDivisionError: division by zero$"),
    ],
)
def test_files_that_are_no_toolbox(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toolbox(tmp_path, text)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^Expected a Python file of functions, found none at .*absent\.py$"):
        Toolbox(tmp_path / "absent.py")


def test_no_python_file(tmp_path: Path) -> None:
    (tmp_path / "tools.txt").write_text(FILE)
    with pytest.raises(ValueError, match=r"^Expected a Python file \(\.py\) of functions, got .*tools\.txt$"):
        Toolbox(tmp_path / "tools.txt")
