"""A conversation in one session. Each turn computes only what is new, even if the template rewrites earlier turns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.outputs.generate import GREEDY, GenerationResponse, stream_generate
from mlx_gemma4.outputs.sample import Sampling
from mlx_gemma4.outputs.steps import MAX_TOKENS
from mlx_gemma4.outputs.tools.calls import ToolCall, read_calls
from mlx_gemma4.session import Session

Message = Mapping[str, Any]


class Conversation:
    """The messages of a chat, and a session that holds them.

    Each turn renders the whole chat again, since templates change earlier turns (they drop old thoughts). The session
    is rewound to the longest prefix that both have, and computes the rest::

        session     <bos> user: hi  model: thought … hello
        rendered    <bos> user: hi  model: hello  user: and you?  model:
                    └─────── kept ───────┘└───────── computed ─────────┘

    So the session always ends up as a new one would, given the same messages.

    Args:
        tools: JSON schemas of functions that the model may call.
        drafter: As for ``stream_generate``.

    Attributes:
        calls: The functions that the last answer called. Give their results to ``reply``, or ignore them with ``ask``.
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
    ) -> None:
        self._model = model
        self._processor = processor
        self._system = system
        self._enable_thinking = enable_thinking
        self._tools = tools
        self.drafter = drafter
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
        self._prompt = Prompt.from_tokens([])  # what the session holds

    def ask(
        self,
        content: str | Sequence[Mapping[str, Any]],
        *,
        max_tokens: int = MAX_TOKENS,
        sampling: Sampling = GREEDY,
        show_thoughts: bool = False,
    ) -> Iterator[GenerationResponse]:
        """Add a user message and stream the answer.

        Closing the iterator early keeps the text so far as the answer, without its calls. An error leaves the
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
        """Add the results of all ``calls``, by their ids, and stream the rest of the answer, as ``ask`` does.

        Raises:
            ValueError: The last answer had no calls, or a result is missing.
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
        """A message with calls and their results, in the form that the template understands.

        Some templates write ``tool_responses`` of the message that calls, others messages of the role "tool".
        """
        pairs = list(zip(self.calls, results, strict=True))
        whole = {**last, "tool_responses": [{"name": call.name, "response": result} for call, result in pairs]}
        render = self._processor.template.render
        if render([*before, whole], tools=self._tools) != render([*before, last], tools=self._tools):
            return [whole]
        return [last, *(_result(call, result) for call, result in pairs)]

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
            drafter=self.drafter,
        )
        tokens: list[int] = []
        pieces: list[GenerationResponse] = []
        is_whole = False
        try:
            for response in responses:
                tokens += response.tokens
                pieces.append(response)
                yield response
            is_whole = True
        except Exception:
            tokens = []
            raise
        finally:
            responses.close()
            self._hold(prompt + Prompt.from_tokens(tokens) if tokens else prompt[:kept])
            if tokens:
                self._remember(messages, pieces, is_whole=is_whole)

    def _hold(self, prompt: Prompt) -> None:
        """Rewind the session to ``prompt`` at most. It holds less if a prefill was interrupted."""
        length = min(len(prompt), self.session.position)
        if length < self.session.earliest:
            self.session.reset()
            length = 0
        self.session.rewind(length)
        self._prompt = prompt[:length]

    def _remember(self, messages: list[Message], pieces: Sequence[GenerationResponse], *, is_whole: bool) -> None:
        """Add the answer, its text and its calls as separate messages: templates write a message's calls first."""
        text = "".join(piece.text for piece in pieces if piece.kind == "text")
        calls = [piece.text for piece in pieces if piece.kind == "tool_call"] if is_whole else []
        self.calls = [call for block in calls for call in read_calls(block, self._tools, self._next_id)]
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
        """Rewind the session to the longest prefix that it shares with ``prompt``; return its length."""
        kept = min(self._prompt.common_prefix(prompt), len(prompt) - 1)
        if kept < self.session.earliest:
            self.session.reset()
            kept = 0
        self.session.rewind(kept)
        self._prompt = self._prompt[:kept]
        return kept


def _result(call: ToolCall, result: str) -> Message:
    return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result}


def _function(call: ToolCall) -> dict[str, Any]:
    return {"name": call.name, "arguments": call.arguments}
