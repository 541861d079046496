"""Wyoming: the protocol alone, and the stock client against the demo."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from golden import utterances
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference_cases import media_file
from servers import Running, serving
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event
from wyoming.info import Describe, Info, SelectProgram
from wyoming.ping import Ping

from mlx_gemma4 import load_audio
from mlx_gemma4.serve.events import Began as Answering
from mlx_gemma4.serve.events import Finished, Piece
from mlx_gemma4.serve.hearing import (
    Began,
    Command,
    Commit,
    Committed,
    Configure,
    Hearing,
    HearingSettings,
    Said,
    Sound,
    Words,
)
from mlx_gemma4.serve.limits import Limits
from mlx_gemma4.serve.protocols import wyoming_answer
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.wyoming import Ask, WyomingSession
from mlx_gemma4.serve.protocols.wyoming_answer import INSTRUCTION, Conversations, HandledAnswer
from mlx_gemma4.serve.protocols.wyoming_info import server_info
from mlx_gemma4.serve.protocols.wyoming_wire import encode, read_event, read_header
from mlx_gemma4.serve.web import wyoming as web
from mlx_gemma4.serve.web.wyoming import WyomingServer

SPEECH, OTHER = "hibari-03.wav", "pico-04.wav"


class Client:
    """A session without sockets: events go in, and what comes out is kept."""

    def __init__(self) -> None:
        def check_model(name: str | None) -> None:
            if name not in (None, "demo"):
                raise Failure(404, f"no model {name}")

        self.session = WyomingSession(server_info(["demo"], "1.2", hears=True), "English", check_model)
        self.commands: list[Command | Ask] = []

    def send(self, *events: Event) -> list[Event]:
        told = []
        for event in events:
            answers, commands = self.session.receive(event)
            told += answers
            self.commands += commands
        return told

    def hear(self, *events: Hearing) -> list[tuple[str, dict[str, Any]]]:
        return [(told.type, told.data) for event in events for told in self.session.hear(event)]

    @property
    def samples(self) -> np.ndarray:
        sounds = [each.samples for each in self.commands if isinstance(each, Sound)]
        return np.concatenate([np.zeros(0, np.float32), *sounds])


def start(rate: int = 16_000, width: int = 2, channels: int = 1) -> Event:
    return AudioStart(rate, width, channels).event()


def chunk(audio: bytes, rate: int = 16_000, width: int = 2, channels: int = 1) -> Event:
    return AudioChunk(rate, width, channels, audio).event()


STOP = AudioStop().event()


# the protocol


def test_what_the_server_says_of_itself() -> None:
    (event,) = Client().send(Describe().event())
    info = Info.from_event(event)
    (asr,), (handle,) = info.asr, info.handle
    assert (asr.supports_transcript_streaming, asr.requires_external_vad, asr.installed) == (True, True, True)
    assert (handle.supports_handled_streaming, handle.supports_home_control) == (True, False)
    for program in (asr, handle):
        assert (program.name, program.version) == ("mlx_gemma4", "1.2")
        assert [model.name for model in program.models] == ["demo"]
        assert {"en", "de", "pt"} < set(program.models[0].languages)
    assert server_info(["text"], "1.2", hears=False).asr == []


def test_a_ping_comes_back_and_unknown_events_are_ignored() -> None:
    client = Client()
    (pong,) = client.send(Ping("hi").event())
    assert (pong.type, pong.data) == ("pong", {"text": "hi"})
    assert client.send(SelectProgram("any").event(), Event("run-satellite"), Event("synthesize", {"text": 3})) == []
    assert client.commands == []


def test_words_come_while_somebody_speaks_and_the_text_at_the_end() -> None:
    client, context = Client(), {"conversation_id": "a"}
    client.send(Transcribe(name="demo", language="de-AT", context=context).event(), start(), chunk(b"\0\0" * 800))
    assert client.commands[0] == Configure(HearingSettings(("German",)))
    assert client.hear(Began(0.1), Words("geh"), Said(0.1, 0.9, "geh los", " los"), Began(1), Words("jetzt")) == [
        ("transcript-start", {"language": "de-AT", "context": context}),
        ("transcript-chunk", {"text": "geh"}),
        ("transcript-chunk", {"text": " los"}),
        ("transcript-chunk", {"text": " jetzt"}),
    ]
    assert client.session.is_hearing and not client.session.waits
    client.send(STOP)
    assert client.commands[-1] == Commit() and client.session.waits
    assert client.hear(Said(1, 2, "jetzt sofort", " sofort"), Committed()) == [
        ("transcript-chunk", {"text": " sofort"}),
        ("transcript", {"text": "geh los jetzt sofort", "language": "de-AT", "context": context}),
        ("transcript-stop", {}),
    ]
    assert not client.session.is_hearing


def test_silence_is_an_empty_text_in_the_servers_language() -> None:
    client = Client()
    client.send(start(), STOP)
    told = [("transcript-start", {"language": "en"}), ("transcript", {"text": "", "language": "en"})]
    assert client.hear(Committed()) == [*told, ("transcript-stop", {})]
    client.send(STOP)  # without any sound
    assert client.hear(Committed()) == [*told, ("transcript-stop", {})]


def test_commands_that_are_quicker_than_the_model() -> None:
    """Words belong to the oldest command that has no transcript."""
    client = Client()
    client.send(start(), STOP, Transcribe(language="fr").event(), start(), STOP)
    told = client.hear(Said(0, 1, "one", "one"), Committed(), Said(1, 2, "deux", "deux"), Committed())
    assert [(data.get("text"), data.get("language")) for kind, data in told if kind == "transcript"] == [
        ("one", "en"),
        ("deux", "fr"),
    ]


def test_names_come_before_terms_and_there_may_be_many() -> None:
    """A home has more names than a prompt should have."""
    client = Client()
    names, terms = [f"lamp {n}" for n in range(150)], [" ", "x" * 101, "lamp 1", *(f"term {n}" for n in range(100))]
    client.send(Transcribe(transcript_names=names, transcript_terms=terms).event(), start())
    assert isinstance(client.commands[0], Configure)
    assert client.commands[0].settings.keywords == (*names, *terms[3:53])


@pytest.mark.parametrize(("width", "dtype", "scale"), [(1, "u1", 127), (2, "<i2", 32_767), (4, "<i4", 2**31 - 1)])
def test_any_width_rate_and_number_of_channels(width: int, dtype: str, scale: int) -> None:
    """Channels are averaged, and sound is resampled as one stream, also when a chunk ends in a sample."""
    wave = 0.5 * np.sin(np.arange(48_000) * (2 * np.pi * 440 / 48_000))
    stereo = np.stack([wave, np.zeros_like(wave)], axis=1) * scale + (128 if width == 1 else 0)
    data = stereo.round().astype(dtype).tobytes()
    client = Client()
    client.send(start(48_000, width, 2))
    for begin in range(0, len(data), 4001):
        client.send(chunk(data[begin : begin + 4001], 48_000, width, 2))
    client.send(STOP)
    heard, expected = client.samples, 0.25 * np.sin(np.arange(16_000) * (2 * np.pi * 440 / 16_000))
    assert len(heard) == 16_000
    assert np.abs(heard - expected)[200:-200].max() < (0.01 if width == 1 else 0.001)


def test_samples_of_three_bytes_and_chunks_without_a_start() -> None:
    client = Client()
    client.send(chunk(b"\0\0\x40\0\0\xc0", width=3), STOP)
    assert client.samples.tolist() == [0.5, -0.5]
    assert isinstance(client.commands[0], Configure) and client.commands[-1] == Commit()


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([start(), start()], "audio-start must not come before the audio-stop of the sound before"),
        ([Transcribe(name="gpt").event()], "no model gpt"),
        ([Transcribe(language="xx").event()], "Unknown language 'xx': use a code such as de, or an English name"),
        ([start(width=5)], "The data of 'audio-start' is wrong: Expected `int` <= 4 - at `$.width`"),
        ([start(rate=3)], "The data of 'audio-start' is wrong: Expected `int` >= 1000 - at `$.rate`"),
        ([chunk(b"", channels=0)], "The data of 'audio-chunk' is wrong: Expected `int` >= 1 - at `$.channels`"),
        ([Event("audio-start")], "The data of 'audio-start' is wrong: Object missing required field `rate`"),
        (
            [Event("transcript", {"text": 3})],
            "The data of 'transcript' is wrong: Expected `str`, got `int` - at `$.text`",
        ),
        ([Transcript(" ").event()], "The transcript to handle has no text"),
        ([Transcript("hi", language="xx").event()], "Unknown language 'xx': use a code such as de, or an English name"),
    ],
)
def test_events_that_are_wrong(events: list[Event], message: str) -> None:
    client = Client()
    client.send(*events[:-1])
    with pytest.raises(Failure) as failed:
        client.send(events[-1])
    assert failed.value.message == message


# the wire


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"GET / HTTP/1.1\r\n", "A line must be a JSON object with a type, as Wyoming's events are: JSON is malformed"),
        (b"{}\n", "A line must be a JSON object with a type, as Wyoming's events are: Object missing required field"),
        (b"\xff\n", "A line must be a JSON object with a type, as Wyoming's events are: "),
        (b"[" * 60_000, "A line must be a JSON object with a type, as Wyoming's events are: "),
        (b'{"type":"a","data_length":-1}', "A line must be a JSON object with a type, as Wyoming's events are: "),
        (b'{"type":"a","data_length":1048577}', "The data of an event may have at most 1048576 bytes, got 1048577"),
        (
            b'{"type":"a","payload_length":90000000}',
            "The payload of an event may have at most 8388608 bytes, got 90000",
        ),
    ],
)
def test_lines_that_are_wrong(line: bytes, message: str) -> None:
    with pytest.raises(Failure) as failed:
        read_header(line)
    assert failed.value.message.startswith(message)


def test_data_stands_in_the_line_or_behind_it() -> None:
    header = read_header(b'{"type": "ping", "version": "1.10.2", "data": {"text": "a", "b": 1}, "data_length": 12}')
    assert read_event(header, b'{"text":"c"}', b"").data == {"text": "c", "b": 1}
    with pytest.raises(Failure, match="The data of 'ping' must be a JSON object: "):
        read_event(header, b"[1]", b"")


# answers


def test_an_answer_in_pieces() -> None:
    context = {"conversation_id": "a", "device_id": "b"}
    answer = HandledAnswer(Ask("hi", context=context))
    told = [
        event
        for each in (
            Answering(3, 0, 0),
            Piece("thought", "hm"),
            Piece("text", "Hel"),
            Piece("text", "lo"),
            Finished("stop", 3, 1),
        )
        for event in answer.told(each)
    ]
    assert [(event.type, event.data) for event in told] == [
        ("handled-start", {"context": context}),
        ("handled-chunk", {"text": "Hel"}),
        ("handled-chunk", {"text": "lo"}),
        ("handled", {"text": "Hello", "context": context}),
        ("handled-stop", {}),
    ]
    (event,) = HandledAnswer(Ask("hi")).told(Finished("stop", 1, 0))
    assert (event.type, event.data) == ("not-handled", {"text": "The model gave no answer"})
    (event,) = HandledAnswer(Ask("hi")).failed(Failure(503, "All sessions are in use"))
    assert (event.type, event.data) == ("not-handled", {"text": "All sessions are in use"})


def test_a_conversation_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wyoming_answer, "MOST_CONVERSATIONS", 2)
    monkeypatch.setattr(wyoming_answer, "MOST_CHARACTERS", 12)
    conversations = Conversations()

    def ask(text: str, name: object = "a") -> Ask:
        return Ask(text, "German", {"conversation_id": name})

    def said(name: object = "a") -> list[tuple[str, Any]]:
        return [(message.role, message.content) for message in conversations.request(ask("?", name)).messages]

    instruction = ("system", f"{INSTRUCTION} Answer in German.")
    assert said() == [instruction, ("user", "?")]
    conversations.keep(ask("one"), "two")
    assert said() == [instruction, ("user", "one"), ("assistant", "two"), ("user", "?")]
    conversations.keep(ask("one", "x" * 201), "two")
    assert said("b") == said(None) == said(3) == said("x" * 201) == [instruction, ("user", "?")]
    conversations.keep(ask("three"), "four")  # the first turn goes: too many characters
    assert said() == [instruction, ("user", "three"), ("assistant", "four"), ("user", "?")]
    for name in ("b", "c"):
        conversations.keep(ask("x", name), "y")
    conversations.keep(ask("x", None), "y")
    assert said() == [instruction, ("user", "?")] and len(said("c")) == 4
    assert conversations.shorten(ask("?", "c")) and not conversations.shorten(ask("?", "c"))
    assert len(said("c")) == 2


# the server


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(sessions=2, beside=WyomingServer) as running:
        yield running


def pcm(name: str) -> bytes:
    return (load_audio(media_file(name)) * 32767).round().astype("<i2").tobytes()


def command(name: str, seconds: float = 0.2) -> list[Event]:
    data, size = pcm(name), 2 * round(16_000 * seconds)
    return [start(), *(chunk(data[begin : begin + size]) for begin in range(0, len(data), size)), STOP]


def talk(server: Running, events: Iterable[Event], until: str | None) -> list[Event]:
    """What the stock client gets, up to an event, or to the end of the connection."""

    async def run() -> list[Event]:
        got = []
        async with AsyncTcpClient("127.0.0.1", server.other_port) as client:
            for event in events:
                await client.write_event(event)
            while (event := await asyncio.wait_for(client.read_event(), 60)) is not None:
                got.append(event)
                if event.type == until:
                    break
        return got

    return asyncio.run(run())


@pytest.mark.parametrize("name", [SPEECH, OTHER])
def test_a_transcript_is_that_of_transcribe(server: Running, name: str) -> None:
    got = talk(server, [Transcribe(language="en").event(), *command(name)], "transcript-stop")
    expected = " ".join(utterances(name))
    assert [event.type for event in got[:2]] == ["transcript-start", "transcript-chunk"]
    assert [event.type for event in got[-2:]] == ["transcript", "transcript-stop"]
    assert got[-2].data == {"text": expected, "language": "en"}
    assert "".join(event.data["text"] for event in got if event.type == "transcript-chunk") == expected


def test_sound_is_computed_when_it_arrives(server: Running) -> None:
    """Words come before the end of the sound, and a connection takes one command after the other."""

    async def run() -> None:
        async with AsyncTcpClient("127.0.0.1", server.other_port) as client:
            for _ in range(2):
                *sound, stop = command(SPEECH)
                for event in sound:
                    await client.write_event(event)
                while (event := await asyncio.wait_for(client.read_event(), 60)).type != "transcript-chunk":
                    assert event.type == "transcript-start"
                await client.write_event(stop)
                while (event := await asyncio.wait_for(client.read_event(), 60)).type != "transcript":
                    assert event.type == "transcript-chunk"
                assert event.data["text"] == " ".join(utterances(SPEECH))
                assert (await client.read_event()).type == "transcript-stop"
                await asyncio.to_thread(until_active, server, 0)  # no session is held between two commands

    asyncio.run(run())


def test_a_text_is_answered(server: Running) -> None:
    """As a chat with the same messages."""
    context = {"conversation_id": "c1"}
    got = talk(server, [Transcript("Hello", context=context, language="en").event()], "handled-stop")
    messages = [
        {"role": "system", "content": f"{INSTRUCTION} Answer in English."},
        {"role": "user", "content": "Hello"},
    ]
    expected = server.chat(*messages).json()["choices"][0]["message"]["content"]
    assert [event.type for event in got] == [
        "handled-start",
        *["handled-chunk"] * (len(got) - 3),
        "handled",
        "handled-stop",
    ]
    assert got[-2].data == {"text": expected, "context": context}
    assert "".join(event.data["text"] for event in got[1:-2]) == expected
    again = talk(server, [Transcript("And?", context=context, language="en").event()], "handled-stop")
    messages += [{"role": "assistant", "content": expected}, {"role": "user", "content": "And?"}]
    reply = server.chat(*messages).json()
    assert again[-2].data["text"] == reply["choices"][0]["message"]["content"]
    assert 'route="wyoming/handle",status="200"} 2' in server.get("/metrics").body.decode()


def test_a_conversation_that_is_too_long_forgets_its_beginning() -> None:
    with serving(beside=WyomingServer, limits=Limits(context=200)) as small:
        first = Transcript("one " * 20, context={"conversation_id": "a"}).event()
        for _ in range(3):
            assert talk(small, [first], "handled-stop")[-2].type == "handled"
        (told,) = talk(small, [Transcript("one " * 200).event()], "not-handled")
        assert told.data["text"].startswith("The messages have 3")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "A line must be a JSON object with a type"),
        (b"x" * 200_000, "The line of an event may have at most 65536 bytes"),
        (encode(Event("transcript", {"text": 1})), "The data of 'transcript' is wrong"),
        (b'{"type":"audio-chunk","payload_length":99999999}\n' + b"y" * 100_000, "The payload of an event may have"),
    ],
)
def test_garbage_ends_its_connection_with_a_reason(server: Running, data: bytes, message: str) -> None:
    with socket.create_connection(("127.0.0.1", server.other_port), timeout=20) as client:
        client.sendall(data)
        received = b"".join(iter(lambda: client.recv(65_536), b""))
    line, _, rest = received.partition(b"\n")
    assert json.loads(line)["type"] == "error" and json.loads(rest)["text"].startswith(message)
    assert talk(server, [Ping().event()], "pong")


def test_a_client_that_breaks_off_is_no_problem(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    """It sends garbage, or something to answer, and resets the connection; nothing is written to the terminal."""
    reset = struct.pack("ii", 1, 0)
    for sent in (b"garbage\n" * 20_000, encode(Transcript("hi").event()), b"".join(map(encode, command(OTHER)))):
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.other_port)) as client:
                client.sendall(sent)
                if sent.startswith(b"garbage"):
                    client.recv(10)  # the error: what is sent behind it is still read
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    assert talk(server, [Ping().event()], "pong")
    until_active(server, 0)
    assert caplog.records == []


def until_active(server: Running, count: int) -> None:
    """Wait until so many sessions are used."""
    deadline = time.monotonic() + 20
    while server.service.engine.active != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_client_that_goes_ends_its_work(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = server.service.processor
    monkeypatch.setattr(processor, "suppressed_ids", (*processor.suppressed_ids, *processor.stop_ids))
    for sent in (command(SPEECH)[:-1], [Transcript("Count to one thousand").event()]):
        with socket.create_connection(("127.0.0.1", server.other_port)) as client:
            client.sendall(b"".join(map(encode, sent)))
            until_active(server, 1)
        until_active(server, 0)


def test_more_speakers_than_sessions(server: Running) -> None:
    async def run() -> None:
        clients = [AsyncTcpClient("127.0.0.1", server.other_port) for _ in range(3)]
        for number, client in enumerate(clients):
            await client.connect()
            await client.write_event(start())
            await asyncio.to_thread(until_active, server, min(number + 1, 2))
        error = await asyncio.wait_for(clients[-1].read_event(), 20)
        assert error is not None
        assert error.data["code"] == "server_overloaded"
        assert error.data["text"].startswith("All 2 sessions are in use; try again later")
        assert await asyncio.wait_for(clients[-1].read_event(), 20) is None
        for client in clients:
            await client.disconnect()

    asyncio.run(run())
    until_active(server, 0)


def test_two_speakers_at_once_are_as_if_alone(server: Running) -> None:
    async def speak(name: str) -> str:
        async with AsyncTcpClient("127.0.0.1", server.other_port) as client:
            for event in command(name):
                await client.write_event(event)
                await asyncio.sleep(0)
            while (event := await asyncio.wait_for(client.read_event(), 60)).type != "transcript":
                pass
            text: str = event.data["text"]
            return text

    async def both() -> list[str]:
        return list(await asyncio.gather(speak(SPEECH), speak(OTHER)))

    assert asyncio.run(both()) == [" ".join(utterances(name)) for name in (SPEECH, OTHER)]


def test_a_silent_client_is_turned_away() -> None:
    with serving(beside=WyomingServer, limits=Limits(session_idle=0.3, idle=0.2)) as hurried:
        (error,) = talk(hurried, [], None)
        assert error.data == {"text": "Nothing was received for 0.3 s", "code": "timeout"}
        with socket.create_connection(("127.0.0.1", hurried.other_port), timeout=20) as client:
            client.sendall(b'{"type":"audio-chunk","payload_length":10}\n123')
            assert b"Nothing was received for 0.2 s" in b"".join(iter(lambda: client.recv(1000), b""))


def test_too_many_connections(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "CONNECTIONS", 0)
    (error,) = talk(server, [], None)
    assert error.data == {"text": "0 Wyoming connections are open; close one", "code": "server_overloaded"}


def test_a_checkpoint_without_ears(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    config = server.service.processor.config
    monkeypatch.setattr(server.service.processor, "config", type(config)(**{**vars(config), "audio_config": None}))
    (info,) = talk(server, [Describe().event()], "info")
    assert Info.from_event(info).asr == [] and len(Info.from_event(info).handle) == 1
    (error,) = talk(server, [start()], None)
    assert error.data["text"] == "This checkpoint takes no sound"


def test_when_the_server_stops_an_answer_is_finished() -> None:
    """Clients that wait for nothing are left at once."""

    async def run(stop: Callable[[], None], port: int) -> str:
        async with AsyncTcpClient("127.0.0.1", port) as idle, AsyncTcpClient("127.0.0.1", port) as client:
            for event in command(SPEECH):
                await client.write_event(event)
            assert (await asyncio.wait_for(client.read_event(), 60)).type == "transcript-start"
            stop()
            assert await asyncio.wait_for(idle.read_event(), 20) is None
            while (event := await asyncio.wait_for(client.read_event(), 60)).type != "transcript":
                pass
            text: str = event.data["text"]
            return text

    with serving(beside=WyomingServer) as running:
        text = asyncio.run(run(running.stop, running.other_port))
    assert text == " ".join(utterances(SPEECH))


GARBAGE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        ["describe", "transcribe", "audio-start", "audio-chunk", "audio-stop", "transcript", "ping"]
    ).flatmap(
        lambda kind: st.dictionaries(
            st.sampled_from(["rate", "width", "channels", "text", "language", "context", "transcript_names"]),
            st.one_of(st.none(), st.integers(-2, 50_000), st.text(max_size=4), st.just(["a"]), st.just({"b": 1})),
        ).map(lambda data: encode(Event(kind, data, b"123")))
    ),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(GARBAGE, max_size=6))
@example([encode(start()), encode(chunk(b"1")), encode(STOP)])
def test_any_bytes_give_events_or_a_failure(messages: list[bytes]) -> None:
    client = Client()
    for message in messages:
        line, _, rest = message.partition(b"\n")
        try:
            header = read_header(line)
            length = header.data_length or 0
            event = read_event(header, rest[:length], rest[length:])
            events, _ = client.session.receive(event)
        except Failure:
            continue
        assert b"".join(map(encode, events)).count(b"\n") == len(events)
