"""The lines of a chat: messages, and commands that start with a slash."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_gemma4.cli.shared.attachments import attachment, files, leading_file
from mlx_gemma4.cli.shared.consent import Consent
from mlx_gemma4.cli.shared.drafts import drafted
from mlx_gemma4.cli.shared.errors import message
from mlx_gemma4.cli.shared.keyboard import key_pressed
from mlx_gemma4.cli.shared.notes import LOOPED, note, plural, statistics
from mlx_gemma4.cli.shared.servers import offers, prompt_messages, resource_parts
from mlx_gemma4.cli.shared.tools import described, note_shortened
from mlx_gemma4.inputs.messages import MEDIA, kind_of, message_text, parts, user_content
from mlx_gemma4.printable import show

if TYPE_CHECKING:
    from mlx_gemma4.inputs.processor import Processor
    from mlx_gemma4.outputs.generate import GenerationResponse
    from mlx_gemma4.outputs.tools.calls import ToolCall
    from mlx_gemma4.outputs.tools.result import ToolResult
    from mlx_gemma4.outputs.tools.sources import Tools
    from mlx_gemma4.programs.chat import Conversation

HELP = """\
/image FILE   add a picture to the next message      /regen       answer again
/audio FILE   add sound to the next message          /edit TEXT   replace your last message
/video FILE   add a video to the next message        /undo        remove the last message and its answer
/stats        what is held, what a turn computed     /reset       forget the conversation
/save FILE    save the conversation, for --resume    /mcp         what MCP servers offer
/prompt NAME  send a prompt of an MCP server         /help        this text
/resource URI add a resource of an MCP server        /exit        quit (or Ctrl-D)
A line that begins with the name of a picture, a recording or a video adds that file; what follows it is the message.
Ctrl-C stops an answer; its text so far stays in the conversation."""
ROUNDS = 8
"""How often an answer continues after function results: a model may repeat a call forever."""
STOPPED = "The user stopped it."
SHOWN = 60
"""Characters of a message that was removed."""


class Chat:
    """Reads lines until the end of input. A line is a message, or a command that starts with a slash.

    Args:
        allowed: Functions that may run without asking.
        after_turn: Called when the messages have changed.
    """

    def __init__(
        self,
        conversation: Conversation,
        processor: Processor,
        options: dict[str, Any],
        *,
        tools: Tools | None,
        stats: bool,
        allowed: Collection[str] = (),
        after_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._conversation = conversation
        self._processor = processor
        self._options = options
        self._tools, self._consent = tools, Consent(allowed)
        self._stats = stats
        self._after_turn = after_turn
        self._media: list[Mapping[str, Any]] = []
        self._texts: list[str] = []
        """Texts of resources, for the next message."""
        self._forgotten = conversation.forgotten

    def loop(self) -> None:
        while True:
            self._settle()
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
            self._after_turn()

    def _settle(self) -> None:
        """Compute the history for the next turn, until somebody types."""
        with key_pressed() as is_pressed:
            if is_pressed is None:
                return
            try:
                for _ in self._conversation.settle():
                    if is_pressed():
                        break
            except KeyboardInterrupt:  # it wanted to stop the answer
                pass
            except ValueError as error:
                note(f"error: {message(error)}")
        self._note_forgotten()

    def _note_forgotten(self) -> None:
        """Report the turns that had to leave."""
        count = self._conversation.forgotten - self._forgotten
        self._forgotten = self._conversation.forgotten
        if count > 0:
            turns = "turn" if count == 1 else f"{count} turns"
            note(f"(the oldest {turns} left: the context of {self._conversation.session.context:,} tokens is full)")

    def _line(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        own = self._commands.get(command)
        if own is not None:
            own(rest.strip())
        elif command.startswith("/") and command[1:] in MEDIA:
            for path in files(rest):
                self._attach(command[1:], path)
        elif leading := leading_file(line):
            self._attach(kind_of(leading[0]) or "", leading[0])
            if leading[1]:
                self._say(leading[1])
        elif line.startswith("/") and (kind_of(command) or "/" not in command[1:]):
            raise ValueError(_unknown(line, command))
        elif line:
            self._say(line)

    @property
    def _commands(self) -> dict[str, Callable[[str], None]]:
        return {
            "/edit": self._edit,
            "/help": lambda _: note(HELP),
            "/mcp": lambda _: note(offers(self._tools)),
            "/prompt": self._send_prompt,
            "/regen": lambda _: self._answer(self._conversation.regenerate(**self._options)),
            "/reset": lambda _: self._reset(),
            "/resource": self._add_resource,
            "/save": self._save,
            "/stats": lambda _: note(held(self._conversation)),
            "/undo": lambda _: self._undo(),
        }

    def _reset(self) -> None:
        self._conversation.reset()
        self._media, self._texts, self._forgotten = [], [], 0

    def _undo(self) -> None:
        removed = " ".join(message_text(self._conversation.undo()).split())
        note(f"(removed: {removed[:SHOWN]}{'…' if len(removed) > SHOWN else ''})")

    def _edit(self, text: str) -> None:
        """Replace the text of the last message, which keeps its files, and answer it."""
        if not text:
            raise ValueError("Type the new message after /edit")
        last = self._conversation.last_message
        media = [] if last is None else list(parts(last))
        self._answer(self._conversation.edit(-1, user_content(text, media), **self._options))

    def _save(self, path: str) -> None:
        path = path.strip("'\"")
        if not path:
            raise ValueError("Type the name of a file after /save")
        file = Path(path).expanduser()
        if file.exists():
            raise ValueError(f"{path} exists; name another file")
        self._conversation.save(file)
        note(f"(saved; continue with --resume {shlex.quote(str(file))})")

    def _attach(self, kind: str, path: str) -> None:
        """Attach a file to the next message. One that cannot be read is an error now."""
        self._media.append(attachment(self._processor, kind, path))
        note(f"({kind} {path} goes with the next message)")

    def _add_resource(self, uri: str) -> None:
        """Attach a resource of a server to the next message."""
        found = resource_parts(self._tools, uri)
        self._processor.prompt([{"role": "user", "content": found}])
        self._media += [part for part in found if part["type"] != "text"]
        self._texts += [part["text"] for part in found if part["type"] == "text"]
        note(f"(the resource {uri} goes with the next message)")

    def _send_prompt(self, text: str) -> None:
        """Send the messages of a server's prompt; the last one is answered."""
        *earlier, last = prompt_messages(self._tools, text)
        kept = self._conversation.messages
        self._conversation.messages = [*kept, *earlier]
        try:
            is_whole = self._print(self._conversation.ask(last["content"], **self._options))
        except ValueError:
            self._conversation.messages = kept
            raise
        if is_whole:
            self._call()

    def _say(self, text: str) -> None:
        """Send a message. Its files are not attached to the next one, even if it fails."""
        media, self._media = self._media, []
        texts, self._texts = self._texts, []
        content = user_content("\n\n".join([*texts, text]), media)
        try:
            is_whole = self._print(self._conversation.ask(content, **self._options))
        except ValueError as error:
            dropped = "; its files are no longer attached" if media or texts else ""
            raise ValueError(f"{error} (the message is not in the conversation{dropped})") from error
        if is_whole:
            self._call()

    def _answer(self, responses: Iterable[GenerationResponse]) -> None:
        """Print an answer, and run what it calls."""
        if self._print(responses):
            self._call()

    def _print(self, responses: Iterable[GenerationResponse]) -> bool:
        """Print an answer; False if it was stopped."""
        response = None
        try:
            for response in responses:
                self._note_forgotten()
                if response.kind != "tool_call":
                    show(response.text, sys.stderr if response.kind == "thought" else sys.stdout, end="")
            show("")
        except KeyboardInterrupt:
            show("")
            note("(stopped)")
            return False
        if response is not None and response.finish_reason == "length":
            most = self._options.get("max_tokens", response.generation_tokens)
            is_full = response.generation_tokens < most
            note(f"(the answer was stopped{': the context is full' if is_full else f' at --max-tokens {most}'})")
        if response is not None and response.finish_reason == "loop":
            note(LOOPED)
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

    def _result(self, call: ToolCall) -> ToolResult:
        from mlx_gemma4.outputs.tools.result import ToolResult

        if call.problem is not None:
            note(f"({call.name} was called in a way that is not declared: {call.problem})")
            return ToolResult.error(call.problem)
        written = described(call.name, call.arguments)
        if self._tools is None or not self._tools.runs(call.name):
            note(f"{written} was not run: it is only declared.")
            return ToolResult.error(f"{call.name} is not available")
        try:
            reason = self._consent(call)
            if reason is not None:
                return ToolResult.of(reason, is_error=True)
            result = self._tools.call(call)
        except KeyboardInterrupt:
            note("(stopped)")
            return ToolResult.of(STOPPED, is_error=True)
        note_shortened(call.name, result)
        return result


def held(conversation: Conversation) -> str:
    """What a conversation holds, and what its last turn computed, in two lines."""
    session, work = conversation.session, conversation.work
    limit = "" if session.context is None else f" of {session.context:,}"
    snapshots = session.model.snapshots
    sizes = (session.nbytes, snapshots.memory_used, snapshots.disk_used)
    keys, memory, disk = (f"{size / 1e6:,.1f} MB" for size in sizes)
    return (
        f"held: {plural(conversation.turns, 'turn')}, {session.position:,}{limit} tokens; {keys} of keys and values, "
        f"{memory} of snapshots in memory, {disk} on disk\n"
        f"last turn: {work.reused:,} tokens reused; computed {work.message:,} for the message, {work.answer:,} for the "
        f"answer, {work.history:,} for the history"
    )


def _unknown(line: str, command: str) -> str:
    if kind_of(command):
        return f"There is no file at {command!r}"
    return f"There is no command (/help lists them) called {command}"
