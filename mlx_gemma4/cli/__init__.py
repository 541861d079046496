"""The command line: ``mlx_gemma4 COMMAND``. Results on stdout, everything else on stderr.

Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from mlx_gemma4 import __version__
from mlx_gemma4.cli import chat, demo, describe, evaluate, generate, listen, live, transcribe, watch
from mlx_gemma4.printable import show

OWN_COMMANDS = {
    "generate": generate,
    "chat": chat,
    "transcribe": transcribe,
    "listen": listen,
    "watch": watch,
    "describe": describe,
    "live": live,
    "eval": evaluate,
    "demo": demo,
}
CONVERTER = {"convert": "mlx_gemma4.convert.command", "upload": "mlx_gemma4.convert.upload_command"}
"""A package of its own, which this one does not know otherwise."""
USAGE_ERROR, INTERRUPTED, BROKEN_PIPE = 2, 130, 141


def commands() -> dict[str, ModuleType]:
    """The module of each command."""
    return OWN_COMMANDS | {name: import_module(module) for name, module in CONVERTER.items()}


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(prog="mlx_gemma4", description="Gemma 4 12B on a Mac, native in MLX, live.")
    top.add_argument("--version", action="version", version=f"mlx_gemma4 {__version__}")
    subparsers = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in commands().items():
        text = (command.__doc__ or "").splitlines()[0]
        command.add_arguments(subparsers.add_parser(name, help=text, description=text))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; what a user can mend is one line on stderr and exit code 2.

    ``MLX_GEMMA4_TRACEBACK=1`` shows where an error came from.
    """
    arguments = parser().parse_args(argv)
    try:
        commands()[arguments.command].run(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (ValueError, ImportError, OSError) as error:
        if os.environ.get("MLX_GEMMA4_TRACEBACK"):
            raise
        show(f"mlx_gemma4: error: {error}", sys.stderr)
        return USAGE_ERROR
    return 0
