"""Random requests for a server: right ones, and ones with damage of all kinds. Each depends on its Random alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from client_parts import base64_of, media

JSON = {"Content-Type": "application/json"}
PICTURE, SOUND = "picture-02.png", "espeak-00.wav"
JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3.7, 1e308, -1e308, 2**63, 2**65, float("nan"), float("inf")),
    *("", "x", "\ud800", "\0", "a" * 3000, "<|turn>", "<|image|>", "<|audio|>", "<bos>", "{}", "data:,x", "../x"),
    *([], {}, [[]], {"a": 1}, [None], ["x"], {"type": "text"}, {"type": "image_url", "image_url": "data:image/png,x"}),
)
"""What is put in the place of a value."""
SCHEMAS: tuple[Any, ...] = (
    {"type": "object"},
    {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"], "additionalProperties": False},
    {"type": "array", "items": {"$ref": "#"}},
    {"$ref": "#/nowhere"},
    {"not": {}},
    {"type": "text"},
    {"enum": []},
    True,
)
METHODS = ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "POST")
PATHS = ("/", "/v1", "/v1/", "/v1/models", "/v1/models/demo", "/v1/models/%00", "/v1/models//x", "/v1/realtime", "/x")


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def make_request(random: Random) -> Request:
    """One of all routes."""
    kinds = (chat, chat, chat, responses, responses, messages, messages, count, speech, speech, other)
    return random.choice(kinds)(random)


def chat(random: Random) -> Request:
    turns = [turn(random) for _ in range(random.randint(0, 3))]
    asked = {"role": "user", "content": random.sample(parts(), random.randint(1, 2))}
    schema = {"name": "x", "schema": random.choice(SCHEMAS), "strict": random.choice([True, None])}
    forms = [None, None, {"type": "text"}, {"type": "json_object"}, {"type": "json_schema", "json_schema": schema}]
    return damaged(
        random,
        "/v1/chat/completions",
        {
            "model": "demo",
            "messages": [*turns, asked],
            "max_tokens": random.randint(1, 4),
            "temperature": random.choice([0, 1, 2]),
            "top_p": random.random(),
            "top_k": random.choice([0, 1, -1, 10**9, 40]),
            "min_p": random.choice([None, 0.1]),
            "repetition_penalty": random.choice([None, 1.1]),
            "stop": random.choice([None, "a", ["a", "b"]]),
            "seed": random.choice([None, 1, 2**64 - 1]),
            "stream": random.choice([True, False, None]),
            "stream_options": random.choice([None, {"include_usage": True}]),
            "logprobs": random.choice([True, None, None, None]),
            **offered(random, tools(random), (None, "auto", "none", "required", {"type": "function", "name": "f"})),
            "reasoning_effort": random.choice([None, "low"]),
            "response_format": random.choice(forms),
        },
    )


def turn(random: Random) -> dict[str, Any]:
    made: dict[str, Any] = {
        "role": random.choice([*("system", "user", "assistant", "developer") * 3, "tool", "function"]),
        "content": random.choice(["Hi", "Hi", "", random.sample(parts(), random.randint(0, 3)), None]),
    }
    if random.random() < 0.1:
        function = {"name": "f", "arguments": random.choice(['{"a":1}', "{", "", "[]", {"a": 1}])}
        made["tool_calls"] = [{"id": "c", "type": "function", "function": function}]
    if random.random() < 0.1:
        made["tool_call_id"] = random.choice(["c", "d", None])
    return made


def parts() -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": "Describe the image."},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64_of(PICTURE)}", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": base64_of(SOUND), "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{base64_of(SOUND)}"}},
        {"type": "refusal", "refusal": "no"},
    ]


def tools(random: Random) -> list[Any]:
    function = {"name": random.choice(["f", "g"]), "parameters": random.choice(SCHEMAS)}
    return [{"type": "function", "function": function} for _ in range(random.randint(1, 2))]


def offered(random: Random, tools: list[Any], choices: tuple[Any, ...]) -> dict[str, Any]:
    return {"tools": tools, "tool_choice": random.choice(choices)} if random.random() < 0.3 else {}


def responses(random: Random) -> Request:
    items: list[Any] = [
        {"role": "user", "content": "Hello"},
        {"role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_image", "image_url": f"data:image/png;base64,{base64_of(PICTURE)}"}],
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": random.choice(["{}", "{", '{"a": 1}'])},
        {"type": "function_call_output", "call_id": random.choice("cd"), "output": random.choice(["on", "", []])},
        {"type": "reasoning", "summary": []},
    ]
    form = {"type": "json_schema", "name": "x", "schema": random.choice(SCHEMAS)}
    functions: list[Any] = [{"type": "function", "name": "f", "parameters": random.choice(SCHEMAS)}, {"type": "shell"}]
    return damaged(
        random,
        "/v1/responses",
        {
            "model": "demo",
            "input": random.choice(["Hello", random.sample(items, random.randint(1, 4))]),
            "instructions": random.choice([None, "Be brief.", ""]),
            "max_output_tokens": random.randint(1, 4),
            "stream": random.choice([True, False]),
            **offered(random, functions, (None, "auto", "required")),
            "text": random.choice([None, {}, {"format": {"type": "text"}}, {"format": form}]),
            "reasoning": random.choice([None, {"effort": "low"}]),
        },
    )


def messages(random: Random) -> Request:
    return damaged(random, "/v1/messages", anthropic(random))


def count(random: Random) -> Request:
    return damaged(random, "/v1/messages/count_tokens", anthropic(random))


def anthropic(random: Random) -> dict[str, Any]:
    picture = {"type": "base64", "media_type": "image/png", "data": base64_of(PICTURE)}
    blocks: list[Any] = [
        {"type": "text", "text": "Hello"},
        {"type": "image", "source": picture},
        {"type": "tool_use", "id": "a", "name": "f", "input": {}},
        {"type": "tool_result", "tool_use_id": random.choice("ab"), "content": random.choice(["on", None, []])},
        {"type": "thinking", "thinking": "", "signature": ""},
    ]
    turns = [
        {
            "role": random.choice(["user", "assistant", "system"]),
            "content": random.choice(["Hello", random.sample(blocks, random.randint(0, 3))]),
        }
        for _ in range(random.randint(0, 3))
    ]
    choices = (None, {"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "f"})
    return {
        "model": "demo",
        "max_tokens": random.randint(1, 4),
        "system": random.choice([None, "Be brief.", [{"type": "text", "text": "Be brief."}]]),
        "messages": [*turns, {"role": "user", "content": "Hello"}],
        "stream": random.choice([True, False]),
        **offered(random, [{"name": "f", "input_schema": random.choice(SCHEMAS)}], choices),
        "output_config": random.choice([None, {"format": {"type": "json_schema", "schema": random.choice(SCHEMAS)}}]),
        "thinking": random.choice([None, {"type": "enabled", "budget_tokens": 1024}]),
    }


def speech(random: Random) -> Request:
    """A form, with a recording that may be damaged."""
    data = bytearray(media(SOUND))
    if random.random() < 0.4:
        for _ in range(random.randint(1, 20)):
            data[random.randrange(len(data))] = random.randrange(256)
    if random.random() < 0.2:
        del data[random.randrange(len(data)) :]
    fields = {
        "model": random.choice(["demo", "whisper-1", ""]),
        "response_format": random.choice(["json", "text", "srt", "vtt", "verbose_json", "verbose_json", "x"]),
        "stream": random.choice(["true", "false", "x"]),
        "language": random.choice(["en", "de", "xx", "\ud800"]),
        "keywords[]": random.choice(["seven", "x" * 5000, ""]),
        "prompt": random.choice(["Numbers.", "<|turn>", ""]),
        "temperature": random.choice(["0", "1", "nan", "x"]),
        "timestamp_granularities[]": random.choice(["word", "segment", "x"]),
        "chunking_strategy": random.choice(["auto", "x", '{"type":"server_vad","silence_duration_ms":1e99}', "{"]),
    }
    chosen = random.sample(sorted(fields), random.randint(0, 4))
    edge = b"----edge"
    lines = [edge, b'Content-Disposition: form-data; name="file"; filename="a.wav"', b"", bytes(data)]
    if random.random() < 0.1:
        lines = []
    for name in chosen:
        head = f'Content-Disposition: form-data; name="{name}"'.encode()
        lines += [edge, head, b"", fields[name].encode("utf-8", "surrogatepass")]
    body = b"\r\n".join([*lines, edge + b"--", b""])
    path = random.choice(["/v1/audio/transcriptions", "/v1/audio/transcriptions", "/v1/audio/translations"])
    kind = random.choice(["multipart/form-data; boundary=--edge"] * 9 + ["multipart/form-data", "text/plain", ""])
    return Request("POST", path, cut(random, body), {"Content-Type": kind})


def other(random: Random) -> Request:
    """Any method and path, with odd headers."""
    odd = {
        "Content-Length": "0",
        "Authorization": random.choice(["Bearer", "Basic eA==", "Bearer \xff", ""]),
        "Upgrade": "websocket",
        "Expect": "100-continue",
        "Accept": "text/html",
        "Content-Encoding": "gzip",
    }
    paths = (*PATHS, "/v1/chat/completions", "/v1/audio/transcriptions", "/v1/responses", "/metrics", "/health")
    headers = {name: odd[name] for name in random.sample(sorted(odd), random.randint(0, 2))}
    return Request(random.choice(METHODS), random.choice(paths), b"", headers)


def damaged(random: Random, path: str, record: dict[str, Any]) -> Request:
    """A request whose fields may be replaced, left out or added, and whose bytes may be damaged."""
    record = {name: value for name, value in record.items() if value is not None or random.random() < 0.1}
    for _ in range(random.choice((0, 0, 0, 1, 1, 2))):
        record = replaced(random, record)
    return Request("POST", path, cut(random, json.dumps(record).encode()), JSON)


def replaced(random: Random, record: Any) -> Any:
    place = random.choice(list(places(record)))
    value = deepcopy(random.choice(JUNK))  # what one request changes is not the next one's
    if not place:
        return value if random.random() < 0.2 else record
    *way, last = place
    inner = record
    for step in way:
        inner = inner[step]
    if isinstance(inner, dict) and random.random() < 0.3:
        del inner[last]
    else:
        inner[last] = value
    return record


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*place, key))


def cut(random: Random, body: bytes) -> bytes:
    if random.random() < 0.1 and body:
        changed = bytearray(body)
        for _ in range(random.randint(1, 5)):
            changed[random.randrange(len(changed))] = random.randrange(256)
        body = bytes(changed)
    return body[: random.randrange(len(body))] if random.random() < 0.03 and body else body
