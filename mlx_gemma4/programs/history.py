"""The messages of a chat as turns, and what an answer adds to them.

opening   system                               stays
turn      user, assistant                      leaves as a whole
turn      user, calls, results, assistant
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_gemma4.inputs.messages import Message
from mlx_gemma4.outputs.generate import GenerationResponse
from mlx_gemma4.outputs.guards import before_loop
from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.outputs.tools.messages import SHOWS_RESULTS

Tools = Sequence[Mapping[str, Any]] | None


def begins_turn(message: Message) -> bool:
    """Whether it is a message of the user, and not media of results."""
    return message["role"] == "user" and SHOWS_RESULTS not in message


def turn_starts(messages: Sequence[Message]) -> list[int]:
    """The index of each user message: a turn begins there, and ends where the next one begins."""
    return [index for index, message in enumerate(messages) if begins_turn(message)]


def without_oldest(messages: Sequence[Message], count: int) -> list[Message]:
    """The messages without the first ``count`` turns. What stands before the first turn stays."""
    starts = turn_starts(messages)
    begin = starts[count] if count < len(starts) else len(messages)
    return [*messages[: starts[0]], *messages[begin:]] if count else list(messages)


def with_answer(messages: Sequence[Message], text: str, calls: Sequence[ToolCall]) -> list[Message]:
    """The messages and an answer: its text and its calls as separate messages, since templates write calls first."""
    whole = list(messages)
    if text and whole[-1].get("tool_responses") and not whole[-1]["content"]:
        whole[-1] = {**whole[-1], "content": text}
    elif text or not calls:
        whole.append({"role": "assistant", "content": text})
    if calls:
        written = [{"type": "function", "id": call.id, "function": _function(call)} for call in calls]
        whole.append({"role": "assistant", "content": "", "tool_calls": written})
    return whole


def text_of(pieces: Sequence[GenerationResponse]) -> str:
    """The text of an answer, without thoughts and calls."""
    return "".join(piece.text for piece in pieces if piece.kind == "text")


def without_loop(pieces: Sequence[GenerationResponse]) -> list[GenerationResponse]:
    """The pieces of an answer that was stopped in a loop, up to the first round of it."""
    kept = before_loop([token for piece in pieces for token in piece.tokens])
    ends = itertools.accumulate(len(piece.tokens) for piece in pieces)
    return [piece for piece, end in zip(pieces, ends, strict=True) if end <= kept]


def _function(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": call.arguments}
