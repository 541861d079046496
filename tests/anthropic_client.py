"""The stock ``anthropic`` client against a server, in an environment of its own.

    python3 -m venv client && client/bin/pip install anthropic
    mlx_gemma4 serve --model demo --dtype float32 --port 8091
    client/bin/python tests/anthropic_client.py http://127.0.0.1:8091

It needs nothing of this package, and prints a line for each check.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import anthropic
from anthropic import Anthropic

PICTURE = Path(__file__).parent.parent / "mlx_gemma4" / "demo" / "media" / "picture-02.png"
NAMED = "red circle in the center"


def asked() -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PICTURE.read_bytes()).decode()}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "Describe the image."}]
    return {"model": "demo", "max_tokens": 50, "messages": [{"role": "user", "content": content}]}


def is_equal(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"expected {expected!r}, got {found!r}")


def whole(client: Anthropic) -> None:
    message = client.messages.create(**asked())
    is_equal((message.content[0].text, message.stop_reason), (NAMED, "end_turn"))
    cached = message.usage.cache_read_input_tokens or 0
    is_equal(message.usage.input_tokens + cached, client.messages.count_tokens(**without(asked())).input_tokens)


def without(request: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in request.items() if key != "max_tokens"}


def stream(client: Anthropic) -> None:
    with client.messages.stream(**asked()) as events:
        is_equal("".join(events.text_stream), NAMED)
        is_equal(events.get_final_message().stop_reason, "end_turn")
    kinds = [event.type for event in client.messages.create(**asked(), stream=True)]
    is_equal((kinds[0], kinds[1], kinds[-1]), ("message_start", "content_block_start", "message_stop"))


def limits(client: Anthropic) -> None:
    is_equal(client.messages.create(**{**asked(), "max_tokens": 1}).stop_reason, "max_tokens")
    message = client.messages.create(**asked(), stop_sequences=["circle"])
    is_equal((message.stop_reason, message.stop_sequence), ("stop_sequence", "circle"))


def errors(client: Anthropic) -> None:
    for kind, change in (
        (anthropic.NotFoundError, {"model": "claude"}),
        (anthropic.BadRequestError, {"messages": [{"role": "robot", "content": "x"}]}),
    ):
        try:
            client.messages.create(**{**asked(), **change})
        except kind as error:
            assert error.body is not None
        else:
            raise AssertionError(f"{kind.__name__} was not raised")


def main() -> None:
    client = Anthropic(base_url=sys.argv[1], api_key="none", max_retries=0, _strict_response_validation=True)
    for check in (whole, stream, limits, errors):
        check(client)
        print(f"ok  {check.__name__}")


if __name__ == "__main__":
    main()
