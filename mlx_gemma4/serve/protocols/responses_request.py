"""``POST /v1/responses``: the items of OpenAI's newer protocol, as a request of Chat Completions.

The server keeps no responses: a client sends all items each time, as Codex does, and what was computed of them is found
by its content.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from mlx_gemma4.serve.protocols.chat_request import (
    Address,
    Call,
    ChatRequest,
    Count,
    Function,
    ImageUrl,
    InputAudio,
    JsonSchema,
    Message,
    Part,
    ResponseFormat,
    Share,
    Sound,
    Text,
    check_chat,
)
from mlx_gemma4.serve.protocols.failure import unsupported, wrong
from mlx_gemma4.serve.protocols.wire import read

IGNORED_ITEMS = ("reasoning",)
"""Thoughts of earlier answers: templates drop them."""


class Content(msgspec.Struct):
    """A part of a message."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    input_audio: Sound | None = None


class Item(msgspec.Struct):
    """An item of the input: a message, a call of a function, or its result."""

    type: str = "message"
    role: str | None = None
    content: str | list[Content] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Content] | None = None


class Format(msgspec.Struct, omit_defaults=True):
    """The form of the answer. What the server does not use is told back."""

    type: str
    schema: dict[str, Any] | bool | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct):
    format: Format | None = None


class Reasoning(msgspec.Struct):
    effort: str | None = None


class ResponsesRequest(msgspec.Struct):
    """The body of a request."""

    input: str | list[Item]
    model: str | None = None
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Count | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None


def read_responses(body: bytes) -> tuple[ResponsesRequest, ChatRequest]:
    """Read and check a request; also as one of Chat Completions.

    Raises:
        Failure: A field is wrong, or asks for what is not supported; the message names it.
    """
    request = read(body, ResponsesRequest)
    for name in ("previous_response_id", "conversation"):
        if getattr(request, name) is not None:
            raise unsupported(name, f"{name} is not supported: this server keeps no responses; send all items as input")
    if request.background:
        raise unsupported("background", "background is not supported; leave it out")
    chat = ChatRequest(
        messages=_messages(request),
        model=request.model,
        stream=request.stream,
        max_tokens=request.max_output_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        tools=_tools(request.tools),
        tool_choice=request.tool_choice,
        parallel_tool_calls=request.parallel_tool_calls,
        response_format=_format(request.text),
        reasoning_effort=None if request.reasoning is None else request.reasoning.effort,
    )
    check_chat(chat)
    return request, chat


def _messages(request: ResponsesRequest) -> list[Message]:
    messages = [] if not request.instructions else [Message("system", request.instructions)]
    if isinstance(request.input, str):
        return [*messages, Message("user", request.input)]
    for index, item in enumerate(request.input):
        messages += _message(item, f"input[{index}]", messages)
    return messages


def _message(item: Item, where: str, before: Sequence[Message]) -> list[Message]:
    """The message of an item; several calls in a row are one message."""
    if item.type == "message":
        if item.role is None:
            raise wrong(f"{where}.role", f"{where} has no role")
        return [Message(item.role, _content(item.content, f"{where}.content"))]
    if item.type == "function_call":
        if item.name is None or item.call_id is None:
            raise wrong(where, f"{where} needs a name and a call_id")
        call = Call(Function(item.name, item.arguments), item.call_id)
        if before and before[-1].role == "assistant":
            before[-1].tool_calls = [*(before[-1].tool_calls or ()), call]
            return []
        return [Message("assistant", None, [call])]
    if item.type == "function_call_output":
        return [Message("tool", _content(item.output or "", f"{where}.output"), None, item.call_id)]
    if item.type in IGNORED_ITEMS:
        return []
    raise unsupported(where, f"{where} has the type {item.type[:60]!r}, which is not supported")


def _content(content: str | list[Content] | None, where: str) -> str | list[Part] | None:
    if content is None or isinstance(content, str):
        return content
    return [_part(part, f"{where}[{index}]") for index, part in enumerate(content)]


def _part(part: Content, where: str) -> Part:
    if part.type in ("input_text", "output_text", "text") and part.text is not None:
        return Text(part.text)
    if part.type == "refusal" and part.refusal is not None:
        return Text(part.refusal)
    if part.type == "input_image" and part.image_url is not None:
        return ImageUrl(Address(part.image_url, part.detail))
    if part.type == "input_audio" and part.input_audio is not None:
        return InputAudio(part.input_audio)
    raise unsupported(where, f"{where} of the type {part.type[:60]!r} is not supported, or has no content of its type")


def _tools(tools: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """The functions. Tools that OpenAI's own servers run are left out: there is nothing here to run them."""
    if tools is None:
        return None
    functions = [tool for tool in tools if tool.get("type") == "function"]
    return [{"type": "function", "function": {key: tool[key] for key in tool if key != "type"}} for tool in functions]


def _format(options: TextOptions | None) -> ResponseFormat | None:
    if options is None or options.format is None:
        return None
    form = options.format
    return ResponseFormat(form.type, None if form.schema is None else JsonSchema(form.schema))
