"""Random sequences of a client's events on ``/v1/realtime``, right ones and damaged ones, in all dialects.

Each depends on its Random alone. An event that keeps its order may come at any time; so may none.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from random import Random
from typing import Any

from client_parts import base64_of, pcm
from fuzz_requests import JUNK, PICTURE, SCHEMAS, replaced

SOUND = pcm("espeak-00.wav")
QUERIES = ("", "?intent=transcription", "?model=demo", "?model=demo&intent=x", "?intent=transcription&model=x")
GARBAGE: tuple[str | bytes, ...] = (
    *("", "{", "[]", "null", '"x"', '{"type":1}', '{"type":null}', '{"event_id":{}}', "[" * 5000),
    *(b"\xff\xfe", b"", '{"type":"input_audio_buffer.append","audio":"*"}'),
)
Message = str | bytes
Make = Callable[[Random], dict[str, Any]]


def sequence(random: Random, most: int = 25) -> list[Message]:
    """The events of one connection."""
    kinds = random.choice((TRANSCRIPTION, CONVERSATION, CONVERSATION, VLLM, (*TRANSCRIPTION, *CONVERSATION, *VLLM)))
    return [event(random, kinds) for _ in range(random.randint(1, most))]


def event(random: Random, kinds: tuple[Make, ...]) -> Message:
    if random.random() < 0.08:
        return random.choice(GARBAGE)
    made = random.choice(kinds)(random)
    if random.random() < 0.15:
        made["event_id"] = random.choice(["e1", "e" * 600, None, 3])
    if random.random() < 0.12:
        made = replaced(random, made)
    return json.dumps(made)


def append(random: Random) -> dict[str, Any]:
    size = random.choice((0, 1, 3, 3200, 16_000, len(SOUND)))
    data = SOUND[:size] if random.random() < 0.8 else bytes(min(size, 16_000))
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(data).decode()}


def commit(random: Random) -> dict[str, Any]:
    return {"type": "input_audio_buffer.commit"}


def clear(random: Random) -> dict[str, Any]:
    return {"type": "input_audio_buffer.clear"}


def update(random: Random) -> dict[str, Any]:
    form = {"type": random.choice(("audio/pcm", "audio/pcmu", "audio/pcma", "x"))}
    if random.random() < 0.5:
        form["rate"] = random.choice((24_000, 16_000, 8000, 7, 48_000))
    detections: tuple[Any, ...] = (
        None,
        {"type": "server_vad"},
        {"type": "server_vad", "create_response": False, "interrupt_response": False, "silence_duration_ms": 200},
        {"type": "semantic_vad", "eagerness": random.choice(("high", "x"))},
        {"type": "x"},
    )
    inputs = {
        "format": form,
        "turn_detection": random.choice(detections),
        "transcription": {"language": random.choice(("en", "de", "xx")), "keywords": random.choice((["seven"], []))},
        "noise_reduction": random.choice((None, {"type": "near_field"})),
    }
    chosen = {name: inputs[name] for name in random.sample(sorted(inputs), random.randint(0, 3))}
    session: dict[str, Any] = {"type": random.choice(("transcription", "realtime", "realtime", "x"))}
    if random.random() < 0.7:
        session["audio"] = {"input": chosen}
    if random.random() < 0.4:
        session |= settings(random)
    return {"type": "session.update", "session": session}


def settings(random: Random) -> dict[str, Any]:
    made = {
        "instructions": random.choice(("Be brief.", "", "<|turn>")),
        "output_modalities": random.choice((["text"], ["audio"], [])),
        "max_output_tokens": random.choice((1, 5, "inf", 0, -1)),
        "tools": random.choice(([], [{"type": "function", "name": "f", "parameters": random.choice(SCHEMAS)}])),
        "tool_choice": random.choice(("auto", "none", "required", {"type": "function", "name": "f"})),
        "truncation": random.choice(("auto", "disabled")),
        "include": random.choice((None, ["item.input_audio_transcription.hypotheses"], ["x"])),
    }
    return {name: made[name] for name in random.sample(sorted(made), random.randint(1, 3))}


def create_item(random: Random) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [
        {"type": "input_text", "text": "Describe the image."},
        {"type": "input_image", "image_url": f"data:image/png;base64,{base64_of(PICTURE)}", "detail": "low"},
        {"type": "input_audio", "audio": base64.b64encode(SOUND[:9600]).decode(), "transcript": "nine"},
        {"type": "output_text", "text": "Yes."},
    ]
    items: tuple[dict[str, Any], ...] = (
        {
            "type": "message",
            "role": random.choice(("user", "user", "assistant", "system", "x")),
            "content": random.sample(parts, random.randint(0, 2)),
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": random.choice(("{}", "{"))},
        {"type": "function_call_output", "call_id": random.choice("cd"), "output": "on"},
    )
    item = random.choice(items)
    if random.random() < 0.5:
        item["id"] = random.choice(ITEMS)
    made: dict[str, Any] = {"type": "conversation.item.create", "item": item}
    if random.random() < 0.3:
        made["previous_item_id"] = random.choice((*ITEMS, "root", None))
    return made


def about_item(random: Random) -> dict[str, Any]:
    kind = random.choice(("delete", "retrieve", "truncate"))
    made: dict[str, Any] = {"type": f"conversation.item.{kind}", "item_id": random.choice(ITEMS)}
    if kind == "truncate":
        made |= {"content_index": random.choice((0, 1, -1)), "audio_end_ms": random.choice((0, 100, 10**9, -1))}
    return made


def answer(random: Random) -> dict[str, Any]:
    made: dict[str, Any] = {"max_output_tokens": random.randint(1, 4)}
    if random.random() < 0.3:
        made |= {"conversation": "none", "metadata": {"a": "b"}}
        message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}
        made["input"] = random.choice(([], [message], [{"type": "item_reference", "id": random.choice(ITEMS)}]))
    if random.random() < 0.3:
        made |= settings(random)
    return {"type": "response.create", "response": made} if random.random() < 0.8 else {"type": "response.create"}


def cancel(random: Random) -> dict[str, Any]:
    return {"type": "response.cancel"} if random.random() < 0.7 else {"type": "response.cancel", "response_id": "x"}


def stranger(random: Random) -> dict[str, Any]:
    return {"type": random.choice(("x", "output_audio_buffer.clear", "transcription.delta")), "a": random.choice(JUNK)}


def begin_vllm(random: Random) -> dict[str, Any]:
    return random.choice(({"type": "session.update", "model": "demo"}, {"type": "input_audio_buffer.commit"}))


def end_vllm(random: Random) -> dict[str, Any]:
    return {"type": "input_audio_buffer.commit", "final": random.choice((True, False))}


ITEMS = ("item_a", "item_b", "item_c", "x" * 64)
TRANSCRIPTION: tuple[Make, ...] = (append, append, append, commit, clear, update, stranger)
CONVERSATION: tuple[Make, ...] = (*TRANSCRIPTION, create_item, create_item, about_item, answer, answer, cancel)
VLLM: tuple[Make, ...] = (begin_vllm, append, append, end_vllm)
