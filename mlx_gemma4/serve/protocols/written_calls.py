"""The calls in an answer: which of them a client is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlx_gemma4.outputs.tools.calls import ToolCall, read_calls
from mlx_gemma4.outputs.tools.syntax import read_block


class WrittenCalls:
    """Reads the calls of one answer.

    Args:
        tools: The functions that may be called; None: calls are not read.
        next_id: Makes the ids of calls.
        one_call: Read the first call alone.

    Attributes:
        count: Calls so far.
    """

    def __init__(
        self, tools: Sequence[Mapping[str, Any]] | None, next_id: Callable[[], str], *, one_call: bool
    ) -> None:
        self._tools, self._next_id, self._one_call = tools, next_id, one_call
        self.count = 0

    def read(self, text: str) -> list[ToolCall] | None:
        """The calls in a piece of kind "tool_call"; None if nobody could run them: the client sees the text then."""
        if self._tools is None or not _is_readable(text):
            return None
        calls = read_calls(text, self._tools, self._next_id)
        calls = calls[: 1 - self.count] if self._one_call else calls
        self.count += len(calls)
        return calls


def _is_readable(text: str) -> bool:
    try:
        read_block(text)
    except ValueError:
        return False
    return True
