"""The messages of a chat: their form, the order of media in them, and checks that say where a mistake is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Message = Mapping[str, Any]
"""``{"role": …, "content": text or a list of {"type": "text" | "image" | "audio" | "video", …}}``."""

SUFFIXES = {
    "image": "avif bmp gif heic jpeg jpg png tif tiff webp",
    "audio": "aac aif aiff au caf flac m4a mp3 oga ogg opus wav wma",
    "video": "avi m4v mkv mov mp4 mpeg mpg ts webm wmv",
}
"""Suffixes of files of each medium."""
MEDIA = tuple(SUFFIXES)
_KIND_OF = {f".{suffix}": kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes.split()}
ROLES = ("system", "developer", "user", "assistant", "model", "tool")

WITHOUT_CONTENT = ("tool_calls", "tool_responses", "reasoning", "reasoning_content", "thinking")
"""An answer needs no content if it has one of these."""
LISTS = ("tool_calls", "tool_responses")

USE = '{"type": "%s", "%s": …}'
OTHER_TYPES = {
    **dict.fromkeys(("image_url", "input_image"), USE % ("image", "image") + " with a path or pixels"),
    **dict.fromkeys(("audio_url", "input_audio"), USE % ("audio", "audio") + " with a path or samples at 16 kHz"),
    **dict.fromkeys(("video_url", "input_video"), USE % ("video", "video") + " with a path or frames"),
    **dict.fromkeys(("input_text", "output_text"), USE % ("text", "text")),
}
"""Types of parts in other programs' messages, and what to write instead."""


def user_content(
    text: str, media: Sequence[Mapping[str, Any]] = (), *, films: Sequence[Mapping[str, Any]] = ()
) -> list[Mapping[str, Any]]:
    """The parts of a user message in the order that the model was trained on: images, videos, text, audio.

    With audio before the instruction, the model answers the speech instead of transcribing it.

    Args:
        media: Parts of any type, ``{"type": "image", "image": …}``.
        films: The parts of videos with their own sound. They stay together, before the text.
    """
    pictures = [part for kind in ("image", "video") for part in media if part["type"] == kind]
    sound = [part for part in media if part["type"] == "audio"]
    return [*pictures, *films, {"type": "text", "text": text}, *sound]


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """ "image", "audio" or "video", by a file's suffix."""
    return _KIND_OF.get(Path(path).suffix.lower())


def check_messages(messages: Any) -> None:
    """Check the form of a chat.

    Raises:
        ValueError: A message has another form. The error says which, by its index, and what to write.
    """
    if not isinstance(messages, (list, tuple)):
        raise ValueError(
            f'Messages must be a list, got {_kind(messages)}; write [{{"role": "user", "content": "your text"}}]'
        )
    for index, message in enumerate(messages):
        _check(message, f"messages[{index}]")


def check_tools(tools: Any) -> None:
    """Check that tools are a list of JSON schemas.

    Raises:
        ValueError: They are something else.
    """
    if tools is None:
        return
    if not isinstance(tools, (list, tuple)):
        raise ValueError(f"Tools must be a list of JSON schemas, got {_kind(tools)}; put a single schema into a list")
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise ValueError(
                f'tools[{index}] must be a JSON schema, got {_kind(tool)}; write {{"type": "function", "function": …}}'
            )


def parts(message: Message) -> Iterator[Mapping[str, Any]]:
    """The media of a message that ``check_messages`` accepted."""
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        yield from (part for part in content if part["type"] != "text")


def message_text(message: Message) -> str:
    """The text of a message that ``check_messages`` accepted."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def same_messages(one: Sequence[Message], other: Sequence[Message]) -> bool:
    """Whether two chats have the same messages, as objects: media are not compared."""
    return len(one) == len(other) and all(mine is theirs for mine, theirs in zip(one, other, strict=True))


def _check(message: Any, where: str) -> None:
    if not isinstance(message, Mapping):
        raise ValueError(
            f'{where} must be an object, got {_kind(message)}; write {{"role": "user", "content": "your text"}}'
        )
    if "role" not in message:
        raise ValueError(f"{where} has no role; add one of {', '.join(ROLES)}")
    role = message["role"]
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"{where} has the unknown role {_shown(role)}; use one of {', '.join(ROLES)}")
    for key in LISTS:
        _check_list(message.get(key), f"{key} of {where}")
    _check_content(message, where)


def _check_list(value: Any, where: str) -> None:
    if value is None:
        return
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where} must be a list of objects, got {_kind(value)}")
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            raise ValueError(f"{where} must be a list of objects, got {_kind(item)} at {index}")


def _check_content(message: Message, where: str) -> None:
    content = message.get("content")
    if content is None:
        if not any(message.get(key) for key in WITHOUT_CONTENT):
            raise ValueError(f'{where} has no content; give it text, or "" for an empty message')
    elif isinstance(content, (list, tuple)):
        for index, part in enumerate(content):
            _check_part(part, f"content[{index}] of {where}")
    elif not isinstance(content, str):
        raise ValueError(
            f"The content of {where} must be text or a list of parts, got {_kind(content)}{_hint(content)}"
        )


def _check_part(part: Any, where: str) -> None:
    if not isinstance(part, Mapping):
        hint = f"; write {USE % ('text', 'text')}" if isinstance(part, str) else _hint(part)
        raise ValueError(f"{where} must be an object with a type, got {_kind(part)}{hint}")
    kind = part.get("type")
    if kind is None:
        raise ValueError(f"{where} has no type; use text, {', '.join(MEDIA)}, such as {USE % ('text', 'text')}")
    if kind not in ("text", *MEDIA):
        instead = OTHER_TYPES.get(kind) if isinstance(kind, str) else None
        hint = f"; write {instead}" if instead else f"; use text, {', '.join(MEDIA)}"
        raise ValueError(f"{where} has the unknown type {_shown(kind)}{hint}")
    if kind not in part:
        raise ValueError(f"{where} has no {kind}; write {USE % (kind, kind)}")
    if kind == "text" and not isinstance(part["text"], str):
        raise ValueError(f"The text of {where} must be text, got {_kind(part['text'])}{_hint(part['text'])}")


def _hint(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return "; decode it first, such as data.decode()"
    if isinstance(value, Mapping):
        return "; put the part into a list" if "type" in value else "; write it as text, such as json.dumps(value)"
    return ""


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _shown(value: Any) -> str:
    return repr(value)[:60]
