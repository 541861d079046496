"""``POST /v1/messages``: Anthropic's protocol, as a request of Chat Completions."""

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
    JsonSchema,
    Message,
    Part,
    ResponseFormat,
    Share,
    Text,
    check_chat,
)
from mlx_gemma4.serve.protocols.failure import unsupported, wrong
from mlx_gemma4.serve.protocols.wire import read


class Source(msgspec.Struct):
    """Where a picture is."""

    type: str
    media_type: str = "image/png"
    data: str | None = None
    url: str | None = None


class Block(msgspec.Struct):
    """A part of a message."""

    type: str
    text: str | None = None
    source: Source | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list[Block] | None = None


class Turn(msgspec.Struct):
    role: str
    content: str | list[Block]


class Tool(msgspec.Struct):
    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    type: str | None = None


class ToolChoice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(msgspec.Struct):
    type: str


class Format(msgspec.Struct):
    type: str
    schema: dict[str, Any] | bool | None = None


class OutputConfig(msgspec.Struct):
    format: Format | None = None


class MessagesRequest(msgspec.Struct):
    """The body of a request."""

    messages: list[Turn]
    max_tokens: Count | None = None
    model: str | None = None
    system: str | list[Block] | None = None
    stream: bool | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_p: Share | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None


THOUGHTS = ("thinking", "redacted_thinking")
"""Blocks of earlier answers that templates drop."""


def read_messages(body: bytes) -> ChatRequest:
    """Read and check a request.

    Raises:
        Failure: A field is wrong, or asks for what is not supported; the message names it.
    """
    request = read(body, MessagesRequest)
    choice = request.tool_choice
    chat = ChatRequest(
        messages=_messages(request),
        model=request.model,
        stream=request.stream,
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        stop=request.stop_sequences,
        tools=_tools(request.tools),
        tool_choice=_choice(choice),
        parallel_tool_calls=False if choice is not None and choice.disable_parallel_tool_use else None,
        response_format=_format(request.output_config),
        enable_thinking=request.thinking is not None and request.thinking.type != "disabled",
    )
    check_chat(chat)
    return chat


def _format(config: OutputConfig | None) -> ResponseFormat | None:
    form = None if config is None else config.format
    if form is None:
        return None
    if form.type != "json_schema" or form.schema is None:
        raise wrong("output_config.format", "output_config.format must have the type json_schema, and a schema")
    return ResponseFormat(form.type, JsonSchema(form.schema))


def _choice(choice: ToolChoice | None) -> str | dict[str, Any] | None:
    if choice is None or choice.type in ("auto", "none"):
        return None if choice is None else choice.type
    if choice.type == "any":
        return "required"
    if choice.type == "tool" and choice.name is not None:
        return {"type": "function", "name": choice.name}
    raise wrong("tool_choice", "tool_choice must be auto, any, none, or a tool with its name")


def _messages(request: MessagesRequest) -> list[Message]:
    messages = [Message("system", _text(request.system, "system"))] if request.system else []
    for index, turn in enumerate(request.messages):
        where = f"messages[{index}]"
        if turn.role not in ("user", "assistant", "system"):
            raise wrong(f"{where}.role", f"{where}.role must be user, assistant or system")
        if turn.role == "system":  # what Claude Code adds on the way
            messages.append(Message("system", _text(turn.content, f"{where}.content")))
            continue
        blocks = [Block("text", turn.content)] if isinstance(turn.content, str) else turn.content
        messages += _asked(blocks, where) if turn.role == "user" else _answered(blocks, where)
    return messages


def _asked(blocks: Sequence[Block], where: str) -> list[Message]:
    """The results of calls come first, then what the user says."""
    results, parts = [], list[Part]()
    for index, block in enumerate(blocks):
        place = f"{where}.content[{index}]"
        if block.type == "tool_result":
            results.append(Message("tool", _result(block.content, place), tool_call_id=block.tool_use_id))
        else:
            parts.append(_part(block, place))
    return [*results, Message("user", parts)] if parts or not results else results


def _result(content: str | Sequence[Block] | None, where: str) -> str | list[Part]:
    if content is None or isinstance(content, str):
        return content or ""
    return [_part(block, f"{where}.content[{index}]") for index, block in enumerate(content)]


def _part(block: Block, where: str) -> Part:
    if block.type == "text" and block.text is not None:
        return Text(block.text)
    if block.type == "image" and block.source is not None:
        return ImageUrl(_address(block.source))
    raise _strange(block, where)


def _answered(blocks: Sequence[Block], where: str) -> list[Message]:
    texts, calls = [], []
    for index, block in enumerate(blocks):
        if block.type == "text" and block.text is not None:
            texts.append(block.text)
        elif block.type == "tool_use" and block.name is not None:
            calls.append(Call(Function(block.name, block.input or {}), block.id))
        elif block.type not in THOUGHTS:
            raise _strange(block, f"{where}.content[{index}]")
    return [Message("assistant", "".join(texts), calls or None)]


def _text(content: str | Sequence[Block] | None, where: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for index, block in enumerate(content):
        if block.type != "text" or block.text is None:
            raise _strange(block, f"{where}[{index}]")
    return "\n".join(block.text or "" for block in content)


def _address(source: Source) -> Address:
    if source.type == "base64":
        return Address(f"data:{source.media_type};base64,{source.data or ''}")
    return Address(source.url or "")


def _strange(block: Block, where: str) -> Exception:
    return unsupported(where, f"{where} of the type {block.type[:60]!r} is not supported here, or has no content")


def _tools(tools: Sequence[Tool] | None) -> list[dict[str, Any]] | None:
    """The functions. Tools of Anthropic's own servers, which have no schema, are left out."""
    if tools is None:
        return None
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.input_schema},
        }
        for tool in tools
        if tool.input_schema is not None
    ]
