"""The command line: ``mlx_gemma4 COMMAND``. Results on stdout, everything else on stderr.

Nothing heavy is imported before a command runs, and almost nothing before the signal handlers are installed: before
that, Ctrl-C prints a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from mlx_gemma4.cli.shared.signals import Terminated, exit_code, owner

if TYPE_CHECKING:
    import argparse

COMMANDS = {
    "generate": ("mlx_gemma4.cli.generate", "Answer one prompt about text, pictures, sound or video."),
    "chat": ("mlx_gemma4.cli.chat", "Chat with the model about text, pictures, sound and video."),
    "agent": ("mlx_gemma4.cli.agent", "Do a task by calling functions, step by step."),
    "transcribe": ("mlx_gemma4.cli.transcribe", "Transcribe recordings of any length and format."),
    "listen": ("mlx_gemma4.cli.listen", "Transcribe a microphone, a recording or a pipe live."),
    "watch": ("mlx_gemma4.cli.watch", "Answer a question about a camera whenever the scene changes."),
    "describe": ("mlx_gemma4.cli.describe", "Describe a video of any length, segment by segment."),
    "live": ("mlx_gemma4.cli.live", "Talk to the model about what a camera sees, live."),
    "serve": ("mlx_gemma4.cli.serve", "Serve the model to apps that speak OpenAI's protocols, and to browsers."),
    "eval": ("mlx_gemma4.cli.evaluate", "Measure word error rates, or the loss of a conversion."),
    "bench": ("mlx_gemma4.cli.bench", "Measure how fast a model is on this machine."),
    "demo": ("mlx_gemma4.cli.demo", "Demo on the built-in checkpoint: live transcription, pictures, spoken questions."),
    "doctor": ("mlx_gemma4.cli.doctor", "Check whether it will run live on this machine, without a download."),
    "convert": (
        "mlx_gemma4.convert.command",
        "Convert Hugging Face weights to MLX, quantized or not, in little memory.",
    ),
    "upload": ("mlx_gemma4.convert.upload_command", "Upload a converted checkpoint to the Hugging Face Hub."),
}
"""Module and description of each command. Nothing else in this package knows the converter."""
CONVERTER = "mlx_gemma4.convert"
USAGE_ERROR, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
EXIT_CODES = (
    "Exit codes: 0 done; 1 the session ended early, for example because a device was lost, or doctor found a problem; "
    "2 an error, in one line on stderr; 129, 130, 143 ended by SIGHUP, Ctrl-C or SIGTERM (a live session ended by one "
    "Ctrl-C returns 0)."
)


def commands() -> dict[str, ModuleType]:
    """The module of each command."""
    return {name: _module(module) for name, (module, _) in COMMANDS.items()}


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != CONVERTER:
            raise
    _find_converter()
    return import_module(name)


def _find_converter() -> None:
    """In a checkout the converter lies beside the package, which hides the installed one."""
    from importlib.util import module_from_spec, spec_from_file_location

    folder = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "convert")
    spec = spec_from_file_location(CONVERTER, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder])
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[CONVERTER] = module


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    from mlx_gemma4 import __version__
    from mlx_gemma4.cli.shared.parsing import ENVIRONMENT, Parser

    top = Parser(
        prog="mlx_gemma4",
        description="Gemma 4 12B on a Mac, native in MLX, live.",
        epilog=f"{ENVIRONMENT} {EXIT_CODES}",
        examples=("mlx_gemma4 demo", "mlx_gemma4 listen --help"),
    )
    top.add_argument("--version", action="version", version=f"mlx_gemma4 {__version__}")
    subparsers = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in commands().items():
        text = COMMANDS[name][1]
        command.add_arguments(
            subparsers.add_parser(name, help=text, description=text, common=command.COMMON, examples=command.EXAMPLES)
        )
    return top


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse typed options and those of the environment; note variables that belong to no option."""
    from mlx_gemma4.cli.shared.parsing import unknown_variables

    top = parser()
    arguments = top.parse_args(argv)
    for name in unknown_variables(top):
        print(f"The environment variable {name} belongs to no option of any command.", file=sys.stderr)
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. An error that the user can fix is one line on stderr and exit code 2.

    ``MLX_GEMMA4_TRACEBACK=1`` shows the traceback of an error.
    """
    if argv is None:
        # handlers stay until the process has ended: after them, Ctrl-C would print a traceback
        owner().__enter__()
        code = _main(None)
        owner().ended(code)
        return code
    with owner():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    from mlx_gemma4.cli.shared.streams import close_stdout, open_streams

    open_streams()
    try:
        return close_stdout(_run(argv))
    except KeyboardInterrupt:
        return INTERRUPTED
    except Terminated as terminated:
        return exit_code(terminated.number)


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = parse(argv)
        owner().started()
        return commands()[arguments.command].run(arguments) or 0
    except BrokenPipeError:
        return BROKEN_PIPE
    except (ValueError, ImportError, OSError) as error:
        if os.environ.get("MLX_GEMMA4_TRACEBACK"):
            raise
        from mlx_gemma4.cli.shared.errors import message

        print(f"mlx_gemma4: error: {message(error)}", file=sys.stderr)
        return USAGE_ERROR
