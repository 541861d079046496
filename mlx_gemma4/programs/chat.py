"""A conversation in one session: each turn computes what is new, whatever the template does to the turns before."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.generate import GREEDY, MAX_TOKENS, GenerationResponse, stream_generate
from mlx_gemma4.outputs.sample import Sampling
from mlx_gemma4.outputs.tools.calls import ToolCall, read_calls
from mlx_gemma4.session import Session

Message = Mapping[str, Any]


class Conversation:
    """Messages, and a session that holds them.

    Each turn renders the whole chat anew and keeps what it has in common with the session: templates drop old
    thoughts, and a rebuilt prefix is exactly what a new session would hold.

    Args:
        tools: JSON schemas of functions that the model may call.

    Attributes:
        calls: The functions that the last answer called. ``reply`` brings their results; ``ask`` goes on without.
    """

    def __init__(
        self,
        model: Model,
        processor: Processor,
        *,
        system: str | None = None,
        enable_thinking: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        self._model = model
        self._processor = processor
        self._system = system
        self._enable_thinking = enable_thinking
        self._tools = tools
        self._ids = itertools.count(1)
        self.session = Session(model)
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system message."""
        self.messages: list[Message] = []
        if self._system is not None:
            self.messages.append({"role": "system", "content": self._system})
        self.calls: list[ToolCall] = []
        self.session.reset()
        self._held = Prompt.from_tokens([])

    def ask(
        self,
        content: str | Sequence[Mapping[str, Any]],
        *,
        max_tokens: int = MAX_TOKENS,
        sampling: Sampling = GREEDY,
        show_thoughts: bool = False,
    ) -> Iterator[GenerationResponse]:
        """Add a user message and stream the answer.

        Closing the iterator early keeps what was said so far as the answer, and none of its calls. An error leaves the
        conversation as it was.
        """
        messages = [*self.messages, {"role": "user", "content": content}]
        return self._answer(messages, max_tokens, sampling, show_thoughts)

    def reply(
        self,
        results: Mapping[str, str],
        *,
        max_tokens: int = MAX_TOKENS,
        sampling: Sampling = GREEDY,
        show_thoughts: bool = False,
    ) -> Iterator[GenerationResponse]:
        """Add the results of all ``calls``, by their ids, and stream how the answer goes on, as ``ask`` does.

        Raises:
            ValueError: There are no calls, or one has no result.
        """
        missing = [call.id for call in self.calls if call.id not in results]
        if not self.calls:
            raise ValueError("The last answer called no functions: there is nothing to reply to")
        if missing:
            raise ValueError(f"Results are missing for the calls {', '.join(missing)} of the last answer")
        *before, last = self.messages
        messages = [*before, *self._replied(before, last, [results[call.id] for call in self.calls])]
        return self._answer(messages, max_tokens, sampling, show_thoughts)

    def _replied(self, before: list[Message], last: Message, results: list[str]) -> list[Message]:
        """A message with calls and their results, in the form that the template writes."""
        named = list(zip(self.calls, results, strict=True))
        whole = {**last, "tool_responses": [{"name": call.name, "response": result} for call, result in named]}
        render = self._processor.template.render
        if render([*before, whole], tools=self._tools) != render([*before, last], tools=self._tools):
            return [whole]
        return [last, *(_result(call, result) for call, result in named)]

    def _answer(
        self, messages: list[Message], max_tokens: int, sampling: Sampling, show_thoughts: bool
    ) -> Iterator[GenerationResponse]:
        prompt = self._processor.prompt(messages, enable_thinking=self._enable_thinking, tools=self._tools)
        kept = self._keep(prompt)
        responses = stream_generate(
            self._model,
            self._processor,
            prompt[kept:],
            max_tokens=max_tokens,
            sampling=sampling,
            thoughts="show" if show_thoughts else "drop",
            session=self.session,
            before=prompt[:kept].token_ids.tolist(),
        )
        tokens: list[int] = []
        said: list[GenerationResponse] = []
        is_whole = False
        try:
            for response in responses:
                tokens += response.tokens
                said.append(response)
                yield response
            is_whole = True
        except Exception:
            tokens = []
            raise
        finally:
            responses.close()
            self._hold(prompt + Prompt.from_tokens(tokens) if tokens else prompt[:kept])
            if tokens:
                self._remember(messages, said, is_whole=is_whole)

    def _hold(self, heard: Prompt) -> None:
        """Let the session hold no more than ``heard``; it may hold less, where something was interrupted."""
        length = min(len(heard), self.session.position)
        if length < self.session.earliest:
            self.session.reset()
            length = 0
        self.session.rewind(length)
        self._held = heard[:length]

    def _remember(self, messages: list[Message], said: Sequence[GenerationResponse], *, is_whole: bool) -> None:
        """Text and calls are messages of their own: templates write a message's calls before its text."""
        text = "".join(response.text for response in said if response.kind == "text")
        calls = [response.text for response in said if response.kind == "tool_call"] if is_whole else []
        self.calls = [call for written in calls for call in read_calls(written, self._tools, self._next_id)]
        self.messages = messages
        if text and messages[-1].get("tool_responses"):
            self.messages = [*messages[:-1], {**messages[-1], "content": text}]
        elif text or not calls:
            self.messages = [*messages, {"role": "assistant", "content": text}]
        if self.calls:
            written_calls = [{"type": "function", "id": call.id, "function": _function(call)} for call in self.calls]
            self.messages = [*self.messages, {"role": "assistant", "content": "", "tool_calls": written_calls}]

    def _next_id(self) -> str:
        return f"call_{next(self._ids)}"

    def _keep(self, prompt: Prompt) -> int:
        """Rewind the session to what it has in common with ``prompt``; how much that is."""
        kept = min(self._held.common_prefix(prompt), len(prompt) - 1)
        if kept < self.session.earliest:
            self.session.reset()
            kept = 0
        self.session.rewind(kept)
        self._held = self._held[:kept]
        return kept


def _result(call: ToolCall, result: str) -> Message:
    return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result}


def _function(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": call.arguments}
