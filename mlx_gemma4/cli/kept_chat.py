"""``chat --resume FILE``: a conversation that is kept in a file, and goes on from there."""

from __future__ import annotations

import itertools
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_gemma4.cli.shared.errors import message
from mlx_gemma4.cli.shared.notes import note, plural
from mlx_gemma4.inputs.messages import Message, same_messages

if TYPE_CHECKING:
    from mlx_gemma4.decoder.model import Model
    from mlx_gemma4.inputs.processor import Processor
    from mlx_gemma4.programs.chat import Conversation


class KeptChat:
    """The file of a conversation: messages after each turn, and what was computed at the end.

    After a crash, the messages are there, and the rest is computed again. If another chat has written the file
    meanwhile, this one goes to another file.
    """

    def __init__(self, path: str | None, conversation: Conversation) -> None:
        self._path = None if path is None else Path(path)
        self._conversation = conversation
        self._known = self._state()
        self._read = self._written = list(conversation.messages)

    def after_turn(self) -> None:
        """Save the messages, if they have changed. A full disk does not end the chat."""
        if self._path is not None and self._has_changed(self._written):
            try:
                self._save(self._path, computed=False)
            except ValueError as error:
                note(f"error: {message(error)}")

    def at_end(self) -> None:
        """Save everything, if anything has changed.

        Raises:
            ValueError: It cannot be written.
        """
        if self._path is not None and self._has_changed(self._read):
            self._save(self._path, computed=True)
            with suppress(OSError):  # the terminal was closed
                note(f"The conversation is saved in {self._path}.")

    def _has_changed(self, messages: list[Message]) -> bool:
        """Whether there are other messages. A conversation without turns does not take the place of an older one."""
        return self._conversation.turns > 0 and not same_messages(self._conversation.messages, messages)

    def _save(self, path: Path, *, computed: bool) -> None:
        if self._state() not in (None, self._known):
            path = self._path = _free(path)
            note(f"(another program has changed the file; this conversation is kept in {path})")
        self._conversation.save(path, computed=computed)
        self._known, self._written = self._state(), list(self._conversation.messages)

    def _state(self) -> tuple[int, int, int] | None:
        """What changes when somebody else writes the file; None where there is none."""
        if self._path is None or not self._path.exists():
            return None
        status = self._path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns


def _free(path: Path) -> Path:
    """A name beside a file that no file has."""
    numbered = (path.with_name(f"{path.name}.{number}") for number in itertools.count(2))
    return next(name for name in numbered if not name.exists())


def check_resumed(path: Path) -> None:
    """Check, before the model is loaded, that a conversation can be read from a file and written to it.

    Raises:
        ValueError: It cannot.
    """
    from mlx_gemma4.decoder.saved_file import check_kind, check_target

    check_target(path)
    if path.exists():
        check_kind(path, "conversation")


def open_conversation(path: str | None, model: Model, processor: Processor, **options: Any) -> Conversation:
    """The conversation of a file, or a new one where there is none.

    Raises:
        ValueError: The file cannot be continued, or it has another system message than the options.
    """
    from mlx_gemma4.programs.chat import Conversation

    if path is None or not Path(path).exists():
        return Conversation(model, processor, **options)
    system = options.pop("system")
    conversation = Conversation.load(model, processor, path, **options)
    if system is not None and system != conversation.system:
        raise ValueError(f"{path} has another system message; leave out --system, or name another file")
    held = conversation.session.position
    computed = f"{held:,} tokens are computed" if held else "they will be computed with the next message"
    note(f"Continuing {path}: {plural(conversation.turns, 'turn')}; {computed}.")
    return conversation
