"""Functions of a user's file: described, called, and refused where they cannot be described."""

from __future__ import annotations

import json
import math
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.outputs.tools.sources import Tools
from mlx_gemma4.outputs.tools.toolbox import Toolbox, load_tools

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


def called(tools: Tools, name: str, **arguments: Any) -> str:
    """The text of a result."""
    return tools.call(ToolCall("call_1", name, arguments)).text


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
    assert called(tools, "lights", room="hall") == "hall: True"
    assert called(tools, "fails", count=3) == "error: KeyError: 3"
    assert called(tools, "lights", colour="red").startswith("error: TypeError: ")
    assert called(tools, "doors") == "error: there is no function doors, only lights, fails"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", r"^.*tools\.py defines no functions without a leading underscore$"),
        ("def f(): pass", r"^f has no docstring; write one that says what it does$"),
        (
            'def f(x):\n    "x"',
            r"^The argument x of f has no type that a tool can have; use str, int, float, bool, list, dict$",
        ),
        ('def f(x: set):\n    "x"', r"^The argument x: set of f has no type that a tool can have; use str, "),
        ('def f(*x: int):\n    "x"', r"^The argument \*x: int of f has no type that a tool can have; use str, "),
        ("def f(x: 'Foo'):\n 'x'", r"^The types of the arguments of f cannot be read: name 'Foo' is not defined$"),
        ("def f(x: [int]):\n 'x'", r"^The argument x: \[<class 'int'>\] of f has no type "),
        ("def f(x: dict[int, str]):\n 'x'", r"^The argument x: dict\[int, str\] of f has no type "),
        ("def f(x: list[str] | list[int]):\n 'x'", r"^The argument x: list\[str\] \| list\[int\] of f has no type "),
        ("def f(x: list[set]):\n 'x'", r"^The argument x: list\[set\] of f has no type "),
        ("def f():\n 'x'\n yield 1", r"^f is a generator function, which cannot be a tool; return a list instead of "),
        ("async def f():\n 'x'\n yield 1", r"^f is a generator function, which cannot be a tool; return a list "),
        ("import sys; sys.exit(3)", r"^The Python file of functions fails: .*tools\.py raises SystemExit: 3$"),
        ("raise ValueError('a\\nb')", r"^The Python file of functions fails: .*tools\.py raises ValueError: a b$"),
        ("def f(:", r"^The Python file of functions fails: .*tools\.py raises SyntaxError: "),
        ("1 / 0", r"^The Python file of functions fails: .*tools\.py raises ZeroDivisionError: division by zero$"),
    ],
)
def test_files_that_are_no_toolbox(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toolbox(tmp_path, text)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^There is no Python file of functions at .*absent\.py$"):
        Toolbox(tmp_path / "absent.py")


def test_no_python_file(tmp_path: Path) -> None:
    (tmp_path / "tools.txt").write_text(FILE)
    with pytest.raises(ValueError, match=r"^.*tools\.txt is not a Python file; its name must end in \.py$"):
        Toolbox(tmp_path / "tools.txt")


TYPED = """
from __future__ import annotations
import dataclasses, functools
from typing import TYPE_CHECKING, Annotated, Literal, Optional, Union
import beside
if TYPE_CHECKING:
    from nowhere import Unknown

@dataclasses.dataclass
class Thing:
    x: int

def f(
    a: Optional[str], b: str | None = None, c: Union[int, str] = 1, d: Literal["x", "y"] = "x", e: Literal[1, None] = 1,
    g: list[str] = [], h: dict[str, float] = {}, i: Annotated[int, "how many"] = 1, j: list[dict] | str | None = None,
    k: Literal[1, "x"] = 1, *, m: bool,
) -> Unknown:
    "x"

@functools.lru_cache
def cached(x: int):
    "y"
    return beside.double(x)

print("loaded")
"""


def test_types_of_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those with a default are optional. What the file prints goes to stderr; it may import what lies beside it."""
    (tmp_path / "beside.py").write_text("def double(x): return 2 * x")
    tools = toolbox(tmp_path, TYPED)
    assert tuple(capsys.readouterr()) == ("", "loaded\n")
    first, second = (tool["function"] for tool in tools.schemas)
    assert first["parameters"]["required"] == ["a", "m"]
    assert first["parameters"]["properties"] == {
        "a": {"type": "string", "nullable": True},
        "b": {"type": "string", "nullable": True},
        "c": {"type": ["integer", "string"]},
        "d": {"type": "string", "enum": ["x", "y"]},
        "e": {"type": "integer", "enum": [1], "nullable": True},
        "g": {"type": "array", "items": {"type": "string"}},
        "h": {"type": "object", "additionalProperties": {"type": "number"}},
        "i": {"type": "integer", "description": "how many"},
        "j": {"type": ["array", "string"], "items": {"type": "object"}, "nullable": True},
        "k": {"type": ["integer", "string"], "enum": [1, "x"]},
        "m": {"type": "boolean"},
    }
    assert second["name"] == "cached" and called(tools, "cached", x=2) == "4"


FAILURES = """
import asyncio, sys

class Odd(Exception):
    def __str__(self): raise RuntimeError

class Unprintable:
    def __str__(self): raise KeyError("x")

def leaves():
    "x"
    sys.exit(1)

def interrupts():
    "x"
    raise KeyboardInterrupt

def recurses():
    "x"
    return recurses()

def odd():
    "x"
    raise Odd

def unprintable():
    "x"
    return Unprintable()

def asks():
    "x"
    return input("really? ")

def generates():
    "x"
    return (x for x in "abc")

async def waits(x: int):
    "x"
    await asyncio.sleep(0)
    return x + 1

def later():
    "x"
    return waits(1)

def raw():
    "x"
    return b"a\\xffb"

def nothing():
    "x"

def halves():
    "x"
    return "\\ud83d\\ude42 \\ud800"

def long():
    "x"
    return "é" * 300_000

def complains():
    "x"
    raise ValueError("é" * 300_000)
"""


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("leaves", "error: SystemExit: 1"),
        ("interrupts", "error: KeyboardInterrupt: "),
        ("recurses", "error: RecursionError: maximum recursion depth exceeded"),
        ("odd", "error: Odd: (no message)"),
        ("unprintable", "error: KeyError: 'x'"),
        ("asks", "error: EOFError: EOF when reading a line"),
        ("generates", "error: the function returned a generator instead of a result"),
        ("later", "2"),
        ("raw", "a\ufffdb"),
        ("nothing", "done"),
        ("halves", "🙂 \ufffd"),
        ("long", "é" * 6000 + "\n[… 292,000 of 300,000 characters are left out here …]\n" + "é" * 2000),
        (
            "complains",
            f"error: ValueError: {'é' * 5981}\n[… 292,019 of 300,019 characters are left out here …]\n{'é' * 2000}",
        ),
    ],
)
def test_failures_are_results(tmp_path: Path, name: str, result: str) -> None:
    """Whatever a function does, the model gets text, and the session goes on."""
    assert called(toolbox(tmp_path, FAILURES), name) == result


def test_functions_that_wait(tmp_path: Path) -> None:
    assert called(toolbox(tmp_path, FAILURES), "waits", x=1) == "2"


PRINTS = """
import os, sys, threading

ends = threading.Event()

def says():
    "x"
    print("printed")
    os.system("echo started")
    sys.stdout.flush()
    sys.stdout.close()
    return "result"

def hangs():
    "x"
    ends.wait(20)
    print("too late")
"""


def test_what_functions_print_goes_to_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """That of programs they start, too; stdout belongs to answers."""
    tools = toolbox(tmp_path, PRINTS)
    print("before", end=" ")
    assert called(tools, "says") == "result"
    print("after")
    out, err = capfd.readouterr()
    assert (out, sorted(err.split())) == ("before after\n", ["printed", "started"])


def test_a_function_that_hangs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The session goes on without it, and what it prints when it ends goes to stderr."""
    path = tmp_path / "tools.py"
    path.write_text(PRINTS)
    stdout, tools = sys.stdout, Toolbox(path, time_limit=0.05)
    try:
        assert called(tools, "hangs") == "error: no result within 0.05 s"
        print("answer")
        function = tools._functions["hangs"]
        function.__globals__["ends"].set()
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and thread.daemon:
                thread.join(5)
    finally:
        sys.stdout = stdout
    assert tuple(capsys.readouterr()) == ("answer\n", "too late\n")


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_time_limits_that_are_none(tmp_path: Path, seconds: float) -> None:
    message = rf"^The time limit of tools must be more than 0 and at most 86400 seconds, got {seconds:g}$"
    with pytest.raises(ValueError, match=message):
        Toolbox(tmp_path / "tools.py", time_limit=seconds)


INNER = {"name": "lights", "parameters": {"properties": {"on": {"type": "boolean"}}, "required": ["on"]}}
DECLARED = {
    "type": "function",
    "function": {
        "name": "lights",
        "description": "",
        "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
    },
}


@pytest.mark.parametrize(
    "content",
    [
        [INNER],
        {"tools": [INNER]},
        INNER,
        {"type": "function", "function": INNER},
        [{"type": "function", "function": INNER}],
        {"tools": [{"name": "lights", "inputSchema": INNER["parameters"]}]},
        {"tools": [{"name": "lights", "input_schema": INNER["parameters"]}]},
    ],
)
def test_declarations_in_a_json_file(tmp_path: Path, content: object) -> None:
    """Every form in which they are passed around; they are declared, and not run."""
    path = tmp_path / "tools.JSON"
    path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    tools = load_tools(path)
    assert tools.schemas == [DECLARED] and not tools.runs("lights")
    assert called(tools, "lights") == "error: lights is not available: nothing here can run it"


def test_a_function_without_arguments(tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    path.write_text('[{"name": "now", "description": "The time."}]')
    (tool,) = load_tools(path).schemas
    assert tool["function"]["parameters"] == {"type": "object", "properties": {}}


def test_a_python_file_is_a_toolbox(tmp_path: Path) -> None:
    path = tmp_path / "tools.py"
    path.write_text(FILE)
    tools = load_tools(path)
    assert tools.runs("lights") and not tools.runs("doors")


FORM = r'\[\{"name": …, "description": …, "parameters": \{…\}\}, …\]'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"^.*t\.json is not valid JSON: Expecting property name"),
        ("[" * 100_000, r"^.*t\.json is not valid JSON: "),
        ("[]", rf"^There are no tools in .*t\.json: it must hold {FORM}$"),
        ("5", rf"^There are no tools in .*t\.json: it must hold {FORM}$"),
        ('{"tools": {}}', r'^tool 1 in .*t\.json needs a "name" without spaces, braces and <\|>, got None$'),
        ("[5]", rf"^tool 1 in .*t\.json is not an object; the file must hold {FORM}$"),
        ('[{"name": "a"}, {"name": "b c"}]', r"^tool 2 in .*t\.json needs a \"name\" without spaces.*, got 'b c'$"),
        ('[{"name": "a"}, {"name": "a"}]', r"^Two tools in .*t\.json are called a: give each a name of its own$"),
        ('[{"name": "a", "description": 5}]', r'^"description" of tool 1 in .*t\.json must be text, got 5$'),
        ('[{"name": "a", "parameters": 5}]', r"^the parameters of tool 1 in .*t\.json must be an object, got 5$"),
        (
            '[{"name": "a", "parameters": {"properties": {"x": 5}}}]',
            r"^the parameters of tool 1 in .*t\.json must be an object, got 5$",
        ),
        (
            '[{"name": "a", "parameters": {"properties": []}}]',
            r'^"properties" in the parameters of tool 1 in .*t\.json must be an object, got \[\]$',
        ),
        (
            '[{"name": "a", "parameters": {"properties": {"x": {"type": 5}}}}]',
            r'^"type" in the parameters of tool 1 in .*t\.json must be text or a list of texts, got 5$',
        ),
        (
            '[{"name": "a", "parameters": {"required": "x"}}]',
            r"^\"required\" in the parameters of tool 1 in .*t\.json must be a list, got 'x'$",
        ),
        (
            '[{"name": "a", "parameters": {"required": [5]}}]',
            r'^"required" in the parameters of tool 1 in .*t\.json must be a list of texts, got \[5\]$',
        ),
        (
            '[{"name": "a", "parameters": ' + '{"items": ' * 40 + "{}" + "}" * 41 + "]",
            r"^the parameters of tool 1 in .*t\.json are nested more than 32 deep$",
        ),
    ],
)
def test_json_files_that_declare_nothing(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_tools(path)


def test_json_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^There is no JSON file of tools at .*absent\.json$"):
        load_tools(tmp_path / "absent.json")
    with pytest.raises(ValueError, match=r"^The tools in .* cannot be read: Is a directory$"):
        load_tools(tmp_path)
