"""JSON in and out. Requests are read strictly where a field is known; unknown fields are ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from mlx_gemma4.serve.protocols.failure import Failure

T = TypeVar("T")

_PLACE = re.compile(r"^(?P<problem>.*?)(?: - at `(?P<place>[^`]*)`)?$", re.DOTALL)


def read(body: bytes, form: type[T]) -> T:
    """Decode a request.

    Raises:
        Failure: It is not JSON, or a field has another type; the message names the field.
    """
    try:
        return msgspec.json.decode(body, type=form)
    except msgspec.ValidationError as error:
        raise _misread(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failure(400, f"The body is not valid JSON: {error}", code="invalid_json") from None


def convert(value: Any, form: type[T]) -> T:
    """Read a request that is decoded already, with numbers and booleans written as text: a form's fields.

    Raises:
        Failure: A field has another type; the message names it.
    """
    try:
        return msgspec.convert(value, type=form, strict=False)
    except msgspec.ValidationError as error:
        raise _misread(error) from None


def write(record: Mapping[str, Any]) -> bytes:
    """Encode a response."""
    return msgspec.json.encode(record)


def event(record: Mapping[str, Any], name: str | None = None) -> bytes:
    """Encode an event of a stream (SSE)."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + write(record) + b"\n\n"


DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which clients skip."""


def _misread(error: msgspec.ValidationError) -> Failure:
    found = _PLACE.match(str(error))
    assert found is not None
    place = (found["place"] or "").removeprefix("$").lstrip(".").replace("[...]", "")
    problem = found["problem"].replace("`", "")
    where = f"{place}: " if place else ""
    return Failure(400, f"{where}{problem}", param=place or None, code="invalid_value")
