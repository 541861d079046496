"""What is asked of a server, in its thread: lists of bounded length, calls, prompts and resources."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mcp import Client
from mcp_types import (
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    Prompt,
    Resource,
    Tool,
)

from mlx_gemma4.inputs.messages import Message
from mlx_gemma4.mcp.content import content_parts, resource_part, tool_result
from mlx_gemma4.outputs.tools.declarations import check_declarations
from mlx_gemma4.outputs.tools.result import Part, ToolResult
from mlx_gemma4.printable import printable

MOST_LISTED = 128
"""Functions, prompts or resources of one server: declarations fill the context."""
MOST_PAGES = 32
MOST_MESSAGES = 32
"""Messages of a prompt, and contents of a resource."""
LONGEST_NAME = 64
"""Characters of a function's name."""
LONGEST_DESCRIPTION = 4_000
"""Characters of a function's description."""
LARGEST_SCHEMA = 32_000
"""Characters of a function's schema, as JSON."""


async def list_tools(client: Client) -> list[Tool]:
    """The functions of a server."""
    return await _pages(client.list_tools, "tools") if client.server_capabilities.tools else []


async def list_prompts(client: Client) -> list[Prompt]:
    """The prompts of a server."""
    listed = await _pages(client.list_prompts, "prompts") if client.server_capabilities.prompts else []
    return listed[:MOST_LISTED]


async def list_resources(client: Client) -> list[Resource]:
    """The resources of a server."""
    listed = await _pages(client.list_resources, "resources") if client.server_capabilities.resources else []
    return listed[:MOST_LISTED]


async def _pages(list_page: Callable[..., Awaitable[Any]], kind: str) -> list[Any]:
    """All that a server lists, up to one more than MOST_LISTED. ``kind`` names the list in a page."""
    found: list[Any] = []
    cursor = None
    for _ in range(MOST_PAGES):
        page = await list_page(cursor=cursor)
        found += getattr(page, kind)
        cursor = page.next_cursor
        if cursor is None or len(found) > MOST_LISTED:
            break
    return found[: MOST_LISTED + 1]


async def call_tool(client: Client, tool: Tool, arguments: Mapping[str, Any]) -> ToolResult:
    """The result of a call, if the server still lists the function as before.

    It is not checked against the schema of results: the server's patterns could keep Python's ``re`` busy for ever.

    Raises:
        ValueError: The function has changed, or is gone.
    """
    now = {listed.name: listed for listed in reversed(await list_tools(client))}.get(tool.name)
    if now is None or (now.description, now.input_schema) != (tool.description, tool.input_schema):
        what = "does not have it any more" if now is None else "has changed it"
        raise ValueError(f"{tool.name} was not called: the server {what} since it was listed. Start again to use it")
    params = CallToolRequestParams(name=tool.name, arguments=dict(arguments))
    return tool_result(await client.session.send_request(CallToolRequest(params=params), CallToolResult))


async def get_prompt(client: Client, name: str, arguments: Mapping[str, str]) -> list[Message]:
    """The messages of a prompt. Neighbours of the same role are one message, as templates want them."""
    messages: list[dict[str, Any]] = []
    for message in (await client.get_prompt(name, dict(arguments))).messages[:MOST_MESSAGES]:
        parts = content_parts([message.content])
        if messages and messages[-1]["role"] == message.role:
            messages[-1]["content"] += parts
        else:
            messages.append({"role": message.role, "content": parts})
    if not messages or messages[-1]["role"] != "user":
        raise ValueError(f"The prompt {name} does not end with a message of the user")
    return list(messages)


async def read_resource(client: Client, uri: str) -> list[Part]:
    """The contents of a resource."""
    contents = (await client.read_resource(uri)).contents[:MOST_MESSAGES]
    if not contents:
        raise ValueError(f"The resource {uri} is empty")
    return [resource_part(content) for content in contents]


def read_tools(listed: Sequence[Tool], server: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Declarations of functions, and a line about each one that cannot be used."""
    declared: list[dict[str, Any]] = []
    left_out: list[str] = []
    names = set[str]()
    for tool in listed[:MOST_LISTED]:
        try:
            if tool.name in names:
                raise ValueError("there is another one of this name")
            names.add(tool.name)
            declared.append(_declaration(tool, server))
        except ValueError as error:
            left_out.append(f"{printable(tool.name[:LONGEST_NAME])!r} of {server} is left out: {error}")
    if len(listed) > MOST_LISTED:
        left_out.append(f"{server} lists more than {MOST_LISTED} functions: those behind them are left out")
    return declared, left_out


def _declaration(tool: Tool, server: str) -> dict[str, Any]:
    if len(tool.name) > LONGEST_NAME:
        raise ValueError(f"its name has more than {LONGEST_NAME} characters")
    if tool.execution is not None and tool.execution.task_support == "required":
        raise ValueError("it runs as a task only, and tasks are not supported")
    try:
        size = len(json.dumps(tool.input_schema))
    except (RecursionError, ValueError) as error:
        raise ValueError("its schema cannot be written") from error
    if size > LARGEST_SCHEMA:
        raise ValueError(f"its schema has {size:,} characters, at most {LARGEST_SCHEMA:,} are read")
    description = printable(tool.description or "")
    if len(description) > LONGEST_DESCRIPTION:
        description = f"{description[:LONGEST_DESCRIPTION]}…"
    written = {"name": tool.name, "description": description, "parameters": tool.input_schema}
    return check_declarations([written], server)[0]
