"""The items of a Realtime conversation, in order, and the chat that they are to the model.

items                                         chat
message user [image]                          user  [image, sound]       what a user adds in a row is one turn
message user [sound]
function_call lights                          assistant  tool_calls
function_call_output "on"                     tool
message assistant "It is on."                 assistant  text
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from mlx_gemma4.inputs.vision.image import Patches
from mlx_gemma4.serve.protocols.chat_messages import Decode, Decoded
from mlx_gemma4.serve.protocols.chat_request import Call, Function, Message, Text
from mlx_gemma4.serve.protocols.chat_request import Part as ChatPart
from mlx_gemma4.serve.protocols.data_url import read_data_url
from mlx_gemma4.serve.protocols.failure import wrong
from mlx_gemma4.serve.protocols.realtime_sound import SoundStream

ROOT = "root"
"""As ``previous_item_id``: before all items."""
LONGEST_ID = 128
"""Characters of an id that a client gives."""
TYPES = ("message", "function_call", "function_call_output")
PARTS = {
    "user": ("input_text", "input_audio", "input_image"),
    "system": ("input_text",),
    "assistant": ("output_text", "output_audio"),
}
"""What messages hold, by role."""


class Part(msgspec.Struct):
    """A part of a client's message."""

    type: str
    text: str | None = None
    audio: str | None = None
    transcript: str | None = None
    image_url: str | None = None
    detail: str | None = None


class ItemFields(msgspec.Struct):
    """An item as a client sends it."""

    type: str = "message"
    id: str | None = None
    role: str | None = None
    content: list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | None = None


@dataclass
class Content:
    """A part of a message: a text, or a medium as the model takes it."""

    kind: str
    text: str = ""
    """Of a text. Of sound, what was said, if it is known."""
    media: tuple[Any, ...] = ()
    """Of a picture its patches, of sound the stretches that enter as one each, float32 [n] at 16 kHz."""
    detail: str | None = None
    is_transcribed: bool = False

    def record(self) -> dict[str, Any]:
        """As events tell it, without the medium, which the client has."""
        if self.kind == "input_audio":
            return {"type": self.kind, "transcript": self.text if self.is_transcribed else None}
        if self.kind == "input_image":
            return {"type": self.kind, **({} if self.detail is None else {"detail": self.detail})}
        return {"type": self.kind, "text": self.text}

    def parts(self) -> Iterator[ChatPart | Decoded]:
        """As a part of a chat."""
        if not self.media and self.kind.endswith("_text"):
            yield Text(self.text)
        kind = "audio" if self.kind == "input_audio" else "image"
        yield from (Decoded({"type": kind, kind: each}) for each in self.media)


@dataclass
class Item:
    """An item of the conversation.

    Attributes:
        is_open: An answer is still being written.
        has_left: The context has no room for it any more: the model is not shown it.
    """

    id: str
    type: str = "message"
    role: str = ""
    content: list[Content] = field(default_factory=list)
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str = ""
    status: str = "completed"
    is_open: bool = False
    has_left: bool = False

    @property
    def nbytes(self) -> int:
        """What its media take."""
        media = [each for part in self.content for each in part.media]
        return sum(each.pixels.nbytes if isinstance(each, Patches) else each.nbytes for each in media)

    def record(self) -> dict[str, Any]:
        """The item as events tell it."""
        head = {"id": self.id, "object": "realtime.item", "type": self.type, "status": self.status}
        if self.type == "message":
            return {**head, "role": self.role, "content": [each.record() for each in self.content]}
        if self.type == "function_call":
            return {**head, "call_id": self.call_id, "name": self.name, "arguments": self.arguments}
        return {**head, "call_id": self.call_id, "output": self.output}


def spoken(item_id: str, sounds: Sequence[np.ndarray]) -> Item:
    """The item of a turn that was heard."""
    return Item(item_id, role="user", content=[Content("input_audio", media=tuple(sounds))])


def read_item(
    fields: ItemFields,
    where: str,
    next_id: Callable[[str], str],
    decode: Decode,
    hear: Callable[[str, str], tuple[np.ndarray, ...]],
) -> Item:
    """The item that a client sends.

    Args:
        hear: (base64, place) → stretches of sound.

    Raises:
        Failure: A field is missing or wrong, or a medium cannot be read; the message names it.
    """
    if fields.id is not None and not 0 < len(fields.id) <= LONGEST_ID:
        raise wrong(f"{where}.id", f"{where}.id must have 1 to {LONGEST_ID} characters")
    item_id = fields.id or next_id("item")
    if fields.type not in TYPES:
        raise wrong(f"{where}.type", f"{where}.type must be one of {', '.join(TYPES)}")
    if fields.type == "message":
        return Item(item_id, role=_role(fields, where), content=list(_content(fields, where, decode, hear)))
    if fields.type == "function_call":
        if not fields.name:
            raise wrong(f"{where}.name", f"{where} needs the name of a function")
        arguments = _arguments(fields.arguments or "{}", f"{where}.arguments")
        call_id = fields.call_id or next_id("call")
        return Item(item_id, "function_call", call_id=call_id, name=fields.name, arguments=arguments)
    if not fields.call_id:
        raise wrong(f"{where}.call_id", f"{where} needs the call_id of a call")
    return Item(item_id, "function_call_output", call_id=fields.call_id, output=fields.output or "")


def stretches(samples: np.ndarray, longest: int) -> tuple[np.ndarray, ...]:
    """Sound in stretches of at most ``longest`` samples: a model takes so much as one part."""
    return tuple(samples[start : start + longest] for start in range(0, len(samples), longest))


def whole_sound(audio: str, encoding: str, rate: int) -> np.ndarray:
    """The samples of a sound that is complete.

    Raises:
        Failure: It is not base64, or shorter than a sound can be.
    """
    stream = SoundStream()
    first = stream.append(audio, encoding, rate)
    rest, _ = stream.commit()
    return np.concatenate([first, rest])


class Items:
    """A conversation."""

    def __init__(self) -> None:
        self.all: list[Item] = []

    def __len__(self) -> int:
        return len(self.all)

    @property
    def last_id(self) -> str | None:
        return self.all[-1].id if self.all else None

    def find(self, item_id: str, where: str = "item_id") -> Item:
        """The item of an id.

        Raises:
            Failure: There is none.
        """
        for item in self.all:
            if item.id == item_id:
                return item
        raise wrong(where, f"There is no item {item_id[:LONGEST_ID]!r} in the conversation", code="item_not_found")

    def insert(self, item: Item, previous: str | None = None) -> str | None:
        """Put an item behind another one, by default the last, or before all (``ROOT``); return the one before it.

        Raises:
            Failure: There is no such item, its id is taken, or it answers a call that is not there.
        """
        if any(each.id == item.id for each in self.all):
            raise wrong("item.id", f"The conversation has an item {item.id!r} already", code="item_exists")
        if previous is None:
            place = len(self.all)
        else:
            place = 0 if previous == ROOT else self.all.index(self.find(previous, "previous_item_id")) + 1
        if item.type == "function_call_output" and item.call_id not in _calls(self.all[:place]):
            raise wrong(
                "item.call_id", f"There is no call {item.call_id[:LONGEST_ID]!r} before the item; send the call first"
            )
        self.all.insert(place, item)
        return self.all[place - 1].id if place else None

    def remove(self, item: Item) -> None:
        self.all.remove(item)

    def shown(self) -> list[Item]:
        """What the model is shown."""
        return [item for item in self.all if not item.has_left and not item.is_open]

    @property
    def nbytes(self) -> int:
        """What the media of all items take."""
        return sum(item.nbytes for item in self.all)

    @property
    def last_nbytes(self) -> int:
        """What the media of the last turn take, which never leaves."""
        turns = self._turns()
        return sum(item.nbytes for item in self.shown()[turns[-1] if turns else 0 :])

    def shrink(self, limit: int) -> None:
        """If the media take more than a limit, let the oldest turns leave until half of it is used."""
        if self.nbytes > limit:
            while self.nbytes > limit // 2 and len(self._turns()) > 1:
                self.leave(1)

    def leave(self, turns: int) -> None:
        """The oldest turns leave the context. What stands before the first one stays."""
        shown, starts = self.shown(), self._turns()
        if not turns or not starts:
            return
        end = starts[turns] if turns < len(starts) else len(shown)
        for item in shown[starts[0] : end]:
            item.has_left = True
            for part in item.content:
                part.media = ()

    def _turns(self) -> list[int]:
        """Where turns begin in what is shown: messages of the user in a row are one."""
        roles = ["", *(item.role for item in self.shown())]
        return [place for place, (last, role) in enumerate(pairwise(roles)) if role == "user" != last]


def chat(instructions: str, items: Sequence[Item]) -> list[Message]:
    """The messages of items, as a request of Chat Completions has them. The result of a call that is gone is left
    out."""
    messages = [Message("system", instructions)] if instructions else []
    called = set[str]()
    for item in items:
        last = messages[-1] if messages else None
        if item.type == "function_call_output":
            if item.call_id in called:
                messages.append(Message("tool", item.output, tool_call_id=item.call_id))
        elif item.type == "function_call":
            called.add(item.call_id)
            call = Call(Function(item.name, item.arguments), item.call_id)
            if last is not None and last.role == "assistant":
                last.tool_calls = [*(last.tool_calls or ()), call]
            else:
                messages.append(Message("assistant", None, [call]))
        elif item.role == "user":
            parts: list[Any] = [part for content in item.content for part in content.parts()]
            if last is not None and last.role == "user" and isinstance(last.content, list):
                last.content += parts
            else:
                messages.append(Message("user", parts))
        else:
            text = "\n".join(each.text for each in item.content)
            if last is not None and last.role == item.role == "system":
                last.content = f"{last.content}\n\n{text}"
            elif text or item.role == "system":  # an answer that was cancelled at its beginning is none
                messages.append(Message(item.role, text))
    return messages


def _calls(items: Sequence[Item]) -> set[str]:
    return {item.call_id for item in items if item.type == "function_call"}


def _role(fields: ItemFields, where: str) -> str:
    if fields.role not in PARTS:
        raise wrong(f"{where}.role", f"{where}.role must be one of {', '.join(PARTS)}")
    return fields.role


def _content(
    fields: ItemFields, where: str, decode: Decode, hear: Callable[[str, str], tuple[np.ndarray, ...]]
) -> Iterator[Content]:
    role = _role(fields, where)
    if not fields.content:
        raise wrong(f"{where}.content", f"{where} has no content")
    for index, part in enumerate(fields.content):
        place = f"{where}.content[{index}]"
        if part.type not in PARTS[role]:
            raise wrong(f"{place}.type", f"{place}.type must be one of {', '.join(PARTS[role])} in a message of {role}")
        if part.type == "input_audio":
            if part.audio is None:
                raise wrong(f"{place}.audio", f"{place} has no audio")
            sounds = hear(part.audio, f"{place}.audio")
            yield Content(part.type, part.transcript or "", sounds, is_transcribed=part.transcript is not None)
        elif part.type == "input_image":
            if part.image_url is None:
                raise wrong(f"{place}.image_url", f"{place} has no image_url")
            data = read_data_url(part.image_url, f"{place}.image_url")
            picture = decode("image", data, part.detail, place)
            yield Content(part.type, media=(picture,), detail=part.detail)
        else:
            text = part.transcript if part.type == "output_audio" else part.text
            if text is None:
                raise wrong(place, f"{place} has no text")
            yield Content("output_text" if role == "assistant" else "input_text", text)


def _arguments(text: str, where: str) -> str:
    """Arguments, if they are what calls have."""
    try:
        read: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        read = None
    if not isinstance(read, Mapping):
        raise wrong(where, f"{where} must be a JSON object, written as text")
    return text
