"""A conversation in one session. Nothing is computed twice, even if the template rewrites earlier turns.

    turn 1  │ turn 2                                    │ turn 3
    system  │ user: and you?  model: [thought] hello    │ user: …        as it was computed
    system  │ user: and you?  model: hello              │ user: …        as the history writes it
            ▲                        ▲                  ▲
            snapshots: before each user message, and before the last answer

A snapshot is a place to go back to: to answer again, to edit a turn, or to read an answer again that the template
writes otherwise the second time. When the context is used up, the oldest turns leave.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlx_gemma4.checkpoint.json_file import whole
from mlx_gemma4.decoder.budget import ContextFull
from mlx_gemma4.decoder.identity import Identity, identity
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.decoder.saved_file import read, write
from mlx_gemma4.inputs.messages import Message, message_text
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.outputs.generate import GREEDY, GenerationResponse, stream_generate
from mlx_gemma4.outputs.grammar.calls import bound_calls
from mlx_gemma4.outputs.sample import Sampling
from mlx_gemma4.outputs.steps import MAX_TOKENS
from mlx_gemma4.outputs.tools.calls import ToolCall, read_calls
from mlx_gemma4.outputs.tools.messages import ResultForm, result_form, with_results
from mlx_gemma4.outputs.tools.result import ToolResult
from mlx_gemma4.prefixes.landmarks import APART
from mlx_gemma4.programs.conversation_file import KIND, is_packed, pack, unpack
from mlx_gemma4.programs.history import begins_turn, text_of, turn_starts, with_answer, without_loop, without_oldest
from mlx_gemma4.session import Session

Content = str | Sequence[Mapping[str, Any]]

SETTLE_ROWS = 128
"""Positions that ``settle`` computes before it asks whether to go on: a third of a second of the 12B on a slow Mac."""
LEAST_ANSWER = 4
"""An answer has at least one part in so many of the context; if it would have less, the oldest turns leave."""


@dataclass
class Work:
    """What a turn has computed, in positions."""

    reused: int = 0
    """Held from before."""
    history: int = 0
    """Of the messages before: an answer that the history writes otherwise, or all that is left when turns leave."""
    message: int = 0
    """The new message, and what the template writes around it."""
    answer: int = 0
    """The answer, and drafts of it that were wrong."""


class Conversation:
    """The messages of a chat, and a session that holds them.

    Each turn renders the whole chat again, since templates change earlier turns (they drop old thoughts). The session
    is rewound to the longest prefix that both have, and computes the rest. So it always ends up as a new one would,
    given the same messages.

    If the model has a context (``load(context=…)``), the oldest turns leave when an answer would have less than a
    quarter of it, until half of it is used. The system message stays.

    Args:
        tools: JSON schemas of functions that the model may call. Calls are held to them where llguidance is installed.
        drafter: As for ``stream_generate``.
        stop_loops: End an answer that repeats itself; only the first round of it stays, and none of its calls.
        session: An empty one by default.

    Attributes:
        messages: What the model is shown. Media are read when they are given.
        calls: The functions that the last answer called. Give their results to ``reply``, or ignore them with ``ask``.
        work: What the last turn has computed.
        forgotten: How many turns have left.
    """

    def __init__(
        self,
        model: Model,
        processor: Processor,
        *,
        system: str | None = None,
        enable_thinking: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        drafter: Drafter | None = None,
        stop_loops: bool = True,
        session: Session | None = None,
    ) -> None:
        self._model = model
        self._processor = processor
        self._enable_thinking = enable_thinking
        self._tools = tools
        self._constraint = bound_calls(tools, processor)
        self._ids = itertools.count(1)
        self._reserve = MAX_TOKENS
        self._settled = 0
        """Positions computed by ``settle`` since the last turn,"""
        self._settled_from: int | None = None
        """from here on."""
        self._begins: list[int] = []
        """Where the snapshots before messages are."""
        self._answer_at: int | None = None
        """Where the snapshot before the last answer is."""
        self._form: ResultForm | None = None
        """Where the template takes results, once there were some."""
        self._identity: Identity | None = None
        """The model's, once it was needed: it takes as long as a token."""
        self.drafter = drafter
        self.stop_loops = stop_loops
        self.session = session or Session(model)
        self.messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
        self.calls: list[ToolCall] = []
        self.work = Work()
        self.forgotten = 0

    @property
    def turns(self) -> int:
        """How many turns ``messages`` has."""
        return len(turn_starts(self.messages))

    @property
    def system(self) -> str | None:
        """The system message."""
        return next((message_text(message) for message in self.messages if message["role"] == "system"), None)

    @property
    def last_message(self) -> Message | None:
        """The user's last message."""
        return next((message for message in reversed(self.messages) if begins_turn(message)), None)

    def reset(self) -> None:
        """Forget everything but the system message."""
        starts = turn_starts(self.messages)
        self.messages = self.messages[: starts[0]] if starts else self.messages
        self.calls = []
        self.forgotten = 0
        self.session.keep(self._system_end())

    def ask(
        self,
        content: Content,
        *,
        max_tokens: int = MAX_TOKENS,
        sampling: Sampling = GREEDY,
        show_thoughts: bool = False,
    ) -> Iterator[GenerationResponse]:
        """Add a user message and stream the answer.

        Closing the iterator early keeps the text so far as the answer, without its calls. An error leaves the
        conversation as it was.

        Raises:
            ContextFull: The message alone, with the system message, does not fit into the context.
        """
        messages = [*self.messages, self._message(content)]
        return self._answer(messages, max_tokens, sampling, show_thoughts)

    def reply(
        self,
        results: Mapping[str, str | ToolResult],
        *,
        max_tokens: int = MAX_TOKENS,
        sampling: Sampling = GREEDY,
        show_thoughts: bool = False,
    ) -> Iterator[GenerationResponse]:
        """Add the results of all ``calls``, by their ids, and stream the rest of the answer, as ``ask`` does.

        A medium that does not fit into a prompt is an error for the model to read.

        Raises:
            ValueError: The last answer had no calls, or a result is missing.
            ContextFull: As for ``ask``.
        """
        missing = [call.id for call in self.calls if call.id not in results]
        if not self.calls:
            raise ValueError("The last answer called no functions: there is nothing to reply to")
        if missing:
            raise ValueError(f"Results are missing for the calls {', '.join(missing)} of the last answer")

        self._form = self._form or result_form(self._processor)
        read = [(call.id, call.name, self._read(results[call.id])) for call in self.calls]
        messages = with_results(self.messages, read, self._form)
        return self._answer(messages, max_tokens, sampling, show_thoughts)

    def regenerate(
        self, *, max_tokens: int = MAX_TOKENS, sampling: Sampling = GREEDY, show_thoughts: bool = False
    ) -> Iterator[GenerationResponse]:
        """Answer the last user message again, as ``ask`` does. The new answer replaces the last one.

        Raises:
            ValueError: There is no turn.
        """
        messages = self.messages[: self._start(-1) + 1]
        return self._answer(messages, max_tokens, sampling, show_thoughts)

    def edit(
        self,
        turn: int,
        content: Content,
        *,
        max_tokens: int = MAX_TOKENS,
        sampling: Sampling = GREEDY,
        show_thoughts: bool = False,
    ) -> Iterator[GenerationResponse]:
        """Replace the user message of a turn and stream the answer, as ``ask`` does. Later turns are removed.

        Args:
            turn: 0 is the first one that is in ``messages``, -1 the last one.

        Raises:
            ValueError: There is no such turn.
        """
        messages = [*self.messages[: self._start(turn)], self._message(content)]
        return self._answer(messages, max_tokens, sampling, show_thoughts)

    def undo(self) -> Message:
        """Remove the last turn and return its user message.

        Raises:
            ValueError: There is no turn.
        """
        start = self._start(-1)
        message = self.messages[start]
        self.messages, self.calls = self.messages[:start], []
        return message

    def settle(self) -> Iterator[None]:
        """Compute the history as the next turn will need it, in small pieces, while nobody waits.

        Yields after each piece, and may be closed at any time: ``ask`` computes what is left. If the oldest turns will
        have to leave, they leave now.
        """
        if self.calls or not self.messages:
            return
        try:
            messages, prompt = self._fitted(self.messages, generates=False)
        except ValueError:
            if turn_starts(self.messages):
                raise
            return  # some templates refuse a system message alone
        self._leave(messages)
        if self._is_tight(prompt):
            return  # the next turn makes more of them leave
        kept = self.session.keep(self.session.content.common_prefix(prompt))
        self._settled_from = kept if self._settled_from is None else min(kept, self._settled_from)
        for chunk in prompt[kept:].chunks(itertools.repeat(SETTLE_ROWS)):
            self.session.extend(chunk)
            self._settled += len(chunk)
            yield
        for place in self._places(len(prompt)):
            self.session.snapshot(place)

    def save(self, path: str | os.PathLike[str], *, computed: bool = True) -> None:
        """Write the messages, with their media, and what was computed of them to a file. ``load`` goes on from there.

        The file belongs to this model, appears complete or not at all, and replaces only a file of this kind.

        Args:
            computed: False writes the messages only, which are small. The rest is computed again then.

        Raises:
            ValueError: It cannot be written, or ``path`` is another file.
            OSError: A snapshot could not be read from disk.
        """
        header, tensors = self.session.packed() if computed else Session(self._model).packed()
        read = self._processor.read_media
        messages = [
            {**message, "content": read(message["content"])} if isinstance(message.get("content"), list) else message
            for message in self.messages
        ]
        header |= {"forgotten": self.forgotten}
        self._identity = self._identity or identity(self._model)
        write(Path(path), KIND, self._identity, header, {**tensors, **pack(messages)})

    @classmethod
    def load(
        cls,
        model: Model,
        processor: Processor,
        path: str | os.PathLike[str],
        *,
        enable_thinking: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        drafter: Drafter | None = None,
    ) -> Conversation:
        """A conversation that goes on where another one was saved.

        Args:
            enable_thinking: As for the constructor, like the others: they are not in the file.

        Raises:
            ValueError: There is no such file, it is damaged, or another model or version has written it.
            ContextFull: It holds more than the context of the model.
        """
        model_identity = identity(model)
        saved = read(Path(path), KIND, model_identity)
        session = Session.unpacked(model, saved)
        chat = cls(model, processor, enable_thinking=enable_thinking, tools=tools, drafter=drafter, session=session)
        try:
            chat.messages = unpack({name: np.array(saved.take(name)) for name in list(saved.arrays) if is_packed(name)})
            chat.forgotten = whole(saved.header.get("forgotten"), "forgotten", least=0)
        except ValueError as error:
            raise saved.damaged(str(error)) from error
        chat._identity = model_identity
        calls = sum(len(message.get("tool_calls") or ()) for message in chat.messages)
        chat._ids = itertools.count(calls + 1)
        return chat

    def _message(self, content: Content) -> Message:
        return {"role": "user", "content": self._processor.read_media(content)}

    def _read(self, result: str | ToolResult) -> ToolResult:
        """A result, with its media as the model takes them."""
        if isinstance(result, str):
            return ToolResult(({"type": "text", "text": result},))
        try:
            parts = self._processor.read_media(result.parts)
        except ValueError as error:
            return ToolResult.error(str(error))
        assert not isinstance(parts, str)
        return replace(result, parts=tuple(parts))

    def _start(self, turn: int) -> int:
        """The index of a turn's user message."""
        starts = turn_starts(self.messages)
        if not -len(starts) <= turn < len(starts):
            raise ValueError(
                f"There is no turn {turn}: the conversation has {len(starts)}"
                if starts
                else "The conversation has no turn yet: ask something first"
            )
        return starts[turn]

    def _render(self, messages: Sequence[Message], *, generates: bool) -> Prompt:
        return self._processor.prompt(
            messages, add_generation_prompt=generates, enable_thinking=self._enable_thinking, tools=self._tools
        )

    def _fitted(self, messages: Sequence[Message], *, generates: bool) -> tuple[list[Message], Prompt]:
        """The messages without the turns that have to leave, and their prompt. The last turn always stays."""
        prompt = self._render(messages, generates=generates)
        if not self._is_tight(prompt):
            return list(messages), prompt
        assert self.session.context is not None
        fewest, most = 1, len(turn_starts(messages)) - 1
        while fewest < most:
            count = (fewest + most) // 2
            if len(self._render(without_oldest(messages, count), generates=generates)) <= self.session.context // 2:
                most = count
            else:
                fewest = count + 1
        rest = without_oldest(messages, max(most, 0))
        return rest, self._render(rest, generates=generates)

    def _is_tight(self, prompt: Prompt) -> bool:
        """Whether too little of the context is left for an answer."""
        context = self.session.context
        return context is not None and len(prompt) + min(self._reserve, context // LEAST_ANSWER) > context

    def _leave(self, messages: list[Message]) -> None:
        """Go on with the messages that are left."""
        self.forgotten += len(turn_starts(self.messages)) - len(turn_starts(messages))
        self.messages = messages

    def _answer(
        self, messages: list[Message], max_tokens: int, sampling: Sampling, show_thoughts: bool
    ) -> Iterator[GenerationResponse]:
        self._reserve = max_tokens
        whole = len(turn_starts(messages))
        messages, prompt = self._fitted(messages, generates=True)
        context = self.session.context
        if context is not None and len(prompt) >= context:
            raise ContextFull(
                f"The message takes {len(prompt)} positions, and the context has {context}: shorten it, or start with "
                "a larger context (--context)"
            )
        forgotten = whole - len(turn_starts(messages))
        self.forgotten += forgotten
        begin = self._history_end(messages, prompt)
        kept = self.session.keep(min(self.session.content.common_prefix(prompt), len(prompt) - 1))
        if self._answer_at is not None:
            self.session.drop(self._answer_at)  # only the last answer is given again
        self._answer_at = self._answer_start(messages, prompt)
        stops = {self._answer_at, *self._places(begin)}
        for stop in stops:
            if stop < kept and self.session.reachable(stop) == stop:
                self.session.snapshot(stop)
        work = self._begin(prompt, kept, begin)
        computed = self.session.computed
        responses = stream_generate(
            self._model,
            self._processor,
            prompt[kept:],
            max_tokens=max_tokens,
            sampling=sampling,
            thoughts="show" if show_thoughts else "drop",
            session=self.session,
            before=prompt[:kept].token_ids.tolist(),
            drafter=self.drafter,
            constraint=self._constraint,
            stop_loops=self.stop_loops,
            snapshots=[stop - kept for stop in stops if stop >= kept],
        )
        pieces: list[GenerationResponse] = []
        is_whole = False
        try:
            for response in responses:
                pieces.append(response)
                yield response
            is_whole = True
        except Exception:
            pieces = []
            raise
        finally:
            responses.close()
            work.answer = self.session.computed - computed - (len(prompt) - kept)
            if pieces:
                self._remember(messages, pieces, is_whole=is_whole)
            else:
                self.forgotten -= forgotten

    def _system_end(self) -> int:
        """How much of what the session holds is the system message."""
        try:
            opening = self._render(self.messages, generates=False) if self.messages else Prompt.from_tokens([])
        except ValueError:  # some templates refuse a system message alone
            return 0
        return self.session.content.common_prefix(opening)

    def _history_end(self, messages: Sequence[Message], prompt: Prompt) -> int:
        """Where the last turn begins in the prompt: as far as the messages before it are written in the same way."""
        before = messages[: turn_starts(messages)[-1]]
        if not before:
            return 0
        try:
            return self._render(before, generates=False).common_prefix(prompt)
        except ValueError:  # some templates refuse a system message alone
            return 0

    def _answer_start(self, messages: Sequence[Message], prompt: Prompt) -> int:
        """Where the answer will begin in the history: the template may have written more than that before it.

        What the template writes there is the same in a chat of one turn.
        """
        turn = messages[turn_starts(messages)[-1] :]
        asked = self._render(turn, generates=True)
        same = asked.common_prefix(self._render(with_answer(turn, "x", ()), generates=False))
        return min(len(prompt) - (len(asked) - same), len(prompt) - 1)

    def _places(self, begin: int) -> list[int]:
        """Where a message begins, if that is worth a snapshot: not if there is one shortly before it."""
        self._begins = [place for place in self._begins if place <= min(begin, self.session.position)]
        if begin in self._begins or not self._begins or begin - self._begins[-1] >= APART:
            self._begins = [*(place for place in self._begins if place != begin), begin]
            return [begin]
        return []

    def _begin(self, prompt: Prompt, kept: int, begin: int) -> Work:
        history = self._settled + max(begin - kept, 0)
        message = len(prompt) - max(begin, kept)
        reused = kept if self._settled_from is None else min(kept, self._settled_from)
        self._settled, self._settled_from = 0, None
        self.work = Work(reused, history, message)
        return self.work

    def _remember(self, messages: list[Message], pieces: Sequence[GenerationResponse], *, is_whole: bool) -> None:
        """Add the answer and its calls; of a loop, the first round and no calls."""
        if pieces[-1].finish_reason == "loop":
            pieces, is_whole = without_loop(pieces), False
        calls = [piece.text for piece in pieces if piece.kind == "tool_call"] if is_whole else []
        self.calls = [call for block in calls for call in read_calls(block, self._tools, self._next_id)]
        self.messages = with_answer(messages, text_of(pieces), self.calls)

    def _next_id(self) -> str:
        return f"call_{next(self._ids)}"
