"""Realtime transcription: the protocol alone, and the demo behind a WebSocket, with sound as clients send it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import soxr
from golden import utterances
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference_cases import media_file
from servers import Running, serving
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from mlx_gemma4 import Transcriber, load_audio
from mlx_gemma4.inputs.audio.endpoint import Endpointing
from mlx_gemma4.programs.segments import transcribe
from mlx_gemma4.serve.hearing import (
    Began,
    Clear,
    Cleared,
    Command,
    Commit,
    Committed,
    Configure,
    Hearing,
    HearingSettings,
    Said,
    Sound,
    Supposed,
    Words,
)
from mlx_gemma4.serve.limits import Limits
from mlx_gemma4.serve.protocols.realtime import TranscriptionSession
from mlx_gemma4.serve.protocols.realtime_vllm import VllmSession, is_vllm

SPEECH, OTHER = "hibari-03.wav", "pico-04.wav"
DELTA, COMPLETED = (f"conversation.item.input_audio_transcription.{kind}" for kind in ("delta", "completed"))

Event = dict[str, Any]


def ids() -> Callable[[str], str]:
    counts: dict[str, int] = {}

    def next_id(prefix: str) -> str:
        counts[prefix] = counts.get(prefix, 0) + 1
        return f"{prefix}_{counts[prefix]}"

    return next_id


class Client:
    """A session without sockets: events go in, and what comes out is kept."""

    def __init__(self, **inputs: Any) -> None:
        self.session = TranscriptionSession(ids())
        self.commands: list[Command] = []
        self.events = self.session.open()
        if inputs:
            self.update(**inputs)

    def send(self, kind: str, **fields: Any) -> list[Event]:
        return self.send_raw(json.dumps({"type": kind, **fields}).encode())

    def send_raw(self, message: bytes) -> list[Event]:
        events, commands = self.session.receive(message)
        self.events += events
        self.commands += commands
        return events

    def update(self, **inputs: Any) -> list[Event]:
        return self.send("session.update", session={"type": "transcription", "audio": {"input": inputs}})

    def append(self, data: bytes) -> np.ndarray:
        """Append sound; what the work gets."""
        before = len(self.commands)
        assert self.send("input_audio_buffer.append", audio=base64.b64encode(data).decode()) == []
        sounds = [each.samples for each in self.commands[before:] if isinstance(each, Sound)]
        return np.concatenate([np.zeros(0, np.float32), *sounds])

    def hear(self, *events: Hearing) -> list[Event]:
        told = [event for each in events for event in self.session.hear(each)]
        self.events += told
        return told

    def error(self) -> Event:
        assert self.events[-1]["type"] == "error"
        error: Event = self.events[-1]["error"]
        return error


def short(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    """The kind of each event, and what it tells."""
    told = ("item_id", "previous_item_id", "delta", "transcript", "audio_start_ms", "audio_end_ms")
    return [
        (event["type"].rpartition(".")[2], *(event[name] for name in told if event.get(name) is not None))
        for event in events
    ]


SOUND = b"\1\0" * 24_000
"""A second."""


# settings


def test_a_session_begins_with_its_settings() -> None:
    (created,) = Client().events
    assert created["type"] == "session.created" and created["event_id"] == "event_1"
    assert created["session"] == {
        "id": "sess_1",
        "object": "realtime.transcription_session",
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "transcription": {},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 500,
                    "silence_duration_ms": 500,
                },
                "noise_reduction": None,
            }
        },
        "include": None,
    }


def test_an_update_changes_what_it_names() -> None:
    wanted = {"model": "m", "language": "de", "keywords": ["MLX"], "prompt": "Cars.", "delay": "low"}
    client = Client(transcription=wanted)
    (updated,) = client.update(turn_detection={"type": "semantic_vad", "eagerness": "high"})
    told = updated["session"]["audio"]["input"]
    assert told["transcription"] == wanted
    assert told["turn_detection"] == {"type": "semantic_vad", "eagerness": "high"}
    assert client.commands[-1] == Configure(
        HearingSettings(("German",), ("MLX",), "Cars.", Endpointing(silence=0.4), guess_every=0.5)
    )
    for left_out in ({}, {"silence_duration_ms": 300}):
        (updated,) = client.update(turn_detection=left_out)
        assert updated["session"]["audio"]["input"]["turn_detection"] == {"type": "server_vad", **left_out}
    (updated,) = client.update(turn_detection=None)
    assert updated["session"]["audio"]["input"]["turn_detection"] is None
    assert updated["session"]["audio"]["input"]["transcription"]["language"] == "de"


@pytest.mark.parametrize(
    ("inputs", "param", "message"),
    [
        (
            {"turn_detection": {"type": "server_vad", "threshold": 7}},
            "session.audio.input.turn_detection.threshold",
            "session.audio.input.turn_detection.threshold must be a number from 0 to 1",
        ),
        (
            {"turn_detection": {"type": "magic"}},
            "session.audio.input.turn_detection.type",
            "turn_detection must be server_vad, semantic_vad or null",
        ),
        (
            {"turn_detection": {"type": "semantic_vad", "eagerness": "huge"}},
            "session.audio.input.turn_detection.eagerness",
            "eagerness must be one of low, medium, auto, high",
        ),
        (
            {"format": {"type": "audio/opus"}},
            "session.audio.input.format.type",
            "The format must be one of audio/pcm, audio/pcmu, audio/pcma",
        ),
        (
            {"format": {"type": "audio/pcmu", "rate": 16000}},
            "session.audio.input.format.rate",
            "audio/pcmu has a rate of 8000 Hz",
        ),
        (
            {"format": {"type": "audio/pcm", "rate": 100}},
            "session.audio.input.format.rate",
            "session.audio.input.format.rate: Expected int >= 8000",
        ),
        (
            {"transcription": {"language": "xx"}},
            "language",
            "Unknown language 'xx': use a code such as de, or an English name",
        ),
        (
            {"transcription": {"delay": "now"}},
            "session.audio.input.transcription.delay",
            "delay must be one of minimal, low, medium, high, xhigh",
        ),
    ],
)
def test_settings_that_are_wrong_change_nothing(inputs: Event, param: str, message: str) -> None:
    client = Client()
    before = client.events[0]["session"]
    client.update(**inputs)
    error = client.error()
    assert (error["param"], error["message"], error["type"]) == (param, message, "invalid_request_error")
    client.update()
    assert client.events[-1]["session"] == before


# sound


def test_sound_is_resampled_as_one_stream() -> None:
    """However it is cut, also through a sample."""
    random = np.random.default_rng(1)
    data = (random.standard_normal(24_000) * 3000).astype("<i2").tobytes()
    whole = soxr.resample(np.frombuffer(data, "<i2").astype(np.float32) / 32768, 24_000, 16_000)
    client, cuts = Client(turn_detection=None), [0, 1, 2, 501, 502, 30_001, len(data)]
    pieces = [client.append(data[start:stop]) for start, stop in pairwise(cuts)]
    client.send("input_audio_buffer.commit")
    assert isinstance(client.commands[-1], Commit) and isinstance(client.commands[-2], Sound)
    heard = np.concatenate([*pieces, client.commands[-2].samples])
    assert np.abs(heard - whole).max() < 1e-4 and len(heard) == len(whole) == 16_000


@pytest.mark.parametrize(("encoding", "silence"), [("audio/pcmu", b"\xff"), ("audio/pcma", b"\xd5")])
def test_telephone_sound(encoding: str, silence: bytes) -> None:
    client = Client(format={"type": encoding}, turn_detection=None)
    client.append(silence * 8000)
    client.send("input_audio_buffer.commit")
    samples = np.concatenate([each.samples for each in client.commands if isinstance(each, Sound)])
    assert len(samples) == 16_000 and np.abs(samples).max() < 0.001


def test_sound_at_the_models_own_rate_is_passed_on() -> None:
    client = Client(format={"type": "audio/pcm", "rate": 16_000})
    assert client.append(np.array([16384, -16384], "<i2").tobytes()).tolist() == [0.5, -0.5]


# an item for each commit


def test_a_buffer_is_one_item() -> None:
    client = Client(turn_detection=None)
    client.append(SOUND)
    assert short(client.hear(Began(0.1), Words("go"), Supposed("go", " back"), Said(0.1, 0.9, "go back", " back"))) == [
        ("delta", "item_1", "go"),
        ("delta", "item_1", " back"),
    ]
    client.hear(Began(1.0), Said(1.0, 1.5, "now", "now"))
    assert client.events[-1]["delta"] == " now"
    assert short(client.send("input_audio_buffer.commit")) == [("committed", "item_1"), ("added",), ("done",)]
    (completed,) = client.hear(Committed())
    assert (completed["type"], completed["transcript"]) == (COMPLETED, "go back now")
    assert (completed["content_index"], completed["usage"]) == (0, {"type": "duration", "seconds": 1.0})


def test_commits_that_are_quicker_than_the_model() -> None:
    """Words belong to the oldest item that is not complete."""
    client = Client(turn_detection=None)
    for _ in range(2):
        client.append(SOUND)
        client.send("input_audio_buffer.commit")
    assert [event["item_id"] for event in client.events if event["type"].endswith("committed")] == ["item_1", "item_2"]
    told = client.hear(Began(0), Said(0, 1, "one", "one"), Committed(), Began(1), Said(1, 2, "two", "two"), Committed())
    assert short(told) == [
        ("delta", "item_1", "one"),
        ("completed", "item_1", "one"),
        ("delta", "item_2", "two"),
        ("completed", "item_2", "two"),
    ]
    added = [event for event in client.events if event["type"] == "conversation.item.added"]
    assert [event["previous_item_id"] for event in added] == [None, "item_1"]


def test_a_buffer_that_is_too_short() -> None:
    client = Client(turn_detection=None)
    client.append(SOUND[: 2 * 1200])
    client.send("input_audio_buffer.commit", event_id="mine")
    assert client.error() == {
        "type": "invalid_request_error",
        "code": "input_audio_buffer_commit_empty",
        "message": "The buffer has 50 ms of audio, and a commit needs 100 ms at least",
        "param": None,
        "event_id": "mine",
    }
    client.append(SOUND)
    client.send("input_audio_buffer.clear")
    assert client.commands[-1] == Clear()
    client.send("input_audio_buffer.commit")
    assert client.error()["code"] == "input_audio_buffer_commit_empty"


def test_what_is_cleared_has_no_text() -> None:
    client = Client(turn_detection=None)
    client.append(SOUND)
    client.hear(Began(0), Words("one"))
    client.send("input_audio_buffer.clear")
    assert short(client.hear(Cleared())) == [("cleared",)]
    client.append(SOUND)
    client.send("input_audio_buffer.commit")
    assert client.hear(Began(1), Said(1, 2, "two", "two"), Committed())[-1]["transcript"] == "two"


# an item for each utterance


def test_the_server_finds_utterances() -> None:
    client = Client()
    client.append(SOUND)
    told = client.hear(
        Began(0.4), Words("go"), Said(0.4, 1.2, "go back", " back"), Began(2.0), Said(2.0, 2.5, "now", "now")
    )
    assert short(told) == [
        ("speech_started", "item_1", 400),
        ("delta", "item_1", "go"),
        ("speech_stopped", "item_1", 1200),
        ("committed", "item_1"),
        ("added",),
        ("done",),
        ("delta", "item_1", " back"),
        ("completed", "item_1", "go back"),
        ("speech_started", "item_2", 2000),
        ("speech_stopped", "item_2", 2500),
        ("committed", "item_2", "item_1"),
        ("added", "item_1"),
        ("done", "item_1"),
        ("delta", "item_2", "now"),
        ("completed", "item_2", "now"),
    ]
    item = told[4]["item"]
    assert (item["id"], item["role"], item["content"]) == (
        "item_1",
        "user",
        [{"type": "input_audio", "transcript": None}],
    )


def test_a_commit_where_the_server_finds_utterances() -> None:
    """It ends the open one; if nobody spoke, the client gets an item without text."""
    client = Client()
    client.append(SOUND)
    client.send("input_audio_buffer.commit")
    assert short(client.hear(Began(0), Said(0, 1, "go", "go"), Committed()))[-1] == ("completed", "item_1", "go")
    client.append(SOUND)
    client.send("input_audio_buffer.commit")
    assert short(client.hear(Committed())) == [
        ("committed", "item_2", "item_1"),
        ("added", "item_1"),
        ("done", "item_1"),
        ("completed", "item_2", ""),
    ]


def test_guesses_are_told_to_who_asks() -> None:
    client = Client()
    session = {"include": ["item.input_audio_transcription.hypotheses"]}
    client.send("session.update", session=session)
    client.hear(Began(0))
    (event,) = client.hear(Supposed("go", " bac"))
    assert event["type"] == "conversation.item.input_audio_transcription.hypothesis"
    assert (event["item_id"], event["committed"], event["draft"]) == ("item_1", "go", " bac")


# what a session refuses


@pytest.mark.parametrize(
    ("message", "code", "text"),
    [
        (b"{", "invalid_json", "The body is not valid JSON: "),
        (b'{"type":"nothing","event_id":"e"}', "unknown_event", "There is no event of the type 'nothing'"),
        (b'{"event_id":"e"}', "invalid_value", "Object missing required field type"),
        (
            b'{"type":"response.create","event_id":"e"}',
            "unsupported_event",
            "response.create is not possible in a transcription session; connect without intent=transcription",
        ),
        (
            b'{"type":"input_audio_buffer.append","audio":"*","event_id":"e"}',
            "invalid_value",
            "audio is not valid base64",
        ),
        (
            b'{"type":"input_audio_buffer.append","audio":7,"event_id":"e"}',
            "invalid_value",
            "audio: Expected str, got int",
        ),
        (
            b'{"type":"session.update","session":{"include":["magic"]},"event_id":"e"}',
            "invalid_value",
            "session.include does not know 'magic'",
        ),
    ],
)
def test_events_that_are_wrong(message: bytes, code: str, text: str) -> None:
    client = Client()
    client.send_raw(message)
    error = client.error()
    assert (error["code"], error["message"][: len(text)]) == (code, text)
    assert error["event_id"] == (None if code == "invalid_json" else "e") and client.commands == []


STEPS = st.sampled_from(["append", "commit", "clear", "turns", "no turns", "work", "garbage"])


@settings(max_examples=100, deadline=None)
@example([("append", 1), ("no turns", 0), ("commit", 0), ("turns", 0), ("work", 1)])
@given(st.lists(st.tuples(STEPS, st.integers(0, 3)), max_size=40))
def test_whatever_happens_every_item_is_told_once(steps: list[tuple[str, int]]) -> None:
    """Committed, then words, then completed; and ids of items that are complete do not come again."""
    client, done = Client(), 0
    for step, number in steps:
        if step == "append":
            client.append(SOUND[: 2 * number * 4800])
        elif step == "commit":
            client.send("input_audio_buffer.commit")
        elif step == "clear":
            client.send("input_audio_buffer.clear")
        elif step == "turns":
            client.update(turn_detection={"type": "server_vad"})
        elif step == "no turns":
            client.update(turn_detection=None)
        elif step == "garbage":
            client.send_raw(b"\xff" * number)
        else:
            done = work(client, done, number)
    work(client, done, 0)
    completed = [event["item_id"] for event in client.events if event["type"] == COMPLETED]
    committed = [event["item_id"] for event in client.events if event["type"] == "input_audio_buffer.committed"]
    assert len(set(completed)) == len(completed) and sorted(completed) == sorted(committed)
    over: set[str] = set()
    for event in client.events:
        if event["type"] == DELTA:
            assert event["item_id"] not in over
        elif event["type"] == COMPLETED:
            over.add(event["item_id"])


def work(client: Client, done: int, words: int) -> int:
    """Do what the session has told the work, with an utterance of so many words in each sound."""
    for command in client.commands[done:]:
        if isinstance(command, Sound) and words:
            client.hear(Began(0), *[Words(" go")] * (words - 1), Said(0, 1, "go " * words, " go"))
        elif isinstance(command, Commit):
            client.hear(Committed())
        elif isinstance(command, Clear):
            client.hear(Cleared())
    return len(client.commands)


# vLLM's events


def test_the_first_event_tells_the_dialect() -> None:
    assert is_vllm(b'{"type":"session.update","model":"m"}') and is_vllm(b'{"type":"input_audio_buffer.commit"}')
    for first in (b'{"type":"session.update","session":{}}', b'{"type":"input_audio_buffer.append"}', b"{", b"\xff"):
        assert not is_vllm(first)


def test_vllms_events() -> None:
    session = VllmSession()
    told: list[Event] = []
    commands: list[Command] = []
    for message in (
        {"type": "session.update", "model": "m"},
        {"type": "input_audio_buffer.commit"},
        {"type": "input_audio_buffer.append", "audio": base64.b64encode(SOUND[:3]).decode()},
        {"type": "input_audio_buffer.append", "audio": base64.b64encode(SOUND[3:]).decode()},
        {"type": "nothing"},
        {"type": "input_audio_buffer.commit", "final": True},
    ):
        events, more = session.receive(json.dumps(message).encode())
        told, commands = told + events, commands + more
    assert told == [{"type": "error", "error": "There is no event of the type 'nothing'", "code": "unknown_event"}]
    assert [type(command) for command in commands] == [Sound, Sound, Commit]
    assert sum(len(each.samples) for each in commands if isinstance(each, Sound)) == 24_000
    heard = (Began(0), Words("go"), Said(0, 1, "go back", " back"), Began(1), Said(1, 2, "now", "now"), Committed())
    events = [event for each in heard for event in session.hear(each)]
    assert [event["delta"] for event in events[:-1]] == ["go", " back", " now"]
    assert events[-1] == {
        "type": "transcription.done",
        "text": "go back now",
        "usage": {"type": "duration", "seconds": 1.5},
    }


# the demo behind a WebSocket


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(sessions=2, waiting=3, key="secret", limits=Limits(session_idle=20.0)) as running:
        yield running


def dial(server: Running, query: str = "?intent=transcription", **options: Any) -> ClientConnection:
    headers = {"Authorization": "Bearer secret", **options.pop("headers", {})}
    address = f"ws://127.0.0.1:{server.port}/v1/realtime{query}"
    return connect(address, additional_headers=headers, proxy=None, max_size=None, **options)


def send(socket: ClientConnection, kind: str, **fields: Any) -> None:
    socket.send(json.dumps({"type": kind, **fields}))


def append(socket: ClientConnection, samples: np.ndarray, rate: int = 16_000) -> None:
    data = (samples * 32767).astype("<i2").tobytes()
    for start in range(0, len(data), rate // 2):
        send(socket, "input_audio_buffer.append", audio=base64.b64encode(data[start : start + rate // 2]).decode())


def configure(socket: ClientConnection, **inputs: Any) -> None:
    form = {"type": "audio/pcm", "rate": 16_000}
    send(socket, "session.update", session={"type": "transcription", "audio": {"input": {"format": form, **inputs}}})


def until(socket: ClientConnection, kind: str, count: int = 1) -> list[Event]:
    """Events up to the last of so many of a kind."""
    events: list[Event] = []
    while count:
        events.append(json.loads(socket.recv(timeout=60)))
        assert events[-1]["type"] != "error", events[-1]
        count -= events[-1]["type"] == kind
    return events


def spoken(*names: str) -> np.ndarray:
    return np.concatenate([np.pad(load_audio(media_file(name)), (0, 16_000)) for name in names])


def test_a_commit_has_the_text_of_transcribe(server: Running) -> None:
    """Of each buffer, whatever was in the one before it."""
    with dial(server) as socket:
        configure(socket, turn_detection=None, transcription={"language": "en"})
        for name in (SPEECH, OTHER):
            append(socket, load_audio(media_file(name)))
            send(socket, "input_audio_buffer.commit")
            events = until(socket, COMPLETED)
            assert events[-1]["transcript"] == " ".join(utterances(name))
            assert "".join(event["delta"] for event in events if event["type"] == DELTA) == events[-1]["transcript"]


def test_utterances_are_those_of_transcribe(server: Running) -> None:
    sound = spoken(SPEECH, OTHER, SPEECH)
    model, processor = server.service.model, server.service.processor
    expected = server.service.engine.run(lambda: list(transcribe([sound], Transcriber(model, processor))))
    with dial(server, query="?model=demo") as socket:
        configure(socket, turn_detection={"type": "server_vad"})
        append(socket, sound)
        events = until(socket, COMPLETED, len(expected))
    finals = [event["transcript"] for event in events if event["type"] == COMPLETED]
    assert finals == [segment.text for segment in expected] and len(finals) >= 3
    starts = [event["audio_start_ms"] for event in events if event["type"].endswith("speech_started")]
    ends = [event["audio_end_ms"] for event in events if event["type"].endswith("speech_stopped")]
    assert starts == [round(1000 * segment.start) for segment in expected]
    assert ends == [round(1000 * segment.end) for segment in expected]


def test_sound_is_computed_when_it_arrives(server: Running) -> None:
    """Before anybody commits, and with it only what is new."""
    with dial(server) as socket:
        configure(socket, turn_detection=None)
        append(socket, spoken(SPEECH))
        until(socket, DELTA)  # words, before the commit
        send(socket, "input_audio_buffer.commit")
        assert until(socket, COMPLETED)[-1]["transcript"] == " ".join(utterances(SPEECH))


def test_a_client_of_vllm(server: Running) -> None:
    with dial(server, query="") as socket:
        assert json.loads(socket.recv(timeout=20))["id"].startswith("sess_")
        send(socket, "session.update", model="demo")
        send(socket, "input_audio_buffer.commit")
        append(socket, load_audio(media_file(OTHER)))
        send(socket, "input_audio_buffer.commit", final=True)
        *deltas, done = until(socket, "transcription.done")
        assert done["text"] == "".join(event["delta"] for event in deltas) == " ".join(utterances(OTHER))


def test_what_hearing_needs_is_made_once(server: Running) -> None:
    """Before the first client, and not again for each buffer."""
    engine, transcribers = server.service.engine, server.service.transcribers
    server.service.warm_up()
    kept = engine.run(lambda: (transcribers._idle[-1][1], transcribers._voices[-1]))
    with dial(server) as socket:
        configure(socket, turn_detection=None)
        for _ in range(2):
            append(socket, load_audio(media_file(OTHER)))
            send(socket, "input_audio_buffer.commit")
            assert until(socket, COMPLETED)[-1]["transcript"] == " ".join(utterances(OTHER))
    assert engine.run(lambda: (transcribers._idle[-1][1], transcribers._voices[-1])) == kept
    assert kept[0].session.forwards > 2


def test_two_speakers_at_once_are_as_if_alone(server: Running) -> None:
    with dial(server) as one, dial(server) as two:
        for socket in (one, two):
            configure(socket, turn_detection=None)
        first, second = load_audio(media_file(SPEECH)), load_audio(media_file(OTHER))
        for start in range(0, max(len(first), len(second)), 8000):
            append(one, first[start : start + 8000])
            append(two, second[start : start + 8000])
        for socket in (one, two):
            send(socket, "input_audio_buffer.commit")
        assert until(one, COMPLETED)[-1]["transcript"] == " ".join(utterances(SPEECH))
        assert until(two, COMPLETED)[-1]["transcript"] == " ".join(utterances(OTHER))
        with dial(server) as third:
            error = json.loads(third.recv(timeout=20))["error"]
            assert error["code"] == "server_overloaded"
            assert error["message"].startswith("All 2 sessions are in use; try again later")
            with pytest.raises(ConnectionClosed) as closed:
                third.recv(timeout=20)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1013


def test_garbage_ends_no_session(server: Running) -> None:
    with dial(server) as socket:
        for message in (b"\xff\x00", "", "[]", '{"type": 3}', '{"type":"response.create"}'):
            socket.send(message)
        socket.recv(timeout=20)
        for _ in range(5):
            assert json.loads(socket.recv(timeout=20))["type"] == "error"
        configure(socket, turn_detection=None)
        append(socket, load_audio(media_file(OTHER)))
        send(socket, "input_audio_buffer.commit")
        assert until(socket, COMPLETED)[-1]["transcript"] == " ".join(utterances(OTHER))


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer other"}, {"Origin": "http://evil.example"}])
def test_strangers_get_no_socket(server: Running, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        dial(server, headers=headers)
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("sent", ["secret", "%73ecret"])
def test_a_browser_sends_its_key_as_a_subprotocol(server: Running, sent: str) -> None:
    """Percent-encoded where a subprotocol must not have a sign of the key."""
    protocols: Any = ["realtime", f"openai-insecure-api-key.{sent}"]
    with dial(server, subprotocols=protocols, headers={"Authorization": ""}) as socket:
        assert socket.subprotocol == "realtime"
        assert json.loads(socket.recv(timeout=20))["type"] == "session.created"
