"""Requests to questions: media are decoded, the prompt is rendered, and what holds the answer is compiled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from mlx_gemma4.decoder.memory import LONGEST
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import AUDIO, Prompt
from mlx_gemma4.outputs.grammar.calls import bound_calls, call_constraint
from mlx_gemma4.outputs.grammar.constraint import Constraint
from mlx_gemma4.outputs.grammar.matcher import Matcher, open_matcher
from mlx_gemma4.outputs.sample import Sampling
from mlx_gemma4.outputs.tools.declarations import check_declarations
from mlx_gemma4.programs.chat import LEAST_ANSWER
from mlx_gemma4.programs.history import turn_starts, without_oldest
from mlx_gemma4.serve.limits import Limits
from mlx_gemma4.serve.protocols.chat_messages import chat_messages
from mlx_gemma4.serve.protocols.chat_request import ChatRequest
from mlx_gemma4.serve.protocols.failure import Failure, wrong
from mlx_gemma4.serve.protocols.realtime_answers import Truncation
from mlx_gemma4.serve.work.chat import Question
from mlx_gemma4.serve.work.media import Media

Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Fitted:
    """A question, and how many turns have left to make room for its answer."""

    question: Question
    left: int


class Questions:
    """Makes questions, in any thread: nothing is computed with the model."""

    def __init__(self, model: Model, processor: Processor, limits: Limits) -> None:
        self._processor, self._limits = processor, limits
        bounds = (limits.context, model.budget.context)
        self.context = min((bound for bound in bounds if bound is not None), default=LONGEST)
        """Positions of a prompt and its answer, at most."""
        self._rendering = threading.Lock()
        self._joins_results = _joins_results(processor)
        self._writes_tools = _writes_tools(processor)
        _import_samplers(Sampling.from_config(processor.generation))

    def prepare(self, request: ChatRequest, fetched: Mapping[str, bytes] = {}) -> tuple[Question, Tools | None]:
        """Decode the media of a request, and render its prompt. Takes a while; runs in any thread.

        Args:
            fetched: What is at the URLs of media.

        Returns:
            The question, and the functions that the model may call.

        Raises:
            Failure: The request cannot be answered.
        """
        tools = self._tools(request)
        return self._question(request, self._messages(request, fetched), tools), tools

    def fit(self, request: ChatRequest, truncation: Truncation) -> Fitted:
        """Prepare a request whose oldest turns may leave.

        Raises:
            Failure: The request cannot be answered.
        """
        tools, messages = self._tools(request), self._messages(request)
        most = self.context if truncation.limit is None else min(truncation.limit, self.context)
        reserve = min(request.limit or self._limits.answer_tokens, most // LEAST_ANSWER)

        def length(count: int) -> int:
            return len(self._render(request, without_oldest(messages, count), tools, generates=True))

        left = 0
        if truncation.retention is not None and length(0) + reserve > most:
            left = _fewest(length, int(truncation.retention * most), len(turn_starts(messages)) - 1)
        return Fitted(self._question(request, without_oldest(messages, left), tools), left)

    def history(self, request: ChatRequest, *, listens: bool) -> Prompt | None:
        """What the next prompt begins with, as far as it is known; None if nothing is.

        Args:
            listens: Sound of the user follows: the prompt ends where its first frame will be.

        Raises:
            Failure: The template refuses the messages, as some do a system message alone.
        """
        tools, messages = self._tools(request), self._messages(request)
        if listens:
            sound = {"type": "audio", "audio": np.zeros(self._processor.frame_samples, np.float32)}
            if messages and messages[-1]["role"] == "user":
                messages[-1] = {**messages[-1], "content": [*messages[-1]["content"], sound]}
            else:
                messages.append({"role": "user", "content": [sound]})
        prompt = self._render(request, messages, tools, generates=False)
        if listens:
            prompt = prompt[: int(np.flatnonzero(prompt.token_types == AUDIO)[-1])]
        return prompt if 0 < len(prompt) < self.context else None

    def _messages(self, request: ChatRequest, fetched: Mapping[str, bytes] = {}) -> list[dict[str, Any]]:
        media = Media(self._processor, self._limits.media)
        return chat_messages(request.messages, media.decode, joins_results=self._joins_results, fetched=fetched)

    def _render(
        self, request: ChatRequest, messages: Sequence[Mapping[str, Any]], tools: Tools | None, *, generates: bool
    ) -> Prompt:
        """The prompt of messages.

        Raises:
            Failure: The template refuses them.
        """
        try:
            with self._rendering:
                return self._processor.prompt(
                    messages, add_generation_prompt=generates, enable_thinking=request.thinks, tools=tools
                )
        except ValueError as error:
            raise wrong("messages", str(error)) from error

    def _question(self, request: ChatRequest, messages: Sequence[Mapping[str, Any]], tools: Tools | None) -> Question:
        prompt = self._render(request, messages, tools, generates=True)
        room = self.context - len(prompt)
        if room < 1:
            raise Failure(
                400,
                f"The messages have {len(prompt)} tokens, and a session has room for {self.context} with the "
                "answer: shorten them, or start the server with a larger --context",
                param="messages",
                code="context_length_exceeded",
            )
        matcher = self._matcher(request, tools, prompt)
        return Question(
            prompt,
            max_tokens=min(request.limit or self._limits.answer_tokens, room),
            sampling=self._sampling(request),
            stops=request.stops,
            alternatives=request.alternatives,
            one_call=request.one_call,
            matcher=matcher,
        )

    def _tools(self, request: ChatRequest) -> list[dict[str, Any]] | None:
        if not request.tools or not request.offers_tools:
            return None
        for index, tool in enumerate(request.tools):
            if tool.get("type", "function") != "function":
                raise wrong(f"tools[{index}].type", f"tools[{index}].type must be function")
        if not self._writes_tools:
            raise wrong("tools", "This checkpoint's chat template does not write tools; leave them out")
        try:
            return check_declarations(request.tools, "tools")
        except ValueError as error:
            raise wrong("tools", str(error)) from error

    def _matcher(self, request: ChatRequest, tools: Tools | None, prompt: Prompt) -> Matcher | None:
        """What holds an answer to a JSON schema, or its calls to the declared functions."""
        form = _form(request)
        try:
            with self._rendering:  # the vocabulary is made once
                constraint = form if tools is None else self._calls(request, tools, form)
                if constraint is None:
                    return None
                return open_matcher(constraint, self._processor, prompt.token_ids.tolist())
        except ValueError as error:
            raise wrong("tools" if tools else "response_format", str(error)) from error

    def _calls(self, request: ChatRequest, tools: Tools, form: Constraint | None) -> Constraint | None:
        """What holds calls to the declared functions, and an answer without any to its form."""
        assert request.choice is not None
        if request.choice == "auto" and form is None:  # probabilities are told of free text alone
            return None if request.logprobs else bound_calls(tools, self._processor)
        constraint = call_constraint(tools, self._processor.tokenizer, request.choice, form)
        if constraint is None and request.choice != "auto":
            raise ValueError("The checkpoint's vocabulary has no tokens to write calls with; use tool_choice auto")
        return constraint or form

    def _sampling(self, request: ChatRequest) -> Sampling:
        own = Sampling.from_config(self._processor.generation)
        wished = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": None if request.top_k is None else max(request.top_k, 0),
            "min_p": request.min_p,
            "repetition_penalty": request.repetition_penalty,
            "seed": request.seed,
        }
        chosen = Sampling(**{**vars(own), **{name: value for name, value in wished.items() if value is not None}})
        _import_samplers(chosen)
        return chosen


def _form(request: ChatRequest) -> Constraint | None:
    """The JSON that an answer must be."""
    if request.schema is None:
        return None
    try:
        return Constraint.json_schema(request.schema)
    except ValueError as error:
        raise wrong("response_format", str(error)) from error


def _import_samplers(sampling: Sampling) -> None:
    """Import what a sampling needs. It takes seconds once, in which the engine would stand still."""
    if sampling.temperature > 0 or sampling.repetition_penalty is not None:
        import_module("mlx_lm.sample_utils")


def _fewest(length: Callable[[int], int], limit: int, most: int) -> int:
    """The fewest turns that leave so that the rest is within a limit, at most all but the last one."""
    fewest = min(1, most)
    while fewest < most:  # the rest becomes shorter with each turn that leaves
        count = (fewest + most) // 2
        if length(count) <= limit:
            most = count
        else:
            fewest = count + 1
    return max(fewest, 0)


_CALLING: Mapping[str, Any] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "id": "a", "function": {"name": "f", "arguments": {}}}],
}
_TOOL = {"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}}


def _joins_results(processor: Processor) -> bool:
    """Whether the template writes the results of calls that stand in the message that calls."""
    asked: list[Mapping[str, Any]] = [{"role": "user", "content": "x"}]
    joined = {**_CALLING, "tool_responses": [{"name": "f", "response": "y"}]}
    return _rendered(processor, [*asked, joined]) != _rendered(processor, [*asked, _CALLING])


def _writes_tools(processor: Processor) -> bool:
    """Whether the template writes declarations of tools."""
    asked = [{"role": "user", "content": "x"}]
    return _rendered(processor, asked, [_TOOL]) != _rendered(processor, asked)


def _rendered(
    processor: Processor, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None = None
) -> str | None:
    """The text of a chat; None where the template refuses it, or where there is no template."""
    try:
        return processor.template.render(messages, tools=tools)
    except ValueError:
        return None
