"""Splits a token stream into its channels: the text of the answer, thoughts, and tool calls.

    <|channel>thought⏎It is dark.<channel|>I will help.<|tool_call>call:lights{on:true}<tool_call|>
    └────────────── thought ──────────────┘└── text ──┘└─────────────── tool_call ────────────────┘

Markers and the header ``thought⏎`` are left out. A call inside a thought is a call, and the thought goes on after it. A
prompt may end inside a thought, since chat templates open one after a tool's response. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from mlx_gemma4.inputs.text.tokenizer import Detokenizer, Tokenizer

Kind = Literal["text", "thought", "tool_call"]
Thoughts = Literal["drop", "keep", "show"]
"""Drop thoughts, keep them in the text with their markers, or show them as pieces of kind "thought"."""

MARKERS: dict[Kind, tuple[str, str]] = {
    "thought": ("<|channel>", "<channel|>"),
    "tool_call": ("<|tool_call>", "<tool_call|>"),
}
THOUGHT_HEADER = "thought\n"
TURNS = ("<|turn>", "<turn|>")
"""A thought ends at the latest where a turn begins or ends."""


class Channels:
    """Takes token ids and yields (kind, text) as soon as characters are complete; a tool call comes in one piece.

    Args:
        prompt: Token ids before the stream. If they end inside a thought, the stream begins inside it; kept in the
            text, such a thought begins with the marker of the prompt.
    """

    def __init__(self, tokenizer: Tokenizer, thoughts: Thoughts = "drop", prompt: Sequence[int] = ()) -> None:
        if thoughts not in ("drop", "keep", "show"):
            raise ValueError(f"Expected thoughts 'drop', 'keep' or 'show', got {thoughts!r}")
        self._tokenizer = tokenizer
        self._thoughts = thoughts
        self._opens: dict[int, Kind] = {}
        self._closes: dict[int, Kind] = {}
        self._kept: dict[int, str] = {}
        for kind, (begin, end) in MARKERS.items():
            begin_id, end_id = tokenizer.token_id(begin), tokenizer.token_id(end)
            if begin_id is None or end_id is None:
                continue
            if kind == "thought" and thoughts == "keep":
                self._kept = {begin_id: begin, end_id: end}
            else:
                self._opens[begin_id], self._closes[end_id] = kind, kind
        self._is_thinking = False
        """Whether a thought is open, also during a call inside it."""
        self._opening = ""
        self._enter("text")
        thought = open_thought(tokenizer, prompt)
        if thought is not None and thoughts == "keep":
            self._opening = MARKERS["thought"][0] + thought
        elif thought is not None:
            self._enter("thought", THOUGHT_HEADER[len(thought) :] if THOUGHT_HEADER.startswith(thought) else "")

    @property
    def is_thinking(self) -> bool:
        """Whether a thought is open, also during a call inside it."""
        return self._is_thinking

    def push(self, token_id: int) -> Iterator[tuple[Kind, str]]:
        """Take a token; yield the pieces that it completes."""
        if self._opening:
            opening, self._opening = self._opening, ""
            yield "text", opening
        if self._kind == "text" and token_id in self._kept:
            yield from self._leave()
            self._enter("text")
            yield "text", self._kept[token_id]
        elif self._begins(token_id):
            yield from self._leave()
            self._enter(self._opens[token_id], THOUGHT_HEADER if self._opens[token_id] == "thought" else "")
        elif self._closes.get(token_id) == self._kind:
            yield from self._leave()
            self._is_thinking = self._is_thinking and self._kind == "tool_call"
            self._enter("thought" if self._is_thinking else "text")
        else:
            yield from self._say(self._detokenizer.push(token_id))

    def flush(self) -> Iterator[tuple[Kind, str]]:
        """Yield the rest when the stream ends."""
        yield from self._leave()

    def _begins(self, token_id: int) -> bool:
        kind = self._opens.get(token_id)
        return kind is not None and (self._kind == "text" or (self._kind == "thought" and kind == "tool_call"))

    def _enter(self, kind: Kind, header: str = "") -> None:
        self._kind = kind
        self._is_thinking = self._is_thinking or kind == "thought"
        self._waiting = ""
        self._header = header
        # a call needs its control tokens: <|"|> is a quotation mark
        self._detokenizer = Detokenizer(self._tokenizer, skip_special=kind != "tool_call")

    def _leave(self) -> Iterator[tuple[Kind, str]]:
        self._waiting += self._detokenizer.flush()
        yield from self._release()

    def _say(self, text: str) -> Iterator[tuple[Kind, str]]:
        self._waiting += text
        header_may_come = len(self._waiting) < len(self._header) and self._header.startswith(self._waiting)
        if self._kind != "tool_call" and not header_may_come:
            yield from self._release()

    def _release(self) -> Iterator[tuple[Kind, str]]:
        text, self._waiting, self._header = self._waiting.removeprefix(self._header), "", ""
        if text and not (self._kind == "thought" and self._thoughts == "drop"):
            yield self._kind, text


def open_thought(tokenizer: Tokenizer, prompt: Sequence[int]) -> str | None:
    """The text so far of the thought that is open at the end of a prompt, or None where none is open."""
    begin, end = (tokenizer.token_id(marker) for marker in MARKERS["thought"])
    if begin is None or end is None:
        return None
    closed = {end, *(tokenizer.token_id(marker) for marker in TURNS)}
    for place in range(len(prompt) - 1, -1, -1):
        if prompt[place] == begin:
            return tokenizer.decode([int(token_id) for token_id in prompt[place + 1 :]])
        if prompt[place] in closed:
            break
    return None
