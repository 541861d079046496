"""Answers to text commands of Wyoming: conversations that the client names, and the events of an answer."""

from __future__ import annotations

from collections import OrderedDict

from wyoming.event import Event
from wyoming.handle import Handled, HandledChunk, HandledStart, HandledStop, NotHandled

from mlx_gemma4.serve.events import ChatEvent, Finished, Piece
from mlx_gemma4.serve.protocols.chat_request import ChatRequest, Message
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.wyoming import Ask

INSTRUCTION = (
    "You are a voice assistant. Your answer is read aloud: answer in one or two short sentences of plain text, "
    "without lists, markup and emoji. You cannot control devices."
)
MOST_CONVERSATIONS = 64
"""Conversations that are remembered; the ones that were not used for longest go."""
MOST_CHARACTERS = 20_000
"""Of the turns of a conversation; the oldest ones go."""

Turn = tuple[str, str]
"""What the user and the model have said."""


class Conversations:
    """What was said before, by the ``conversation_id`` of Home Assistant. It is forgotten when the server ends."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, list[Turn]] = OrderedDict()

    def request(self, ask: Ask) -> ChatRequest:
        """The chat in which a text is answered."""
        spoken = f" Answer in {ask.language}." if ask.language else ""
        messages = [Message("system", INSTRUCTION + spoken)]
        for said, answered in self._turns.get(ask.conversation or "", ()):
            messages += [Message("user", said), Message("assistant", answered)]
        return ChatRequest([*messages, Message("user", ask.text)])

    def keep(self, ask: Ask, answer: str) -> None:
        """Remember a turn."""
        if ask.conversation is None:
            return
        turns = self._turns.setdefault(ask.conversation, [])
        self._turns.move_to_end(ask.conversation)
        turns.append((ask.text, answer))
        while sum(len(said) + len(answered) for said, answered in turns) > MOST_CHARACTERS:
            del turns[0]
        if len(self._turns) > MOST_CONVERSATIONS:
            self._turns.popitem(last=False)

    def shorten(self, ask: Ask) -> bool:
        """Forget the older half of a conversation; return whether there was anything to forget."""
        turns = self._turns.get(ask.conversation or "", [])
        had = bool(turns)
        del turns[: (len(turns) + 1) // 2]
        return had


class HandledAnswer:
    """Events of an answer to Wyoming's.

    Attributes:
        text: The answer so far.
    """

    def __init__(self, ask: Ask) -> None:
        self._context = ask.context
        self.text = ""

    def told(self, event: ChatEvent) -> list[Event]:
        """The events that tell one of the work."""
        if isinstance(event, Piece) and event.kind == "text" and event.text:
            begin = [] if self.text else [HandledStart(self._context).event()]
            self.text += event.text
            return [*begin, HandledChunk(event.text).event()]
        if not isinstance(event, Finished):
            return []
        if not self.text:
            return [NotHandled("The model gave no answer", self._context).event()]
        return [Handled(self.text, self._context).event(), HandledStop().event()]

    def failed(self, failure: Failure) -> list[Event]:
        """The events that tell a failure. Clients wait for one of these, and do not know other errors."""
        return [NotHandled(failure.message, self._context).event()]
