"""Realtime conversations: the demo behind a WebSocket, with text, pictures and sound as clients send them."""

from __future__ import annotations

import base64
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from conversations import check
from golden import answered, named, utterances
from reference_cases import media_file
from servers import Running, serving
from test_serve_realtime import COMPLETED, DELTA, Event, append, send, until
from test_serve_tools import writing
from websockets.sync.client import ClientConnection, connect

from mlx_gemma4 import Model, Session, load_audio
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.live.hear.rhythm import Moment, Rhythm
from mlx_gemma4.serve.priority import Turn
from mlx_gemma4.serve.protocols.chat_request import ChatRequest
from mlx_gemma4.serve.protocols.realtime_answers import Truncation
from mlx_gemma4.serve.work.histories import Fitted

PICTURE, QUESTION, SPEECH = "picture-02.png", "question", "hibari-03.wav"
ANSWER = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]
"""The events of an answer of text."""
FRAME = 640


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(sessions=2) as running:
        yield running


@pytest.fixture(autouse=True)
def all_places(server: Running) -> None:
    """The connections of the test before are gone."""
    while server.service.engine.active:
        time.sleep(0.01)


@pytest.fixture
def talker(server: Running, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """While this has words, answers go on and on with the first one."""
    words, own = [" a"], Model.logits
    (token,) = server.service.processor.text(" a").token_ids.tolist()[-1:]

    def logits(model: Model, h: mx.array) -> mx.array:
        found = own(model, h)
        return mx.where(mx.arange(found.shape[-1]) == token, found + 1000, found) if words else found

    monkeypatch.setattr(Model, "logits", logits)
    return words


@pytest.fixture
def prompts(server: Running, monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """The prompts that were answered."""
    found, own = list[Prompt](), server.service.histories.fit

    def fit(request: ChatRequest, truncation: Truncation) -> Fitted:
        fitted = own(request, truncation)
        found.append(fitted.question.prompt)
        return fitted

    monkeypatch.setattr(server.service.histories, "fit", fit)
    return found


def rest(server: Running, socket: ClientConnection | None = None) -> None:
    """Wait until the server has taken all that was sent, and nothing is left to compute."""
    if socket is not None:
        send(socket, "session.update", session={"type": "realtime"})
        until(socket, "session.updated")
    quiet = 0
    while quiet < 4:
        waits = all(job.turn == Turn.WAIT and not job.woken for job in list(server.service.engine._active))
        quiet = quiet + 1 if waits else 0
        time.sleep(0.03)


def dial(server: Running, query: str = "?model=demo") -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/v1/realtime{query}", proxy=None, max_size=None)


def text(said: str) -> Event:
    return {"type": "input_text", "text": said}


def image(name: str) -> Event:
    data = base64.b64encode(media_file(name).read_bytes()).decode()
    return {"type": "input_image", "image_url": f"data:image/png;base64,{data}"}


def say(socket: ClientConnection, *content: Event, role: str = "user", **fields: Any) -> Event:
    """Add a message; return its event."""
    item = {"type": "message", "role": role, "content": list(content)}
    send(socket, "conversation.item.create", item=item, **fields)
    return until(socket, "conversation.item.done")[-1]


def hear(socket: ClientConnection, detection: Event | None, **inputs: Any) -> None:
    form = {"type": "audio/pcm", "rate": 16_000}
    inputs = {"format": form, "turn_detection": detection, **inputs}
    send(socket, "session.update", session={"type": "realtime", "audio": {"input": inputs}})
    until(socket, "session.updated")


def speak(socket: ClientConnection, samples: np.ndarray) -> None:
    """Append sound in the order of time: the server hears each block before the next one comes."""
    for start in range(0, len(samples), 1280):
        append(socket, samples[start : start + 1280])
        time.sleep(0.01)


def respond(socket: ClientConnection, **fields: Any) -> list[Event]:
    """Ask for an answer; its events."""
    send(socket, "response.create", **({"response": fields} if fields else {}))
    return until(socket, "response.done")


def kinds(events: Sequence[Event]) -> list[str]:
    """The types of events, deltas in a row once."""
    told = [event["type"] for event in events]
    return [kind for index, kind in enumerate(told) if index == 0 or kind != told[index - 1]]


def answer_of(events: Sequence[Event]) -> str:
    """The text of an answer, which its deltas, its item and its end tell alike."""
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    (message,) = [item for item in events[-1]["response"]["output"] if item["type"] == "message"]
    assert message["content"] == [{"type": "output_text", "text": text}]
    return text


def test_a_session_begins_with_its_settings(server: Running) -> None:
    with dial(server) as socket:
        session = json.loads(socket.recv(timeout=20))["session"]
    assert (session["object"], session["type"], session["model"]) == ("realtime.session", "realtime", "demo")
    assert (session["output_modalities"], session["instructions"], session["tools"]) == (["text"], "", [])
    assert session["audio"]["input"]["transcription"] is None
    assert session["audio"]["input"]["turn_detection"]["create_response"] is True


def test_a_question_about_a_picture(server: Running) -> None:
    with dial(server) as socket:
        done = say(socket, image(PICTURE), text("Describe the image."))
        assert done["item"]["content"] == [{"type": "input_image"}, text("Describe the image.")]
        events = respond(socket)
        assert answer_of(events) == named(PICTURE) and kinds(events) == ANSWER
        response = events[-1]["response"]
        assert (response["status"], response["status_details"]) == ("completed", None)
        usage = response["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        details = usage["input_token_details"]
        assert details["image_tokens"] > 0 == details["audio_tokens"]
        assert details["text_tokens"] + details["image_tokens"] == usage["input_tokens"]


def test_a_spoken_question_is_in_the_cache_when_it_ends(server: Running) -> None:
    """The answer computes what is behind the last frames that were computed, and no more."""
    with dial(server) as socket:
        hear(socket, {"type": "server_vad"}, transcription={"language": "en"})
        say(socket, image(f"{QUESTION}.png"))
        speak(socket, np.pad(load_audio(media_file(f"{QUESTION}.wav")), (0, 16_000)))
        events = until(socket, "response.done")
    assert answer_of(events) == answered(QUESTION).text
    told = kinds([event for event in events if not event["type"].startswith("response.output")])
    assert told[0] == "input_audio_buffer.speech_started"
    order = ["speech_stopped", "committed", "conversation.item.added", "conversation.item.done", "response.created"]
    places = [next(place for place, kind in enumerate(told) if kind.endswith(name)) for name in order]
    assert places == sorted(places)
    words = [event for event in events if event["type"] in (DELTA, COMPLETED)]
    assert "".join(event["delta"] for event in words[:-1]) == words[-1]["transcript"] == "which colour is it"
    details = events[-1]["response"]["usage"]["input_token_details"]
    new = events[-1]["response"]["usage"]["input_tokens"] - details["cached_tokens"]
    assert details["audio_tokens"] > 20 and new <= 12


def test_a_client_commits(server: Running) -> None:
    with dial(server) as socket:
        hear(socket, None, transcription={"language": "en"})
        say(socket, text("Transcribe the audio."))
        append(socket, load_audio(media_file(SPEECH)))
        send(socket, "input_audio_buffer.commit")
        until(socket, "conversation.item.done")
        events = respond(socket)
        events += [] if any(event["type"] == COMPLETED for event in events) else until(socket, COMPLETED)
    (done,) = [event for event in events if event["type"] == "response.done"]
    said = " ".join(utterances(SPEECH))
    assert done["response"]["output"][0]["content"][0]["text"] == said
    (completed,) = [event for event in events if event["type"] == COMPLETED]
    assert completed["transcript"] == said


def test_a_conversation_becomes_a_transcription_before_anything_was_said(server: Running) -> None:
    with dial(server) as socket:
        created = json.loads(socket.recv(timeout=20))["session"]
        send(socket, "session.update", session={"type": "transcription"})
        updated = json.loads(socket.recv(timeout=20))["session"]
        assert (updated["id"], updated["type"]) == (created["id"], "transcription")
        send(socket, "response.create")
        assert json.loads(socket.recv(timeout=20))["error"]["code"] == "unsupported_event"
    with dial(server) as socket:
        until(socket, "session.created")
        say(socket, text("Hello"))
        send(socket, "session.update", session={"type": "transcription"})
        error = json.loads(socket.recv(timeout=20))["error"]
        assert error["message"].startswith("The type of this session is realtime, and stays so")
    with dial(server) as socket:  # with sound that the work has, whatever became of it
        until(socket, "session.created")
        append(socket, np.zeros(8000, np.float32))
        for kind in ("input_audio_buffer.commit", "input_audio_buffer.clear"):
            send(socket, kind)
        send(socket, "session.update", session={"type": "transcription"})
        while (event := json.loads(socket.recv(timeout=20)))["type"] != "error":
            pass
        assert event["error"]["message"].startswith("The type of this session is realtime, and stays so")


def test_how_long_somebody_spoke_makes_no_difference(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the end of a turn, an answer computes what closes the turn, in one forward: all frames were computed."""

    def often(self: Rhythm, moment: Moment) -> int:
        return moment.waiting if moment.waiting >= 40 or moment.until_complete is not None else 0

    monkeypatch.setattr(Rhythm, "next", often)
    new, forwards, speech = [], [], load_audio(media_file(SPEECH))[8000:]
    for seconds in (3, 28):
        with dial(server) as socket:
            hear(socket, {"type": "server_vad", "silence_duration_ms": 2000})
            say(socket, text("Transcribe the audio."))
            append(socket, np.resize(speech, seconds * 16_000))
            rest(server, socket)
            send(socket, "session.update", session={"type": "realtime", "max_output_tokens": 1})
            rest(server, socket)
            before = server.service.engine.turns[Turn.PREFILL]
            append(socket, np.zeros(40_000, np.float32))
            usage = until(socket, "response.done")[-1]["response"]["usage"]
            while server.service.engine.turns[Turn.PREFILL] < before + 2:
                time.sleep(0.01)
            rest(server)
            forwards.append(server.service.engine.turns[Turn.PREFILL] - before)
            assert usage["input_token_details"]["audio_tokens"] >= seconds * 20
            new.append(usage["input_tokens"] - usage["input_token_details"]["cached_tokens"])
    assert new[0] == new[1] == 6  # <audio|> <turn|> \n <|turn> model \n
    assert forwards[0] == forwards[1] == 2  # that, and then the history with the answer, while nobody waits


def test_speech_interrupts_an_answer(server: Running, talker: list[str], prompts: list[Prompt]) -> None:
    """The history has what was delivered, no more; the next answer is computed as in a session that began with it."""
    with dial(server) as socket:
        hear(socket, {"type": "server_vad"})
        say(socket, text("Tell."))
        send(socket, "response.create")
        until(socket, "response.output_text.delta", 3)
        sound = np.pad(load_audio(media_file(f"{QUESTION}.wav")), (0, 16_000))
        speak(socket, sound[:12_800])
        events = until(socket, "response.done")
        talker.clear()  # the next answer is the model's own
        speak(socket, sound[12_800:])
        events += until(socket, "response.done")
    cancelled, done = (event["response"] for event in events if event["type"] == "response.done")
    assert cancelled["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert done["status"] == "completed"
    (item,) = cancelled["output"]
    told = item["content"][0]["text"]
    rest_of_it = "".join(event["delta"] for event in events if event.get("item_id") == item["id"] and "delta" in event)
    assert told.endswith(rest_of_it) and told.startswith(" a a") and item["status"] == "incomplete"
    started = next(place for place, event in enumerate(events) if event["type"].endswith("speech_started"))
    assert not [
        event
        for event in events[started + 1 :]
        if event["type"] == "response.output_text.delta" and event["item_id"] == item["id"]
    ]
    spoken = next(event for event in events if event["type"].endswith("speech_stopped"))
    begin = next(event for event in events if event["type"].endswith("speech_started"))
    heard = sound[begin["audio_start_ms"] * 16 : spoken["audio_end_ms"] * 16]
    messages: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "Tell."}]},
        {"role": "assistant", "content": told},
        {"role": "user", "content": [{"type": "audio", "audio": (heard * 32767).astype("<i2") / np.float32(32768)}]},
    ]
    service = server.service
    fresh = service.processor.prompt(messages)
    assert len(fresh) == len(prompts[-1]) == fresh.common_prefix(prompts[-1])

    def logits() -> tuple[np.ndarray, np.ndarray, int]:
        session, kept = service.store.open(fresh)
        found = np.array(session.extend(fresh[kept:]))
        service.store.close(session)
        return found, np.array(Session(service.model).extend(fresh)), kept

    found, expected, kept = service.engine.run(logits)
    assert kept >= len(fresh) - 1 and np.abs(found - expected).max() < 2e-4


def test_a_client_that_goes_away_ends_its_answer(server: Running, talker: list[str]) -> None:
    with dial(server) as socket:
        say(socket, text("Tell."))
        send(socket, "response.create")
        until(socket, "response.output_text.delta", 3)
    rest(server)
    assert server.service.engine.active == 0
    decoded = server.service.engine.turns[Turn.DECODE]
    time.sleep(0.1)
    assert server.service.engine.turns[Turn.DECODE] == decoded < 4000


def test_conversations_take_one_place_each(server: Running) -> None:
    """Their answers take none: with all places taken, everybody is answered, as if alone."""
    with dial(server) as one, dial(server) as two:
        until(one, "session.created")
        until(two, "session.created")
        with dial(server) as three:
            assert json.loads(three.recv(timeout=20))["error"]["code"] == "server_overloaded"
        names = ("picture-01.png", PICTURE)
        for socket, name in zip((one, two), names, strict=True):
            say(socket, image(name), text("Describe the image."))
        for socket in (one, two):
            send(socket, "response.create")
        for socket, name in zip((one, two), names, strict=True):
            assert answer_of(until(socket, "response.done")) == named(name)


def test_an_answer_out_of_band_leaves_the_conversation_alone(server: Running) -> None:
    with dial(server) as socket:
        until(socket, "session.created")
        say(socket, image(PICTURE), text("Describe the image."))
        other = {"type": "message", "role": "user", "content": [image("picture-01.png"), text("Describe the image.")]}
        events = respond(socket, conversation="none", input=[other], metadata={"topic": "other"})
        assert events[-1]["response"]["metadata"] == {"topic": "other"}
        assert answer_of(events) == named("picture-01.png")
        assert answer_of(respond(socket)) == named(PICTURE)


def test_a_context_that_is_full(server: Running, monkeypatch: pytest.MonkeyPatch, prompts: list[Prompt]) -> None:
    """The oldest turns leave, or the answer fails: as the client wishes."""
    monkeypatch.setattr(server.service.questions, "context", 120)
    with dial(server) as socket:
        until(socket, "session.created")
        for number in range(9):
            say(socket, text(f"go {number}"))
            say(socket, {"type": "output_text", "text": f"forward {number}"}, role="assistant")
        say(socket, text("go back"))
        assert respond(socket)[-1]["response"]["status"] == "completed"
        assert len(prompts[-1]) <= 60
        shown = server.service.processor.tokenizer.decode(prompts[-1].token_ids.tolist(), skip_special=False)
        assert shown.endswith("go back<turn|>\n<|turn>model\n") and "go 8" in shown and "go 0" not in shown
        send(socket, "session.update", session={"type": "realtime", "truncation": "disabled"})
        until(socket, "session.updated")
        say(socket, text("go " * 200))
        response = respond(socket)[-1]["response"]
    error = response["status_details"]["error"]
    assert (response["status"], error["code"]) == ("failed", "context_length_exceeded")


def test_calls_of_functions() -> None:
    """Held to the declared function, told as an item, and continued with its result."""
    tool = {
        "type": "function",
        "name": "lights",
        "parameters": {
            "type": "object",
            "properties": {"room": {"enum": ["hall"]}, "on": {"type": "boolean"}},
            "required": ["room", "on"],
            "additionalProperties": False,
        },
    }
    with serving(model=writing) as server, dial(server) as socket:
        session = {"type": "realtime", "tools": [tool], "tool_choice": "required", "max_output_tokens": 200}
        send(socket, "session.update", session=session)
        until(socket, "session.updated")
        say(socket, text("Lights on!"))
        events = respond(socket)
        calls = [item for item in events[-1]["response"]["output"] if item["type"] == "function_call"]
        assert calls[0]["name"] == "lights"
        arguments = json.loads(calls[0]["arguments"])
        assert arguments["room"] == "hall" and isinstance(arguments["on"], bool)
        (done, *_) = [event for event in events if event["type"] == "response.function_call_arguments.done"]
        assert (done["call_id"], done["arguments"]) == (calls[0]["call_id"], calls[0]["arguments"])
        for call in calls:
            item = {"type": "function_call_output", "call_id": call["call_id"], "output": "They are on."}
            send(socket, "conversation.item.create", item=item)
        until(socket, "conversation.item.done", len(calls))
        response = respond(socket, tool_choice="none", max_output_tokens=5)[-1]["response"]
        assert response["status"] in ("completed", "incomplete")
        assert response["usage"]["input_token_details"]["cached_tokens"] > 0


MESSAGES: list[Event] = [
    {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [text("Hello")]}},
    {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [image(PICTURE)]}},
    {"type": "conversation.item.create", "item": {"type": "message", "role": "system", "content": [text("Be.")]}},
    {"type": "conversation.item.create", "item": {"type": "function_call", "name": "f", "call_id": "c"}},
    {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c", "output": "x"}},
    {"type": "response.create", "response": {"max_output_tokens": 5}},
    {"type": "response.create", "response": {"conversation": "none", "max_output_tokens": 5}},
    {"type": "response.cancel"},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}},
    {"type": "session.update", "session": {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}},
    {"type": "session.update", "session": {"audio": {"input": {"transcription": {}}}}},
    {"type": "session.update", "session": {"audio": {"input": {"transcription": None}}}},
    {"type": "session.update", "session": {"instructions": "Be brief."}},
    {"type": "conversation.item.delete", "item_id": "none"},
    {"type": "nothing"},
]
SOUND = np.pad(load_audio(media_file(f"{QUESTION}.wav")), (0, 10_000))


@pytest.mark.parametrize("seed", range(int(os.environ.get("MLX_GEMMA4_SEQUENCES", "3"))))
def test_whatever_a_client_sends_the_session_goes_on(server: Running, seed: int) -> None:
    chance, place = random.Random(seed), 0
    with dial(server) as socket:
        hear(socket, {"type": "server_vad"})
        for _ in range(40):
            if chance.random() < 0.5:
                length = chance.choice([640, 4000, 16_000])
                append(socket, np.resize(np.roll(SOUND, -place), length))
                place += length
            else:
                socket.send(json.dumps(chance.choice(MESSAGES)))
            time.sleep(chance.choice([0, 0, 0.01]))
        send(socket, "session.update", session={"instructions": "at the end"})
        events: list[Event] = []
        while not events or events[-1].get("session", {}).get("instructions") != "at the end":
            events.append(json.loads(socket.recv(timeout=60)))
        send(socket, "response.cancel")
        send(socket, "input_audio_buffer.clear")
        send(socket, "session.update", session={"audio": {"input": {"turn_detection": None}}, "instructions": None})
        item = {"type": "message", "role": "user", "content": [image(PICTURE), text("Describe the image.")]}
        last = {"response": {"conversation": "none", "input": [item], "metadata": {"last": "1"}}}
        send(socket, "response.create", **last)
        while events[-1]["type"] != "response.done" or events[-1]["response"]["metadata"] != {"last": "1"}:
            events.append(json.loads(socket.recv(timeout=60)))
            if events[-1]["type"] == "error":
                error = events[-1]["error"]
                assert error["type"] == "invalid_request_error"
                if error["message"] == "4 responses are in progress; wait for one of them":
                    time.sleep(0.2)
                    send(socket, "response.create", **last)
    check(events)
    (message,) = events[-1]["response"]["output"]
    assert message["content"] == [{"type": "output_text", "text": named(PICTURE)}]
