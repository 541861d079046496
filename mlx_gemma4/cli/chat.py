"""``mlx_gemma4 chat``: a chat, with pictures, sound and video."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_gemma4.cli.chat_loop import Chat
from mlx_gemma4.cli.kept_chat import KeptChat, check_resumed, open_conversation
from mlx_gemma4.cli.shared.consent import allowed_names
from mlx_gemma4.cli.shared.drafts import add_drafts, check_drafts, open_drafter
from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.cli.shared.options import add_loops, add_model, add_sampling, load_model, sampling
from mlx_gemma4.cli.shared.signals import keeping
from mlx_gemma4.cli.shared.tools import add_tools, note_unbound, note_unwritten, opened_tools

if TYPE_CHECKING:
    from mlx_gemma4.outputs.tools.sources import Tools

COMMON = (
    "--help",
    "--help-all",
    "--model",
    "--system",
    "--resume",
    "--context",
    "--tools",
    "--thinking",
    "--max-tokens",
    "--stats",
    "--temp",
)
"""The options that ``--help`` shows."""
EXAMPLES = ("mlx_gemma4 chat --tools lights.py", "mlx_gemma4 chat --resume trip.chat")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--system", help="system message")
    parser.add_argument(
        "--resume",
        metavar="FILE",
        help="continue the conversation in FILE, and save it there; a new one if there is none",
    )
    add_tools(parser, runs=True)
    parser.add_argument("--thinking", action="store_true", help="let the model think before it answers")
    parser.add_argument("--show-thoughts", action="store_true", help="print thoughts on stderr")
    parser.add_argument(
        "--max-tokens", "-m", type=int, default=1024, help="maximum length of an answer (default: 1024)"
    )
    parser.add_argument("--stats", action="store_true", help="print speed and memory after each answer on stderr")
    add_loops(parser)
    add_sampling(parser)
    add_drafts(parser)


def run(arguments: argparse.Namespace) -> None:
    check_drafts(arguments)
    with opened_tools(arguments) as tools:
        _chat(arguments, tools)


def _chat(arguments: argparse.Namespace, tools: Tools | None) -> None:
    allowed = allowed_names(arguments, tools)
    if arguments.resume is not None:
        check_resumed(Path(arguments.resume))
    model, processor = load_model(arguments)
    if tools is not None:
        note_unwritten(processor, tools.schemas)
        note_unbound(processor, tools.schemas)
    conversation = open_conversation(
        arguments.resume,
        model,
        processor,
        system=arguments.system,
        enable_thinking=arguments.thinking,
        tools=None if tools is None else tools.schemas,
        drafter=open_drafter(arguments),
    )
    conversation.stop_loops = not arguments.allow_loops
    options = {
        "max_tokens": arguments.max_tokens,
        "sampling": sampling(arguments, processor.generation),
        "show_thoughts": arguments.show_thoughts,
    }

    with suppress(ImportError):
        import readline  # noqa: F401  # arrow keys and history in input(), where Python has them

    kept = KeptChat(arguments.resume, conversation)
    note("Ask something; /help lists the commands.")
    with keeping(kept.at_end):
        Chat(
            conversation,
            processor,
            options,
            tools=tools,
            stats=arguments.stats,
            allowed=allowed,
            after_turn=kept.after_turn,
        ).loop()
