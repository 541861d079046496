"""OpenAI's Responses: items in, items out, alone and over HTTP with the demo."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from golden import named
from reference_cases import DESCRIBE
from servers import Running, serving
from test_serve_chat import image, until
from test_serve_protocols import CALL, LIGHTS

from mlx_gemma4.serve.events import Began, ChatEvent, Finished, Piece
from mlx_gemma4.serve.protocols.chat_request import Address, ChatRequest, ImageUrl
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.responses_answer import ResponsesAnswer
from mlx_gemma4.serve.protocols.responses_request import ResponsesRequest, read_responses
from mlx_gemma4.serve.protocols.wire import write

Event = dict[str, Any]


def read(**fields: Any) -> ChatRequest:
    return read_responses(json.dumps({"input": "Hello", **fields}).encode())[1]


def messages(*items: Any) -> list[tuple[Any, ...]]:
    found = read(input=list(items)).messages
    return [(each.role, each.content, each.tool_call_id, [call.id for call in each.tool_calls or ()]) for each in found]


# requests


def test_a_text_is_a_message() -> None:
    request = read(
        instructions="Be brief.",
        max_output_tokens=7,
        reasoning={"effort": "high", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}},
        store=False,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k",
    )
    assert [(each.role, each.content) for each in request.messages] == [("system", "Be brief."), ("user", "Hello")]
    assert (request.limit, request.thinks, request.schema) == (7, True, {"type": "object"})


def test_items_are_messages_calls_and_results() -> None:
    """Several calls in a row are one message; thoughts of before are left out."""
    call = {"type": "function_call", "name": "lights", "arguments": "{}"}
    assert messages(
        {"role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "On!"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Wait.", "annotations": []}],
        },
        {**call, "call_id": "a"},
        {**call, "call_id": "b"},
        {"type": "function_call_output", "call_id": "a", "output": "on"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "on"}]},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_image", "image_url": "data:,x"}]},
        {**call, "call_id": "c"},
    ) == [
        ("developer", "Be brief.", None, []),
        ("user", texts("On!"), None, []),
        ("assistant", texts("Wait."), None, ["a", "b"]),
        ("tool", "on", "a", []),
        ("tool", texts("on"), "b", []),
        ("tool", [ImageUrl(Address("data:,x"))], "b", []),
        ("assistant", None, None, ["c"]),
    ]


def texts(text: str) -> Any:
    return read(input=[{"role": "user", "content": [{"type": "input_text", "text": text}]}]).messages[0].content


def test_functions_are_offered_and_other_tools_left_out() -> None:
    flat = {"type": "function", "name": "lights", "parameters": {"type": "object"}, "strict": True}
    assert read(tools=[{"type": "web_search"}, flat]).tools == [
        {"type": "function", "function": {"name": "lights", "parameters": {"type": "object"}, "strict": True}}
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"previous_response_id": "resp_1"},
            "previous_response_id is not supported: this server keeps no responses; send all items as input",
        ),
        ({"background": True}, "background is not supported; leave it out"),
        ({"input": [{"content": "x"}]}, "input[0] has no role"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0] needs a name and a call_id"),
        (
            {"input": [{"type": "item_reference", "id": "x"}]},
            "input[0] has the type 'item_reference', which is not supported",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file"}]}]},
            "input[0].content[0] of the type 'input_file' is not supported, or has no content of its type",
        ),
        ({"input": []}, "messages is empty; send at least one message"),
        ({"input": 3}, "input: Expected str | array, got int"),
    ],
)
def test_requests_that_are_wrong(fields: Event, message: str) -> None:
    with pytest.raises(Failure) as refused:
        read(**fields)
    assert (refused.value.status, refused.value.message) == (400, message)


# answers


def ids() -> Callable[[str], str]:
    counts: dict[str, int] = {}

    def next_id(prefix: str) -> str:
        counts[prefix] = counts.get(prefix, 0) + 1
        return f"{prefix}_{counts[prefix]}"

    return next_id


def told(*events: ChatEvent, **options: Any) -> tuple[list[Event], Event]:
    """The events of a stream, and the whole answer."""
    answer = ResponsesAnswer(ResponsesRequest(input="Hello"), "demo", 7, next_id=ids(), **options)
    stream = [
        json.loads(part.partition(b"data: ")[2]) for event in (Began(10, 4, 0), *events) for part in answer.told(event)
    ]
    assert [event["sequence_number"] for event in stream] == list(range(len(stream)))
    return stream, answer.whole()


def test_a_thought_and_a_message() -> None:
    stream, whole = told(Piece("thought", "Hm"), Piece("text", "Hel"), Piece("text", "lo"), Finished("stop", 5, 2))
    assert [event["type"].removeprefix("response.") for event in stream] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    thought = {"type": "reasoning_text", "text": "Hm"}
    text = {"type": "output_text", "text": "Hello", "annotations": []}
    assert whole["output"] == [
        {"id": "rs_1", "type": "reasoning", "status": "completed", "summary": [], "content": [thought]},
        {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [text]},
    ]
    assert stream[6]["item"]["content"] == [] and stream[-1]["response"] == whole
    assert (stream[8]["item_id"], stream[8]["output_index"], stream[8]["delta"]) == ("msg_1", 1, "Hel")
    assert whole["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    }
    assert (whole["status"], whole["incomplete_details"], stream[0]["response"]["status"]) == (
        "completed",
        None,
        "in_progress",
    )


def test_calls() -> None:
    stream, whole = told(Piece("text", "Wait."), Piece("tool_call", CALL), Finished("stop", 5, 0), tools=[LIGHTS])
    kinds = [event["type"].removeprefix("response.") for event in stream[-6:]]
    assert kinds == [
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    arguments = '{"room": "hall"}'
    call = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "lights"}
    assert whole["output"][1] == {**call, "arguments": arguments, "status": "completed"}
    assert stream[-5]["item"] == {**call, "arguments": "", "status": "in_progress"}
    assert (stream[-4]["delta"], stream[-3]["arguments"], stream[-2]["output_index"]) == (arguments, arguments, 1)
    _, whole = told(Piece("tool_call", CALL + CALL), Finished("stop", 5, 0), tools=[LIGHTS], one_call=True)
    assert len(whole["output"]) == 1


def test_an_answer_that_is_cut() -> None:
    stream, whole = told(Piece("text", "Hel"), Finished("length", 1, 0))
    assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert whole["output"][0]["status"] == "incomplete" and stream[-1]["type"] == "response.incomplete"


def test_the_form_of_an_answer_is_told_back() -> None:
    """With its name: the types of clients need it."""
    form = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}
    request, _ = read_responses(json.dumps({"input": "Hello", "text": {"format": form}}).encode())
    answer = ResponsesAnswer(request, "demo", 7, next_id=ids())
    answer.take(Began(1, 0, 0))
    assert json.loads(write(answer.whole()))["text"] == {"format": form}


def test_a_stream_that_fails() -> None:
    answer = ResponsesAnswer(ResponsesRequest(input="Hello"), "demo", 7, next_id=ids())
    answer.take(Began(1, 0, 0))
    (event,) = answer.failed(Failure(500, "broken"))
    response = json.loads(event.partition(b"data: ")[2])["response"]
    assert (response["status"], response["error"]) == ("failed", {"code": "server_error", "message": "broken"})


# over HTTP


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


def test_the_demo_answers(server: Running) -> None:
    url = image("picture-02.png")["image_url"]["url"]
    content = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": DESCRIBE}]
    body = {"model": "demo", "input": [{"role": "user", "content": content}]}
    whole = server.send("POST", "/v1/responses", body).json()
    assert whole["output"][0]["content"][0]["text"] == named("picture-02.png")
    stream = server.send("POST", "/v1/responses", {**body, "stream": True}).body.decode()
    last = json.loads(stream.strip().rpartition("data: ")[2])
    assert stream.startswith("event: response.created\ndata: {") and last["type"] == "response.completed"
    assert last["response"]["output"][0]["content"] == whole["output"][0]["content"]
    assert last["response"]["usage"]["input_tokens_details"]["cached_tokens"] == whole["usage"]["input_tokens"] - 1
    until(lambda: server.service.engine.active == 0)
