"""Tools and thoughts over HTTP: what templates write of them, and what clients get. The model's words are scripted."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import pytest
from reference_cases import REFERENCE, media_file
from servers import Running, serving
from test_chat_tools import WRITES_TOOLS

from mlx_gemma4 import Model, Processor, Session, load
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.inputs.text.template import ChatTemplate
from mlx_gemma4.outputs.grammar.matcher import Matcher
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.serve.engine import Job
from mlx_gemma4.serve.events import ChatEvent
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.work.chat import Question

LIGHTS: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "lights",
        "parameters": {"type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]},
    },
}
CALL = '<|tool_call>call:lights{room:<|"|>hall<|"|>}<tool_call|>'
USER = {"role": "user", "content": "Lights on!"}


def writing() -> tuple[Model, Processor]:
    """A checkpoint whose vocabulary has the markers, with a template that writes tools."""
    model, processor = load(REFERENCE / "released" / "checkpoint", dtype="float32")
    template = ChatTemplate(WRITES_TOOLS, {"bos_token": "<bos>"})
    return model, Processor(processor.config, processor.tokenizer, template, generation=processor.generation)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(model=writing) as running:
        yield running


class Script:
    """What the model says, and the prompts that it was shown."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor
        self.markup = ""
        self.prompts: list[str] = []
        self.bound: list[bool] = []
        """Whether calls were held to the declarations."""

    def steps(
        self,
        session: Session,
        logits: mx.array,
        sampler: Sampler,
        matcher: Matcher | None = None,
        *,
        max_tokens: int,
        **_: Any,
    ) -> Iterator[int]:
        self.bound.append(matcher is not None)
        tokens = self._processor.tokenizer.encode_markup(self.markup)
        yield from [*tokens, min(self._processor.stop_ids)][:max_tokens]

    def show(self, prompt: Prompt) -> None:
        self.prompts.append(self._processor.tokenizer.decode(prompt.token_ids.tolist(), skip_special=False))


@pytest.fixture
def script(server: Running, monkeypatch: pytest.MonkeyPatch) -> Script:
    made, ask = Script(server.service.processor), server.service.ask

    def shown(question: Question, outbox: Outbox[ChatEvent]) -> Job:
        made.show(question.prompt)
        return ask(question, outbox)

    monkeypatch.setattr(server.service, "ask", shown)
    monkeypatch.setattr("mlx_gemma4.serve.work.chat.answer_plan", made.steps)
    return made


def test_a_call_and_its_result(server: Running, script: Script) -> None:
    script.markup = f"Wait.{CALL}"
    choice = server.chat(USER, tools=[LIGHTS]).json()["choices"][0]
    message = choice["message"]
    (call,) = message["tool_calls"]
    assert (message["content"], choice["finish_reason"]) == ("Wait.", "tool_calls")
    assert call["function"] == {"name": "lights", "arguments": '{"room": "hall"}'} and call["id"].startswith("call_")
    script.markup = "Done."
    result = {"role": "tool", "tool_call_id": call["id"], "content": "hall on"}
    done = server.chat(USER, message, result, tools=[LIGHTS]).json()["choices"][0]["message"]
    assert done["content"] == "Done."
    server.chat(USER, message, result, done, {"role": "user", "content": "Thanks"}, tools=[LIGHTS])
    wanted, resumed, last = script.prompts
    assert script.bound == [True, True, True]
    assert wanted.endswith("<|tool>lights<tool|><|turn>user\nLights on!<turn|>\n<|turn>model\n")
    written = '<|tool_call>call:lights{"room": "hall"}<tool_call|><|tool_response>lights=hall on<tool_response|>'
    assert resumed.endswith(f"<|turn>assistant\nWait.<turn|>\n<|turn>assistant\n{written}")
    assert last.endswith(f"{written}Done.<turn|>\n<|turn>user\nThanks<turn|>\n<|turn>model\n")


def test_a_picture_is_a_result(server: Running, script: Script) -> None:
    """The template takes none in the message that calls: it follows in one of the user."""
    script.markup = CALL
    message = server.chat(USER, tools=[LIGHTS]).json()["choices"][0]["message"]
    script.markup = "Dark."
    data = base64.b64encode(media_file("picture-01.png").read_bytes()).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    call = message["tool_calls"][0]["id"]
    result = {"role": "tool", "tool_call_id": call, "content": [{"type": "text", "text": "Seen:"}, picture]}
    assert server.chat(USER, message, result, tools=[LIGHTS]).json()["choices"][0]["message"]["content"] == "Dark."
    asked = script.prompts[-1].replace("<|image|>" * script.prompts[-1].count("<|image|>"), "<|image|>")
    assert script.prompts[-1].count("<|image|>") > 10
    results = "<|tool_response>lights=Seen:\n[image 1]<tool_response|>"
    assert asked.endswith(f"{results}<|turn>user\n<|image><|image|><image|><turn|>\n<|turn>model\n")


def test_an_answer_that_repeats_itself(server: Running, script: Script) -> None:
    """It is cut, as by a limit, also a thought; a form may want it."""
    script.markup = "no " * 700
    choice = server.chat(USER, max_tokens=2000).json()["choices"][0]
    assert choice["finish_reason"] == "length" and 150 < choice["message"]["content"].count("no") < 200
    script.markup = "no " * 100
    assert server.chat(USER, max_tokens=2000).json()["choices"][0]["message"]["content"].count("no") == 100


def test_calls_in_a_stream(server: Running, script: Script) -> None:
    script.markup = CALL + CALL.replace("hall", "bath")
    for parallel, rooms in ((True, ["hall", "bath"]), (False, ["hall"])):
        chunks = server.chat(USER, tools=[LIGHTS], stream=True, parallel_tool_calls=parallel).events
        choices = [chunk["choices"][0] for chunk in chunks]
        calls = [call for choice in choices for call in choice["delta"].get("tool_calls", [])]
        assert [call["index"] for call in calls] == list(range(len(rooms)))
        assert [call["function"]["arguments"] for call in calls] == [f'{{"room": "{room}"}}' for room in rooms]
        assert choices[-1]["finish_reason"] == "tool_calls"


def test_tools_that_may_not_be_called(server: Running, script: Script) -> None:
    script.markup = "No."
    server.chat(USER, tools=[LIGHTS], tool_choice="none")
    assert "<|tool>" not in script.prompts[0] and script.bound == [False]


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "lights"}}, {"type": "function", "name": "lights"}]
)
def test_a_call_that_must_come(server: Running, choice: Any) -> None:
    """The model has random weights, and writes a call as it is declared all the same."""
    schema = {"type": "object", "properties": {"room": {"enum": ["hall", "bath"]}}, "required": ["room"]}
    tool = {"type": "function", "function": {"name": "lights", "parameters": schema}}
    answer = server.chat(USER, tools=[tool], tool_choice=choice, parallel_tool_calls=False, max_tokens=60)
    (selected,) = answer.json()["choices"]
    (call,) = selected["message"]["tool_calls"]
    assert call["function"]["name"] == "lights" and selected["finish_reason"] == "tool_calls"
    assert json.loads(call["function"]["arguments"])["room"] in ("hall", "bath")


@pytest.mark.parametrize(("choice", "calls"), [("required", True), ("auto", None), ("none", False)])
def test_functions_and_a_form_of_the_answer(server: Running, choice: str, calls: bool | None) -> None:
    """The model has random weights: it calls as declared, or answers in JSON, and nothing else."""
    schema = {"type": "object", "properties": {"room": {"enum": ["hall", "bath"]}}, "required": ["room"]}
    closed = {**schema, "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "lights", "parameters": closed}}
    form = {"type": "json_schema", "json_schema": {"name": "room", "strict": True, "schema": closed}}
    for seed in range(4):
        options = {"tool_choice": choice, "parallel_tool_calls": False, "temperature": 2, "seed": seed}
        answer = server.chat(USER, tools=[tool], response_format=form, max_tokens=99, **options).json()["choices"][0]
        written = answer["message"]["content"] or answer["message"]["tool_calls"][0]["function"]["arguments"]
        assert json.loads(written)["room"] in ("hall", "bath")
        assert calls is None or calls == (answer["finish_reason"] == "tool_calls")


def test_a_form_that_cannot_be_compiled(server: Running) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "text"}}}
    error = server.chat(USER, tools=[LIGHTS], response_format=form).error
    assert (error["param"], error["message"][:32]) == ("response_format", "Cannot compile the JSON schema: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tool_choice": {"type": "function", "name": "doors"}}, "There is no function 'doors' to call, only lights"),
        (
            {"tool_choice": "always"},
            "tool_choice must be auto, none, required, or an object with the name of a function",
        ),
        (
            {"tool_choice": {"type": "custom"}},
            "tool_choice must be auto, none, required, or an object with the name of a function",
        ),
        (
            {"tool_choice": "required", "tools": None},
            "tool_choice asks for a call, but there are no tools; send tools",
        ),
    ],
)
def test_choices_that_are_wrong(server: Running, options: dict[str, Any], message: str) -> None:
    reply = server.chat(USER, **{"tools": [LIGHTS], **options})
    assert (reply.status, reply.error["message"]) == (400, message)


def test_a_call_that_is_cut_short_is_none(server: Running, script: Script) -> None:
    script.markup = f"Wait.{CALL}"
    length = len(server.service.processor.tokenizer.encode_markup(script.markup))
    choice = server.chat(USER, tools=[LIGHTS], max_tokens=length - 1).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Wait.", "length")
    assert "tool_calls" not in choice["message"]


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ({"type": "web_search"}, "tools[0].type must be function"),
        (
            {"type": "function", "function": {"name": "a b"}},
            'tool 1 in tools needs a "name" without spaces, braces and',
        ),
        (
            {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"minProperties": 1}}},
            "A strict function cannot be held to minProperties of f; leave that out, or strict",
        ),
        (
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "strict": True,
                    "parameters": {"properties": {f"k{n}": {} for n in range(5000)}},
                },
            },
            "Cannot compile the tools: of the 5,000 properties of an object, at most 900 can be held",
        ),
        (
            {"type": "function", "function": {"name": "f", "parameters": []}},
            "the parameters of tool 1 in tools must be an object",
        ),
    ],
)
def test_declarations_that_are_wrong(server: Running, tool: dict[str, Any], message: str) -> None:
    reply = server.chat(USER, tools=[tool])
    assert (reply.status, reply.error["message"][: len(message)]) == (400, message)


def test_functions_that_are_not_strict_are_held_as_far_as_possible(server: Running, script: Script) -> None:
    script.markup = CALL
    for more, is_bound in (({"minProperties": 1}, True), ({"properties": {f"k{n}": {} for n in range(5000)}}, False)):
        function = {**LIGHTS["function"], "parameters": {**LIGHTS["function"]["parameters"], **more}}
        server.chat(USER, tools=[{"type": "function", "function": function}])
        assert script.bound.pop() == is_bound


def test_thoughts_are_apart_and_counted(server: Running, script: Script) -> None:
    script.markup = "<|channel>thought\nHm, hm.<channel|>Hello."
    answer = server.chat(USER, reasoning_effort="high").json()
    message = answer["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"], message["reasoning"]) == ("Hello.", "Hm, hm.", "Hm, hm.")
    counts = answer["usage"]
    assert 3 < counts["completion_tokens_details"]["reasoning_tokens"] < counts["completion_tokens"] - 3
    deltas = [chunk["choices"][0]["delta"] for chunk in server.chat(USER, stream=True).events]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hm, hm."
    assert "".join(delta.get("content") or "" for delta in deltas) == "Hello."
