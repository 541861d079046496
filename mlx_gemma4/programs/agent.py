"""An agent: a conversation in which the model calls functions until its task is done.

    task ──▶ the model answers ──▶ calls? ── no ──▶ done
                   ▲                 │ yes
                   │                 ▼
                   │               consent, call by call; those that are allowed run at once
                   └── results ──────┘

Each step is a ``Conversation``'s: what was computed before is never computed again. What goes wrong with a call is its
result, for the model to read. A run ends at its limits, and says at which.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

from mlx_gemma4.decoder.budget import ContextFull
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.outputs.generate import GREEDY, GenerationResponse
from mlx_gemma4.outputs.sample import Sampling
from mlx_gemma4.outputs.tools.calls import DECLINED, ToolCall
from mlx_gemma4.outputs.tools.parallel import Returned, run_calls
from mlx_gemma4.outputs.tools.repeats import Repeats
from mlx_gemma4.outputs.tools.result import ToolResult
from mlx_gemma4.outputs.tools.sources import Tools
from mlx_gemma4.programs.agent_events import AgentEvent, Decided, Ended, Reason, Stepped, Told, Wrote
from mlx_gemma4.programs.chat import Content, Conversation
from mlx_gemma4.programs.history import text_of

AGAIN = "Your last answer repeated itself and was stopped. Go on in another way."
REPEATED = "[These calls had the same results before. Use the results, or do something else.]"

Allow = Callable[[ToolCall], str | None]
"""Whether a call may run: None, or why not, for the model to read."""


@dataclass(frozen=True)
class AgentLimits:
    """When a run ends at the latest."""

    steps: int = 16
    """Answers of the model."""
    tokens: int = 8192
    """Tokens of all answers."""
    seconds: float = 600.0
    """Without the time in which consent is asked for."""
    repeats: int = 3
    """How often the same calls may have the same results until the model is told; if it goes on so, the run ends. The
    same is done about an answer that repeats itself (``LoopGuard``). 0: never."""

    def __post_init__(self) -> None:
        for name in ("steps", "tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"An agent needs at least 1 of its {name}, got {getattr(self, name)}")
        if not self.seconds > 0:
            raise ValueError(f"An agent needs more than 0 seconds, got {self.seconds:g}")
        if self.repeats < 0:
            raise ValueError(f"Expected 0 repeats or more, got {self.repeats}")


class Agent:
    """Works on tasks with functions.

    Args:
        tools: The functions; several sources are joined by ``join_tools``.
        allow: Which calls may run: the names of functions, or a function that decides for each call. By default none:
            the model decides what is called, and with which arguments.
        system: A system message.
        drafter: As for ``stream_generate``.

    Attributes:
        conversation: What was said. Another ``run`` goes on with it.
    """

    def __init__(
        self,
        model: Model,
        processor: Processor,
        tools: Tools,
        *,
        allow: Allow | Collection[str] = (),
        limits: AgentLimits | None = None,
        system: str | None = None,
        enable_thinking: bool = False,
        sampling: Sampling = GREEDY,
        drafter: Drafter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tools = tools
        self.limits = limits or AgentLimits()
        self.conversation = Conversation(
            model,
            processor,
            system=system,
            enable_thinking=enable_thinking,
            tools=tools.schemas,
            drafter=drafter,
            stop_loops=self.limits.repeats > 0,
        )
        self._allow = allow if callable(allow) else named(allow)
        self._sampling, self._clock = sampling, clock

    def run(self, task: Content) -> Iterator[AgentEvent]:
        """Work on a task. The last event is ``Ended``.

        Closing the iterator early, or an error, ends the run; the conversation keeps the steps so far.

        Raises:
            ContextFull: The task alone, with the system message and the functions, does not fit into the context.
            ValueError: The task has another form.
        """
        run = _Run(self.limits, self._clock)
        responses = self.conversation.ask(task, **self._options(run))
        while True:
            yield from self._step(responses, run)
            if run.reason is not None:
                break
            if run.finish_reason == "loop":
                yield Told(AGAIN)
                responses = self.conversation.ask(AGAIN, **self._options(run))
                continue
            results = yield from self._results(run)
            if run.reason is not None:
                break
            responses = self.conversation.reply(results, **self._options(run))
        yield run.ended()

    def _options(self, run: _Run) -> dict[str, Any]:
        return {"max_tokens": run.tokens_left, "sampling": self._sampling, "show_thoughts": True}

    def _step(self, responses: Iterator[GenerationResponse], run: _Run) -> Iterator[AgentEvent]:
        """One answer of the model."""
        pieces: list[GenerationResponse] = []
        with closing(cast(Generator[GenerationResponse, None, None], responses)):
            try:
                for response in responses:
                    pieces.append(response)
                    if response.text and response.kind != "tool_call":
                        yield Wrote(response.text, response.kind)
                    if run.seconds_left <= 0 and response.finish_reason is None:
                        run.reason = "seconds"
                        break
            except ContextFull:
                if run.steps == 0:
                    raise
                run.reason = "context"
        if pieces:
            run.take(pieces, self.conversation.calls)
            yield Stepped(
                run.steps,
                run.answer,
                tuple(self.conversation.calls),
                run.finish_reason,
                pieces[-1].prompt_tokens,
                pieces[-1].generation_tokens,
            )

    def _results(self, run: _Run) -> Generator[AgentEvent, None, dict[str, ToolResult]]:
        """Run the calls of the last answer that may run, all at once."""
        calls, refused, allowed = self.conversation.calls, dict[str, ToolResult](), list[ToolCall]()
        for call in calls:
            if call.problem is not None:
                refused[call.id] = ToolResult.error(call.problem)
            elif not self.tools.runs(call.name):
                refused[call.id] = ToolResult.error(f"{call.name} is not available: nothing here can run it")
            else:
                with run.paused():
                    reason = self._allow(call)
                yield Decided(call, reason)
                if reason is None:
                    allowed.append(call)
                else:
                    refused[call.id] = ToolResult.of(reason, is_error=True)
        ran, is_stopped = run_calls(self.tools, allowed, max(run.seconds_left, 0))
        by_call = {each.call.id: each for each in ran}
        returned = [by_call.get(call.id) or Returned(call, refused[call.id], 0.0) for call in calls]
        results = {each.call.id: each.result for each in returned}
        yield from returned
        if is_stopped:
            raise KeyboardInterrupt
        if run.repeats_calls(returned):
            yield Told(REPEATED)
            last = calls[-1].id
            results[last] = replace(results[last], parts=(*results[last].parts, {"type": "text", "text": REPEATED}))
        return results


class _Run:
    """What one run has used of its limits."""

    def __init__(self, limits: AgentLimits, clock: Callable[[], float]) -> None:
        self.reason: Reason | None = None
        self.steps, self.tokens, self.answer = 0, 0, ""
        self.finish_reason: str | None = None
        self._limits, self._clock = limits, clock
        self._started = clock()
        self._repeats = Repeats()
        self._is_told = False

    @property
    def tokens_left(self) -> int:
        return self._limits.tokens - self.tokens

    @property
    def seconds_left(self) -> float:
        return self._limits.seconds - (self._clock() - self._started)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A block that takes none of the time."""
        before = self._clock()
        try:
            yield
        finally:
            self._started += self._clock() - before

    def take(self, pieces: Sequence[GenerationResponse], calls: Sequence[ToolCall]) -> None:
        """Count a step, and decide whether it is the last one."""
        self.steps += 1
        self.tokens += pieces[-1].generation_tokens
        self.answer = text_of(pieces)
        self.finish_reason = pieces[-1].finish_reason
        if self.reason is not None:
            return
        if self.finish_reason == "length":
            self.reason = "tokens" if self.tokens_left <= 0 else "context"
        elif self.finish_reason == "loop":
            self.reason = "loop" if self._is_told else None
            self._is_told = True
        elif not calls:
            self.reason = "done"
        if self.reason is None:
            self.reason = self._reached()

    def repeats_calls(self, returned: Sequence[Returned]) -> bool:
        """Take the results of a step; return whether the model is to be told that it repeats itself."""
        stale, most = self._repeats.take(returned), self._limits.repeats
        if most and stale >= max(most - 1, 1):
            if self._is_told:
                self.reason = "loop"
            elif self.seconds_left > 0:
                self._is_told = True
                return True
        if self.reason is None and self.seconds_left <= 0:
            self.reason = "seconds"
        return False

    def ended(self) -> Ended:
        assert self.reason is not None
        seconds = self._limits.seconds - self.seconds_left
        return Ended(self.reason, self.answer, self.steps, self.tokens, seconds)

    def _reached(self) -> Reason | None:
        """The limit that keeps another step from being made."""
        if self.steps >= self._limits.steps:
            return "steps"
        if self.tokens_left <= 0:
            return "tokens"
        return "seconds" if self.seconds_left <= 0 else None


def named(names: Collection[str]) -> Allow:
    """Allow the functions of these names."""
    if isinstance(names, str):
        raise ValueError(f"allow must be a list of names, got {names!r}; write [{names!r}]")
    return lambda call: None if call.name in names else DECLINED
