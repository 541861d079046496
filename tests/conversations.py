"""A Realtime conversation without sockets and without a model: a scripted work does what the session asks for."""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mlx_gemma4.serve.events import Began as AnswerBegan
from mlx_gemma4.serve.events import ChatEvent, Finished, Piece
from mlx_gemma4.serve.hearing import (
    Began,
    Clear,
    Cleared,
    Commit,
    Committed,
    Converse,
    Hearing,
    Said,
    Sound,
    Spoke,
    Transcribed,
    TurnEnded,
    TurnSettings,
    Words,
)
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.realtime_conversation import (
    Abilities,
    Cancel,
    Command,
    ConversationSession,
    Prefetch,
    Respond,
)

Event = dict[str, Any]

FRAME = 640
ABILITIES = Abilities("demo", longest=750 * FRAME, frame=FRAME, context=8192, calls=True)
TOOL = {
    "type": "function",
    "name": "lights",
    "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}},
}
CALL = "call:lights{on:true}"


def ids() -> Callable[[str], str]:
    counts: dict[str, int] = {}

    def next_id(prefix: str) -> str:
        counts[prefix] = counts.get(prefix, 0) + 1
        return f"{prefix}_{counts[prefix]}"

    return next_id


def decode(kind: str, data: bytes, detail: str | None, where: str) -> Any:
    """A picture is its bytes."""
    if data == b"broken":
        raise Failure(400, f"{where}: broken", param=where, code="invalid_image")
    return np.frombuffer(data, np.uint8)


class Client:
    """A session: events go in, and what comes out is kept. Nothing is computed until the test says what."""

    def __init__(self, abilities: Abilities = ABILITIES) -> None:
        self.session = ConversationSession(ids(), abilities)
        self.events: list[Event] = []
        self.commands: list[Command] = []
        self._note(self.session.open())

    def send(self, kind: str, **fields: Any) -> list[Event]:
        return self.send_raw(json.dumps({"type": kind, **fields}).encode())

    def send_raw(self, message: bytes) -> list[Event]:
        return self._note(self.session.receive(message, decode))

    def configure(self, **session: Any) -> list[Event]:
        return self.send("session.update", session={"type": "realtime", **session})

    def listen(self, detection: Event | None, **inputs: Any) -> list[Event]:
        inputs = {"format": {"type": "audio/pcm", "rate": 16_000}, "turn_detection": detection, **inputs}
        return self.configure(audio={"input": inputs})

    def say(self, text: str, role: str = "user", **fields: Any) -> str:
        """Add a message; return its id."""
        part = {"type": "output_text" if role == "assistant" else "input_text", "text": text}
        told = self.create({"type": "message", "role": role, "content": [part]}, **fields)
        item_id: str = told[-1]["item"]["id"]
        return item_id

    def create(self, item: Event, **fields: Any) -> list[Event]:
        return self.send("conversation.item.create", item=item, **fields)

    def append(self, frames: int) -> list[Event]:
        data = np.full(frames * FRAME, 1000, "<i2").tobytes()
        return self.send("input_audio_buffer.append", audio=base64.b64encode(data).decode())

    def hear(self, *told: Hearing) -> list[Event]:
        return [event for each in told for event in self._note(self.session.hear(each))]

    def answer(self, response_id: str, *told: ChatEvent) -> list[Event]:
        return [event for each in told for event in self._note(self.session.answer(response_id, each))]

    def asked(self) -> Respond:
        """The last answer that was asked for."""
        return next(command for command in reversed(self.commands) if isinstance(command, Respond))

    def shown(self) -> list[tuple[str, Any]]:
        """What the model is shown for it: the role of each message, and what it holds."""
        return shown(self.asked())

    def error(self) -> Event:
        assert self.events[-1]["type"] == "error"
        error: Event = self.events[-1]["error"]
        return error

    def _note(self, done: tuple[list[Event], Sequence[Command]]) -> list[Event]:
        events, commands = done
        self.events += json.loads(json.dumps(events))
        self.commands += commands
        return events


def shown(command: Respond | Prefetch) -> list[tuple[str, Any]]:
    """Messages of a request: texts, and how many media stand between them."""
    told: list[tuple[str, Any]] = []
    for message in command.request.messages:
        content: Any = message.content
        if isinstance(content, list):
            content = [part.text if hasattr(part, "text") else part.part["type"] for part in content]
        if message.tool_calls:
            content = [call.function.name for call in message.tool_calls]
        told.append((message.role, content))
    return told


BEGAN = AnswerBegan(prompt_tokens=9, cached_tokens=5, audio_tokens=2, image_tokens=1)


def text(*pieces: str, reason: Any = "stop") -> list[ChatEvent]:
    """An answer of text."""
    return [BEGAN, *(Piece("text", piece) for piece in pieces), Finished(reason, len(pieces) + 1, 0)]


class Work:
    """Does what a session asks for, a step at a time, as the real work does. A second or more at once is speech."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._done = 0
        self._settings = TurnSettings()
        self._inbox: deque[Command] = deque()
        self._speaks = False
        self._frames = self._said = 0
        self.answers: dict[str, deque[ChatEvent]] = {}

    def collect(self) -> None:
        """Take the commands that have come."""
        for command in self._client.commands[self._done :]:
            if isinstance(command, Respond):
                self.answers[command.response_id] = deque(self.script(command))
            elif isinstance(command, Cancel):
                self.answers.pop(command.response_id, None)
            else:
                self._inbox.append(command)
        self._done = len(self._client.commands)

    @staticmethod
    def script(command: Respond) -> list[ChatEvent]:
        """What the model answers: it depends on what it is shown."""
        length = sum(len(str(each)) for each in shown(command))
        call = [Piece("tool_call", CALL)] if length % 3 == 0 and command.request.tools else []
        pieces = [Piece("text", f" {number}") for number in range(length % 4)]
        return [BEGAN, *pieces, *call, Finished("length" if length % 7 == 0 else "stop", 3, 0)]

    def hear(self) -> bool:
        """Do the next thing that is asked of the ears; whether there was one."""
        self.collect()
        if not self._inbox:
            return False
        for told in self._heard(self._inbox.popleft()):
            self._client.hear(told)
        return True

    def write(self, number: int) -> bool:
        """Write the next piece of an answer; whether there was one."""
        self.collect()
        if not self.answers:
            return False
        response_id = list(self.answers)[number % len(self.answers)]
        self._client.answer(response_id, self.answers[response_id].popleft())
        if not self.answers.get(response_id):
            self.answers.pop(response_id, None)
        return True

    def fail(self, number: int) -> None:
        """Let an answer fail."""
        self.collect()
        if self.answers:
            response_id = list(self.answers)[number % len(self.answers)]
            del self.answers[response_id]
            self._client._note(self._client.session.fail(response_id, Failure(503, "Busy", code="server_overloaded")))

    def finish(self) -> None:
        """Do everything."""
        while self.hear() or self.write(0):
            pass

    def _heard(self, command: Command) -> list[Hearing]:
        if isinstance(command, Sound):
            return self._sound(len(command.samples) // FRAME)
        if isinstance(command, Commit):
            return [*self._end(by_client=True), Committed()]
        if isinstance(command, Clear):
            self._speaks = False
            return [Cleared()]
        if isinstance(command, Converse) and command.settings != self._settings:
            told = self._end(by_client=True) if self._settings.finds_turns else []
            self._settings = command.settings
            return told
        return []

    def _sound(self, frames: int) -> list[Hearing]:
        if not self._settings.finds_turns:
            said = [Words("a"), Said(0, 1, "a b", " b")] if frames > 25 else []
            return [Transcribed(None, each) for each in said] if self._settings.transcribes else []
        if frames < 25:  # silence
            return self._end(by_client=False)
        told: list[Hearing] = []
        if not self._speaks:
            self._speaks = True
            told.append(Began(0.0))
            if self._settings.transcribes:
                told.append(Transcribed(self._said, Words("a")))
        self._frames += frames
        return told

    def _end(self, *, by_client: bool) -> list[Hearing]:
        if not self._speaks:
            return []
        self._speaks, frames, self._frames = False, self._frames, 0
        told: list[Hearing] = [Spoke(0.0, 1.0, np.zeros(frames * FRAME, np.float32)), TurnEnded(by_client)]
        if self._settings.transcribes:
            told.append(Transcribed(self._said, Said(0, 1, "a b", " b")))
        self._said += 1
        return told


def check(events: Sequence[Event]) -> list[str]:
    """Check that events of a whole session fit together; return the items in the order that a client knows."""
    order: list[str] = []
    open_items: dict[str, str] = {}
    responses: dict[str, Mapping[str, Any] | None] = {}
    texts: dict[str, str] = {}
    for event in events:
        kind, item = event["type"], event.get("item_id")
        if kind == "conversation.item.added":
            previous = event["previous_item_id"]
            assert event["item"]["id"] not in order
            order.insert(0 if previous is None else order.index(previous) + 1, event["item"]["id"])
        elif kind == "conversation.item.deleted":
            order.remove(event["item_id"])
        elif kind == "response.created":
            assert event["response"]["id"] not in responses and event["response"]["status"] == "in_progress"
            responses[event["response"]["id"]] = None
        elif kind == "response.done":
            response = event["response"]
            assert responses[response["id"]] is None and response["status"] != "in_progress"
            assert not [each for each, owner in open_items.items() if owner == response["id"]]
            assert all(each["status"] != "in_progress" for each in response["output"])
            responses[response["id"]] = response
        elif kind.startswith("response."):
            assert responses[event["response_id"]] is None
            if kind == "response.output_item.added":
                open_items[event["item"]["id"]] = event["response_id"]
                texts[event["item"]["id"]] = ""
            elif kind == "response.output_item.done":
                del open_items[event["item"]["id"]]
            elif kind == "response.output_text.delta":
                assert item is not None and open_items[item] == event["response_id"]
                texts[item] += event["delta"]
            elif kind == "response.output_text.done":
                assert item is not None and event["text"] == texts[item]
    assert all(responses.values()) and not open_items
    return order
