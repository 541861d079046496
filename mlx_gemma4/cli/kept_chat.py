"""``chat --resume FILE``: a conversation that is kept in a file, and goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_gemma4.cli.shared.errors import message
from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.inputs.messages import same_messages

if TYPE_CHECKING:
    from mlx_gemma4.decoder.model import Model
    from mlx_gemma4.inputs.processor import Processor
    from mlx_gemma4.programs.chat import Conversation


class KeptChat:
    """The file of a conversation: messages after each turn, and what was computed at the end.

    After a crash, the messages are there, and the rest is computed again.
    """

    def __init__(self, path: str | None, conversation: Conversation) -> None:
        self._path = None if path is None else Path(path)
        self._conversation = conversation
        self._saved = list(conversation.messages)

    def after_turn(self) -> None:
        """Save the messages. A full disk does not end the chat."""
        if self._path is not None and self._is_changed:
            try:
                self._conversation.save(self._path, computed=False)
            except ValueError as error:
                note(f"error: {message(error)}")

    def at_end(self) -> None:
        """Save everything, if there was a turn.

        Raises:
            ValueError: It cannot be written.
        """
        if self._path is not None and self._is_changed:
            self._conversation.save(self._path)

    @property
    def _is_changed(self) -> bool:
        return not same_messages(self._conversation.messages, self._saved)


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
    note(
        f"Continuing {path}: {conversation.turns} turns; {conversation.session.position} of their tokens need not "
        "be computed again."
    )
    return conversation
