"""Messages of another form: what is wrong is named by its place, with what to write instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_gemma4 import Model, Processor
from mlx_gemma4.inputs.messages import check_messages, check_tools, user_content

ROLES = "system, developer, user, assistant, model, tool"


def user(content: Any) -> list[Any]:
    return [{"role": "system", "content": "a"}, {"role": "user", "content": content}]


def part(value: Any) -> list[Any]:
    return user([{"type": "text", "text": "a"}, value])


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ("hello", 'Messages must be a list, got a value of type str; write [{"role": "user", "content": "your text"}]'),
        (
            {"role": "user", "content": "a"},
            'Messages must be a list, got a value of type dict; write [{"role": "user", "content": "your text"}]',
        ),
        (None, 'Messages must be a list, got None; write [{"role": "user", "content": "your text"}]'),
        (
            ["hello"],
            'messages[0] must be an object, got a value of type str; write {"role": "user", "content": "your text"}',
        ),
        ([{"content": "a"}], f"messages[0] has no role; add one of {ROLES}"),
        ([{"role": "bot", "content": "a"}], f"messages[0] has the unknown role 'bot'; use one of {ROLES}"),
        ([{"role": None, "content": "a"}], f"messages[0] has the unknown role None; use one of {ROLES}"),
        ([{"role": "<|turn>", "content": "a"}], f"messages[0] has the unknown role '<|turn>'; use one of {ROLES}"),
        ([{"role": "user"}], 'messages[0] has no content; give it text, or "" for an empty message'),
        (user(None), 'messages[1] has no content; give it text, or "" for an empty message'),
        (
            [{"role": "assistant", "content": None, "tool_calls": []}],
            'messages[0] has no content; give it text, or "" for an empty message',
        ),
        (
            user(b"a"),
            "The content of messages[1] must be text or a list of parts, got a value of type bytes; "
            "decode it first, such as data.decode()",
        ),
        (
            [{"role": "tool", "content": {"temperature": 5}}],
            "The content of messages[0] must be text or a list of parts, got a value of type dict; "
            "write it as text, such as json.dumps(value)",
        ),
        (user(5), "The content of messages[1] must be text or a list of parts, got a value of type int"),
        (
            user({"type": "text", "text": "a"}),
            "The content of messages[1] must be text or a list of parts, got a value of type dict; "
            "put the part into a list",
        ),
        (
            part("b"),
            "content[1] of messages[1] must be an object with a type, got a value of type str; "
            'write {"type": "text", "text": …}',
        ),
        (
            part(b"b"),
            "content[1] of messages[1] must be an object with a type, got a value of type bytes; "
            "decode it first, such as data.decode()",
        ),
        (
            part({"text": "b"}),
            'content[1] of messages[1] has no type; use text, image, audio, video, such as {"type": "text", "text": …}',
        ),
        (
            part({"type": "image_url", "image_url": {"url": "x"}}),
            "content[1] of messages[1] has the unknown type 'image_url'; "
            'write {"type": "image", "image": …} with a path or pixels',
        ),
        (
            part({"type": "input_audio", "input_audio": {}}),
            "content[1] of messages[1] has the unknown type 'input_audio'; "
            'write {"type": "audio", "audio": …} with a path or samples at 16 kHz',
        ),
        (
            part({"type": "video_url"}),
            "content[1] of messages[1] has the unknown type 'video_url'; "
            'write {"type": "video", "video": …} with a path or frames',
        ),
        (
            part({"type": "file"}),
            "content[1] of messages[1] has the unknown type 'file'; use text, image, audio, video",
        ),
        (part({"type": ["a"]}), "content[1] of messages[1] has the unknown type ['a']; use text, image, audio, video"),
        (part({"type": "image"}), 'content[1] of messages[1] has no image; write {"type": "image", "image": …}'),
        (part({"type": "text"}), 'content[1] of messages[1] has no text; write {"type": "text", "text": …}'),
        (
            part({"type": "text", "text": None}),
            "The text of content[1] of messages[1] must be text, got None",
        ),
        (
            part({"type": "text", "text": b"b"}),
            "The text of content[1] of messages[1] must be text, got a value of type bytes; "
            "decode it first, such as data.decode()",
        ),
        (
            [{"role": "assistant", "content": "a", "tool_calls": {"name": "f"}}],
            "tool_calls of messages[0] must be a list of objects, got a value of type dict",
        ),
        (
            [{"role": "assistant", "content": "a", "tool_responses": ["a"]}],
            "tool_responses of messages[0] must be a list of objects, got a value of type str at 0",
        ),
    ],
)
def test_messages_of_another_form(messages: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        check_messages(messages)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        (
            {"tools": []},
            "Tools must be a list of JSON schemas, got a value of type dict; put a single schema into a list",
        ),
        (
            ["f"],
            'tools[0] must be a JSON schema, got a value of type str; write {"type": "function", "function": …}',
        ),
    ],
)
def test_tools_of_another_form(tools: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        check_tools(tools)
    assert str(error.value) == message


def test_media_order() -> None:
    """Images and videos come before the text and sound after it; a video with its own sound stays together."""
    sound, video, picture = ({"type": kind, kind: kind} for kind in ("audio", "video", "image"))
    film = [{"type": "video", "video": "film"}, {"type": "audio", "audio": "film"}]
    question = {"type": "text", "text": "Who?"}
    content = user_content("Who?", [sound, video, picture], films=film)
    assert content == [picture, video, *film, question, sound]


def test_messages_in_order() -> None:
    """Answers without content, and content as a tuple, are taken; check_messages returns nothing."""
    check_messages(
        (
            {"role": "user", "content": ({"type": "image", "image": Path("a.png")}, {"type": "text", "text": ""})},
            {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
            {"role": "tool", "content": "", "tool_call_id": "1"},
            {"role": "assistant", "content": None, "reasoning": "a"},
            {"role": "user", "content": [{"type": "audio", "audio": np.zeros(1, np.float32)}]},
        )
    )


def test_prompts_are_checked(demo: tuple[Model, Processor]) -> None:
    """Before anything is read or rendered."""
    with pytest.raises(ValueError, match=r"^messages\[1\] has no role; "):
        demo[1].prompt([{"role": "user", "content": [{"type": "image", "image": "none.png"}]}, {"content": "a"}])
    with pytest.raises(ValueError, match=r"^Tools must be a list of JSON schemas, "):
        demo[1].prompt([{"role": "user", "content": "a"}], tools={"tools": []})  # type: ignore[arg-type]


def test_a_message_that_contains_itself(demo: tuple[Model, Processor]) -> None:
    """It ends in a message, not in Python's stack."""
    message: dict[str, Any] = {"role": "user", "content": "a"}
    message["again"] = message
    with pytest.raises(ValueError, match=r"^Messages and tools must be at most 100 lists or objects deep$"):
        demo[1].prompt([message])
