"""The answer to ``POST /v1/chat/completions``: events in; chunks of a stream, or one object, out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.serve.events import Began, ChatEvent, Finished, Piece, TokenChance
from mlx_gemma4.serve.protocols import wire
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.written_calls import WrittenCalls


@dataclass
class ChatAnswer:
    """Writes one answer. Use ``chunks`` for each event of a stream, or ``whole`` after all events.

    Args:
        id: Of the answer, unique.
        created: Seconds since 1970.
        next_id: Makes the ids of calls.
        tools: The functions that may be called; None: calls are not read.
        one_call: Tell the first call alone.
        includes_usage: End a stream with the usage.
        lists_chances: The client asked for probabilities.
    """

    id: str
    model: str
    created: int
    next_id: Callable[[], str]
    tools: Sequence[Mapping[str, Any]] | None = None
    one_call: bool = False
    includes_usage: bool = False
    lists_chances: bool = False
    usage: dict[str, Any] = field(default_factory=dict)
    _text: list[str] = field(default_factory=list)
    _thoughts: list[str] = field(default_factory=list)
    _calls: list[ToolCall] = field(default_factory=list)
    _chances: list[TokenChance] = field(default_factory=list)
    _reason: str = "stop"
    _began: Began | None = None

    def __post_init__(self) -> None:
        self._written = WrittenCalls(self.tools, self.next_id, one_call=self.one_call)

    def take(self, event: ChatEvent) -> list[dict[str, Any]]:
        """Take an event; return what it adds to the message, as deltas."""
        if isinstance(event, Began):
            self._began = event
            return [{"role": "assistant", "content": ""}]
        if isinstance(event, Finished):
            self._finish(event)
            return []
        if event.kind == "thought":
            self._thoughts.append(event.text)
            return [{"reasoning_content": event.text, "reasoning": event.text}]
        if event.kind == "tool_call":
            return self._take_calls(event.text)
        return self._take_text(event.text, event.chances)

    def chunks(self, event: ChatEvent) -> list[dict[str, Any]]:
        """Take an event; return the chunks of the stream that tell it."""
        before = len(self._chances)
        chunks = [self._chunk({"index": 0, "delta": delta, "finish_reason": None}) for delta in self.take(event)]
        if self.lists_chances and chunks and isinstance(event, Piece) and event.kind == "text":
            chunks[0]["choices"][0]["logprobs"] = _chances(self._chances[before:])
        if isinstance(event, Finished):
            chunks.append(self._chunk({"index": 0, "delta": {}, "finish_reason": self._reason}))
            if self.includes_usage:
                chunks.append({**self._head("chat.completion.chunk"), "choices": [], "usage": self.usage})
        return chunks

    @property
    def end(self) -> bytes:
        """What a stream ends with."""
        return wire.DONE

    def told(self, event: ChatEvent) -> list[bytes]:
        """The encoded chunks of an event (``chunks``)."""
        return [wire.event(chunk) for chunk in self.chunks(event)]

    def failed(self, failure: Failure) -> list[bytes]:
        """The events of a stream that fails."""
        return [wire.event(failure.record())]

    def whole(self) -> dict[str, Any]:
        """The answer as one object."""
        text = "".join(self._text)
        message: dict[str, Any] = {"role": "assistant", "content": text if text or not self._calls else None}
        message["refusal"] = None
        if self._thoughts:
            message["reasoning_content"] = message["reasoning"] = "".join(self._thoughts)
        if self._calls:
            message["tool_calls"] = [_call(call) for call in self._calls]
        choice = {"index": 0, "message": message, "finish_reason": self._reason, "logprobs": None}
        if self.lists_chances:
            choice["logprobs"] = _chances(self._chances)
        return {**self._head("chat.completion"), "choices": [choice], "usage": self.usage}

    def _take_text(self, text: str, chances: Sequence[TokenChance] = ()) -> list[dict[str, Any]]:
        self._text.append(text)
        self._chances += chances
        return [{"content": text}]

    def _take_calls(self, text: str) -> list[dict[str, Any]]:
        first, calls = len(self._calls), self._written.read(text)
        if calls is None:
            return self._take_text(text)
        self._calls += calls
        return [{"tool_calls": [{"index": first + index, **_call(call)}]} for index, call in enumerate(calls)]

    def _finish(self, event: Finished) -> None:
        self._reason = "tool_calls" if self._calls and event.reason == "stop" else event.reason
        began = self._began or Began(0, 0, 0)
        self.usage = {
            "prompt_tokens": began.prompt_tokens,
            "completion_tokens": event.tokens,
            "total_tokens": began.prompt_tokens + event.tokens,
            "prompt_tokens_details": {"cached_tokens": began.cached_tokens, "audio_tokens": began.audio_tokens},
            "completion_tokens_details": {"reasoning_tokens": event.thought_tokens},
        }

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _chances(chances: Sequence[TokenChance]) -> dict[str, Any]:
    listed = [{**_chance(each), "top_logprobs": [_chance(other) for other in each.alternatives]} for each in chances]
    return {"content": listed, "refusal": None}


def _chance(chance: TokenChance) -> dict[str, Any]:
    return {"token": chance.token, "logprob": max(chance.logprob, -9999.0), "bytes": list(chance.bytes)}
