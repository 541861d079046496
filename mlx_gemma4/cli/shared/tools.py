"""``--tools``: functions of a Python file, or declarations in a JSON file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.printable import printable

if TYPE_CHECKING:
    from mlx_gemma4.inputs.processor import Processor
    from mlx_gemma4.outputs.tools.toolbox import Tools

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
        metavar="FILE",
        help=f"functions that the model may call: {files}",
    )
    if runs:
        parser.add_argument(
            "--tool-timeout",
            type=float,
            default=30.0,
            metavar="SECONDS",
            help="time limit of a function (default: 30)",
        )


def open_tools(arguments: argparse.Namespace) -> Tools | None:
    """The tools that the options name."""
    if arguments.tools is None:
        return None
    from mlx_gemma4.outputs.tools.toolbox import TIME_LIMIT, load_tools

    return load_tools(arguments.tools, time_limit=getattr(arguments, "tool_timeout", TIME_LIMIT))


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


def described(name: str, arguments: Mapping[str, Any]) -> str:
    """A call in full, on one line, without terminal control characters."""
    written = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return printable(f"{name}({written})").replace("\n", r"\n").replace("\t", r"\t")
