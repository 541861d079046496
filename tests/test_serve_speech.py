"""Recordings over HTTP with the demo: the texts of ``transcribe``, in all forms that clients ask for."""

from __future__ import annotations

import io
import json
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
from golden import spans, utterances
from reference_cases import media_file
from servers import Reply, Running, serving

from mlx_gemma4 import Transcriber, load_audio
from mlx_gemma4.inputs.audio.endpoint import Endpointer, Endpointing
from mlx_gemma4.programs.segments import joined, transcribe
from mlx_gemma4.serve.limits import Limits
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.speech_request import SpeechRequest, read_speech
from mlx_gemma4.serve.work.reader import Reader
from mlx_gemma4.serve.work.speech import instruction_of, translation

SPEECH, OTHER = "hibari-03.wav", "pico-04.wav"
TEXT = " ".join(utterances(SPEECH))


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(sessions=2, waiting=0, limits=Limits(upload=3_000_000, sound_seconds=60.0, idle=5.0)) as running:
        yield running


def form(fields: list[tuple[str, str]], file: bytes | None, name: str = "speech.wav") -> tuple[bytes, dict[str, str]]:
    """A form as browsers and SDKs write it."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields
    ]
    body = "".join(parts).encode()
    if file is not None:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        body += f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + file + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def send(server: Running, file: bytes | None, *fields: tuple[str, str], path: str = "transcriptions") -> Reply:
    body, headers = form([("model", "whisper-1"), *fields], file)
    return server.send("POST", f"/v1/audio/{path}", body, headers)


def recording(name: str = SPEECH) -> bytes:
    return media_file(name).read_bytes()


@pytest.fixture(scope="module")
def conversation() -> bytes:
    """Several utterances, longer than a batch."""
    names = (SPEECH, OTHER) * 5
    samples = np.concatenate([np.pad(load_audio(media_file(name)), (0, 16_000)) for name in names])
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="FLAC")
    return file.getvalue()


def test_the_text(server: Running) -> None:
    reply = send(server, recording())
    tokens = sum(end - start for start, end in spans(SPEECH))
    usage = reply.json()["usage"]
    assert (reply.status, reply.json()["text"]) == (200, TEXT)
    assert usage["input_token_details"]["audio_tokens"] == tokens
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    plain = send(server, recording(), ("response_format", "text"))
    assert (plain.body.decode(), plain.headers["content-type"]) == (f"{TEXT}\n", "text/plain; charset=utf-8")


def test_many_utterances_are_those_of_transcribe(server: Running, conversation: bytes) -> None:
    """Also in a format that is decoded, and as they come."""
    model, processor = server.service.model, server.service.processor

    def alone() -> list[Any]:
        samples = load_audio(io.BytesIO(conversation))
        return list(transcribe([samples], Transcriber(model, processor)))

    expected = server.service.engine.run(alone)
    assert len(expected) >= 10
    whole = send(
        server,
        conversation,
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "segment"),
        ("timestamp_granularities[]", "word"),
    ).json()
    assert whole["text"] == joined(expected)
    assert whole["duration"] == round(len(load_audio(io.BytesIO(conversation))) / 16_000, 3)
    times = [(segment["start"], segment["end"], segment["text"]) for segment in whole["segments"]]
    assert times == [(round(each.start, 3), round(each.end, 3), each.text) for each in expected if each.text]
    assert " ".join(word["word"] for word in whole["words"]) == whole["text"]
    starts = [word["start"] for word in whole["words"]]
    assert starts == sorted(starts) and len(starts) > 20
    assert (whole["language"], whole["task"]) == ("english", "transcribe")
    *deltas, done = send(server, conversation, ("stream", "true")).events
    assert {delta["type"] for delta in deltas} == {"transcript.text.delta"} and len(deltas) == len(times)
    assert "".join(delta["delta"] for delta in deltas) == done["text"] == whole["text"]
    assert (done["type"], done["usage"]["type"]) == ("transcript.text.done", "tokens")


def test_subtitles(server: Running) -> None:
    (start, end), *_ = spans(SPEECH)
    cue = f"00:00:{start * 0.04:06.3f} --> 00:00:{end * 0.04:06.3f}\n{utterances(SPEECH)[0]}\n"
    assert send(server, recording(), ("response_format", "vtt")).body.decode() == f"WEBVTT\n\n{cue}"
    assert send(server, recording(), ("response_format", "srt")).body.decode() == f"1\n{cue.replace('.', ',')}"


def test_silence_has_no_text(server: Running) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(16_000), 16_000, format="WAV")
    reply = send(server, file.getvalue())
    assert (reply.status, reply.json()["text"], reply.json()["usage"]["output_tokens"]) == (200, "", 0)


def test_only_words_or_only_segments(server: Running) -> None:
    for granularity, present, absent in (("word", "words", "segments"), ("segment", "segments", "words")):
        reply = send(
            server, recording(), ("response_format", "verbose_json"), ("timestamp_granularities[]", granularity)
        )
        assert reply.json()[present] and absent not in reply.json()


def test_translations_have_their_own_instruction(server: Running) -> None:
    """The demo does not translate; what it writes is told all the same."""
    reply = send(server, recording(), ("response_format", "verbose_json"), path="translations")
    assert (reply.status, reply.json()["task"], reply.json()["language"]) == (200, "translate", "english")


def test_an_instruction_is_computed_once(server: Running) -> None:
    send(server, recording())
    engine, transcribers = server.service.engine, server.service.transcribers
    (text, transcriber), *_ = engine.run(lambda: list(reversed(transcribers._idle)))
    computed = transcriber.session.computed
    send(server, recording())
    again = transcriber.session.computed - computed
    assert 0 < again - sum(end - start for start, end in spans(SPEECH)) < len(server.service.processor.text(text))
    assert len(transcribers._idle) <= 2


@pytest.mark.parametrize(
    ("file", "fields", "status", "message"),
    [
        (None, [], 400, "The recording is missing: send it as the field file of multipart/form-data"),
        (b"no sound", [], 400, "the file is not a recording"),
        (b"", [], 400, "the file is empty"),
        (recording()[:-9000], [], 400, "the file is cut short"),
        (recording(), [("response_format", "diarized_json")], 400, "Speakers are not told apart: use another"),
        (b"\0" * 3_000_001, [], 413, "The body of a request may have at most 3 MB"),
    ],
)
def test_recordings_that_cannot_be_transcribed(
    server: Running, file: bytes | None, fields: list[tuple[str, str]], status: int, message: str
) -> None:
    reply = send(server, file, *fields)
    assert (reply.status, reply.error["message"][: len(message)]) == (status, message)


def test_a_stream_has_the_text_before_the_damage(server: Running, conversation: bytes) -> None:
    *deltas, last = send(server, conversation[: len(conversation) // 2], ("stream", "true")).events
    assert len(deltas) > 3 and last["error"]["code"] == "invalid_audio"


def test_a_recording_that_is_too_long(server: Running) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(61 * 8000, np.float32), 8000, format="WAV")
    assert send(server, file.getvalue()).error["message"] == "the file is longer than 60 s; cut it first"


def test_a_client_that_goes_away_ends_its_transcript(server: Running, conversation: bytes) -> None:
    body, headers = form([("stream", "true")], conversation)
    connection = server.connect()
    connection.request("POST", "/v1/audio/transcriptions", body, headers)
    response = connection.getresponse()
    assert response.readline().startswith(b"data: ")
    response.close()
    connection.close()
    deadline = time.monotonic() + 20
    while server.service.engine.active:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert send(server, recording()).json()["text"] == TEXT


# requests


def read(*fields: tuple[str, str], translates: bool = False) -> SpeechRequest:
    return read_speech(fields, translates=translates)


def test_the_fields_of_the_sdk() -> None:
    request = read(
        ("model", "m"),
        ("languages[]", "de"),
        ("languages[]", "fr"),
        ("keywords[]", "Gemma"),
        ("keywords[]", "MLX"),
        ("prompt", " About cars. "),
        ("stream", "True"),
        ("temperature", "0"),
        ("chunking_strategy[type]", "server_vad"),
        ("chunking_strategy[silence_duration_ms]", "800"),
        ("user", "me"),
    )
    assert request == SpeechRequest(
        translates=False,
        model="m",
        languages=("German", "French"),
        keywords=("Gemma", "MLX"),
        prompt="About cars.",
        streams=True,
        endpointing=Endpointing(silence=0.8),
    )
    assert read(("chunking_strategy", "auto"), ("language", "en")) == SpeechRequest(False, languages=("English",))
    strategy = {"type": "server_vad", "threshold": 0.2, "prefix_padding_ms": 100, "silence_duration_ms": 100}
    assert read(("chunking_strategy", json.dumps(strategy))).endpointing == Endpointing(
        threshold=0.2, release=0.2, silence=0.1, pre_roll=0.1, tail=0.1
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([("response_format", "xml")], "response_format must be one of json, text, srt, verbose_json, vtt"),
        ([("include[]", "logprobs")], "include is not supported; leave it out"),
        (
            [("stream", "true"), ("response_format", "srt")],
            "stream: true goes with response_format json: its events have the text",
        ),
        ([("timestamp_granularities[]", "letter")], "timestamp_granularities must be word or segment"),
        (
            [("timestamp_granularities[]", "word")],
            "timestamp_granularities need response_format verbose_json",
        ),
        ([("language", "xx")], "Unknown language 'xx': use a code such as de, or an English name"),
        ([("languages", "de")] * 9, "languages takes at most 8 languages, got 9"),
        ([("keywords", "x" * 101)], "keywords takes at most 200 words of at most 100 characters"),
        ([("prompt", "x" * 4001)], "prompt takes at most 4000 characters, got 4001"),
        (
            [("chunking_strategy", "manual")],
            "chunking_strategy must be auto, or an object of the type server_vad",
        ),
        (
            [("chunking_strategy[threshold]", "2")],
            "chunking_strategy.threshold must be a number from 0 to 1",
        ),
        (
            [("chunking_strategy", '{"silence_duration_ms": "long"}')],
            "chunking_strategy.silence_duration_ms must be a number from 40 to 10000",
        ),
    ],
)
def test_fields_that_are_wrong(fields: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(Failure) as refused:
        read(*fields)
    assert (refused.value.status, refused.value.message) == (400, message)


def test_instructions() -> None:
    plain = instruction_of(read(), "English")
    assert plain.startswith("Transcribe the following speech segment in English into English text.\n")
    several = instruction_of(read(("languages", "de"), ("languages", "en"), ("keywords", "MLX")), "English")
    assert several.startswith("Transcribe the following speech segment in German or English into German or English")
    assert several.endswith("\n\nThese terms may come up: MLX.")
    assert instruction_of(read(("prompt", "Cars.")), "English") == f"{plain}\n\nContext: Cars."
    translating = instruction_of(read(translates=True), "English")
    assert "in the language that is spoken, then translate it into English" in translating


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Guten Tag.\nEnglish: Good day.", "Good day."),
        ("English: Good day.", "Good day."),
        ("He said: English: no", "He said: English: no"),
        ("Good day.", "Good day."),
    ],
)
def test_the_translation_in_an_answer(text: str, expected: str) -> None:
    assert translation(text) == expected


def test_the_program_waits_for_a_reader() -> None:
    """Threads take after the one that starts them, and the engine's is a daemon. A detector that was made while the
    program ends would write errors to the terminal."""
    may_go_on, readers = threading.Event(), list[threading.Thread]()

    def make_endpointer() -> Endpointer:
        readers.append(threading.current_thread())
        may_go_on.wait(20)
        raise ValueError("enough")

    def engine() -> None:
        reader = Reader(io.BytesIO(), make_endpointer, 640, 10.0, lambda: None)
        while not readers:
            time.sleep(0.01)
        reader.stop()

    thread = threading.Thread(target=engine, daemon=True)
    thread.start()
    thread.join(20)
    assert [each.daemon for each in readers] == [False]
    may_go_on.set()
    readers[0].join(20)
    assert not readers[0].is_alive()
