"""``mlx_gemma4 chat``: a chat, with pictures, sound and video."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mlx_gemma4.cli.shared.attachments import MEDIA, attachment, files, kind_of, leading_file
from mlx_gemma4.cli.shared.drafts import add_drafts, check_drafts, drafted, open_drafter
from mlx_gemma4.cli.shared.errors import message
from mlx_gemma4.cli.shared.notes import note, statistics
from mlx_gemma4.cli.shared.options import add_model, add_sampling, load_model, sampling
from mlx_gemma4.cli.shared.tools import DECLINED, add_tools, described, note_unwritten, open_tools
from mlx_gemma4.printable import show

if TYPE_CHECKING:
    from mlx_gemma4.inputs.processor import Processor
    from mlx_gemma4.outputs.generate import GenerationResponse
    from mlx_gemma4.outputs.tools.calls import ToolCall
    from mlx_gemma4.outputs.tools.toolbox import Tools
    from mlx_gemma4.programs.chat import Conversation

HELP = """\
/image FILE   add a picture to the next message      /reset   forget the conversation
/audio FILE   add sound to the next message          /help    this text
/video FILE   add a video to the next message        /exit    quit (or Ctrl-D)
A line that begins with the name of a picture, a recording or a video adds that file; what follows it is the message.
Ctrl-C stops an answer; its text so far stays in the conversation."""
ROUNDS = 8
"""How often an answer continues after function results: a model may repeat a call forever."""
STOPPED = "The user stopped it."

COMMON = (
    "--help",
    "--help-all",
    "--model",
    "--system",
    "--tools",
    "--thinking",
    "--max-tokens",
    "--stats",
    "--temp",
)
"""The options that ``--help`` shows."""
EXAMPLES = ("mlx_gemma4 chat --tools lights.py",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--system", help="system message")
    add_tools(parser, runs=True)
    parser.add_argument("--thinking", action="store_true", help="let the model think before it answers")
    parser.add_argument("--show-thoughts", action="store_true", help="print thoughts on stderr")
    parser.add_argument(
        "--max-tokens", "-m", type=int, default=1024, help="maximum length of an answer (default: 1024)"
    )
    parser.add_argument("--stats", action="store_true", help="print speed and memory after each answer on stderr")
    add_sampling(parser)
    add_drafts(parser)


def run(arguments: argparse.Namespace) -> None:
    check_drafts(arguments)
    tools = open_tools(arguments)
    model, processor = load_model(arguments)
    if tools is not None:
        note_unwritten(processor, tools.schemas)

    from mlx_gemma4.programs.chat import Conversation

    conversation = Conversation(
        model,
        processor,
        system=arguments.system,
        enable_thinking=arguments.thinking,
        tools=None if tools is None else tools.schemas,
        drafter=open_drafter(arguments),
    )
    options = {
        "max_tokens": arguments.max_tokens,
        "sampling": sampling(arguments, processor.generation),
        "show_thoughts": arguments.show_thoughts,
    }

    with suppress(ImportError):
        import readline  # noqa: F401  # arrow keys and history in input(), where Python has them

    note("Ask something; /help lists the commands.")
    Chat(conversation, processor, options, tools=tools, stats=arguments.stats).loop()


class Chat:
    """Reads lines until the end of input. A line is a message, or a command that starts with a slash."""

    def __init__(
        self,
        conversation: Conversation,
        processor: Processor,
        options: dict[str, Any],
        *,
        tools: Tools | None,
        stats: bool,
    ) -> None:
        self._conversation = conversation
        self._processor = processor
        self._options = options
        self._tools = tools
        self._stats = stats
        self._media: list[dict[str, Any]] = []

    def loop(self) -> None:
        while True:
            try:
                line = input("> " if sys.stdin.isatty() else "").strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                note("\nCtrl-D or /exit leaves.")
                continue
            if line == "/exit":
                return
            try:
                self._line(line)
            except ValueError as error:
                note(f"error: {message(error)}")

    def _line(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        if command.startswith("/") and command[1:] in MEDIA:
            for path in files(rest):
                self._attach(command[1:], path)
        elif command == "/reset":
            self._conversation.reset()
            self._media = []
        elif command == "/help":
            note(HELP)
        elif leading := leading_file(line):
            self._attach(kind_of(leading[0]) or "", leading[0])
            if leading[1]:
                self._say(leading[1])
        elif line.startswith("/") and (kind_of(command) or "/" not in command[1:]):
            raise ValueError(_unknown(line, command))
        elif line:
            self._say(line)

    def _attach(self, kind: str, path: str) -> None:
        """Attach a file to the next message. One that cannot be read is an error now."""
        self._media.append(attachment(self._processor, kind, path))
        note(f"({kind} {path} goes with the next message)")

    def _say(self, text: str) -> None:
        """Send a message. Its files are not attached to the next one, even if it fails."""
        from mlx_gemma4.inputs.messages import user_content

        media, self._media = self._media, []
        try:
            is_whole = self._print(self._conversation.ask(user_content(text, media), **self._options))
        except ValueError as error:
            dropped = "; its files are no longer attached" if media else ""
            raise ValueError(f"{error} (the message is not in the conversation{dropped})") from error
        if is_whole:
            self._call()

    def _print(self, responses: Iterable[GenerationResponse]) -> bool:
        """Print an answer; False if it was stopped."""
        response = None
        try:
            for response in responses:
                if response.kind != "tool_call":
                    show(response.text, sys.stderr if response.kind == "thought" else sys.stdout, end="")
            show("")
        except KeyboardInterrupt:
            show("")
            note("(stopped)")
            return False
        if response is not None and self._stats:
            note(statistics(response) + drafted(self._conversation.drafter))
        return True

    def _call(self) -> None:
        """Run the functions that the answer calls, and let it continue, as long as it calls more."""
        for _ in range(ROUNDS):
            calls = self._conversation.calls
            if not calls:
                return
            results = {call.id: self._result(call) for call in calls}
            if not self._print(self._conversation.reply(results, **self._options)):
                return
        if self._conversation.calls:
            note(f"(stopped after {ROUNDS} rounds of calls)")

    def _result(self, call: ToolCall) -> str:
        if call.problem is not None:
            note(f"({call.name} was called in a way that is not declared: {call.problem})")
            return f"error: {call.problem}"
        written = described(call.name, call.arguments)
        if self._tools is None or not self._tools.runs:
            note(f"{written} was not run: it is only declared.")
            return f"error: {call.name} is not available"
        if not sys.stdin.isatty():
            note(f"{written} was not run: there is no terminal to ask on.")
            return DECLINED
        return self._asked(self._tools, call, written)

    def _asked(self, tools: Tools, call: ToolCall, written: str) -> str:
        _forget_typed()
        note(f"Run {written}? [y/N]")
        try:
            if input().strip().lower() not in ("y", "yes"):
                return DECLINED
            return tools.call(call.name, call.arguments)
        except EOFError:
            return DECLINED
        except KeyboardInterrupt:
            note("(stopped)")
            return STOPPED


def _unknown(line: str, command: str) -> str:
    if kind_of(command):
        return f"There is no file at {command!r}"
    return f"There is no command (/help lists them) called {command}"


def _forget_typed() -> None:
    """Discard what was typed before a question was shown: it does not answer it."""
    try:
        import termios
    except ImportError:  # not a POSIX terminal
        return
    with suppress(termios.error, OSError, ValueError):
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
