"""Where the functions come from that a model may call. Several sources are joined into one, with unique names."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.outputs.tools.result import ToolResult


class Tools(Protocol):
    """The functions that a model may call."""

    source: str
    """Where they come from, for messages."""
    schemas: list[dict[str, Any]]
    """For the chat template: ``{"type": "function", "function": {"name": …}}``."""

    def runs(self, name: str) -> bool:
        """Whether ``call`` can run this function; False if it is only declared."""

    def call(self, call: ToolCall) -> ToolResult:
        """Run a function, in any thread. Never raises: what goes wrong is the result, for the model to read."""

    def close(self) -> None:
        """End what runs behind the functions."""


def names(tools: Tools) -> list[str]:
    """The names of the functions."""
    return [schema["function"]["name"] for schema in tools.schemas]


def join_tools(sources: Sequence[Tools]) -> Tools:
    """The functions of all sources.

    Raises:
        ValueError: Two sources have a function of the same name; the message names both.
    """
    return sources[0] if len(sources) == 1 else JoinedTools(sources)


class JoinedTools:
    """The functions of several sources.

    Attributes:
        sources: The sources, in order.
    """

    def __init__(self, sources: Sequence[Tools]) -> None:
        self._owners: dict[str, Tools] = {}
        for tools in sources:
            for name in names(tools):
                if name in self._owners:
                    raise ValueError(
                        f"{self._owners[name].source} and {tools.source} both have a function called {name}: "
                        "rename one, or leave one of them out"
                    )
                self._owners[name] = tools
        self.sources = list(sources)
        self.source = ", ".join(tools.source for tools in sources)
        self.schemas = [schema for tools in sources for schema in tools.schemas]

    def runs(self, name: str) -> bool:
        owner = self._owners.get(name)
        return owner is not None and owner.runs(name)

    def call(self, call: ToolCall) -> ToolResult:
        owner = self._owners.get(call.name)
        return unknown(call.name, list(self._owners)) if owner is None else owner.call(call)

    def close(self) -> None:
        """Close all sources, also if one of them fails."""
        with ExitStack() as stack:
            for tools in self.sources:
                stack.callback(tools.close)


def unknown(name: str, known: Sequence[str]) -> ToolResult:
    """The result of a call of a function that there is not."""
    return ToolResult.error(f"there is no function {name}, only {', '.join(known)}")
