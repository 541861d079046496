"""A client's messages to those of a chat template. Media are decoded by a function that the caller gives.

Calls and their results belong together, as the model wrote and read them. Templates want them in one of two forms::

    the client sends                            the template gets
    assistant  "Wait."  tool_calls [a]          assistant "Wait."
    tool       a → "on"                         assistant tool_calls [a], tool_responses ["on"], "Done."
    assistant  "Done."                          or: assistant tool_calls [a], tool "on", assistant "Done."

Pictures and sound of a result go where the template takes them (``ResultForm``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_gemma4.outputs.tools.messages import SHOWS_RESULTS, ResultForm
from mlx_gemma4.outputs.tools.result import ToolResult
from mlx_gemma4.serve.protocols.chat_request import (
    Address,
    AudioUrl,
    Call,
    ImageUrl,
    InputAudio,
    Message,
    Part,
    Refusal,
    Text,
    VideoUrl,
)
from mlx_gemma4.serve.protocols.data_url import decode_base64, read_data_url
from mlx_gemma4.serve.protocols.failure import wrong

ROLES = ("system", "developer", "user", "assistant", "tool")

Decode = Callable[[str, bytes, str | None, str], Any]
"""(kind, bytes, detail, place) → what the processor takes: of an image, sound or a video."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """A part whose medium was decoded before: it enters as it is."""

    part: dict[str, Any]


def media_urls(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Where messages name media by URL, and the URLs."""
    return [
        (f"{where}.{field}.url", address.url if isinstance(address, Address) else address)
        for index, message in enumerate(messages)
        if message.content is not None and not isinstance(message.content, str)
        for number, part in enumerate(message.content)
        if isinstance(part, (ImageUrl, VideoUrl, AudioUrl))
        for where, (_, field, address) in [(f"messages[{index}].content[{number}]", _addressed(part))]
    ]


def chat_messages(
    messages: Sequence[Message], decode: Decode, *, form: ResultForm, fetched: Mapping[str, bytes] = {}
) -> list[dict[str, Any]]:
    """Messages as ``Processor.prompt`` takes them.

    Args:
        fetched: What is at the URLs that are no ``data:`` URLs.
        form: Where the template takes results of calls.

    Raises:
        Failure: A message cannot be understood; the error names it.
    """
    turns = _Turns(decode, form, fetched)
    for index, message in enumerate(messages):
        turns.add(message, f"messages[{index}]")
    turns.show_results()
    return turns.messages


class _Turns:
    def __init__(self, decode: Decode, form: ResultForm, fetched: Mapping[str, bytes]) -> None:
        self.messages: list[dict[str, Any]] = []
        self._decode, self._form, self._fetched = decode, form, fetched
        self._media: list[Mapping[str, Any]] = []
        """Of results, which follow them: the template does not take them elsewhere."""
        self._counts: dict[str, int] = {}
        """Of media of results, where they do not stand in the message of their result."""
        self._names: dict[str, str] = {}
        """The functions of calls, by the ids of the calls."""

    def add(self, message: Message, where: str) -> None:
        if message.role not in ROLES:
            raise wrong(f"{where}.role", f"{where}.role must be one of {', '.join(ROLES)}")
        if message.role == "tool":
            self._add_result(message, where)
            return
        self.show_results()
        if message.role == "assistant":
            self._add_answer(message, where)
        elif message.content is None:
            raise wrong(f"{where}.content", f"{where} has no content")
        elif message.role == "user" and not isinstance(message.content, str):
            self.messages.append({"role": "user", "content": self._parts(message.content, where)})
        else:  # developer is a younger name of system, which templates know
            role = "user" if message.role == "user" else "system"
            self.messages.append({"role": role, "content": _text(message.content, where)})

    def show_results(self) -> None:
        """Add media of results that have to follow them."""
        media, self._media, self._counts = self._media, [], {}
        if media:
            self.messages.append({"role": "user", "content": media, SHOWS_RESULTS: True})

    def _add_answer(self, message: Message, where: str) -> None:
        text = "" if message.content is None else _text(message.content, where)
        last = self.messages[-1] if self.messages else {}
        if text and last.get("tool_responses") and not last["content"]:
            last["content"] = text
        elif text or not message.tool_calls:
            self.messages.append({"role": "assistant", "content": text})
        if message.tool_calls:
            calls = [self._call(call, f"{where}.tool_calls[{n}]") for n, call in enumerate(message.tool_calls)]
            self.messages.append({"role": "assistant", "content": "", "tool_calls": calls})

    def _call(self, call: Call, where: str) -> dict[str, Any]:
        name, arguments = call.function.name, call.function.arguments
        if call.id is not None:
            self._names[call.id] = name
        if isinstance(arguments, str):
            try:
                read = json.loads(arguments or "{}")
            except (ValueError, RecursionError):
                read = None
            if not isinstance(read, dict):
                raise wrong(
                    f"{where}.function.arguments", f"{where}.function.arguments must be a JSON object, written as text"
                )
            arguments = read
        return {"type": "function", "id": call.id, "function": {"name": name, "arguments": arguments or {}}}

    def _add_result(self, message: Message, where: str) -> None:
        content = message.content or ""
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else self._parts(content, where)
        result = ToolResult(tuple(parts))
        call = message.tool_call_id
        if call is None or call not in self._names:
            raise wrong(
                f"{where}.tool_call_id", f"{where}.tool_call_id names no call of an earlier message; send its id"
            )
        name, form = self._names[call], self._form
        text = result.text if form.stands_apart else result.numbered(self._counts)
        if form.joined:
            calling = next(each for each in reversed(self.messages) if call in _ids(each))
            calling.setdefault("tool_responses", []).append({"name": name, "response": text})
            if result.media and form.shows_media and not isinstance(calling["content"], str | None):
                calling["content"] += result.media
            elif result.media and form.shows_media:
                calling["content"] = result.media
        else:
            shown = [{"type": "text", "text": text}, *result.media] if result.media and form.shows_media else text
            self.messages.append({"role": "tool", "tool_call_id": call, "name": name, "content": shown})
        if not form.shows_media:
            self._media += result.media

    def _parts(self, parts: Sequence[Part], where: str) -> list[dict[str, Any]]:
        return [self._part(part, f"{where}.content[{index}]") for index, part in enumerate(parts)]

    def _part(self, part: Part | Decoded, where: str) -> dict[str, Any]:
        if isinstance(part, Decoded):
            return part.part
        if isinstance(part, Text):
            return {"type": "text", "text": part.text}
        if isinstance(part, Refusal):
            return {"type": "text", "text": part.refusal}
        if isinstance(part, InputAudio):
            data = decode_base64(part.input_audio.data, f"{where}.input_audio.data")
            return {"type": "audio", "audio": self._decode("audio", data, None, where)}
        kind, field, address = _addressed(part)
        address = Address(address) if isinstance(address, str) else address
        fetched = self._fetched.get(address.url)
        data = read_data_url(address.url, f"{where}.{field}.url") if fetched is None else fetched
        return {"type": kind, kind: self._decode(kind, data, address.detail, where)}


def _addressed(part: ImageUrl | VideoUrl | AudioUrl) -> tuple[str, str, Address | str]:
    if isinstance(part, ImageUrl):
        return "image", "image_url", part.image_url
    if isinstance(part, VideoUrl):
        return "video", "video_url", part.video_url
    return "audio", "audio_url", part.audio_url


def _text(content: str | Sequence[Part], where: str) -> str:
    """The text of a message that cannot hold media."""
    if isinstance(content, str):
        return content
    texts = []
    for index, part in enumerate(content):
        if not isinstance(part, (Text, Refusal)):
            raise wrong(
                f"{where}.content[{index}]",
                f"{where}.content[{index}] must be text: only users and results of calls send media",
            )
        texts.append(part.text if isinstance(part, Text) else part.refusal)
    return "\n".join(texts)


def _ids(message: dict[str, Any]) -> list[str | None]:
    return [call["id"] for call in message.get("tool_calls") or []]
