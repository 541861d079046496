"""Requests to questions: media are decoded, the prompt is rendered, and what holds the answer is compiled."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from mlx_gemma4.decoder.memory import LONGEST
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.grammar.calls import bound_calls, call_constraint
from mlx_gemma4.outputs.grammar.constraint import Constraint
from mlx_gemma4.outputs.grammar.matcher import Matcher, open_matcher
from mlx_gemma4.outputs.grammar.unheld import unheld
from mlx_gemma4.outputs.guards import LoopGuard
from mlx_gemma4.outputs.sample import Sampling
from mlx_gemma4.outputs.tools.declarations import check_declarations
from mlx_gemma4.outputs.tools.messages import result_form
from mlx_gemma4.serve.limits import Limits
from mlx_gemma4.serve.protocols.chat_messages import chat_messages
from mlx_gemma4.serve.protocols.chat_request import ChatRequest
from mlx_gemma4.serve.protocols.failure import Failure, wrong
from mlx_gemma4.serve.work.chat import Question
from mlx_gemma4.serve.work.media import Media

Tools = Sequence[Mapping[str, Any]]


class Questions:
    """Makes questions, in any thread: nothing is computed with the model."""

    def __init__(self, model: Model, processor: Processor, limits: Limits) -> None:
        self._processor, self._limits = processor, limits
        bounds = (limits.context, model.budget.context)
        self.context = min((bound for bound in bounds if bound is not None), default=LONGEST)
        """Positions of a prompt and its answer, at most."""
        self._rendering = threading.Lock()
        self._form = result_form(processor)
        self.writes_tools = _writes_tools(processor)
        """Whether the template writes functions."""
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
        tools = self.tools(request)
        prompt = self.render(request, self.messages(request, fetched), tools, generates=True)
        return self.question(request, prompt, tools), tools

    def messages(self, request: ChatRequest, fetched: Mapping[str, bytes] = {}) -> list[dict[str, Any]]:
        """The messages of a request as the processor takes them, with their media decoded.

        Args:
            fetched: What is at the URLs of media.

        Raises:
            Failure: A message cannot be understood.
        """
        media = Media(self._processor, self._limits.media)
        return chat_messages(request.messages, media.decode, form=self._form, fetched=fetched)

    def render(
        self, request: ChatRequest, messages: Sequence[Mapping[str, Any]], tools: Tools | None, *, generates: bool
    ) -> Prompt:
        """The prompt of messages.

        Args:
            generates: Whether an answer follows.

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

    def question(self, request: ChatRequest, prompt: Prompt, tools: Tools | None) -> Question:
        """How a prompt is answered.

        Raises:
            Failure: It leaves no room for an answer, or the answer cannot be held to what the request asks for.
        """
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
            guard=LoopGuard(text=request.schema is None) if self._limits.stop_loops else None,
        )

    def tools(self, request: ChatRequest) -> list[dict[str, Any]] | None:
        """The functions that the model may call, checked.

        Raises:
            Failure: One is wrong, or the template does not write them.
        """
        if not request.tools or not request.offers_tools:
            return None
        for index, tool in enumerate(request.tools):
            if tool.get("type", "function") != "function":
                raise wrong(f"tools[{index}].type", f"tools[{index}].type must be function")
        if not self.writes_tools:
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
        strict = [tool for tool in tools if tool["function"].get("strict") is True]
        if lost := unheld(strict):
            raise ValueError(f"A strict function cannot be held to {lost[0]}; leave that out, or strict")
        if request.choice == "auto" and form is None and not strict:
            return bound_calls(tools, self._processor)
        constraint = call_constraint(tools, self._processor.tokenizer, request.choice, form)
        if constraint is None and (request.choice != "auto" or strict):
            raise ValueError(
                "The checkpoint's vocabulary has no tokens to write calls with; use tool_choice auto, without strict"
            )
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


_TOOL = {"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}}


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
