"""``--json-schema``, ``--regex``, ``--grammar`` and ``--choice``: what an answer may be."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_gemma4.outputs.grammar.constraint import Constraint

OPTIONS = ("json_schema", "regex", "grammar", "choice")


def add_constraints(parser: argparse.ArgumentParser) -> None:
    """Add the options of constraints."""
    group = parser.add_argument_group("form of the answer", "What the answer may be; thoughts before it are free.")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--json-schema", metavar="FILE", help="JSON that a JSON schema allows; - reads it from stdin")
    one.add_argument("--regex", metavar="PATTERN", help="text that a regular expression matches as a whole")
    one.add_argument("--grammar", metavar="FILE", help="text of a grammar in llguidance's variant of Lark")
    one.add_argument("--choice", metavar="A,B", help="one of these texts, separated by commas")


def open_constraint(arguments: argparse.Namespace) -> Constraint | None:
    """The constraint that the options describe.

    Raises:
        ValueError: A file cannot be read, or the constraint cannot be compiled.
        ImportError: llguidance is not installed.
    """
    given = next((name for name in OPTIONS if getattr(arguments, name) is not None), None)
    if given is None:
        return None
    option = f"--{given.replace('_', '-')}"
    if arguments.tools:
        raise ValueError(f"{option} allows no calls of functions: leave out --tools")
    if "-" in (arguments.json_schema, arguments.grammar) and arguments.prompt == "-":
        raise ValueError(f"--prompt and {option} cannot both read stdin: give a file to one of them")

    from mlx_gemma4.outputs.grammar.constraint import Constraint

    if arguments.json_schema is not None:
        return Constraint.json_schema(_schema(arguments.json_schema))
    if arguments.regex is not None:
        return Constraint.regex(arguments.regex)
    if arguments.grammar is not None:
        return Constraint.lark(_read(arguments.grammar, "grammar"))
    return Constraint.choice([option.strip() for option in arguments.choice.split(",")])


def cut(constraint: Constraint | None) -> str:
    """What is to be said of an answer that was stopped, besides where; nothing if it may be anything."""
    return "" if constraint is None else f" before it was what the {constraint.kind} asks for"


def _schema(path: str) -> dict[str, object] | bool:
    text = _read(path, "JSON schema")
    try:
        schema: dict[str, object] | bool = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The JSON schema in {_named(path)} is not valid JSON: {error}") from error
    return schema


def _read(path: str, kind: str) -> str:
    if path == "-":
        return sys.stdin.read()
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ValueError(f"There is no {kind} at {path}") from error
    except OSError as error:
        raise ValueError(f"The {kind} in {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"The {kind} in {path} is not UTF-8: save it as UTF-8") from error


def _named(path: str) -> str:
    return "stdin" if path == "-" else path
