"""Requests and answers of the chat protocol, without sockets and without a model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlx_gemma4.outputs.tools.messages import ResultForm
from mlx_gemma4.serve.events import Began, Finished, Piece, TokenChance
from mlx_gemma4.serve.protocols.chat_answer import ChatAnswer
from mlx_gemma4.serve.protocols.chat_messages import chat_messages
from mlx_gemma4.serve.protocols.chat_request import ChatRequest, read_chat
from mlx_gemma4.serve.protocols.data_url import decode_base64, read_data_url
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.work.stops import Stops

HELLO = [{"role": "user", "content": "Hello"}]
LIGHTS = {
    "type": "function",
    "function": {"name": "lights", "parameters": {"properties": {"room": {"type": "string"}}}},
}
CALL = 'call:lights{room:<|"|>hall<|"|>}'


def read(**fields: Any) -> ChatRequest:
    return read_chat(json.dumps({"messages": HELLO, **fields}).encode())


def refusal(**fields: Any) -> Failure:
    with pytest.raises(Failure) as refused:
        read(**fields)
    return refused.value


# requests


def test_fields_that_are_unknown_are_ignored() -> None:
    request = read(user="me", store=True, metadata={"a": "b"}, service_tier="auto", model="m")
    assert (request.model, request.limit, request.stops, request.thinks) == ("m", None, (), False)


def test_null_is_the_same_as_nothing() -> None:
    names = [name for name in ChatRequest.__struct_fields__ if name != "messages"]
    assert read(**dict.fromkeys(names)) == read()


@pytest.mark.parametrize(
    ("fields", "limit"),
    [({"max_tokens": 3}, 3), ({"max_completion_tokens": 4}, 4), ({"max_tokens": 3, "max_completion_tokens": 4}, 4)],
)
def test_the_newer_limit_wins(fields: dict[str, int], limit: int) -> None:
    assert read(**fields).limit == limit


@pytest.mark.parametrize(
    ("fields", "thinks"),
    [
        ({"reasoning_effort": "low"}, True),
        ({"reasoning_effort": "minimal"}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "high", "enable_thinking": False}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
    ],
)
def test_thoughts_on_request(fields: dict[str, Any], thinks: bool) -> None:
    assert read(**fields).thinks is thinks


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"messages": []}, "messages", "messages is empty; send at least one message"),
        ({"messages": [{"role": 1}]}, "messages[0].role", "messages[0].role: Expected str, got int"),
        ({"temperature": 3}, "temperature", "temperature: Expected float <= 2.0"),
        ({"top_p": -1}, "top_p", "top_p: Expected float >= 0.0"),
        ({"max_tokens": 0}, "max_tokens", "max_tokens: Expected int >= 1"),
        ({"max_tokens": "many"}, "max_tokens", "max_tokens: Expected int | null, got str"),
        ({"seed": -1}, "seed", "seed must be from 0 to 18446744073709551615, got -1"),
        ({"top_k": -2}, "top_k", "top_k must be 0 or more, got -2"),
        ({"top_logprobs": 2}, "top_logprobs", "top_logprobs needs logprobs: true"),
        ({"n": 2}, "n", "n must be 1, got 2: send several requests for several answers"),
        (
            {"frequency_penalty": 0.5},
            "frequency_penalty",
            "frequency_penalty is not supported; leave it out, or use repetition_penalty",
        ),
        ({"logit_bias": {"5": 1}}, "logit_bias", "logit_bias is not supported; leave it out"),
        ({"functions": [{}]}, "functions", "functions is the old name of tools; send tools"),
        (
            {"response_format": {"type": "xml"}},
            "response_format",
            "response_format must be text, json_object or json_schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema",
            "response_format.json_schema has no schema",
        ),
        ({"stop": ["x"] * 17}, "stop", "stop takes at most 16 texts of at most 1000 characters"),
        (
            {"reasoning_effort": "huge"},
            "reasoning_effort",
            "reasoning_effort must be one of none, minimal, low, medium, high, xhigh, max",
        ),
    ],
)
def test_fields_that_are_wrong(fields: dict[str, Any], param: str, message: str) -> None:
    failure = refusal(**fields)
    assert (failure.status, failure.param, failure.message) == (400, param, message)
    assert failure.record()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"a":' + b"[" * 100_000])
def test_bodies_that_are_no_json(body: bytes) -> None:
    with pytest.raises(Failure, match=r"^The body is not valid JSON: ") as refused:
        read_chat(body)
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")


def test_forms_of_the_answer() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    assert read(response_format=form).schema == schema
    assert read(response_format={"type": "json_object"}).schema == {"type": "object"}
    assert read(response_format={"type": "text"}).schema is None is read().schema


def test_zero_penalties_and_text_are_what_is_done_anyway() -> None:
    request = read(presence_penalty=0, frequency_penalty=0.0, logit_bias={}, response_format={"type": "text"}, n=1)
    assert request.limit is None


# messages


def decoded(kind: str, data: bytes, detail: str | None, where: str) -> tuple[str, bytes, str | None, str]:
    return kind, data, detail, where


def translate(*messages: dict[str, Any], joins: bool = True, shows: bool = True) -> list[dict[str, Any]]:
    request = read(messages=list(messages))
    return chat_messages(request.messages, decoded, form=ResultForm(joined=joins, shows_media=shows))


def test_parts_stay_in_their_order() -> None:
    content = [
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "REVG", "format": "wav"}},
        {"type": "video_url", "video_url": "data:video/mp4,GHI"},
        {"type": "audio_url", "audio_url": {"url": "data:;base64,SktM"}},
    ]
    assert translate({"role": "user", "content": content}) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is"},
                {"type": "image", "image": ("image", b"ABC", "low", "messages[0].content[1]")},
                {"type": "audio", "audio": ("audio", b"DEF", None, "messages[0].content[2]")},
                {"type": "video", "video": ("video", b"GHI", None, "messages[0].content[3]")},
                {"type": "audio", "audio": ("audio", b"JKL", None, "messages[0].content[4]")},
            ],
        }
    ]


CALLING = {
    "role": "assistant",
    "content": "Wait.",
    "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "lights", "arguments": '{"room": "hall"}'}},
        {"id": "b", "type": "function", "function": {"name": "doors", "arguments": ""}},
    ],
}
RESULTS = [
    {"role": "tool", "tool_call_id": "b", "content": "open"},
    {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "on"}]},
]
DONE = {"role": "assistant", "content": "Done."}
CALLS = [
    {"type": "function", "id": "a", "function": {"name": "lights", "arguments": {"room": "hall"}}},
    {"type": "function", "id": "b", "function": {"name": "doors", "arguments": {}}},
]


def test_results_join_their_calls_where_the_template_wants_that() -> None:
    """And what is said behind them, as the model wrote it: in one turn."""
    assert translate(*HELLO, CALLING, *RESULTS, DONE)[1:] == [
        {"role": "assistant", "content": "Wait."},
        {
            "role": "assistant",
            "content": "Done.",
            "tool_calls": CALLS,
            "tool_responses": [{"name": "doors", "response": "open"}, {"name": "lights", "response": "on"}],
        },
    ]


def test_results_are_messages_where_the_template_wants_that() -> None:
    assert translate(*HELLO, CALLING, *RESULTS, DONE, joins=False)[2:] == [
        {"role": "assistant", "content": "", "tool_calls": CALLS},
        {"role": "tool", "tool_call_id": "b", "name": "doors", "content": "open"},
        {"role": "tool", "tool_call_id": "a", "name": "lights", "content": "on"},
        DONE,
    ]


SEEN = [
    {
        "role": "tool",
        "tool_call_id": "b",
        "content": [
            {"type": "text", "text": "Seen:"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]},
]
FIRST, SECOND = (
    {"type": "image", "image": ("image", data, None, f"messages[{index}].content[{part}]")}
    for data, index, part in ((b"ABC", 2, 1), (b"x", 3, 0))
)


@pytest.mark.parametrize("shows", [True, False])
def test_pictures_of_results_that_join_their_calls(shows: bool) -> None:
    """In the message that calls, or in one of the user where the template takes none there; numbered in their order."""
    _, _, calling, *rest = translate(*HELLO, CALLING, *SEEN, DONE, shows=shows)
    assert calling["tool_responses"] == [
        {"name": "doors", "response": "Seen:\n[image 1]"},
        {"name": "lights", "response": "[image 2]"},
    ]
    media = [FIRST, SECOND]
    assert calling["content"] == (media if shows else "")
    assert rest == ([DONE] if shows else [{"role": "user", "content": media, "shows_results": True}, DONE])


@pytest.mark.parametrize("shows", [True, False])
def test_pictures_of_results_that_are_messages(shows: bool) -> None:
    """Each stands in the message of its result, or they follow in one of the user, also at the end."""
    _, _, _, first, second, *rest = translate(*HELLO, CALLING, *SEEN, joins=False, shows=shows)
    if shows:
        assert first["content"] == [{"type": "text", "text": "Seen:\n[image 1]"}, FIRST]
        assert second["content"] == [{"type": "text", "text": "[image 1]"}, SECOND] and rest == []
    else:
        assert (first["content"], second["content"]) == ("Seen:\n[image 1]", "[image 2]")
        assert rest == [{"role": "user", "content": [FIRST, SECOND], "shows_results": True}]


def test_texts_of_a_system_message_are_one() -> None:
    content = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}]
    assert translate({"role": "developer", "content": content}) == [
        {"role": "system", "content": "Be brief.\nBe kind."}
    ]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"role": "robot", "content": ""}, "messages[0].role must be one of system, developer, user, assistant, tool"),
        ({"role": "user"}, "messages[0] has no content"),
        (
            {"role": "system", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]},
            "messages[0].content[0] must be text: only users and results of calls send media",
        ),
        (
            {"role": "tool", "tool_call_id": "z", "content": "on"},
            "messages[0].tool_call_id names no call of an earlier message; send its id",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[1]"}}]},
            "messages[0].tool_calls[0].function.arguments must be a JSON object, written as text",
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {}}]},
            "messages[0].content[0].type: Invalid value 'file'",
        ),
    ],
)
def test_messages_that_are_wrong(message: dict[str, Any], text: str) -> None:
    with pytest.raises(Failure) as refused:
        translate(message)
    assert (refused.value.status, refused.value.message) == (400, text)


# media in requests


def test_data_is_read_however_it_is_written() -> None:
    assert read_data_url("data:image/png;base64,aGVs\nbG8", "url") == b"hello"
    assert read_data_url("DATA:;BASE64,-_8%3D", "url") == b"\xfb\xff"
    assert read_data_url("data:,a%20b", "url") == b"a b"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("file:///etc/passwd", "url is an address of the kind file:"),
        ("https://example.com/a.png", "url is an address of the kind https:"),
        ("/etc/passwd", "url is a path"),
        ("photo.png", "url is a path"),
    ],
)
def test_no_address_is_opened(url: str, problem: str) -> None:
    with pytest.raises(Failure) as refused:
        read_data_url(url, "url")
    what, remedy = ("fetches nothing", ", or start it with --allow-fetch") if "https" in url else ("opens no files", "")
    expected = f"{problem}. This server {what}: send the data itself, as data:…;base64,…{remedy}"
    assert (refused.value.message, refused.value.code) == (expected, "unsupported_url")


@pytest.mark.parametrize(
    ("text", "problem"), [("a*b", "data is not valid base64"), ("", "data is empty"), ("é", "data is not valid base64")]
)
def test_data_that_is_broken(text: str, problem: str) -> None:
    with pytest.raises(Failure, match=f"^{problem}$"):
        decode_base64(text, "data")
    with pytest.raises(Failure, match=r"^url is a data: URL without a comma; write data:image/png;base64,…$"):
        read_data_url("data:image/png;base64", "url")


# answers


def answer(**options: Any) -> ChatAnswer:
    ids = iter(["call_1", "call_2", "call_3"])
    return ChatAnswer(id="chatcmpl-1", model="demo", created=7, next_id=lambda: next(ids), **options)


BEGAN, ENDED = Began(10, 4, 2), Finished("stop", 5, 3)
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 2},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "demo"}


def test_a_stream() -> None:
    writer = answer(includes_usage=True)
    events = [BEGAN, Piece("thought", "Hm"), Piece("text", "Hel"), Piece("text", "lo"), ENDED]
    *chunks, last = [chunk for event in events for chunk in writer.chunks(event)]
    assert [{**chunk, "choices": None} for chunk in chunks] == [{**HEAD, "choices": None}] * 5
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Hm", "reasoning": "Hm"},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, None, "stop"]
    assert last == {**HEAD, "choices": [], "usage": USAGE}


def test_a_whole_answer() -> None:
    writer = answer()
    for event in (BEGAN, Piece("thought", "Hm"), Piece("text", "Hel"), Piece("text", "lo"), ENDED):
        writer.take(event)
    assert writer.whole() == {
        **HEAD,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "Hello",
                    "refusal": None,
                    "reasoning_content": "Hm",
                    "reasoning": "Hm",
                },
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": USAGE,
    }


LIGHTS_CALL = {"id": "call_1", "type": "function", "function": {"name": "lights", "arguments": '{"room": "hall"}'}}


def test_calls() -> None:
    writer = answer(tools=[LIGHTS])
    chunks = [chunk for event in (BEGAN, Piece("tool_call", CALL), ENDED) for chunk in writer.chunks(event)]
    assert chunks[1]["choices"][0]["delta"] == {"tool_calls": [{"index": 0, **LIGHTS_CALL}]}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    message = writer.whole()["choices"][0]["message"]
    assert (message["content"], message["tool_calls"]) == (None, [LIGHTS_CALL])


def test_one_call_of_several() -> None:
    for one_call, names in ((False, ["lights"] * 3), (True, ["lights"])):
        writer = answer(tools=[LIGHTS], one_call=one_call)
        for event in (BEGAN, Piece("tool_call", CALL + CALL), Piece("tool_call", CALL), ENDED):
            writer.take(event)
        calls = writer.whole()["choices"][0]["message"]["tool_calls"]
        assert [call["function"]["name"] for call in calls] == names


@pytest.mark.parametrize(("tools", "written"), [(None, CALL), ([LIGHTS], "call:lights{room:")])
def test_a_call_that_nobody_can_run_is_text(tools: Any, written: str) -> None:
    """The functions were not offered, or the call cannot be read."""
    writer = answer(tools=tools)
    for event in (BEGAN, Piece("tool_call", written), ENDED):
        writer.take(event)
    choice = writer.whole()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (written, "stop")
    assert "tool_calls" not in choice["message"]


def test_a_call_with_other_arguments_than_declared_is_passed_on() -> None:
    """The client, which runs it, tells the model what is wrong."""
    writer = answer(tools=[LIGHTS])
    writer.take(Piece("tool_call", "call:lamps{room:1}"))
    (call,) = writer.whole()["choices"][0]["message"]["tool_calls"]
    assert call["function"] == {"name": "lamps", "arguments": '{"room": 1}'}


def test_probabilities() -> None:
    chance = TokenChance("Hi", -0.5, b"Hi", (TokenChance("Hi", -0.5, b"Hi"), TokenChance("Ho", float("-inf"), b"Ho")))
    writer = answer(lists_chances=True)
    (chunk,) = writer.chunks(Piece("text", "Hi", (chance,)))
    hi, ho = (
        {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]},
        {"token": "Ho", "logprob": -9999.0, "bytes": [72, 111]},
    )
    listed = {"content": [{**hi, "top_logprobs": [hi, ho]}], "refusal": None}
    assert chunk["choices"][0]["logprobs"] == writer.whole()["choices"][0]["logprobs"] == listed


# stop sequences


@pytest.mark.parametrize(
    ("pieces", "texts", "given", "ended"),
    [
        (["a", "b", "c"], ["bc"], ["a", "", "", ""], True),
        (["a", "b", "d"], ["bc"], ["a", "", "bd", ""], False),
        (["one. ", "two"], [". "], ["one", "", ""], True),
        (["xaab"], ["aab", "ab"], ["x", ""], True),
        (["aa", "b"], ["ab"], ["a", "", ""], True),
        (["ab"], ["abc"], ["", "ab"], False),
        (["ab"], [], ["ab", ""], False),
    ],
)
def test_stop_sequences(pieces: list[str], texts: list[str], given: list[str], ended: bool) -> None:
    stops, found = Stops(texts), []
    for piece in pieces:
        found.append("" if stops.found else stops.push(piece)[0])
    found.append(stops.flush()[0])
    assert (found, stops.found is not None) == (given, ended)


def test_tokens_stay_with_their_text() -> None:
    """Those of the stop sequence are left out."""
    a, b, c = (TokenChance(letter, 0.0, letter.encode()) for letter in "abc")
    stops = Stops(["bx", "cd"])
    assert stops.push("a", [a]) == ("a", (a,))
    assert stops.push("b", [b]) == ("", ())
    assert stops.push("c", [c]) == ("b", (b,))
    assert stops.push("d", [TokenChance("d", 0.0, b"d")]) == ("", ())
    assert (stops.found, stops.flush()) == ("cd", ("", ()))
