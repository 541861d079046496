"""What MCP servers offer besides functions, by commands of a chat: ``/mcp``, ``/prompt`` and ``/resource``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_gemma4.inputs.messages import Message
    from mlx_gemma4.mcp.server import McpServer, Offer
    from mlx_gemma4.outputs.tools.sources import Tools

SHOWN = 80
"""Characters of a description."""


def servers_of(tools: Tools | None) -> list[McpServer]:
    """The servers among the tools.

    Raises:
        ValueError: There are none.
    """
    from mlx_gemma4.mcp.server import McpServer
    from mlx_gemma4.outputs.tools.sources import JoinedTools

    sources = tools.sources if isinstance(tools, JoinedTools) else [tools]
    found = [source for source in sources if isinstance(source, McpServer)]
    if not found:
        raise ValueError("There are no MCP servers: start chat with --tools mcp:COMMAND")
    return found


def offers(tools: Tools | None) -> str:
    """What the servers offer, a line each."""
    return "\n".join(line for server in servers_of(tools) for line in _offers(server))


def prompt_messages(tools: Tools | None, text: str) -> list[Message]:
    """The messages of a prompt, from ``NAME [KEY=VALUE …]``.

    Raises:
        ValueError: No server has it, an argument is missing, or it cannot be given.
    """
    try:
        name, *given = shlex.split(text) or [""]
    except ValueError as error:
        raise ValueError(f"The prompt cannot be read: {error}") from error
    for server in servers_of(tools):
        offer = next((offer for offer in server.prompts() if offer.name == name), None)
        if offer is not None:
            return server.prompt(name, _arguments(offer, given))
    raise ValueError(f"There is no prompt {name!r}; /mcp lists them" if name else "Type the name of a prompt")


def resource_parts(tools: Tools | None, uri: str) -> list[Mapping[str, Any]]:
    """A resource as parts of a message, from the first server that gives it.

    Raises:
        ValueError: None does; the error is that of the first.
    """
    if not uri:
        raise ValueError("Type the address of a resource; /mcp lists them")
    problems = []
    for server in servers_of(tools):
        try:
            return server.resource(uri)
        except ValueError as error:
            problems.append(error)
    raise problems[0]


def _arguments(offer: Offer, given: Sequence[str]) -> dict[str, str]:
    arguments = dict[str, str]()
    for word in given:
        key, equals, value = word.partition("=")
        if not equals or key not in offer.arguments:
            raise ValueError(f"{word!r} is no argument of the prompt: {_usage(offer)}")
        arguments[key] = value
    if any(required and key not in arguments for key, required in offer.arguments.items()):
        raise ValueError(f"An argument of the prompt is missing: {_usage(offer)}")
    return arguments


def _usage(offer: Offer) -> str:
    words = (f"{key}=…" if required else f"[{key}=…]" for key, required in offer.arguments.items())
    return " ".join([f"/prompt {shlex.quote(offer.name)}", *words])


def _offers(server: McpServer) -> Iterator[str]:
    yield f"{server.name}: {server.address}"
    for schema in server.schemas:
        yield f"  {schema['function']['name']}{_described(schema['function']['description'])}"
    for offer in server.prompts():
        yield f"  {_usage(offer)}{_described(offer.description)}"
    for offer in server.resources():
        yield f"  /resource {offer.name}{_described(offer.description)}"


def _described(text: str) -> str:
    line = " ".join(text.split())
    return f"  {line[:SHOWN]}{'…' if len(line) > SHOWN else ''}" if line else ""
