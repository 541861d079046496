"""The end of a server: what was promised is told, and no more begins."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from golden import named, utterances
from reference_cases import DESCRIBE, media_file
from servers import Running, serving
from test_serve_chat import image
from test_serve_realtime import COMPLETED, SPEECH, append, configure, dial, send, until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from mlx_gemma4 import load_audio
from mlx_gemma4.serve.hearing import Commit, Committed, Sound
from mlx_gemma4.serve.protocols.realtime import TranscriptionSession

RESTART = 1012


def rest(socket: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """The events up to the end of a connection, and the code with which it was closed."""
    events = []
    try:
        while True:
            events.append(json.loads(socket.recv(timeout=30)))
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return events, closed.rcvd.code


def texts(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["transcript"] for event in events if event["type"] == COMPLETED]


def test_a_commit_is_told(server: Running) -> None:
    """All of it: the sound that was not heard yet, too."""
    with dial(server) as socket:
        configure(socket, turn_detection=None)
        append(socket, load_audio(media_file(SPEECH)))
        send(socket, "input_audio_buffer.commit")
        until(socket, "input_audio_buffer.committed")
        server.stop()
        events, code = rest(socket)
    assert (texts(events), code) == ([" ".join(utterances(SPEECH))], RESTART)


def test_what_somebody_is_saying_is_told(server: Running) -> None:
    """Without the silence that would have ended it."""
    speech = load_audio(media_file(SPEECH))
    last = int(np.flatnonzero(np.abs(speech) > 0.02)[-1]) + 1600
    with dial(server) as socket:
        configure(socket, turn_detection={"type": "server_vad"})
        append(socket, speech[:last])
        until(socket, "input_audio_buffer.speech_started")
        server.stop()
        events, code = rest(socket)
    assert (texts(events), code) == ([" ".join(utterances(SPEECH))], RESTART)


def test_an_answer_of_a_conversation_is_told(server: Running) -> None:
    url = image("picture-02.png")["image_url"]["url"]
    content = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": DESCRIBE}]
    with dial(server, query="?model=demo") as socket:
        item = {"type": "message", "role": "user", "content": content}
        send(socket, "conversation.item.create", item=item)
        send(socket, "response.create", response={"output_modalities": ["text"]})
        until(socket, "response.created")
        server.stop()
        events, code = rest(socket)
    assert events[-1]["type"] == "response.done" and code == RESTART
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == named("picture-02.png")


def test_who_says_nothing_is_not_told_anything(server: Running) -> None:
    """And holds nobody up; a new connection is refused."""
    with dial(server) as socket:
        configure(socket, turn_detection={"type": "server_vad"})
        append(socket, np.zeros(16_000, np.float32))
        until(socket, "session.updated")
        kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        kept.request("GET", "/health")
        kept.getresponse().read()
        server.stop()
        assert rest(socket) == ([], RESTART)
    with pytest.raises(OSError):
        dial(server)
    with pytest.raises((OSError, http.client.HTTPException)):
        kept.request("GET", "/health")
        kept.getresponse()
    kept.close()


def test_a_commit_without_words_that_the_client_waits_for() -> None:
    """Its own one is told though nobody spoke, the one of the end is not."""
    session = TranscriptionSession(lambda prefix: prefix)
    session.receive(json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA" * 4000}).encode())
    session.receive(b'{"type": "input_audio_buffer.commit"}')
    assert [type(command) for command in session.drain() if not isinstance(command, Sound)] == [Commit]
    assert [event["type"] for event in session.hear(Committed())][-1] == COMPLETED
    assert session.hear(Committed()) == []


@pytest.fixture
def server() -> Iterator[Running]:
    with serving() as running:
        yield running
