"""Reads the tool calls of a model, and checks them against the declared functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_gemma4.outputs.channels import MARKERS
from mlx_gemma4.outputs.tools.schema import fit_arguments
from mlx_gemma4.outputs.tools.syntax import QUOTE, SHOWN, named, plain, read_block

BEGIN, END = MARKERS["tool_call"]
_STRING = re.escape(QUOTE) + ".*?" + re.escape(QUOTE)
_BLOCK = re.compile(f"{re.escape(BEGIN)}((?:{_STRING}|(?!{re.escape(END)}).)*)", re.DOTALL)
"""A call up to its end marker; strings may contain that marker."""
DECLINED = "The user did not allow it."
"""Why a call was not run, for the model to read."""


@dataclass(frozen=True)
class ToolCall:
    """A call, as the model wrote it or as it can be run.

    Attributes:
        id: Unique in a conversation.
        arguments: With the declared types; as written where there is a problem.
        problem: Why the call cannot be run, for the model to read; None if it can.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    problem: str | None = None


def parse_tool_calls(text: str) -> list[dict[str, Any]]:
    """Read ``call:name{key:value}``, one or several: ``[{"name": …, "arguments": {…}}]``.

    ``text`` is a piece of kind "tool_call", or an answer of ``generate``, whose calls stand between their markers.
    Values without quotes become null, booleans or numbers if they look like them, and strings otherwise.

    Raises:
        ValueError: The text has no call, or one that cannot be read; the message says where.
    """
    try:
        written = [call for block in _blocks(text) for call in read_block(block)]
        return [{"name": call.name, "arguments": plain(call.arguments)} for call in written]
    except ValueError as error:
        shown = repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}…"
        raise ValueError(f"Cannot read a tool call (call:name{{…}}) in {shown}: {error}") from error


def read_calls(text: str, tools: Sequence[Mapping[str, Any]] | None, next_id: Callable[[], str]) -> list[ToolCall]:
    """Read the calls in a piece of kind "tool_call", and check them against the schemas of ``tools`` (None: no check).

    Never raises: a text that cannot be read becomes one call with a problem.
    """
    try:
        written = read_block(text)
    except ValueError as error:
        return [ToolCall(next_id(), named(text), {}, f"the call cannot be read: {error}")]
    return [_checked(next_id(), call.name, call.arguments, tools) for call in written]


def _checked(call_id: str, name: str, written: dict[str, Any], tools: Sequence[Mapping[str, Any]] | None) -> ToolCall:
    try:
        if tools is None:
            return ToolCall(call_id, name, plain(written))
        return ToolCall(call_id, name, fit_arguments(written, _parameters(name, tools)))
    except ValueError as error:
        return ToolCall(call_id, name, _readable(written), str(error))


def _parameters(name: str, tools: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    declared = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    if name not in declared:
        known = f"only {', '.join(declared)}" if declared else "none is declared"
        raise ValueError(f"there is no function {name}, {known}")
    parameters: Mapping[str, Any] = declared[name]
    return parameters


def _readable(written: dict[str, Any]) -> dict[str, Any]:
    try:
        arguments: dict[str, Any] = plain(written)
    except ValueError:  # a number is out of range; the call's problem says so
        arguments = {}
    return arguments


def _blocks(text: str) -> list[str]:
    """The texts between markers, or the whole text if it has no markers."""
    return [text] if text.lstrip().startswith("call:") or BEGIN not in text else _BLOCK.findall(text)
