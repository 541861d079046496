"""The events of a client in a conversation."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.realtime_answers import AnswerFields
from mlx_gemma4.serve.protocols.realtime_items import Item, ItemFields
from mlx_gemma4.serve.protocols.realtime_request import Append, ClearBuffer, CommitBuffer, Head, Update
from mlx_gemma4.serve.protocols.wire import read


class CreateItem(msgspec.Struct, tag="conversation.item.create", tag_field="type"):
    item: ItemFields
    previous_item_id: str | None = None
    event_id: str | None = None


class DeleteItem(msgspec.Struct, tag="conversation.item.delete", tag_field="type"):
    item_id: str
    event_id: str | None = None


class RetrieveItem(msgspec.Struct, tag="conversation.item.retrieve", tag_field="type"):
    item_id: str
    event_id: str | None = None


class TruncateItem(msgspec.Struct, tag="conversation.item.truncate", tag_field="type"):
    """``text`` is this server's own: what the user has got of the answer."""

    item_id: str
    content_index: int = 0
    audio_end_ms: int = 0
    text: str | None = None
    event_id: str | None = None


class ResponseFields(AnswerFields):
    conversation: str | None = None
    input: list[ItemFields] | None = None
    metadata: dict[str, str] | None = None


class CreateResponse(msgspec.Struct, tag="response.create", tag_field="type"):
    response: ResponseFields | None = None
    event_id: str | None = None


class CancelResponse(msgspec.Struct, tag="response.cancel", tag_field="type"):
    response_id: str | None = None
    event_id: str | None = None


ConversationEvent = (
    Append
    | CommitBuffer
    | ClearBuffer
    | Update
    | CreateItem
    | DeleteItem
    | RetrieveItem
    | TruncateItem
    | CreateResponse
    | CancelResponse
)


@dataclass(frozen=True)
class Read:
    """An event, and the items in it with their media decoded."""

    event: ConversationEvent
    items: tuple[Item | str, ...] = ()
    """The item that is created, or the input of a response, in which a text is the id of an item."""


@dataclass(frozen=True)
class Unread:
    """A message that is no event."""

    failure: Failure
    event_id: str | None


def read_event(message: bytes) -> ConversationEvent:
    """Read an event.

    Raises:
        Failure: It is none, or a field has another type.
    """
    try:
        return read(message, ConversationEvent)  # type: ignore[arg-type]  # a union
    except Failure as failure:
        if failure.param != "type":
            raise
    kind = read(message, Head).type
    raise Failure(400, f"There is no event of the type {kind[:60]!r}", param="type", code="unknown_event")
