"""Chats over HTTP with the demo, as clients send them."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from golden import answered, named, said, seen
from reference_cases import DESCRIBE, GOOGLE, TURNS, media_file
from servers import Running, serving

from mlx_gemma4 import Session
from mlx_gemma4.decoder.budget import MemoryFull
from mlx_gemma4.serve.limits import Limits
from mlx_gemma4.serve.priority import Turn

LIMITS = Limits(context=600, body=1_000_000, media=3, idle=1.0)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(sessions=2, waiting=1, limits=LIMITS) as running:
        yield running


def data(name: str) -> str:
    return base64.b64encode(media_file(name).read_bytes()).decode()


def image(name: str, **options: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data(name)}", **options}}


def sound(name: str) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": data(name), "format": "wav"}}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


PICTURE = user(image("picture-02.png"), text(DESCRIBE))


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_picture_is_named(server: Running) -> None:
    reply = server.chat(PICTURE, model="demo")
    (choice,) = reply.json()["choices"]
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert (choice["message"]["content"], choice["finish_reason"]) == (named("picture-02.png"), "stop")
    usage = reply.json()["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens_details"] == {"reasoning_tokens": 0}


def test_sound_is_transcribed_and_counted(server: Running) -> None:
    reply = server.chat(user(text(GOOGLE), sound("pico-04.wav")))
    assert reply.json()["choices"][0]["message"]["content"] == said("pico-04.wav")
    samples = (media_file("pico-04.wav").stat().st_size - 44) // 2
    assert reply.json()["usage"]["prompt_tokens_details"]["audio_tokens"] == -(-samples // 640)


def test_a_spoken_question_about_a_picture(server: Running) -> None:
    parts = [image(part["image"]) if "image" in part else sound(part["audio"]) for part in TURNS["question"]]
    assert server.chat(user(*parts)).json()["choices"][0]["message"]["content"] == answered("question").text


def test_a_stream_says_the_same(server: Running) -> None:
    reply = server.chat(PICTURE, stream=True, stream_options={"include_usage": True})
    *chunks, last = reply.events
    assert reply.headers["content-type"].startswith("text/event-stream")
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}
    assert "".join(delta.get("content", "") for delta in deltas) == named("picture-02.png")
    assert len(deltas) > 4 and chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert last["usage"]["completion_tokens"] == server.chat(PICTURE).json()["usage"]["completion_tokens"]


def test_what_was_computed_is_not_computed_again(server: Running) -> None:
    """The second turn goes on from the first, and another question about the same picture from the picture."""
    engine, store = server.service.engine, server.service.store
    engine.run(store.clear)
    first = server.chat(PICTURE).json()
    answer = first["choices"][0]["message"]["content"]
    second = server.chat(PICTURE, {"role": "assistant", "content": answer}, user(text("one"))).json()
    other = server.chat(user(image("picture-02.png"), text("What changed?"))).json()
    cached = [reply["usage"]["prompt_tokens_details"]["cached_tokens"] for reply in (first, second, other)]
    assert cached[0] == 0 and 64 < cached[2] < cached[1]
    assert cached[1] == first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"] - 1
    engine.run(store.clear)
    alone = server.chat(user(image("picture-02.png"), text("What changed?"))).json()
    assert alone["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert alone["choices"] == other["choices"]


def test_memory_that_is_used_up(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversations that nobody waits for leave first; then the request is refused, and the next one is answered."""
    extend, attempts = Session.extend, [0]

    def full(session: Session, piece: Any, **options: Any) -> Any:
        attempts[0] += 1
        raise MemoryFull("This needs 9.00 GB more")

    def full_once(session: Session, piece: Any, **options: Any) -> Any:
        monkeypatch.setattr(Session, "extend", extend)
        raise MemoryFull("This needs 9.00 GB more")

    monkeypatch.setattr(Session, "extend", full)
    reply = server.chat(PICTURE)
    assert (reply.status, reply.error["code"], reply.error["message"], attempts) == (
        503,
        "memory_full",
        "This needs 9.00 GB more",
        [2],
    )
    monkeypatch.setattr(Session, "extend", full_once)
    assert server.chat(PICTURE).json()["choices"][0]["message"]["content"] == named("picture-02.png")
    assert len(server.service.store) == 1


def test_the_answer_is_cut_where_the_client_wants(server: Running) -> None:
    first = named("picture-02.png").split()[0]
    short = server.chat(PICTURE, max_tokens=1).json()
    assert short["choices"][0]["message"]["content"] == first
    assert (short["choices"][0]["finish_reason"], short["usage"]["completion_tokens"]) == ("length", 1)
    stopped = server.chat(PICTURE, stop=[named("picture-02.png").split()[1]]).json()
    assert stopped["choices"][0]["message"]["content"].strip() == first
    assert stopped["choices"][0]["finish_reason"] == "stop"


def test_probabilities_of_tokens(server: Running) -> None:
    answer = server.chat(PICTURE, logprobs=True, top_logprobs=2).json()["choices"][0]
    tokens = answer["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == answer["message"]["content"] == named("picture-02.png")
    for token in tokens:
        assert bytes(token["bytes"]).decode() == token["token"]
        first, second = token["top_logprobs"]
        assert {**first, "top_logprobs": token["top_logprobs"]} == token
        assert -0.7 < first["logprob"] <= 0 and second["logprob"] < first["logprob"]
    streamed = server.chat(PICTURE, logprobs=True, top_logprobs=2, stream=True).events
    parts = [chunk["choices"][0]["logprobs"]["content"] for chunk in streamed if "logprobs" in chunk["choices"][0]]
    assert [token for part in parts for token in part] == tokens


def test_a_seed_gives_the_same_answer(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo is sure of what it knows, and ends everything else at once: its first tokens are suppressed."""
    processor = server.service.processor
    monkeypatch.setattr(processor, "suppressed_ids", (*processor.suppressed_ids, *processor.stop_ids))
    options = {"temperature": 2, "max_tokens": 8}
    texts = [
        server.chat(user(text(DESCRIBE)), seed=seed, **options).json()["choices"][0]["message"]["content"]
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_another_name_of_the_model(server: Running) -> None:
    assert server.chat(PICTURE, model="other-name", max_tokens=1).status == 200
    reply = server.chat(PICTURE, model="gpt-5")
    assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "model_not_found", "model")
    assert reply.error["message"] == "The model 'gpt-5' does not exist; this server has demo. --name adds other names"


@pytest.mark.parametrize(
    ("messages", "status", "code", "message"),
    [
        (
            [user(image("question.wav"))],
            400,
            "invalid_image",
            "messages[0].content[0]: Expected an image as AVIF, BMP, GIF, ICO, JPEG, JPEG 2000, PNG, PPM, QOI, TGA, "
            "TIFF or WebP in the image, got something else, or one that is damaged; export it as JPEG or PNG",
        ),
        ([user(sound("question.png"))], 400, "invalid_audio", "messages[0].content[0]: "),
        (
            [user(image("question.png", detail="huge"))],
            400,
            "invalid_value",
            "The detail of messages[0].content[0] must be one of auto, low, high, original",
        ),
        (
            [user(*[image("question.png")] * 4)],
            400,
            "invalid_value",
            "A request may hold at most 3 pictures, sounds and videos",
        ),
        (
            [{"role": "user", "content": "one " * 700}],
            400,
            "context_length_exceeded",
            "The messages have ",
        ),
    ],
)
def test_requests_that_cannot_be_answered(
    server: Running, messages: list[Any], status: int, code: str, message: str
) -> None:
    reply = server.chat(*messages)
    assert (reply.status, reply.error["code"]) == (status, code)
    assert reply.error["message"].startswith(message) and "/tmp" not in reply.error["message"]


def test_an_answer_in_json(server: Running) -> None:
    """It follows the schema, token by token, in a stream as well."""
    colour, shape, *_ = named("picture-02.png").split()
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": [colour, "no"]}, "shape": {"enum": ["no", shape]}},
        "required": ["colour", "shape"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "card", "strict": True, "schema": schema}}
    whole = server.chat(PICTURE, response_format=form).json()["choices"][0]
    assert set(json.loads(whole["message"]["content"])) == {"colour", "shape"} and whole["finish_reason"] == "stop"
    chunks = server.chat(PICTURE, response_format=form, stream=True).events
    deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(deltas) == whole["message"]["content"]
    reply = server.chat(PICTURE, response_format={"type": "json_schema", "json_schema": {"schema": {"type": "x"}}})
    assert (reply.status, reply.error["param"]) == (400, "response_format")
    assert reply.error["message"].startswith("Cannot compile the JSON schema: ")


def test_a_template_without_tools_refuses_them(server: Running) -> None:
    tools = [{"type": "function", "function": {"name": "lights"}}]
    reply = server.chat(PICTURE, tools=tools)
    assert reply.error["message"] == "This checkpoint's chat template does not write tools; leave them out"
    assert server.chat(PICTURE, tools=tools, tool_choice="none", max_tokens=1).status == 200


def test_bodies_are_bounded(server: Running) -> None:
    reply = server.send("POST", "/v1/chat/completions", b" " * 1_000_001)
    assert (reply.status, reply.error["message"]) == (413, "The body of a request may have at most 1 MB")
    connection = server.connect()
    connection.request("POST", "/v1/chat/completions", iter([b" " * 600_000] * 2), encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_client_that_sends_nothing_is_not_waited_for(server: Running) -> None:
    connection = server.connect()
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"{")
    response = connection.getresponse()
    assert (response.status, b"Nothing was received for 1 s" in response.read()) == (408, True)
    connection.close()


class Endless:
    """Opens streams that have begun and do not end by themselves."""

    def __init__(self, server: Running) -> None:
        self._server = server
        self._opened: list[http.client.HTTPConnection | http.client.HTTPResponse] = []

    def open(self) -> None:
        connection = self._server.connect()
        body = b'{"stream":true,"max_tokens":500,"messages":[{"role":"user","content":"one"}]}'
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.readline().startswith(b"data: ")
        self._opened += [response, connection]

    def close(self) -> None:
        for each in self._opened:
            each.close()


@pytest.fixture
def endless(server: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endless]:
    monkeypatch.setattr(server.service.processor, "stop_ids", frozenset())
    opened = Endless(server)
    yield opened
    opened.close()


def test_a_client_that_goes_away_ends_its_answer(server: Running, endless: Endless) -> None:
    before = server.service.engine.turns[Turn.DECODE]
    endless.open()
    endless.close()
    until(lambda: server.service.engine.active == 0)
    assert server.service.engine.turns[Turn.DECODE] < before + 450


def test_requests_beyond_the_queue_are_refused(server: Running, endless: Endless) -> None:
    endless.open()
    endless.open()
    waiting = server.connect()
    waiting.request("POST", "/v1/chat/completions", b'{"max_tokens":1,"messages":[{"role":"user","content":"one"}]}')
    until(lambda: server.service.engine.waiting == 1)
    reply = server.chat(PICTURE)
    assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, "server_overloaded", "1")
    assert reply.error["message"].startswith("All 2 sessions are in use and 1 requests wait already; try again later")
    endless.close()
    assert waiting.getresponse().status == 200
    waiting.close()


def test_answers_beside_others_are_as_if_alone(server: Running, endless: Endless) -> None:
    endless.open()
    tokens = len(seen("picture-02.png").tokens) - 1
    answer = server.chat(PICTURE, max_tokens=tokens).json()["choices"][0]
    assert (answer["message"]["content"], answer["finish_reason"]) == (named("picture-02.png"), "length")
    assert server.service.engine.active == 1


def test_figures(server: Running) -> None:
    until(lambda: server.service.engine.active == 0)
    lines = server.get("/metrics").body.decode().splitlines()
    figures = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(figures['mlx_gemma4_requests_total{route="/v1/chat/completions",status="200"}']) > 5
    assert figures["mlx_gemma4_sessions"] == figures["mlx_gemma4_waiting"] == "0"
    assert float(figures["mlx_gemma4_prompt_tokens_total"]) > 0
    assert float(figures["mlx_gemma4_answer_tokens_total"]) > 0
    assert "# TYPE mlx_gemma4_sessions gauge" in lines
