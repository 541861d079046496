"""Wyoming's events on the wire: a line of JSON, then data, then a payload. What a client may send is bounded.

{"type": "audio-chunk", "data_length": 45, "payload_length": 2048}⏎
{"rate": 16000, "width": 2, "channels": 1}        data_length bytes, on top of the line's own "data"
…                                                 payload_length bytes: samples
"""

from __future__ import annotations

import io
from typing import Annotated, Any, TypeVar

import msgspec
from wyoming.event import Event, write_event

from mlx_gemma4.serve.protocols.failure import Failure

LONGEST_LINE, LONGEST_DATA, LONGEST_PAYLOAD = 64 * 1024, 1024 * 1024, 8 * 1024 * 1024
"""Bytes of the parts of an event."""

Length = Annotated[int, msgspec.Meta(ge=0)]
T = TypeVar("T")


class Header(msgspec.Struct):
    """The line of an event."""

    type: str
    data: dict[str, Any] | None = None
    data_length: Length | None = None
    payload_length: Length | None = None


def read_header(line: bytes) -> Header:
    """Read the line of an event.

    Raises:
        Failure: It is none, or what follows is too long.
    """
    header = _decode(line, Header, "A line must be a JSON object with a type, as Wyoming's events are")
    for name, length, most in (
        ("data", header.data_length, LONGEST_DATA),
        ("payload", header.payload_length, LONGEST_PAYLOAD),
    ):
        if length is not None and length > most:
            raise Failure(413, f"The {name} of an event may have at most {most} bytes, got {length}", code="too_large")
    return header


def read_event(header: Header, data: bytes, payload: bytes) -> Event:
    """An event of its parts.

    Raises:
        Failure: The data is no JSON object.
    """
    added = _decode(data, dict[str, Any], f"The data of {header.type[:60]!r} must be a JSON object") if data else {}
    return Event(header.type, {**(header.data or {}), **added}, payload)


def fields(event: Event, form: type[T]) -> T:
    """What an event says.

    Raises:
        Failure: A field is missing or has another type.
    """
    try:
        return msgspec.convert(event.data, form)
    except msgspec.ValidationError as error:
        raise Failure(400, f"The data of {event.type!r} is wrong: {error}", code="invalid_value") from None


def encode(event: Event) -> bytes:
    """The bytes of an event."""
    written = io.BytesIO()
    write_event(event, written)
    return written.getvalue()


def _decode(text: bytes, form: type[T], rule: str) -> T:
    try:
        return msgspec.json.decode(text, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failure(400, f"{rule}: {error}", code="invalid_json") from None
