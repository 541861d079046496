"""Talk with the model, in turns, with pictures and sound."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mlx_gemma4.cli.generate import statistics, user_content
from mlx_gemma4.cli.options import add_model, add_sampling, load_model, note, sampling

if TYPE_CHECKING:
    from mlx_gemma4.chat import Conversation
    from mlx_gemma4.generation import GenerationResponse

HELP = """\
/image FILE   add a picture to the next message      /reset   forget the conversation
/audio FILE   add sound to the next message          /help    this text
/video FILE   add a video to the next message        /exit    leave (or Ctrl-D)
Ctrl-C stops an answer; what was said so far stays in the conversation."""
MEDIA = ("image", "audio", "video")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--system", help="a system message")
    parser.add_argument("--thinking", action="store_true", help="let the model think before it answers")
    parser.add_argument("--show-thoughts", action="store_true", help="show thoughts, on stderr")
    parser.add_argument("--max-tokens", "-m", type=int, default=1024, help="length of an answer (default: 1024)")
    parser.add_argument("--stats", action="store_true", help="print speed and memory after each answer, on stderr")
    add_sampling(parser)


def run(arguments: argparse.Namespace) -> None:
    model, processor = load_model(arguments)

    from mlx_gemma4.chat import Conversation

    conversation = Conversation(model, processor, system=arguments.system, enable_thinking=arguments.thinking)
    chosen = sampling(arguments, processor.generation)

    def answer(content: list[dict[str, Any]]) -> Iterable[GenerationResponse]:
        return conversation.ask(
            content, max_tokens=arguments.max_tokens, sampling=chosen, show_thoughts=arguments.show_thoughts
        )

    with suppress(ImportError):
        import readline  # noqa: F401  # arrow keys and history in input(), where Python has them

    note("Ask something; /help lists the commands.")
    Chat(conversation, answer, stats=arguments.stats).loop()


class Chat:
    """Reads lines until the end of input; a line is a message, or a command that starts with a slash."""

    def __init__(
        self,
        conversation: Conversation,
        answer: Callable[[list[dict[str, Any]]], Iterable[GenerationResponse]],
        *,
        stats: bool,
    ) -> None:
        self._conversation = conversation
        self._answer = answer
        self._stats = stats
        self._media: dict[str, list[str]] = {kind: [] for kind in MEDIA}

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
                note(f"error: {error}")

    def _line(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        if command.removeprefix("/") in MEDIA and line.startswith("/"):
            self._add(command[1:], rest.strip())
        elif command == "/reset":
            self._conversation.reset()
            self._clear()
        elif command == "/help":
            note(HELP)
        elif line.startswith("/"):
            raise ValueError(f"Expected a command (/help lists them), got {command}")
        elif line:
            self._say(line)

    def _add(self, kind: str, path: str) -> None:
        from pathlib import Path

        if not Path(path).is_file():
            raise ValueError(f"Expected a file to add, found none at {path!r}")
        self._media[kind].append(path)

    def _say(self, text: str) -> None:
        media = self._media
        videos = [{"type": "video", "video": path} for path in media["video"]]
        responses = self._answer(user_content(text, media["image"], videos, media["audio"]))
        response = None
        try:
            for response in responses:
                stream = sys.stderr if response.kind == "thought" else sys.stdout
                print(response.text, end="", flush=True, file=stream)
            print()
        except KeyboardInterrupt:
            print()
            note("(stopped)")
        self._clear()
        if response is not None and self._stats:
            note(statistics(response))

    def _clear(self) -> None:
        self._media = {kind: [] for kind in MEDIA}
