"""The answer to ``POST /v1/responses``: events in; the events of a stream, or one object, out.

response.created, response.in_progress
  output_item.added          a thought, a message or a call
    content_part.added       (of a message)
      output_text.delta …
    content_part.done
  output_item.done
response.completed           or response.incomplete, response.failed
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_gemma4.outputs.channels import Kind
from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.serve.events import Began, ChatEvent, Finished
from mlx_gemma4.serve.protocols import wire
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.responses_request import ResponsesRequest
from mlx_gemma4.serve.protocols.written_calls import WrittenCalls

Event = dict[str, Any]


@dataclass
class ResponsesAnswer:
    """Writes one answer.

    Args:
        next_id: Makes an id that begins with a prefix.
        tools: The functions that may be called; None: calls are not read.
        one_call: Tell the first call alone.
    """

    request: ResponsesRequest
    model: str
    created: int
    next_id: Callable[[str], str]
    tools: Sequence[Mapping[str, Any]] | None = None
    one_call: bool = False
    _output: list[Event] = field(default_factory=list)
    _open: Kind | None = None
    """The kind of the last item, if more may be added to it."""
    _count: int = 0
    _began: Began = field(default_factory=lambda: Began(0, 0, 0))
    _end: Finished | None = None

    def __post_init__(self) -> None:
        self._id = self.next_id("resp")
        self._calls = WrittenCalls(self.tools, lambda: self.next_id("call"), one_call=self.one_call)

    @property
    def end(self) -> bytes:
        """What a stream ends with."""
        return b""

    def told(self, event: ChatEvent) -> list[bytes]:
        """Take an event; return the encoded events of the stream that tell it."""
        return [wire.event(each, each["type"]) for each in self.take(event)]

    def failed(self, failure: Failure) -> list[bytes]:
        """The events of a stream that fails."""
        error = {"code": "server_error", "message": failure.message}
        event = self._event("response.failed", response={**self._response("failed"), "error": error})
        return [wire.event(event, event["type"])]

    def whole(self) -> dict[str, Any]:
        """The answer as one object, after its last event."""
        return self._response(self._status)

    def take(self, event: ChatEvent) -> list[Event]:
        """Take an event; return the events of the stream."""
        if isinstance(event, Began):
            self._began = event
            return [
                self._event(f"response.{name}", response=self._response("in_progress"))
                for name in ("created", "in_progress")
            ]
        if isinstance(event, Finished):
            self._end = event
            closing = self._close("completed" if event.reason == "stop" else "incomplete")
            return [*closing, self._event(f"response.{self._status}", response=self.whole())]
        calls = self._calls.read(event.text) if event.kind == "tool_call" else None
        if calls is not None:
            return self._take_calls(calls)
        return self._take_text("thought" if event.kind == "thought" else "text", event.text)

    @property
    def _status(self) -> str:
        return "completed" if self._end is None or self._end.reason == "stop" else "incomplete"

    def _take_text(self, kind: Kind, text: str) -> list[Event]:
        events = []
        if self._open != kind:
            events = [*self._close("completed"), *self._begin(kind)]
        item = self._output[-1]
        item["content"][0]["text"] += text
        if kind == "thought":
            return [*events, self._part_event("response.reasoning_text.delta", delta=text)]
        return [*events, self._part_event("response.output_text.delta", delta=text, logprobs=[])]

    def _begin(self, kind: Kind) -> list[Event]:
        self._open = kind
        if kind == "thought":
            item = {"id": self.next_id("rs"), "type": "reasoning", "status": "in_progress", "summary": []}
            events = [self._add({**item, "content": []})]
            self._output[-1]["content"] = [{"type": "reasoning_text", "text": ""}]
            return events
        item = {"id": self.next_id("msg"), "type": "message", "status": "in_progress", "role": "assistant"}
        events = [self._add({**item, "content": []})]
        part = {"type": "output_text", "text": "", "annotations": []}
        self._output[-1]["content"] = [part]
        return [*events, self._part_event("response.content_part.added", part=dict(part))]

    def _close(self, status: str) -> list[Event]:
        """The events that end the open item."""
        if self._open is None:
            return []
        kind, self._open = self._open, None
        item = self._output[-1]
        item["status"] = status
        text = item["content"][0]["text"]
        if kind == "thought":
            events = [self._part_event("response.reasoning_text.done", text=text)]
        else:
            events = [
                self._part_event("response.output_text.done", text=text, logprobs=[]),
                self._part_event("response.content_part.done", part=item["content"][0]),
            ]
        return [*events, self._item_event("done", item)]

    def _take_calls(self, calls: Sequence[ToolCall]) -> list[Event]:
        events = self._close("completed")
        for call in calls:
            events += self._call(call)
        return events

    def _call(self, call: ToolCall) -> list[Event]:
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        item = {"id": self.next_id("fc"), "type": "function_call", "call_id": call.id, "name": call.name}
        added = self._add({**item, "arguments": "", "status": "in_progress"})
        self._output[-1] = {**item, "arguments": arguments, "status": "completed"}
        place = {"item_id": item["id"], "output_index": len(self._output) - 1}
        return [
            added,
            self._event("response.function_call_arguments.delta", delta=arguments, **place),
            self._event("response.function_call_arguments.done", arguments=arguments, name=call.name, **place),
            self._item_event("done", self._output[-1]),
        ]

    def _add(self, item: Event) -> Event:
        self._output.append(item)
        return self._item_event("added", dict(item))

    def _item_event(self, name: str, item: Event) -> Event:
        return self._event(f"response.output_item.{name}", output_index=len(self._output) - 1, item=item)

    def _part_event(self, kind: str, **fields: Any) -> Event:
        place = {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1, "content_index": 0}
        return self._event(kind, **place, **fields)

    def _event(self, kind: str, **fields: Any) -> Event:
        self._count += 1
        return {"type": kind, "sequence_number": self._count - 1, **fields}

    def _response(self, status: str) -> Event:
        request = self.request
        effort = None if request.reasoning is None else request.reasoning.effort
        form = {"type": "text"} if request.text is None or request.text.format is None else request.text.format
        return {
            "id": self._id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "model": self.model,
            "output": [dict(item) for item in self._output],
            "parallel_tool_calls": not self.one_call,
            "previous_response_id": None,
            "reasoning": {"effort": effort, "summary": None},
            "store": False,
            "temperature": request.temperature,
            "text": {"format": form},
            "tool_choice": request.tool_choice or "auto",
            "tools": request.tools or [],
            "top_p": request.top_p,
            "truncation": "disabled",
            "usage": self._usage(),
            "metadata": {},
        }

    def _usage(self) -> Event | None:
        if self._end is None:
            return None
        given = self._began.prompt_tokens
        return {
            "input_tokens": given,
            "input_tokens_details": {"cached_tokens": self._began.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": self._end.tokens,
            "output_tokens_details": {"reasoning_tokens": self._end.thought_tokens},
            "total_tokens": given + self._end.tokens,
        }
