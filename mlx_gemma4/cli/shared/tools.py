"""``--tools``: functions of Python files, or declarations in JSON files. Several are joined into one set."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.printable import printable

if TYPE_CHECKING:
    from mlx_gemma4.inputs.processor import Processor
    from mlx_gemma4.outputs.tools.result import ToolResult
    from mlx_gemma4.outputs.tools.sources import Tools

DECLINED = "The user did not allow it."


def add_tools(parser: argparse.ArgumentParser, *, runs: bool) -> None:
    """``runs``: whether the command calls functions, rather than show the calls."""
    files = (
        "a Python file (each call is run only if you allow it) or JSON schemas (calls are printed)"
        if runs
        else "a Python file or JSON schemas; calls are printed, not run"
    )
    parser.add_argument(
        "--tools",
        action="append",
        default=[],
        metavar="FILE",
        help=f"functions that the model may call: {files}; can be repeated",
    )
    if runs:
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
    from mlx_gemma4.outputs.tools.sources import join_tools

    with ExitStack() as stack:
        sources = []
        for name in arguments.tools:
            sources.append(_open(name, arguments))
            stack.callback(sources[-1].close)
        yield join_tools(sources)


def _open(name: str, arguments: argparse.Namespace) -> Tools:
    from mlx_gemma4.outputs.tools.toolbox import TIME_LIMIT, load_tools

    return load_tools(name, time_limit=getattr(arguments, "tool_timeout", TIME_LIMIT))


def note_unwritten(processor: Processor, schemas: Sequence[Mapping[str, Any]]) -> None:
    """Report if the checkpoint's chat template does not write tools into the prompt."""
    chat = [{"role": "user", "content": "x"}]
    if processor.template.render(chat, tools=schemas) == processor.template.render(chat):
        note("The checkpoint's chat template does not write tools: the model will not know of them.")


def note_unbound(processor: Processor, schemas: Sequence[Mapping[str, Any]]) -> None:
    """Report if calls cannot be held to the declared functions."""
    from mlx_gemma4.outputs.grammar.calls import check_bound

    try:
        check_bound(schemas, processor)
    except (ImportError, ValueError) as error:
        note(f"Calls are not held to the declared functions. {error}")


def note_shortened(name: str, result: ToolResult) -> None:
    """Report if the model reads only a part of a result."""
    if result.left_out:
        note(f"({name} returned a long text; the model does not read {result.left_out:,} characters in its middle)")


def described(name: str, arguments: Mapping[str, Any]) -> str:
    """A call in full, on one line, without terminal control characters."""
    written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return printable(f"{name}({written})").replace("\n", r"\n").replace("\t", r"\t")
