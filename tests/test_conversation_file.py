"""Messages in a file: every kind of media and of message comes back as it was, and what is damaged is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import loaded
from reference_cases import media_file

from mlx_gemma4 import Conversation
from mlx_gemma4.inputs.vision.image import Patches, load_image
from mlx_gemma4.programs.conversation_file import pack, unpack

CALL = {
    "type": "function",
    "id": "call_1",
    "function": {"name": "lights", "arguments": {"room": "hall", "n": [1, None]}},
}
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be short. 日本語 \ud800"},
    {"role": "user", "content": "plain"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [CALL],
        "tool_responses": [{"name": "lights", "response": "on"}],
    },
    {"role": "tool", "tool_call_id": "call_1", "name": "lights", "content": "on"},
    {"role": "assistant", "content": None, "reasoning": "why"},
]


def content() -> list[dict[str, Any]]:
    frames = np.stack([load_image(media_file(name)) for name in ("before.png", "after.png")])
    odd = np.random.default_rng(1).random((6, 48 * 48 * 3), np.float32)
    places = np.stack(np.divmod(np.arange(6, dtype=np.int32), 3), axis=1)[:, ::-1]
    return [
        {"type": "image", "image": media_file("picture-01.png")},
        {"type": "image", "image": Patches(odd, places)},
        {"type": "video", "video": (frames, 1.0)},
        {"type": "text", "text": "what"},
        {"type": "audio", "audio": media_file("pico-04.wav")},
    ]


def test_messages_come_back_as_they_were() -> None:
    """Pixels to the bit: as bytes where they came from bytes, or as they are."""
    _, processor = loaded("demo")
    messages = [*MESSAGES, {"role": "user", "content": processor.read_media(content())}]
    tensors = pack(messages)
    assert [tensors[f"media.{number}.pixels"].dtype for number in range(3)] == [np.uint8, np.float32, np.uint8]
    again = unpack(tensors)
    assert again[:5] == MESSAGES
    before, after = (processor.prompt(each[5:]) for each in (messages, again))
    assert before.common_prefix(after) == len(before) == len(after)


def test_media_are_read_when_they_are_given(tmp_path: Path) -> None:
    """A file that is removed later does not matter."""
    model, processor = loaded("demo")
    picture = tmp_path / "x.png"
    picture.write_bytes(media_file("picture-02.png").read_bytes())
    conversation = Conversation(model, processor)
    list(conversation.ask([{"type": "image", "image": picture}, {"type": "text", "text": "what"}], max_tokens=2))
    picture.unlink()
    list(conversation.ask("what", max_tokens=2))
    conversation.save(tmp_path / "chat")
    assert Conversation.load(model, processor, tmp_path / "chat").turns == 2


def test_messages_that_json_cannot_express() -> None:
    with pytest.raises(ValueError, match=r"^The messages cannot be saved: .+; use text, numbers, lists and objects"):
        pack([{"role": "user", "content": "x", "name": object()}])


@pytest.mark.parametrize(
    "change",
    [
        lambda messages, tensors: tensors.pop("messages"),
        lambda messages, tensors: tensors.pop("media.0.pixels"),
        lambda messages, tensors: tensors.update({"media.0.xy": tensors["media.0.xy"][1:]}),
        lambda messages, tensors: tensors.update({"media.0.pixels": tensors["media.0.pixels"][0]}),
        lambda messages, tensors: tensors.pop("media.3.samples"),
        lambda messages, tensors: messages[0]["content"][0].update(image={"saved": "0"}),
        lambda messages, tensors: messages[0]["content"][0].update(image="/etc/passwd"),
        lambda messages, tensors: messages[0]["content"][2]["video"].update(lengths=[1]),
        lambda messages, tensors: messages[0]["content"][2]["video"].update(seconds=["x", 1.0]),
        lambda messages, tensors: messages[0]["content"][2]["video"].pop("seconds"),
        lambda messages, tensors: messages[0].pop("role"),
        lambda messages, tensors: messages.append(3),
    ],
)
def test_damaged_messages_are_refused(change: Any) -> None:
    """With nothing but a ValueError."""
    _, processor = loaded("demo")
    tensors = pack([{"role": "user", "content": processor.read_media(content())}])
    messages = json.loads(tensors["messages"].tobytes())
    change(messages, tensors)
    if "messages" in tensors:
        tensors["messages"] = np.frombuffer(json.dumps(messages).encode(), np.uint8)
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        unpack(tensors)
