"""The answer to ``POST /v1/messages``: events in; the events of a stream, or one object, out.

message_start
  content_block_start      a thought, a text or a call
    content_block_delta …
  content_block_stop
message_delta, message_stop
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
from mlx_gemma4.serve.protocols.written_calls import WrittenCalls

Event = dict[str, Any]


@dataclass
class MessagesAnswer:
    """Writes one answer.

    Args:
        next_id: Makes an id that begins with a prefix.
        tools: The functions that may be called; None: calls are not read.
        one_call: Tell the first call alone.
    """

    model: str
    next_id: Callable[[str], str]
    tools: Sequence[Mapping[str, Any]] | None = None
    one_call: bool = False
    _content: list[Event] = field(default_factory=list)
    _open: Kind | None = None
    """The kind of the last block, if more may be added to it."""
    _began: Began = field(default_factory=lambda: Began(0, 0, 0))
    _end: Finished | None = None

    def __post_init__(self) -> None:
        self._id = self.next_id("msg")
        self._calls = WrittenCalls(self.tools, lambda: self.next_id("toolu"), one_call=self.one_call)

    @property
    def end(self) -> bytes:
        """What a stream ends with."""
        return b""

    def told(self, event: ChatEvent) -> list[bytes]:
        """Take an event; return the encoded events of the stream that tell it."""
        return [wire.event(each, each["type"]) for each in self.take(event)]

    def failed(self, failure: Failure) -> list[bytes]:
        """The events of a stream that fails."""
        return [wire.event(failure.record(), "error")]

    def whole(self) -> Event:
        """The answer as one object, after its last event."""
        return self._message()

    def take(self, event: ChatEvent) -> list[Event]:
        """Take an event; return the events of the stream."""
        if isinstance(event, Began):
            self._began = event
            return [{"type": "message_start", "message": self._message()}]
        if isinstance(event, Finished):
            closing = self._close()
            self._end = event
            delta = {"stop_reason": self._reason(), "stop_sequence": event.stopped_by}
            return [
                *closing,
                {"type": "message_delta", "delta": delta, "usage": self._usage()},
                {"type": "message_stop"},
            ]
        calls = self._calls.read(event.text) if event.kind == "tool_call" else None
        if calls is not None:
            return self._take_calls(calls)
        return self._take_text("thought" if event.kind == "thought" else "text", event.text)

    def _take_text(self, kind: Kind, text: str) -> list[Event]:
        name = "thinking" if kind == "thought" else "text"
        events = []
        if self._open != kind:
            block = {"type": name, name: "", **({"signature": ""} if kind == "thought" else {})}
            events = [*self._close(), self._begin(block)]
            self._open = kind
        self._content[-1][name] += text
        return [*events, self._delta({"type": f"{name}_delta", name: text})]

    def _take_calls(self, calls: Sequence[ToolCall]) -> list[Event]:
        events = self._close()
        for call in calls:
            events += self._call(call)
        return events

    def _call(self, call: ToolCall) -> list[Event]:
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        written = json.dumps(call.arguments, ensure_ascii=False)
        events = [self._begin(block), self._delta({"type": "input_json_delta", "partial_json": written})]
        self._content[-1]["input"] = call.arguments
        return [*events, self._stop()]

    def _begin(self, block: Event) -> Event:
        self._content.append(dict(block))
        return {"type": "content_block_start", "index": len(self._content) - 1, "content_block": block}

    def _delta(self, delta: Event) -> Event:
        return {"type": "content_block_delta", "index": len(self._content) - 1, "delta": delta}

    def _stop(self) -> Event:
        return {"type": "content_block_stop", "index": len(self._content) - 1}

    def _close(self) -> list[Event]:
        if self._open is None:
            return []
        self._open = None
        return [self._stop()]

    def _reason(self) -> str | None:
        if self._end is None:
            return None
        if self._end.reason == "length":
            return "max_tokens"
        if self._end.stopped_by is not None:
            return "stop_sequence"
        return "tool_use" if self._calls.count else "end_turn"

    def _message(self) -> Event:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [dict(block) for block in self._content],
            "stop_reason": self._reason(),
            "stop_sequence": None if self._end is None else self._end.stopped_by,
            "usage": self._usage(),
        }

    def _usage(self) -> Event:
        return {
            "input_tokens": self._began.prompt_tokens - self._began.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": self._began.cached_tokens,
            "output_tokens": 0 if self._end is None else self._end.tokens,
        }
