"""An answer in a Realtime conversation as events: what the work tells, in the order of OpenAI's GA protocol.

response.created
response.output_item.added, conversation.item.added           message
response.content_part.added, .output_text.delta …, .output_text.done, .content_part.done
conversation.item.done, response.output_item.done
response.output_item.added, conversation.item.added           function_call
response.function_call_arguments.delta, .done
conversation.item.done, response.output_item.done
response.done
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.serve.events import Began, ChatEvent, Finished, Piece
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.realtime_answers import MODALITIES, Answers
from mlx_gemma4.serve.protocols.realtime_items import Content, Item, Items
from mlx_gemma4.serve.protocols.written_calls import WrittenCalls

Event = dict[str, Any]
Reason = Literal["turn_detected", "client_cancelled"]


@dataclass
class Response:
    """One answer.

    Args:
        items: The conversation that it is written to; None: it is out of band.
        event: Makes an event of a type and its fields.

    Attributes:
        is_done: Nothing of it follows.
    """

    id: str
    answers: Answers
    items: Items | None
    conversation: str
    metadata: dict[str, str] | None
    next_id: Callable[[str], str]
    event: Callable[..., Event]
    is_done: bool = False
    status: str = "in_progress"
    details: Event | None = None
    output: list[Item] = field(default_factory=list)
    began: Began | None = None
    end: Finished | None = None

    def __post_init__(self) -> None:
        offered = None if self.answers.tool_choice == "none" else self.answers.request(()).tools
        one_call = not self.answers.parallel_tool_calls
        self._calls = WrittenCalls(offered, lambda: self.next_id("call"), one_call=one_call)

    def created(self) -> list[Event]:
        """The first event."""
        return [self.event("response.created", response=self.record())]

    def take(self, told: ChatEvent) -> list[Event]:
        """Take an event of the work."""
        if self.is_done:
            return []
        if isinstance(told, Began):
            self.began = told
            return []
        if isinstance(told, Finished):
            self.end = told
            is_whole = told.reason == "stop"
            closing = self._close("completed" if is_whole else "incomplete")
            return [*closing, *self._finish("completed" if is_whole else "incomplete")]
        return self._take_piece(told)

    def cancel(self, reason: Reason) -> list[Event]:
        """End it where it is: what was told stands."""
        return [*self._close("incomplete"), *self._finish("cancelled", {"reason": reason})]

    def fail(self, failure: Failure) -> list[Event]:
        """End it with an error."""
        error = failure.record()["error"]
        told = {"type": error["type"], "code": error["code"], "message": error["message"]}
        return [*self._close("incomplete"), *self._finish("failed", {"error": told})]

    def record(self) -> Event:
        """The response as events tell it."""
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": self.status,
            "status_details": self.details,
            "output": [item.record() for item in self.output],
            "conversation_id": self.conversation if self.items is not None else None,
            "output_modalities": MODALITIES,
            "max_output_tokens": self.answers.max_output_tokens,
            "metadata": self.metadata,
            "usage": self._usage(),
        }

    def _take_piece(self, piece: Piece) -> list[Event]:
        if piece.kind == "thought":
            return []
        calls = self._calls.read(piece.text) if piece.kind == "tool_call" else None
        if calls is not None:
            return [*self._close("completed"), *(event for call in calls for event in self._call(call))]
        events = self._open()
        self.output[-1].content[0].text += piece.text
        return [*events, self._part_event("response.output_text.delta", delta=piece.text)]

    @property
    def _is_writing(self) -> bool:
        return bool(self.output) and self.output[-1].is_open

    def _open(self) -> list[Event]:
        """The events that begin a message, unless one is open."""
        if self._is_writing:
            return []
        item = Item(self.next_id("item"), role="assistant", status="in_progress", is_open=True)
        events = self._add(item)
        item.content = [Content("output_text")]
        return [*events, self._part_event("response.content_part.added", part={"type": "text", "text": ""})]

    def _close(self, status: str) -> list[Event]:
        """The events that end the open message."""
        if not self._is_writing:
            return []
        item = self.output[-1]
        item.status, item.is_open = status, False
        text = item.content[0].text
        return [
            self._part_event("response.output_text.done", text=text),
            self._part_event("response.content_part.done", part={"type": "text", "text": text}),
            *self._done(item),
        ]

    def _call(self, call: ToolCall) -> list[Event]:
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        item = Item(
            self.next_id("item"), "function_call", call_id=call.id, name=call.name, status="in_progress", is_open=True
        )
        events = self._add(item)
        item.arguments, item.status, item.is_open = arguments, "completed", False
        place = {**self._place(), "call_id": call.id}
        return [
            *events,
            self.event("response.function_call_arguments.delta", delta=arguments, **place),
            self.event("response.function_call_arguments.done", arguments=arguments, name=call.name, **place),
            *self._done(item),
        ]

    def _add(self, item: Item) -> list[Event]:
        self.output.append(item)
        events = [self._item_event("added", item)]
        if self.items is not None:
            previous = self.items.insert(item)
            events.append(self.event("conversation.item.added", item=item.record(), previous_item_id=previous))
        return events

    def _done(self, item: Item) -> list[Event]:
        events = []
        if self.items is not None:
            place = self.items.all.index(item)
            previous = self.items.all[place - 1].id if place else None
            events.append(self.event("conversation.item.done", item=item.record(), previous_item_id=previous))
        return [*events, self._item_event("done", item)]

    def _finish(self, status: str, details: Event | None = None) -> list[Event]:
        self.is_done, self.status = True, status
        if status == "incomplete":
            details = {"reason": "max_output_tokens"}
        self.details = None if details is None else {"type": status, **details}
        return [self.event("response.done", response=self.record())]

    def _place(self) -> Event:
        return {"response_id": self.id, "item_id": self.output[-1].id, "output_index": len(self.output) - 1}

    def _part_event(self, kind: str, **fields: Any) -> Event:
        return self.event(kind, **self._place(), content_index=0, **fields)

    def _item_event(self, name: str, item: Item) -> Event:
        index = len(self.output) - 1
        return self.event(f"response.output_item.{name}", response_id=self.id, output_index=index, item=item.record())

    def _usage(self) -> Event | None:
        """What it cost; None where the work has not told its end."""
        if self.began is None or self.end is None:
            return None
        began, output = self.began, self.end.tokens
        return {
            "total_tokens": began.prompt_tokens + output,
            "input_tokens": began.prompt_tokens,
            "output_tokens": output,
            "input_token_details": {
                "text_tokens": began.prompt_tokens - began.audio_tokens - began.image_tokens,
                "audio_tokens": began.audio_tokens,
                "image_tokens": began.image_tokens,
                "cached_tokens": began.cached_tokens,
            },
            "output_token_details": {"text_tokens": output, "audio_tokens": 0},
        }
