"""An agent: steps until the task is done, within limits; consent; calls that run at once; what is told to the model."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from light_tools import BATH, CALL, ran, written
from test_chat_tools import WRITES_TOOLS, scripted
from test_guards import looping

from mlx_gemma4 import Model, Processor
from mlx_gemma4.decoder.budget import ContextFull
from mlx_gemma4.inputs.text.template import ChatTemplate
from mlx_gemma4.outputs.channels import Kind
from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.outputs.tools.parallel import Returned, run_calls
from mlx_gemma4.outputs.tools.repeats import Repeats
from mlx_gemma4.outputs.tools.result import ToolResult
from mlx_gemma4.outputs.tools.sources import Tools
from mlx_gemma4.programs.agent import AGAIN, REPEATED, Agent, AgentLimits
from mlx_gemma4.programs.agent_events import AgentEvent, Decided, Ended, Stepped, Told, Wrote

Piece = tuple[Kind, str]
DONE: Sequence[Piece] = [("text", "Done.")]


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return written(tmp_path)


@pytest.fixture
def asked() -> list[str]:
    """The prompts that scripted answers were given to."""
    return []


@pytest.fixture
def writing(demo: tuple[Model, Processor]) -> tuple[Model, Processor]:
    """The demo with a template that writes tools."""
    model, processor = demo
    return model, Processor(processor.config, processor.tokenizer, ChatTemplate(WRITES_TOOLS, {}))


def ended(events: Sequence[AgentEvent]) -> Ended:
    last = events[-1]
    assert isinstance(last, Ended) and not any(isinstance(event, Ended) for event in events[:-1])
    return last


def of(events: Sequence[AgentEvent], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_steps_until_the_task_is_done(
    writing: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, tools: Tools, asked: list[str]
) -> None:
    scripted(monkeypatch, asked, [("text", "Wait."), CALL], [BATH], DONE)
    agent = Agent(*writing, tools, allow=["lights"])
    events = list(agent.run("Lights on!"))
    assert ran(tools) == ["hall", "bath"]
    assert [(step.step, step.text, [call.arguments for call in step.calls]) for step in of(events, Stepped)] == [
        (1, "Wait.", [{"room": "hall"}]),
        (2, "", [{"room": "bath"}]),
        (3, "Done.", []),
    ]
    assert [event.text for event in of(events, Wrote)] == ["Wait.", "Done."]
    assert [event.result.text for event in of(events, Returned)] == ["hall on", "bath on"]
    end = ended(events)
    assert (end.reason, end.answer, end.steps, end.tokens) == ("done", "Done.", 3, 3)
    assert "lights=hall on<tool_response|>" in asked[1] and "lights=bath on<tool_response|>" in asked[2]


def test_another_task_goes_on(
    writing: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, tools: Tools, asked: list[str]
) -> None:
    scripted(monkeypatch, asked, DONE, [("text", "Yes.")])
    agent = Agent(*writing, tools)
    list(agent.run("Lights on!"))
    assert ended(list(agent.run("Really?"))).answer == "Yes."
    assert agent.conversation.turns == 2 and "Done.<turn|>\n<|turn>user\nReally?" in asked[-1]


def test_by_default_nothing_may_run(
    writing: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, tools: Tools, asked: list[str]
) -> None:
    scripted(monkeypatch, asked, [CALL], DONE)
    events = list(Agent(*writing, tools).run("Lights on!"))
    assert ran(tools) == [] and of(events, Decided)[0].reason == "The user did not allow it."
    assert "lights=The user did not allow it.<tool_response|>" in asked[1]
    with pytest.raises(ValueError, match=r"^allow must be a list of names, got 'lights'; write \['lights'\]$"):
        Agent(*writing, tools, allow="lights")


def test_each_call_is_decided_in_order_before_any_runs(
    writing: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, tools: Tools, asked: list[str]
) -> None:
    """Calls that are not as declared are not asked about; results keep the order of the calls."""
    wrong: Piece = ("tool_call", "call:lights{}")
    scripted(monkeypatch, asked, [CALL, wrong, BATH], DONE)
    decided: list[tuple[str, list[str]]] = []

    def allow(call: ToolCall) -> str | None:
        decided.append((call.arguments["room"], list(ran(tools))))
        return "Not the hall." if call.arguments["room"] == "hall" else None

    events = list(Agent(*writing, tools, allow=allow).run("Lights on!"))
    assert decided == [("hall", []), ("bath", [])] and ran(tools) == ["bath"]
    results = [(event.result.text, event.result.is_error) for event in of(events, Returned)]
    assert results == [("Not the hall.", True), ("error: the argument 'room' is missing", True), ("bath on", False)]


LOOPING = [[CALL]] * 9


@pytest.mark.parametrize(
    ("limits", "reason", "steps"),
    [
        (AgentLimits(steps=2), "steps", 2),
        (AgentLimits(steps=4, repeats=0), "steps", 4),
        (AgentLimits(tokens=2), "tokens", 2),
        (AgentLimits(), "loop", 4),
        (AgentLimits(repeats=1), "loop", 3),
        (AgentLimits(repeats=5), "loop", 6),
    ],
)
def test_limits(
    writing: tuple[Model, Processor],
    monkeypatch: pytest.MonkeyPatch,
    tools: Tools,
    asked: list[str],
    limits: AgentLimits,
    reason: str,
    steps: int,
) -> None:
    """The same call again and again is told to the model once; the conversation can be used afterwards."""
    scripted(monkeypatch, asked, *LOOPING[:steps], DONE)
    agent = Agent(*writing, tools, allow=["lights"], limits=limits)
    events = list(agent.run("Lights on!"))
    assert (ended(events).reason, ended(events).steps) == (reason, steps)
    assert [event.text for event in of(events, Told)] == ([REPEATED] if reason == "loop" else [])
    assert (f"lights=hall on\n{REPEATED}<tool_response|>" in asked[-1]) == (reason == "loop")
    assert ended(list(agent.run("Really?"))).answer == "Done."


def test_an_answer_in_a_loop_is_told_once(
    writing: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, tools: Tools
) -> None:
    """The model goes on in another way, or the run ends; no call of such an answer is run."""
    for answers, reason in ((("on", "Done.<turn|>"), "done"), (("on", "off"), "loop")):
        looping(monkeypatch, writing[1], *answers)
        agent = Agent(*writing, tools, allow=["lights"])
        events = list(agent.run("Lights on!"))
        assert (ended(events).reason, ended(events).steps) == (reason, 2)
        assert [event.text for event in of(events, Told)] == [AGAIN]
        assert agent.conversation.messages[2]["content"] == AGAIN
    looping(monkeypatch, writing[1], "on")
    agent = Agent(*writing, tools, limits=AgentLimits(tokens=80, repeats=0))
    assert ended(list(agent.run("Lights on!"))).reason == "tokens"


def test_time_is_over(
    writing: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, tools: Tools, asked: list[str]
) -> None:
    """Asking for consent takes none of it."""
    now = [0.0]

    def allow(call: ToolCall) -> str | None:
        now[0] += 100
        return None

    def slow(rooms: list[str]) -> str | None:
        now[0] += 4
        return None

    limits = AgentLimits(seconds=10)
    scripted(monkeypatch, asked, [CALL], [BATH], [CALL], DONE)
    monkeypatch.setattr("mlx_gemma4.programs.agent.run_calls", lambda *given: (slow([]), run_calls(*given))[1])
    agent = Agent(*writing, tools, allow=allow, limits=limits, clock=lambda: now[0])
    end = ended(list(agent.run("Lights on!")))
    assert (end.reason, end.steps, end.seconds) == ("seconds", 3, 12.0)


def test_an_answer_that_takes_too_long_is_cut(
    writing: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, tools: Tools, asked: list[str]
) -> None:
    """Its calls are not run."""
    now = iter([0.0, 1.0, 11.0, *[11.0] * 20])
    scripted(monkeypatch, asked, [("text", "One."), ("text", "Two."), CALL])
    agent = Agent(*writing, tools, allow=["lights"], limits=AgentLimits(seconds=10), clock=lambda: next(now))
    end = ended(list(agent.run("Lights on!")))
    assert (end.reason, end.answer) == ("seconds", "One.Two.") and ran(tools) == []


def test_the_context_is_full(
    writing: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, tools: Tools, asked: list[str]
) -> None:
    """In a later step that ends the run; a task that is too long is an error."""
    scripted(monkeypatch, asked, [CALL], ContextFull("full"))
    agent = Agent(*writing, tools, allow=["lights"])
    assert ended(list(agent.run("Lights on!"))).reason == "context"
    scripted(monkeypatch, asked, ContextFull("full"))
    with pytest.raises(ContextFull, match=r"^full$"):
        list(Agent(*writing, tools).run("Lights on!"))


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"steps": 0}, "An agent needs at least 1 of its steps, got 0"),
        ({"tokens": 0}, "An agent needs at least 1 of its tokens, got 0"),
        ({"seconds": 0}, "An agent needs more than 0 seconds, got 0"),
        ({"seconds": float("nan")}, "An agent needs more than 0 seconds, got nan"),
        ({"repeats": -1}, "Expected 0 repeats or more, got -1"),
    ],
)
def test_limits_that_are_none(limits: dict[str, float], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        AgentLimits(**limits)  # type: ignore[arg-type]


class Waiting:
    """Two functions that end only if both run."""

    def __init__(self) -> None:
        self.source = "waiting"
        self.schemas = [{"type": "function", "function": {"name": name, "description": "x"}} for name in "abc"]
        self.barrier = threading.Barrier(2)

    def runs(self, name: str) -> bool:
        return True

    def call(self, call: ToolCall) -> ToolResult:
        if call.name == "c":
            raise OSError("broken")
        self.barrier.wait(10)
        return ToolResult.of(call.name)

    def close(self) -> None: ...


def call(name: str, number: int = 1, **arguments: Any) -> ToolCall:
    return ToolCall(f"call_{number}", name, arguments)


def test_calls_run_at_once() -> None:
    """Results come in the order of the calls; a source that raises is an error of its call alone."""
    returned, is_stopped = run_calls(Waiting(), [call("a"), call("c", 2), call("b", 3)], 10)
    assert [(each.call.name, each.result.text) for each in returned] == [
        ("a", "a"),
        ("c", "error: OSError: broken"),
        ("b", "b"),
    ]
    assert not is_stopped


def test_a_call_that_takes_longer_than_the_run() -> None:
    tools = Waiting()
    returned, is_stopped = run_calls(tools, [call("a"), call("c", 2)], 0.2)
    assert [each.result.text for each in returned] == ["error: no result within 0.2 s", "error: OSError: broken"]
    assert not is_stopped
    tools.barrier.abort()


def test_ctrl_c_ends_what_is_waited_for() -> None:
    """What has its result keeps it."""

    class Slow(Waiting):
        def call(self, call: ToolCall) -> ToolResult:
            if call.name == "a":
                return ToolResult.of("quick")
            time.sleep(0.1)
            _thread.interrupt_main()
            self.barrier.wait(10)
            return ToolResult.of("late")

    tools = Slow()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        returned, is_stopped = run_calls(tools, [call("a"), call("b", 2)], 10)
    finally:
        signal.signal(signal.SIGINT, before)
    tools.barrier.abort()
    assert is_stopped and [each.result.text for each in returned] == ["quick", "error: the user stopped it"]


def test_what_is_new() -> None:
    """Another result, another argument, another function: each begins to count again."""
    repeats = Repeats()

    def step(*texts: str) -> int:
        return repeats.take([Returned(call(text[0], x=text[1]), ToolResult.of(text[2:]), 0.0) for text in texts])

    assert [step("a1on"), step("a1on"), step("a1on"), step("a2on"), step("a1on"), step("a1off")] == [0, 1, 2, 0, 1, 0]
    assert [step("b1on", "a1on"), step("a1on", "b1on"), step("a1on"), step("b1on"), step("c1")] == [0, 1, 2, 3, 0]
