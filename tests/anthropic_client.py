"""The stock ``anthropic`` client against a server, in an environment of its own.

    python3 -m venv client && client/bin/pip install anthropic
    mlx_gemma4 serve --model demo --dtype float32 --port 8091
    client/bin/python tests/anthropic_client.py http://127.0.0.1:8091

It needs nothing of this package, and prints a line for each check.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

import anthropic
from anthropic import Anthropic
from client_parts import DESCRIBE, PICTURE, base64_of, is_equal, named, run
from pydantic import BaseModel

NAMED = named(PICTURE)


def asked() -> dict[str, Any]:
    source = {"type": "base64", "media_type": "image/png", "data": base64_of(PICTURE)}
    content = [{"type": "image", "source": source}, {"type": "text", "text": DESCRIBE}]
    return {"model": "demo", "max_tokens": 50, "messages": [{"role": "user", "content": content}]}


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


class Shape(BaseModel):
    """An answer in JSON."""

    colour: Literal["red", "blue"]
    sides: Literal[0, 3, 4]


def parsed(client: Anthropic) -> None:
    message = client.messages.parse(**asked(), output_format=Shape)
    assert isinstance(message.parsed_output, Shape)


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
    run((whole, stream, limits, parsed, errors), client)


if __name__ == "__main__":
    main()
