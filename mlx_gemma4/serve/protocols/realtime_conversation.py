"""``/v1/realtime``: a conversation as a state machine. Events of the client and the work in, events and commands out.

    client                             server                                    work
    conversation.item.create           …item.added, …item.done                   Prefetch: enters the cache now
    input_audio_buffer.append …        …speech_started                           Sound: enters the cache now
                                       …speech_stopped, committed, item.added
    response.create, or end of a turn  response.created, …                       Respond: only the end is left
    somebody speaks                    response.done (cancelled)                 Cancel

Items are the truth: each answer is asked for with all of them. What was computed of them before is found by its
content, so it makes no difference but time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
from mlx_gemma4.serve.events import ChatEvent
from mlx_gemma4.serve.hearing import (
    Began,
    Clear,
    Cleared,
    Commit,
    Committed,
    Converse,
    Hearing,
    Release,
    Sound,
    Spoke,
    Transcribed,
    TurnEnded,
    sounds,
)
from mlx_gemma4.serve.hearing import Command as HearingCommand
from mlx_gemma4.serve.protocols.chat_messages import Decode
from mlx_gemma4.serve.protocols.chat_request import ChatRequest
from mlx_gemma4.serve.protocols.failure import Failure, unsupported, wrong
from mlx_gemma4.serve.protocols.realtime_answers import AnswerFields, Answers, Maybe, Truncation
from mlx_gemma4.serve.protocols.realtime_events import (
    CancelResponse,
    CreateItem,
    CreateResponse,
    DeleteItem,
    Read,
    ResponseFields,
    RetrieveItem,
    TruncateItem,
    Unread,
    read_event,
)
from mlx_gemma4.serve.protocols.realtime_items import (
    Content,
    Item,
    ItemFields,
    Items,
    chat,
    read_item,
    stretches,
    whole_sound,
)
from mlx_gemma4.serve.protocols.realtime_request import (
    HYPOTHESES,
    Append,
    ClearBuffer,
    CommitBuffer,
    Settings,
    Update,
    event_id_of,
)
from mlx_gemma4.serve.protocols.realtime_response import Response
from mlx_gemma4.serve.protocols.realtime_sound import EMPTY_COMMIT, SoundStream
from mlx_gemma4.serve.protocols.realtime_turns import Turns

MOST_ITEMS = 4096
"""Items of a conversation. Those that have left the context make room for new ones."""
MOST_BYTES = 256_000_000
"""Of the media of a conversation, decoded: an hour of sound, or 33 pictures of 280 tokens."""
MOST_RESPONSES = 4
"""Answers at the same time: one in the conversation, the others out of band."""
MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512
"""Of the metadata of a response."""
ACTIVE = "conversation_already_has_active_response"

Event = dict[str, Any]


@dataclass(frozen=True)
class Abilities:
    """What the model takes."""

    model: str
    longest: int | None
    """Samples of sound in one stretch; None: no sound."""
    frame: int
    """Samples of a frame."""
    context: int
    """Positions of a conversation: a frame is one."""
    calls: bool
    """Whether its template writes functions."""


@dataclass(frozen=True)
class Prefetch:
    """Compute what the next prompt begins with, while nobody waits. The newest one counts."""

    request: ChatRequest
    truncation: Truncation
    heard: int | None
    """As in ``History``."""


@dataclass(frozen=True)
class Respond:
    """Answer."""

    response_id: str
    request: ChatRequest
    truncation: Truncation


@dataclass(frozen=True)
class Cancel:
    """End an answer."""

    response_id: str


Command = HearingCommand | Prefetch | Respond | Cancel


class ConversationSession:
    """One connection.

    Attributes:
        id: Of the session.
    """

    def __init__(self, next_id: Callable[[str], str], abilities: Abilities) -> None:
        self._next_id, self._abilities = next_id, abilities
        self.id, self._conversation = next_id("sess"), next_id("conv")
        self._settings, self._answers = Settings(kind="realtime"), Answers()
        self._sound = SoundStream()
        self._items = Items()
        self._turns = Turns(self._items, abilities.longest or 1, next_id, self._event)
        self._responses: dict[str, Response] = {}
        self._active: Response | None = None
        """The answer that is written to the conversation."""
        self._owes_answer = False
        """A turn has ended while an answer was written."""
        self._commits: list[str | None] = []
        """Commits, by the ids of their events, that end a turn which the server finds."""
        self._ended = 0
        """Turns since the last of them."""

    @property
    def has_begun(self) -> bool:
        """Whether anything was said."""
        return bool(len(self._items) or self._responses or self._turns.open or self._sound.has_begun)

    def open(self) -> tuple[list[Event], list[Command]]:
        """The first events."""
        # at the top, the id is for clients of vLLM
        return [self._event("session.created", id=self.id, session=self._session())], [Converse(self._settings.turns())]

    def receive(self, message: bytes, decode: Decode) -> tuple[list[Event], list[Command]]:
        """Take an event of the client; return what to answer, and what to tell the work. What is wrong changes
        nothing, and is answered by an error."""
        return self.take(self.read(message, decode))

    def read(self, message: bytes, decode: Decode) -> Read | Unread:
        """Read an event of the client, and decode the media in it: that takes a while, and changes nothing."""
        try:
            event = read_event(message)
            if isinstance(event, CreateItem):
                return Read(event, (self._read_item(event.item, "item", decode),))
            if isinstance(event, CreateResponse) and event.response is not None and event.response.input:
                places = [(f"response.input[{index}]", each) for index, each in enumerate(event.response.input)]
                return Read(event, tuple(self._read_input(each, where, decode) for where, each in places))
            return Read(event)
        except Failure as failure:
            return Unread(failure, event_id_of(message))

    def take(self, read: Read | Unread) -> tuple[list[Event], list[Command]]:
        """Take an event that was read."""
        if isinstance(read, Unread):
            return [self.error(read.failure, read.event_id)], []
        try:
            return self._take(read)
        except Failure as failure:
            return [self.error(failure, read.event.event_id)], []

    def hear(self, told: Hearing) -> tuple[list[Event], list[Command]]:
        """Take an event of the work on sound."""
        if isinstance(told, Began):
            return self._begin(told)
        if isinstance(told, Spoke):
            self._turns.spoke(told)
            return [], []
        if isinstance(told, TurnEnded):
            return self._end_turn(answers=self._settings.answers_turns and not told.by_client)
        if isinstance(told, Transcribed):
            return self._turns.transcribed(told), []
        if isinstance(told, Cleared):
            self._turns.cleared()
            return [self._event("input_audio_buffer.cleared")], self._prefetch()
        assert isinstance(told, Committed)
        return self._finish_commit(), []

    def answer(self, response_id: str, told: ChatEvent) -> tuple[list[Event], list[Command]]:
        """Take an event of the work on an answer."""
        response = self._responses.get(response_id)
        if response is None:
            return [], []
        events = response.take(told)
        return self._ended_response(response, events) if response.is_done else (events, [])

    def fail(self, response_id: str, failure: Failure) -> tuple[list[Event], list[Command]]:
        """An answer has failed."""
        response = self._responses.get(response_id)
        return ([], []) if response is None else self._ended_response(response, response.fail(failure))

    def leave(self, turns: int, response_id: str | None = None) -> None:
        """The oldest turns have left the context, to make room for an answer, or for the next one."""
        response = None if response_id is None else self._responses.get(response_id)
        if response_id is None or (response is not None and response.items is not None):
            self._items.leave(turns)

    def error(self, failure: Failure, event_id: str | None = None) -> Event:
        """An error. The session goes on."""
        return self._event("error", error={**failure.record()["error"], "event_id": event_id})

    # events of the client

    def _take(self, read: Read) -> tuple[list[Event], list[Command]]:
        event = read.event
        if isinstance(event, Append):
            return [], self._append(event)
        if isinstance(event, CommitBuffer):
            return self._commit(event)
        if isinstance(event, ClearBuffer):
            self._sound.clear()
            self._turns.clear()
            return [], [Clear()]
        if isinstance(event, Update):
            return self._update(event)
        if isinstance(event, CreateResponse):
            return self._respond(event.response or ResponseFields(), read.items)
        if isinstance(event, CancelResponse):
            return self._cancel(event)
        if isinstance(event, RetrieveItem):
            item = self._items.find(event.item_id)
            return [self._event("conversation.item.retrieved", item=item.record())], []
        if isinstance(event, CreateItem):
            (created,) = read.items
            assert isinstance(created, Item)
            return self._create(created, event.previous_item_id)
        return self._delete(event) if isinstance(event, DeleteItem) else self._truncate(event)

    def _append(self, event: Append) -> list[Command]:
        if self._abilities.longest is None:
            raise unsupported("audio", "This checkpoint takes no sound; send text")
        most = min(self._abilities.context * self._abilities.frame, MOST_BYTES // 4)
        if self._turns.buffer is not None and self._turns.buffer.samples > most:
            seconds = most / SAMPLE_RATE
            raise wrong("audio", f"The buffer has the {seconds:.0f} s of audio that a conversation takes; commit it")
        samples = self._sound.append(event.audio, self._settings.encoding, self._settings.rate)
        if not len(samples):
            return []
        begins = not self._settings.has_turns and self._turns.append(samples)
        return [Sound(samples), *(self._prefetch() if begins else ())]

    def _commit(self, event: CommitBuffer) -> tuple[list[Event], list[Command]]:
        rest, _ = self._sound.commit()
        commands: list[Command] = [*sounds(rest), Commit()]
        if self._settings.has_turns:
            self._commits.append(event.event_id)
            return [], commands
        return self._turns.commit(rest), [*commands, *self._prefetch()]

    def _update(self, event: Update) -> tuple[list[Event], list[Command]]:
        settings = self._settings.updated(event.session)
        answers = self._answered(event.session, "session")
        if settings.has_turns and self._turns.buffer is not None:
            raise wrong(
                "session.audio.input.turn_detection",
                "The buffer has sound in which no turns were found; commit or clear it first",
            )
        if (settings.encoding, settings.rate) != (self._settings.encoding, self._settings.rate):
            self._sound.change_format()
        self._settings, self._answers = settings, answers
        self._turns.transcribes = settings.transcription is not None
        self._turns.guesses = HYPOTHESES in settings.include
        return [self._event("session.updated", session=self._session())], [
            Converse(settings.turns()),
            *self._prefetch(),
        ]

    def _answered(self, fields: AnswerFields, where: str) -> Answers:
        """How answers are made, with the changes of a client."""
        if fields.tools and not isinstance(fields.tools, Maybe) and not self._abilities.calls:
            raise unsupported(f"{where}.tools", "This checkpoint's chat template does not write tools; leave them out")
        return self._answers.updated(fields, where)

    def _create(self, item: Item, previous: str | None) -> tuple[list[Event], list[Command]]:
        if len(self._items) >= MOST_ITEMS:
            self._forget()
        before = self._items.insert(item, previous)
        if item.nbytes and self._items.last_nbytes > MOST_BYTES:
            self._items.remove(item)
            raise wrong("item", f"The media of a turn may take {MOST_BYTES // 10**6} MB; delete some items")
        self._items.shrink(MOST_BYTES)
        told = [
            self._event(f"conversation.item.{name}", item=item.record(), previous_item_id=before)
            for name in ("added", "done")
        ]
        return told, self._prefetch()

    def _forget(self) -> None:
        """Make room for an item."""
        gone = next((item for item in self._items.all if item.has_left), None)
        if gone is None:
            raise wrong("item", f"The conversation has {MOST_ITEMS} items already; delete some")
        self._items.remove(gone)

    def _delete(self, event: DeleteItem) -> tuple[list[Event], list[Command]]:
        item = self._items.find(event.item_id)
        if item.is_open:
            raise wrong("item_id", "The item is being written; cancel its response first")
        self._items.remove(item)
        return [self._event("conversation.item.deleted", item_id=item.id)], self._prefetch()

    def _truncate(self, event: TruncateItem) -> tuple[list[Event], list[Command]]:
        item = self._items.find(event.item_id)
        if item.type != "message" or item.role != "assistant" or item.is_open:
            raise wrong("item_id", "Only messages of the assistant that are complete can be truncated")
        if not 0 <= event.content_index < len(item.content):
            raise wrong("content_index", f"The item has no content {event.content_index}")
        part = item.content[event.content_index]
        if event.text is None and event.audio_end_ms > 0:
            raise wrong(
                "audio_end_ms",
                "The answer has no audio of which some was heard; send text, the beginning of the answer that was, "
                "or audio_end_ms: 0 for nothing of it",
            )
        if not part.text.startswith(event.text or ""):
            raise wrong("text", "The text is not the beginning of the answer")
        part.text = event.text or ""
        told = {"item_id": item.id, "content_index": event.content_index, "audio_end_ms": event.audio_end_ms}
        return [self._event("conversation.item.truncated", **told)], self._prefetch()

    # answers

    def _respond(self, fields: ResponseFields, given: tuple[Item | str, ...]) -> tuple[list[Event], list[Command]]:
        if fields.conversation not in (None, "auto", "none", self._conversation):
            raise wrong("response.conversation", "response.conversation must be auto or none")
        _check_metadata(fields.metadata or {})
        answers = self._answered(fields, "response")
        is_apart = fields.conversation == "none"
        if not is_apart and self._active is not None:
            raise wrong(
                "response",
                f"The conversation has the response {self._active.id} in progress; wait for its end, or cancel it",
                code=ACTIVE,
            )
        if len(self._responses) >= MOST_RESPONSES:
            raise wrong("response", f"{MOST_RESPONSES} responses are in progress; wait for one of them", code=ACTIVE)
        items = self._items.shown()
        if fields.input is not None:
            items = [self._items.find(each, "response.input") if isinstance(each, str) else each for each in given]
        return self._begin_response(answers, items, fields.metadata, is_apart=is_apart)

    def _begin_response(
        self, answers: Answers, items: list[Item], metadata: dict[str, str] | None, *, is_apart: bool = False
    ) -> tuple[list[Event], list[Command]]:
        response = Response(
            self._next_id("resp"),
            answers,
            None if is_apart else self._items,
            self._conversation,
            metadata,
            self._next_id,
            self._event,
        )
        self._responses[response.id] = response
        if not is_apart:
            self._active, self._owes_answer = response, False
        request = answers.request(chat(answers.instructions, items))
        return response.created(), [Release(), Respond(response.id, request, answers.room)]

    def _cancel(self, event: CancelResponse) -> tuple[list[Event], list[Command]]:
        response = self._active if event.response_id is None else self._responses.get(event.response_id)
        if response is None:
            raise wrong("response_id", "There is no response to cancel", code="response_cancel_not_active")
        return self._stop(response, "client_cancelled")

    def _stop(self, response: Response, reason: Any) -> tuple[list[Event], list[Command]]:
        events, commands = self._ended_response(response, response.cancel(reason))
        return events, [Cancel(response.id), *commands]

    def _ended_response(self, response: Response, events: list[Event]) -> tuple[list[Event], list[Command]]:
        del self._responses[response.id]
        if response is not self._active:
            return events, []
        self._active = None
        if not self._owes_answer:
            return events, self._prefetch()
        begun, commands = self._begin_response(self._answers, self._items.shown(), None)
        return [*events, *begun], commands

    # turns

    def _begin(self, told: Began) -> tuple[list[Event], list[Command]]:
        is_first = self._turns.open is None
        events, commands = self._turns.begin(told), list[Command]()
        if is_first and self._active is not None and self._settings.is_interruptible:
            self._owes_answer = False
            stopped, commands = self._stop(self._active, "turn_detected")
            return [*events, *stopped], commands
        return events, self._prefetch()

    def _end_turn(self, *, answers: bool) -> tuple[list[Event], list[Command]]:
        self._ended += 1
        events = self._turns.end()
        self._items.shrink(MOST_BYTES)
        if not answers:
            return events, self._prefetch()
        if self._active is not None:
            self._owes_answer = True
            return events, []
        begun, commands = self._begin_response(self._answers, self._items.shown(), None)
        return [*events, *begun], commands

    def _finish_commit(self) -> list[Event]:
        if not self._commits:
            return self._turns.committed()
        event_id, ended, self._ended = self._commits.pop(0), self._ended, 0
        if ended:
            return []
        return [self.error(Failure(400, "Nobody has spoken since the last turn", code=EMPTY_COMMIT), event_id)]

    def _prefetch(self) -> list[Command]:
        """What to compute ahead; nothing while an answer is written."""
        if self._active is not None:
            return []
        sounds, heard = list[np.ndarray](), None
        if self._turns.open is not None:
            sounds = self._turns.open.sounds
            heard = self._turns.open.samples // self._abilities.frame
        elif self._turns.buffer is not None and self._abilities.longest is not None:
            longest, samples = self._abilities.longest, np.concatenate(self._turns.buffer.sounds)
            sounds = list(stretches(samples[: len(samples) // longest * longest], longest))
            heard = len(sounds) * longest // self._abilities.frame
        items = self._items.shown()
        if sounds:
            items = [*items, Item("", role="user", content=[Content("input_audio", media=tuple(sounds))])]
        request = self._answers.request(chat(self._answers.instructions, items))
        return [Prefetch(request, self._answers.room, heard)] if request.messages or heard is not None else []

    # records

    def _read_item(self, fields: ItemFields, where: str, decode: Decode) -> Item:
        return read_item(fields, where, self._next_id, decode, self._stretches)

    def _read_input(self, fields: ItemFields, where: str, decode: Decode) -> Item | str:
        if fields.type == "item_reference":
            return fields.id or ""
        return self._read_item(fields, where, decode)

    def _stretches(self, audio: str, where: str) -> tuple[np.ndarray, ...]:
        if self._abilities.longest is None:
            raise unsupported(where, "This checkpoint takes no sound; send text")
        samples = whole_sound(audio, self._settings.encoding, self._settings.rate)
        return stretches(samples, self._abilities.longest)

    def _session(self) -> dict[str, Any]:
        head = {"id": self.id, "object": "realtime.session", "model": self._abilities.model}
        return {**head, **self._settings.record(), **self._answers.record()}

    def _event(self, kind: str, **fields: Any) -> Event:
        return {"type": kind, "event_id": self._next_id("event"), **fields}


def _check_metadata(metadata: Mapping[str, str]) -> None:
    if len(metadata) > MOST_PAIRS or any(
        len(key) > LONGEST_KEY or len(value) > LONGEST_VALUE for key, value in metadata.items()
    ):
        raise wrong(
            "response.metadata",
            f"response.metadata takes {MOST_PAIRS} pairs of {LONGEST_KEY} and {LONGEST_VALUE} characters at most",
        )
