"""What a model wants called: its tool calls, read."""

from __future__ import annotations

import re
from typing import Any

STRING = re.compile(r'<\|"\|>.*?<\|"\|>', re.DOTALL)
CALL = re.compile(r"(?<![\w{,])call:")
"""The beginning of a call, which is no key and no end of one."""


def parse_tool_calls(text: str) -> list[dict[str, Any]]:
    """Read ``call:name{key:value}``, one or several, by mlx-lm's parser: ``[{"name": …, "arguments": {…}}]``.

    Raises:
        ValueError: The text is no tool call, or its arguments cannot be read.
    """
    from mlx_lm.tool_parsers.gemma4 import parse_tool_call

    try:
        calls = parse_tool_call(text)
        calls = calls if isinstance(calls, list) else [calls]
        # the parser passes over what it cannot read
        if len(calls) != len(CALL.findall(STRING.sub("", text))):
            raise ValueError("only some of the calls are whole")
    except ValueError as error:
        raise ValueError(f"Expected a tool call (call:name{{…}}), got {text!r}: {error}") from error
    return calls
