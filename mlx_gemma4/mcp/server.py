"""The functions, prompts and resources of one MCP server.

    with McpServer("uvx mcp-server-time") as server:
        conversation = Conversation(model, processor, tools=server.schemas)

What a server says may be wrong, and may change: its functions are those that it listed when it was opened, and one that
it lists otherwise later is not called.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlx_gemma4.inputs.messages import Message
from mlx_gemma4.mcp.address import Address
from mlx_gemma4.mcp.config_file import read_address
from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.outputs.tools.result import Part, ToolResult
from mlx_gemma4.outputs.tools.sources import Tools, names, unknown
from mlx_gemma4.outputs.tools.toolbox import TIME_LIMIT

if TYPE_CHECKING:
    from mlx_gemma4.mcp.connection import Connection

LIST_LIMIT = 30.0
"""Seconds in which a server has to list what it offers."""


@dataclass(frozen=True)
class Offer:
    """A prompt or a resource that a server lists.

    Attributes:
        name: The name of a prompt, or the URI of a resource.
        arguments: The arguments of a prompt, and whether each is required.
    """

    name: str
    description: str
    arguments: Mapping[str, bool]


class McpServer:
    """Opens a server and reads the list of its functions, as ``Tools``. Close it, or use it as a context manager.

    Args:
        address: ``COMMAND``, a URL, or the name of a server in ``config``.
        config: A config file of MCP servers, as other clients have one.
        time_limit: Seconds that a call may take.
        start_limit: Seconds until the server has answered first: ``uvx`` and ``npx`` may download it.

    Attributes:
        name: What messages call the server.
        source: The server, for messages.
        address: Its command line or its URL.
        schemas: Declarations of its functions.
        left_out: A line about each function that cannot be used.

    Raises:
        ValueError: The address is wrong, or the server cannot be used.
        ImportError: The package mcp is not installed.
    """

    def __init__(
        self,
        address: str,
        *,
        config: str | os.PathLike[str] | None = None,
        time_limit: float = TIME_LIMIT,
        start_limit: float = 60.0,
    ) -> None:
        place = read_address(address, config)
        self.name, self.source, self.address = place.name, f"the MCP server {place.name}", str(place)
        self._time_limit = time_limit
        self._connection = _connect(place, start_limit)
        from mlx_gemma4.mcp.requests import list_tools, read_tools

        try:
            listed = self._connection.request(list_tools, "the list of its functions", LIST_LIMIT)
        except BaseException:
            self.close()
            raise
        self._listed = {tool.name: tool for tool in reversed(listed)}
        self.schemas, self.left_out = read_tools(listed, self.name)
        self._names = {schema["function"]["name"]: schema["function"]["name"] for schema in self.schemas}
        """The server's names of the functions, by ours."""

    def __enter__(self) -> McpServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server. Another call does nothing."""
        self._connection.close()

    def kill(self) -> None:
        """End the server at once."""
        self._connection.kill()

    def prefix(self, names: Iterable[str]) -> None:
        """Put the server's name before those of its functions that are among ``names``: ``time.convert``."""
        taken = set(names)
        ours = {name: f"{self.name}.{name}" if name in taken else name for name in self._names}
        self._names = {ours[name]: self._names[name] for name in self._names}
        self.schemas = [
            {**schema, "function": {**schema["function"], "name": ours[schema["function"]["name"]]}}
            for schema in self.schemas
        ]

    def runs(self, name: str) -> bool:
        """Whether the server has this function."""
        return name in self._names

    def call(self, call: ToolCall) -> ToolResult:
        """Call a function, if the server still lists it as before. Never raises: what goes wrong is the result."""
        from mlx_gemma4.mcp.requests import call_tool

        if call.name not in self._names:
            return unknown(call.name, list(self._names))
        tool = self._listed[self._names[call.name]]
        try:
            return self._connection.request(
                lambda client: call_tool(client, tool, call.arguments), f"the call of {call.name}", self._time_limit
            )
        except ValueError as error:
            return ToolResult.error(str(error))

    def prompts(self) -> list[Offer]:
        """The prompts that the server offers.

        Raises:
            ValueError: It does not list them.
        """
        from mlx_gemma4.mcp.requests import list_prompts

        listed = self._connection.request(list_prompts, "the list of its prompts", LIST_LIMIT)
        return [
            Offer(
                prompt.name,
                prompt.description or "",
                {argument.name: bool(argument.required) for argument in prompt.arguments or ()},
            )
            for prompt in listed
        ]

    def prompt(self, name: str, arguments: Mapping[str, str]) -> list[Message]:
        """The messages of a prompt, of the user and of the assistant.

        Raises:
            ValueError: The server does not give it.
        """
        from mlx_gemma4.mcp.requests import get_prompt

        return self._connection.request(
            lambda client: get_prompt(client, name, arguments), f"the prompt {name}", self._time_limit
        )

    def resources(self) -> list[Offer]:
        """The resources that the server lists; it may have others.

        Raises:
            ValueError: It does not list them.
        """
        from mlx_gemma4.mcp.requests import list_resources

        listed = self._connection.request(list_resources, "the list of its resources", LIST_LIMIT)
        return [Offer(str(resource.uri), resource.description or resource.name, {}) for resource in listed]

    def resource(self, uri: str) -> list[Part]:
        """A resource as parts of a message.

        Raises:
            ValueError: The server does not give it.
        """
        from mlx_gemma4.mcp.requests import read_resource

        return self._connection.request(
            lambda client: read_resource(client, uri), f"the resource {uri}", self._time_limit
        )


def prefix_shared(sources: Sequence[Tools]) -> None:
    """Put the names of servers before those of functions that several sources have, for ``join_tools``."""
    servers = [source for source in sources if isinstance(source, McpServer)]
    for place, server in enumerate(servers):
        taken = [other.name for other in servers[:place]]
        options = (server.name, *(f"{server.name}-{number}" for number in range(2, len(servers) + 1)))
        server.name = next(name for name in options if name not in taken)
    shared = Counter(name for source in sources for name in names(source))
    for server in servers:
        server.prefix(name for name in names(server) if shared[name] > 1)


def _connect(address: Address, start_limit: float) -> Connection:
    try:
        from mlx_gemma4.mcp.connection import Connection
    except ImportError as error:
        raise ImportError(
            "MCP servers need the package mcp, version 2.3 or newer: pip install 'mcp>=2.3' "
            "(or the extra: pip install '.[mcp]' in a checkout)"
        ) from error
    return Connection(address, start_limit=start_limit)
