"""One model and all that requests need of it: the engine, limits, counts. No sockets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, BinaryIO, TypeVar

import mlx.core as mx

from mlx_gemma4.decoder.memory import LONGEST
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.grammar.calls import bound_calls, call_constraint
from mlx_gemma4.outputs.grammar.constraint import Constraint
from mlx_gemma4.outputs.grammar.matcher import Matcher, thoughts_before
from mlx_gemma4.outputs.grammar.vocabulary import vocabulary
from mlx_gemma4.outputs.sample import Sampling
from mlx_gemma4.outputs.tools.declarations import check_declarations
from mlx_gemma4.prefixes.store import PrefixStore
from mlx_gemma4.serve.engine import Engine, Job, Work
from mlx_gemma4.serve.events import ChatEvent, SpeechEvent
from mlx_gemma4.serve.hearing import Hearing
from mlx_gemma4.serve.limits import Limits
from mlx_gemma4.serve.metrics import Metrics
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.protocols.chat_messages import chat_messages
from mlx_gemma4.serve.protocols.chat_request import ChatRequest
from mlx_gemma4.serve.protocols.failure import Failure, wrong
from mlx_gemma4.serve.protocols.speech_answer import SpeechAnswer
from mlx_gemma4.serve.protocols.speech_request import SpeechRequest
from mlx_gemma4.serve.work.chat import Question, answer
from mlx_gemma4.serve.work.hearing import Inbox, hear
from mlx_gemma4.serve.work.media import Media
from mlx_gemma4.serve.work.speech import TARGET, Recognition, Transcribers, instruction_of, recognise

T = TypeVar("T")
Tools = Sequence[Mapping[str, Any]]


class Service:
    """Answers requests with one model.

    Args:
        load: Loads the checkpoint. It runs in the engine's thread, which owns the model from then on.
        names: What clients may call the model; ``/v1/models`` shows the first one.
        most_sessions: Requests that are computed at the same time.
        most_waiting: Requests that may wait.
        language: What is spoken if a client does not say; an English name.

    Raises:
        ValueError: What ``load`` has raised.
    """

    def __init__(
        self,
        load: Callable[[], tuple[Model, Processor]],
        names: Sequence[str],
        *,
        most_sessions: int = 4,
        most_waiting: int = 32,
        language: str = "English",
        limits: Limits | None = None,
    ) -> None:
        self.language = language
        self.names = tuple(names)
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.created = int(time.time())
        self.engine = Engine(most_sessions=most_sessions, most_waiting=most_waiting)
        try:
            self.model, self.processor = self.engine.run(load)
            self.store = self.engine.run(lambda: PrefixStore(self.model))
            self.transcribers = self.engine.run(lambda: Transcribers(self.model, self.processor))
        except BaseException:
            self.engine.close()
            raise
        _import_samplers(Sampling.from_config(self.processor.generation))
        self._rendering = threading.Lock()
        self._joins_results = _joins_results(self.processor)
        self._writes_tools = _writes_tools(self.processor)

    def close(self) -> None:
        """Cancel what is computed, and end the engine."""
        self.engine.close()

    @property
    def context(self) -> int:
        """Positions of a prompt and its answer, at most."""
        limits = (self.limits.context, self.model.budget.context)
        return min((limit for limit in limits if limit is not None), default=LONGEST)

    def check_model(self, name: str | None) -> None:
        """Raise a Failure if a client asks for another model."""
        if name is not None and name not in self.names:
            raise Failure(
                404,
                f"The model {name[:100]!r} does not exist; this server has {self.names[0]}. --name adds other names",
                param="model",
                code="model_not_found",
            )

    def prepare(self, request: ChatRequest) -> tuple[Question, Tools | None]:
        """Decode the media of a request, and render its prompt. Takes a while; runs in any thread.

        Returns:
            The question, and the functions that the model may call.

        Raises:
            Failure: The request cannot be answered.
        """
        tools = self._tools(request)
        media = Media(self.processor, self.limits.media)
        messages = chat_messages(request.messages, media.decode, joins_results=self._joins_results)
        try:
            with self._rendering:
                prompt = self.processor.prompt(messages, enable_thinking=request.thinks, tools=tools)
        except ValueError as error:
            raise wrong("messages", str(error)) from error
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
        question = Question(
            prompt,
            max_tokens=min(request.limit or self.limits.answer_tokens, room),
            sampling=self._sampling(request),
            stops=request.stops,
            alternatives=request.alternatives,
            one_call=request.one_call,
            matcher=matcher,
        )
        return question, tools

    def ask(self, question: Question, outbox: Outbox[ChatEvent]) -> Job:
        """Let the engine answer.

        Raises:
            Busy: There is no room for another request.
        """
        return self.submit(lambda job: answer(question, self.model, self.processor, self.store, outbox), outbox)

    def recognise(
        self, request: SpeechRequest, file: BinaryIO, outbox: Outbox[SpeechEvent]
    ) -> tuple[Job, SpeechAnswer]:
        """Let the engine transcribe a recording.

        Args:
            file: May be closed when the job has ended, or was cancelled.

        Raises:
            Busy: There is no room for another request.
            Failure: The checkpoint takes no sound.
        """
        if self.processor.config.audio_config is None:
            raise Failure(400, "This checkpoint takes no sound", param="file", code="unsupported_value")
        spoken = request.languages[0] if request.languages else self.language
        recognition = Recognition(request, file, instruction_of(request, self.language), self.limits.sound_seconds)
        job = self.submit(lambda job: recognise(recognition, self.transcribers, outbox, job.wake), outbox)
        return job, SpeechAnswer(request, TARGET if request.translates else spoken)

    def hear(self, inbox: Inbox, outbox: Outbox[Hearing]) -> Job:
        """Let the engine hear what comes into an inbox.

        Raises:
            Busy: All sessions are in use: live sound does not wait for one.
            Failure: The checkpoint takes no sound.
        """
        if self.processor.config.audio_config is None:
            raise Failure(400, "This checkpoint takes no sound", code="unsupported_value")
        job = self.submit(lambda job: hear(inbox, self.transcribers, self.language, outbox), outbox, waits=False)
        inbox.on_arrival = job.wake
        return job

    def submit(self, begin: Callable[[Job], Work], outbox: Outbox[T], *, waits: bool = True) -> Job:
        """Queue a job whose events go to an outbox.

        Args:
            waits: Whether it may wait for a session.

        Raises:
            Busy: There is no room for another request.
        """
        job = self.engine.submit(begin, outbox.end, waits=waits)
        outbox.on_room = job.wake
        return job

    def figures(self) -> str:
        """The text of ``/metrics``."""
        gauges = {
            "sessions": self.engine.active,
            "waiting": self.engine.waiting,
            "memory_bytes": mx.get_active_memory(),
        }
        return self.metrics.text(gauges, {turn.name.lower(): count for turn, count in self.engine.turns.items()})

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
        try:
            with self._rendering:  # the vocabulary is made once
                constraint = self._constraint(request, tools)
                if constraint is None:
                    return None
                history = prompt.token_ids.tolist()
                before = None if constraint.has_thoughts else thoughts_before(self.processor.tokenizer, history)
                return Matcher(constraint, vocabulary(self.processor), before)
        except ValueError as error:
            raise wrong("tools" if tools else "response_format", str(error)) from error

    def _constraint(self, request: ChatRequest, tools: Tools | None) -> Constraint | None:
        if request.schema is not None:
            return Constraint.json_schema(request.schema)
        if tools is None or request.choice is None:
            return None
        if request.choice == "auto":  # probabilities are told of free text alone
            return None if request.logprobs else bound_calls(tools, self.processor)
        constraint = call_constraint(tools, self.processor.tokenizer, request.choice)
        if constraint is None:
            raise ValueError("The checkpoint's vocabulary has no tokens to write calls with; use tool_choice auto")
        return constraint

    def _sampling(self, request: ChatRequest) -> Sampling:
        own = Sampling.from_config(self.processor.generation)
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


def _import_samplers(sampling: Sampling) -> None:
    """Import what a sampling needs. It takes seconds once, in which the engine would stand still."""
    if sampling.temperature > 0 or sampling.repetition_penalty is not None:
        import_module("mlx_lm.sample_utils")


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
