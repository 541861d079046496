"""Anthropic's Messages: blocks in, blocks out, alone and over HTTP with the demo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from golden import named
from reference_cases import DESCRIBE
from servers import Running, serving
from test_serve_chat import data
from test_serve_protocols import CALL, LIGHTS
from test_serve_responses import ids

from mlx_gemma4.serve.events import Began, ChatEvent, Finished, Piece
from mlx_gemma4.serve.protocols.chat_request import Address, ChatRequest, ImageUrl, Text
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.messages_answer import MessagesAnswer
from mlx_gemma4.serve.protocols.messages_request import read_messages

Event = dict[str, Any]


def read(*turns: Any, **fields: Any) -> ChatRequest:
    return read_messages(json.dumps({"max_tokens": 9, "messages": turns or [user("Hello")], **fields}).encode())


def user(*content: Any) -> Event:
    return {"role": "user", "content": content[0] if isinstance(content[0], str) else list(content)}


# requests


def test_fields_have_their_counterparts() -> None:
    request = read(
        system=[
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "!"},
        ],
        stop_sequences=["a"],
        thinking={"type": "enabled", "budget_tokens": 2000},
        top_k=4,
        tools=[
            {"name": "f", "input_schema": {"type": "object"}},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
        metadata={"user_id": "me"},
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"},
    )
    assert [(each.role, each.content) for each in request.messages] == [
        ("system", "Be brief.\n!"),
        ("user", [Text("Hello")]),
    ]
    assert (request.limit, request.stops, request.thinks, request.top_k, request.one_call) == (9, ("a",), True, 4, True)
    assert [tool["function"]["name"] for tool in request.tools or ()] == ["f"]
    assert request.schema == {"type": "object"} and read(output_config={}).schema is None
    assert not read(thinking={"type": "disabled"}).thinks
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    assert read(tools=tools, tool_choice={"type": "any"}).choice == "required"
    assert read(tools=tools, tool_choice={"type": "tool", "name": "f"}).choice == "f"


def test_blocks_are_messages_calls_and_results() -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}
    call = {"type": "tool_use", "id": "a", "name": "lights", "input": {"room": "hall"}}
    thought = {"type": "thinking", "thinking": "Hm", "signature": ""}
    result = {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "on"}, picture]}
    messages = read(
        user(picture, {"type": "text", "text": "On!"}),
        {"role": "assistant", "content": [thought, {"type": "text", "text": "Wait."}, call]},
        user({"type": "text", "text": "Well?"}, result),
    ).messages
    assert [each.role for each in messages] == ["user", "assistant", "tool", "user"]
    assert messages[0].content == [ImageUrl(Address("data:image/png;base64,QUJD")), Text("On!")]
    (made,) = messages[1].tool_calls or ()
    assert (messages[1].content, made.id, made.function.name, made.function.arguments) == (
        "Wait.",
        "a",
        "lights",
        {"room": "hall"},
    )
    seen = [Text("on"), ImageUrl(Address("data:image/png;base64,QUJD"))]
    assert (messages[2].tool_call_id, messages[2].content, messages[3].content) == ("a", seen, [Text("Well?")])


def test_instructions_on_the_way() -> None:
    """Claude Code sends some behind the first message."""
    told = {"role": "system", "content": [{"type": "text", "text": "It is late."}]}
    messages = read(user("Hello"), told, user("Well?"), system="Be brief.").messages
    assert [(each.role, each.content) for each in messages] == [
        ("system", "Be brief."),
        ("user", [Text("Hello")]),
        ("system", "It is late."),
        ("user", [Text("Well?")]),
    ]


@pytest.mark.parametrize(
    ("turn", "fields", "message"),
    [
        ({"role": "robot", "content": "x"}, {}, "messages[0].role must be user, assistant or system"),
        (
            user({"type": "document"}),
            {},
            "messages[0].content[0] of the type 'document' is not supported here, or has no content",
        ),
        (
            user("x"),
            {"tool_choice": {"type": "tool"}},
            "tool_choice must be auto, any, none, or a tool with its name",
        ),
        (
            user("x"),
            {"output_config": {"format": {"type": "json_schema"}}},
            "output_config.format must have the type json_schema, and a schema",
        ),
        (user("x"), {"temperature": 2}, "temperature: Expected float <= 1.0"),
    ],
)
def test_requests_that_are_wrong(turn: Event, fields: Event, message: str) -> None:
    with pytest.raises(Failure) as refused:
        read(turn, **fields)
    assert (refused.value.status, refused.value.message) == (400, message)
    assert refused.value.record()["type"] == "error"


# answers


def told(*events: ChatEvent, **options: Any) -> tuple[list[Event], Event]:
    """The events of a stream, and the whole answer."""
    answer = MessagesAnswer("demo", next_id=ids(), **options)
    parts = [part for event in (Began(10, 4, 0), *events) for part in answer.told(event)]
    return [json.loads(part.partition(b"data: ")[2]) for part in parts], answer.whole()


def test_a_thought_a_text_and_a_call() -> None:
    pieces = [Piece("thought", "Hm"), Piece("text", "Wa"), Piece("text", "it."), Piece("tool_call", CALL)]
    stream, whole = told(*pieces, Finished("stop", 5, 2), tools=[LIGHTS])
    assert [(event["type"], event.get("index")) for event in stream] == [
        ("message_start", None),
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
        ("message_delta", None),
        ("message_stop", None),
    ]
    assert [event["delta"] for event in stream if event["type"] == "content_block_delta"] == [
        {"type": "thinking_delta", "thinking": "Hm"},
        {"type": "text_delta", "text": "Wa"},
        {"type": "text_delta", "text": "it."},
        {"type": "input_json_delta", "partial_json": '{"room": "hall"}'},
    ]
    call = {"type": "tool_use", "id": "toolu_1", "name": "lights"}
    assert stream[8]["content_block"] == {**call, "input": {}}
    usage = {
        "input_tokens": 6,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
    }
    assert whole == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "demo",
        "content": [
            {"type": "thinking", "thinking": "Hm", "signature": ""},
            {"type": "text", "text": "Wait."},
            {**call, "input": {"room": "hall"}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": usage,
    }
    assert stream[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": usage,
    }
    assert stream[0]["message"]["content"] == [] and stream[0]["message"]["stop_reason"] is None


@pytest.mark.parametrize(
    ("finished", "reason", "text"),
    [
        (Finished("stop", 1, 0), "end_turn", None),
        (Finished("length", 1, 0), "max_tokens", None),
        (Finished("stop", 1, 0, "a"), "stop_sequence", "a"),
    ],
)
def test_why_an_answer_ends(finished: Finished, reason: str, text: str | None) -> None:
    _, whole = told(Piece("text", "x"), finished)
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, text)


def test_a_stream_that_fails() -> None:
    (event,) = MessagesAnswer("demo", next_id=ids()).failed(Failure(503, "full", code="server_overloaded"))
    assert event.startswith(b"event: error\n")
    assert json.loads(event.partition(b"data: ")[2]) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "full", "param": None, "code": "server_overloaded"},
    }


# over HTTP


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


def test_the_demo_answers(server: Running) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": data("picture-02.png")}
    body = {
        "max_tokens": 50,
        "messages": [user({"type": "image", "source": source}, {"type": "text", "text": DESCRIBE})],
    }
    whole = server.send("POST", "/v1/messages", body).json()
    assert whole["content"] == [{"type": "text", "text": named("picture-02.png")}]
    counted = server.send("POST", "/v1/messages/count_tokens", {**body, "max_tokens": None}).json()["input_tokens"]
    assert whole["usage"]["input_tokens"] + whole["usage"]["cache_read_input_tokens"] == counted
    stream = server.send("POST", "/v1/messages", {**body, "stream": True, "stop_sequences": ["circle"]}).body.decode()
    assert stream.startswith("event: message_start\n")
    assert '"stop_reason":"stop_sequence","stop_sequence":"circle"' in stream
