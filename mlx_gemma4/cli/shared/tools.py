"""``--tools``: functions of Python files and MCP servers, or declarations in JSON files, joined into one set."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.cli.shared.signals import on_exit
from mlx_gemma4.printable import printable

if TYPE_CHECKING:
    from mlx_gemma4.inputs.processor import Processor
    from mlx_gemma4.outputs.tools.result import ToolResult
    from mlx_gemma4.outputs.tools.sources import Tools

SCHEME = "mcp:"
"""Begins the name of an MCP server."""
MOST_LOST = 5
"""Keywords of schemas in a note."""


def add_tools(parser: argparse.ArgumentParser, *, runs: bool) -> None:
    """``runs``: whether the command calls functions, rather than show the calls."""
    done = "each call of a function or a server needs your consent" if runs else "calls are printed, not run"
    parser.add_argument(
        "--tools",
        action="append",
        default=[],
        metavar="FILE|mcp:SERVER",
        help="functions that the model may call: a Python file, JSON schemas, or an MCP server (a command, a URL or a "
        f"name in --mcp-config); {done}; can be repeated",
    )
    parser.add_argument(
        "--mcp-config", metavar="FILE", help="config file of MCP servers, as other clients have one (mcpServers)"
    )
    if runs:
        parser.add_argument(
            "--yes",
            action="append",
            default=[],
            metavar="NAME[,NAME]",
            help="run these functions without asking",
        )
        parser.add_argument(
            "--tool-timeout",
            type=float,
            default=30.0,
            metavar="SECONDS",
            help="time limit of a function (default: 30)",
        )


@contextmanager
def opened_tools(arguments: argparse.Namespace) -> Iterator[Tools | None]:
    """The tools that the options name, closed at the end; None if they name none.

    Raises:
        ValueError: One cannot be opened, or two of them have a function of the same name.
    """
    if not arguments.tools:
        yield None
        return
    from mlx_gemma4.mcp.server import prefix_shared
    from mlx_gemma4.outputs.tools.sources import join_tools

    with ExitStack() as stack:
        sources = [_opened(name, arguments, stack) for name in arguments.tools]
        prefix_shared(sources)
        yield join_tools(sources)


def _opened(name: str, arguments: argparse.Namespace, stack: ExitStack) -> Tools:
    """The tools of one source, which the stack closes."""
    from mlx_gemma4.outputs.tools.toolbox import TIME_LIMIT, load_tools

    time_limit = getattr(arguments, "tool_timeout", TIME_LIMIT)
    if not name.startswith(SCHEME):
        tools = load_tools(name, time_limit=time_limit)
        stack.callback(tools.close)
        return tools
    from mlx_gemma4.mcp.server import McpServer

    server = McpServer(name.removeprefix(SCHEME), config=arguments.mcp_config, time_limit=time_limit)
    stack.enter_context(on_exit(server.kill))
    stack.callback(server.close)  # first: a signal may end the command while the server takes its time
    for line in server.left_out:
        note(f"({line})")
    return server


def note_unwritten(processor: Processor, schemas: Sequence[Mapping[str, Any]]) -> None:
    """Report if the checkpoint's chat template does not write tools into the prompt."""
    chat = [{"role": "user", "content": "x"}]
    if processor.render(chat, tools=schemas) == processor.render(chat):
        note("The checkpoint's chat template does not write tools: the model will not know of them.")


def note_unbound(processor: Processor, schemas: Sequence[Mapping[str, Any]]) -> None:
    """Report if calls cannot be held to the declared functions, or to a part of what they declare."""
    from mlx_gemma4.outputs.grammar.calls import check_bound

    try:
        is_bound = check_bound(schemas, processor) is not None
    except (ImportError, ValueError) as error:
        note(f"Calls are not held to the declared functions. {error}")
        return
    from mlx_gemma4.outputs.grammar.unheld import unheld

    if is_bound and (lost := unheld(schemas)):
        more = f" and {len(lost) - MOST_LOST} more" if len(lost) > MOST_LOST else ""
        note(f"Calls are held to the declared functions, but not to {', '.join(lost[:MOST_LOST])}{more}.")


def note_shortened(name: str, result: ToolResult) -> None:
    """Report if the model reads only a part of a result."""
    if result.left_out:
        note(f"({name} returned a long text; the model does not read {result.left_out:,} characters in its middle)")


def described(name: str, arguments: Mapping[str, Any]) -> str:
    """A call in full, on one line, without terminal control characters."""
    written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return printable(f"{name}({written})").replace("\n", r"\n").replace("\t", r"\t")
