"""Realtime conversations: the demo behind a WebSocket, with text, pictures and sound as clients send them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from golden import answered, named, utterances
from reference_cases import media_file
from servers import Running, serving
from test_serve_realtime import COMPLETED, DELTA, Event, append, send, until
from websockets.sync.client import ClientConnection, connect

from mlx_gemma4 import load_audio

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


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(sessions=2) as running:
        yield running


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
