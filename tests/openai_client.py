"""The stock ``openai`` client against a server, in an environment of its own: every response is checked by its types.

    python3 -m venv client && client/bin/pip install 'openai[realtime]'
    mlx_gemma4 serve --model demo --dtype float32 --port 8091
    client/bin/python tests/openai_client.py http://127.0.0.1:8091/v1

It needs nothing of this package, and prints a line for each check.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import openai
from client_parts import (
    DESCRIBE,
    FOLDERS,
    OTHER,
    PICTURE,
    SPEECH,
    TESTS,
    base64_of,
    is_equal,
    media,
    named,
    pcm_24k,
    picture_url,
    pieces,
    run,
    said,
)
from openai import OpenAI

EXAMPLES = TESTS.parent / "examples" / "clients"
NAMED, SAID = named(PICTURE), said(SPEECH)
TOOLS = [{"type": "function", "function": {"name": "lights", "parameters": {"type": "object", "properties": {}}}}]


def picture() -> Any:
    image = {"type": "image_url", "image_url": {"url": picture_url()}}
    return [{"role": "user", "content": [image, {"type": "text", "text": DESCRIBE}]}]


def models(client: OpenAI) -> None:
    is_equal([model.id for model in client.models.list()], ["demo"])
    is_equal(client.models.retrieve("demo").object, "model")


def chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=picture())
    is_equal((answer.choices[0].message.content, answer.choices[0].finish_reason), (NAMED, "stop"))
    assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
    is_equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)


def stream(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="demo", messages=picture(), stream=True, stream_options={"include_usage": True}
        )
    )
    is_equal("".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]), NAMED)
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 3


def logprobs(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=picture(), logprobs=True, top_logprobs=3)
    told = answer.choices[0].logprobs
    assert told is not None and told.content is not None
    is_equal("".join(each.token for each in told.content), NAMED)
    is_equal({len(each.top_logprobs) for each in told.content}, {3})


def limits(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=picture(), max_completion_tokens=2, stop="center")
    is_equal((answer.choices[0].message.content, answer.choices[0].finish_reason), ("red circle", "length"))


def sound(client: OpenAI) -> None:
    audio: Any = {"type": "input_audio", "input_audio": {"data": base64_of(SPEECH), "format": "wav"}}
    content = [{"type": "text", "text": "Transcribe the audio."}, audio]
    answer = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": content}])  # type: ignore
    is_equal(answer.choices[0].message.content, SAID)


def helper(client: OpenAI) -> None:
    """The SDK's own accumulator of streams."""
    with client.chat.completions.stream(model="demo", messages=picture()) as events:
        kinds = [event.type for event in events]
        is_equal(events.get_final_completion().choices[0].message.content, NAMED)
    assert "content.delta" in kinds and kinds[-1] == "content.done"


def structured(client: OpenAI) -> None:
    """A schema that the answer must follow."""
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "card", "strict": True, "schema": schema}}
    answer = client.chat.completions.create(model="demo", messages=picture(), response_format=form)
    assert json.loads(answer.choices[0].message.content or "")["colour"] in ("red", "blue")


def responses(client: OpenAI) -> None:
    content = [
        {"type": "input_image", "image_url": picture_url(), "detail": "auto"},
        {"type": "input_text", "text": DESCRIBE},
    ]
    items: Any = [{"role": "user", "content": content}]
    answer = client.responses.create(model="demo", input=items)
    is_equal((answer.output_text, answer.status), (NAMED, "completed"))
    assert answer.usage is not None and answer.usage.total_tokens > answer.usage.output_tokens
    events = list(client.responses.create(model="demo", input=items, stream=True))
    is_equal("".join(event.delta for event in events if event.type == "response.output_text.delta"), NAMED)
    is_equal([event.sequence_number for event in events], list(range(len(events))))
    assert events[-1].type == "response.completed" and events[-1].response.output_text == NAMED
    with client.responses.stream(model="demo", input=items) as streamed:
        for _ in streamed:
            pass
        is_equal(streamed.get_final_response().output_text, NAMED)
    cut = client.responses.create(model="demo", input=items, max_output_tokens=1)
    is_equal(cut.status, "incomplete")


def errors(client: OpenAI) -> None:
    refused: list[tuple[type[Exception], Callable[[], object]]] = [
        (openai.NotFoundError, lambda: client.chat.completions.create(model="gpt-5", messages=picture())),
        (openai.BadRequestError, lambda: client.chat.completions.create(model="demo", messages=[])),
        (openai.BadRequestError, lambda: client.chat.completions.create(model="demo", messages=picture(), tools=TOOLS)),  # type: ignore
        (openai.BadRequestError, lambda: client.audio.transcriptions.create(model="m", file=("a.wav", b"no sound"))),
    ]
    for kind, ask in refused:
        try:
            ask()
        except kind as error:
            assert isinstance(error, openai.APIStatusError) and error.body is not None
        else:
            raise AssertionError(f"{kind.__name__} was not raised")


def transcription(client: OpenAI) -> None:
    for name in (SPEECH, OTHER):
        is_equal(client.audio.transcriptions.create(model="whisper-1", file=(name, media(name))).text, said(name))


def transcription_in_all_forms(client: OpenAI) -> None:
    file = ("speech.wav", media(SPEECH))
    create = client.audio.transcriptions.create
    is_equal(create(model="m", file=file, response_format="text"), f"{SAID}\n")
    assert "00:00:00,440 --> " in create(model="m", file=file, response_format="srt")
    assert create(model="m", file=file, response_format="vtt").startswith("WEBVTT\n")
    told = create(
        model="m",
        file=file,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
        language="en",
        keywords=["seven"],
        prompt="Numbers.",
        chunking_strategy={"type": "server_vad", "silence_duration_ms": 500},
    )
    assert told.segments and told.words and told.duration > 2
    is_equal(" ".join(word.word for word in told.words), told.text)


def transcription_stream(client: OpenAI) -> None:
    file = ("speech.wav", media(SPEECH))
    *deltas, done = client.audio.transcriptions.create(model="m", file=file, stream=True)
    is_equal(("".join(event.delta for event in deltas), done.text), (SAID, SAID))  # type: ignore


def translation(client: OpenAI) -> None:
    assert client.audio.translations.create(model="m", file=("speech.wav", media(SPEECH))).text


def realtime(client: OpenAI) -> None:
    """Every frame as it is spoken; with a commit of the client, and where the server finds the utterances."""
    telephone, silence = pcm_24k(SPEECH), b"\0" * 48_000
    for detection in (None, {"type": "server_vad", "silence_duration_ms": 500}):
        with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
            settings: Any = {"format": {"type": "audio/pcm", "rate": 24_000}, "turn_detection": detection}
            settings["transcription"] = {"model": "demo", "language": "en"}
            connection.session.update(session={"type": "transcription", "audio": {"input": settings}})
            for piece in pieces(telephone if detection is None else telephone + silence, 4800):
                connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
            if detection is None:
                connection.input_audio_buffer.commit()
            words, kinds = "", []
            for event in connection:
                kinds.append(event.type)
                type(event).model_validate(event.to_dict())  # the client itself checks nothing here
                if event.type == "conversation.item.input_audio_transcription.delta":
                    words += event.delta or ""
                elif event.type == "conversation.item.input_audio_transcription.completed":
                    is_equal((words, event.transcript), (SAID, SAID))
                    break
                elif event.type == "error":
                    raise AssertionError(event.error.message)
            is_equal(kinds[:2], ["session.created", "session.updated"])
            is_equal("input_audio_buffer.speech_started" in kinds, detection is not None)
            assert "input_audio_buffer.committed" in kinds and "conversation.item.added" in kinds


def conversation(client: OpenAI) -> None:
    """Items, answers in text, and a spoken turn that is answered."""
    with client.realtime.connect(model="demo") as connection:

        def until(kind: str) -> list[Any]:
            events: list[Any] = []
            while not events or events[-1].type != kind:
                events.append(connection.recv())
                type(events[-1]).model_validate(events[-1].to_dict())
                if events[-1].type == "error":
                    raise AssertionError(events[-1].error.message)
            return events

        sound: Any = {"format": {"type": "audio/pcm", "rate": 24_000}, "transcription": {"language": "en"}}
        sound["turn_detection"] = {"type": "server_vad", "silence_duration_ms": 500}
        session: Any = {"type": "realtime", "output_modalities": ["text"], "audio": {"input": sound}}
        connection.session.update(session=session)
        updated = until("session.updated")[-1].session
        is_equal((updated.type, updated.output_modalities), ("realtime", ["text"]))
        image: Any = {"type": "input_image", "image_url": picture_url()}
        words: Any = {"type": "input_text", "text": "Describe the image."}
        item: Any = {"type": "message", "role": "user", "content": [image, words]}
        connection.conversation.item.create(item=item)
        connection.response.create()
        events = until("response.done")
        is_equal("".join(event.delta for event in events if event.type == "response.output_text.delta"), NAMED)
        response = events[-1].response
        is_equal((response.status, response.output[0].content[0].text), ("completed", NAMED))
        assert response.usage.input_token_details.image_tokens > 0
        connection.conversation.item.retrieve(item_id=response.output[0].id)
        is_equal(until("conversation.item.retrieved")[-1].item.content[0].text, NAMED)
        connection.conversation.item.truncate(item_id=response.output[0].id, content_index=0, audio_end_ms=0)
        until("conversation.item.truncated")
        for each in [event.item.id for event in events if event.type == "conversation.item.added"]:
            connection.conversation.item.delete(item_id=each)
            until("conversation.item.deleted")
        instruction: Any = {"type": "message", "role": "user", "content": [{**words, "text": "Transcribe the audio."}]}
        connection.conversation.item.create(item=instruction)
        for piece in pieces(pcm_24k(SPEECH) + b"\0" * 48_000, 4800):
            connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
        events = until("response.done")
        is_equal(events[-1].response.output[0].content[0].text, SAID)
        kinds = [event.type for event in events]
        assert kinds.index("input_audio_buffer.speech_started") < kinds.index("input_audio_buffer.committed")
        connection.response.create(response={"conversation": "none", "metadata": {"topic": "apart"}})
        connection.response.cancel(response_id=until("response.created")[-1].response.id)
        is_equal(until("response.done")[-1].response.status, "cancelled")


def examples(client: OpenAI) -> None:
    """The programs in ``examples/clients``, as they are."""
    url = str(client.base_url).rstrip("/")
    told = {
        ("chat_with_a_picture.py", str(FOLDERS[0] / PICTURE), DESCRIBE, url): [NAMED],
        ("live_transcription.py", str(FOLDERS[0] / SPEECH), url): [SAID, SAID],
    }
    for (name, *arguments), expected in told.items():
        done = subprocess.run([sys.executable, EXAMPLES / name, *arguments], capture_output=True, text=True, check=True)
        is_equal((done.stdout.splitlines()[:-1], done.stderr), (expected, ""))


CHECKS = (
    models,
    chat,
    stream,
    logprobs,
    limits,
    sound,
    helper,
    structured,
    responses,
    errors,
    transcription,
    transcription_in_all_forms,
    transcription_stream,
    translation,
    realtime,
    conversation,
    examples,
)


def main() -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # OpenAI's own translations are deprecated
    url = sys.argv[1]
    client = OpenAI(
        base_url=url,
        websocket_base_url=url.replace("http", "ws", 1),
        api_key="none",
        max_retries=0,
        _strict_response_validation=True,
    )
    run(CHECKS, client)


if __name__ == "__main__":
    main()
