"""Pictures that a client of Realtime names by web address: fetched before its event is read."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from mlx_gemma4.serve.web.fetching import Fetcher


async def with_pictures(fetcher: Fetcher, message: bytes) -> bytes:
    """An event of a client, with what is at web addresses in place of the addresses.

    Raises:
        Failure: A picture cannot be fetched; the message names the field and the host.
    """
    if not fetcher.is_allowed or b"input_image" not in message or b"http" not in message:
        return message
    try:
        event = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return message  # whoever reads it says what is wrong
    parts = list(_pictures(event))
    fetched = await fetcher.fetch([(where, part["image_url"]) for where, part in parts])
    for _, part in parts:
        if part["image_url"] in fetched:
            part["image_url"] = f"data:;base64,{base64.b64encode(fetched[part['image_url']]).decode()}"
    return msgspec.json.encode(event) if fetched else message


def _pictures(event: Any) -> list[tuple[str, dict[str, Any]]]:
    """The pictures of an item, and where they stand."""
    item = event.get("item") if isinstance(event, dict) else None
    content = item.get("content") if isinstance(item, dict) else None
    return [
        (f"item.content[{index}].image_url", part)
        for index, part in enumerate(content if isinstance(content, list) else [])
        if isinstance(part, dict) and part.get("type") == "input_image" and isinstance(part.get("image_url"), str)
    ]
