"""``POST /v1/chat/completions``, ``/v1/responses`` and ``/v1/messages``: other words for the same work."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable

from starlette.requests import Request
from starlette.responses import Response

from mlx_gemma4.serve.events import Began, ChatEvent, Finished
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.protocols.chat_answer import ChatAnswer
from mlx_gemma4.serve.protocols.chat_request import ChatRequest, read_chat
from mlx_gemma4.serve.protocols.messages_answer import MessagesAnswer
from mlx_gemma4.serve.protocols.messages_request import read_messages
from mlx_gemma4.serve.protocols.responses_answer import ResponsesAnswer
from mlx_gemma4.serve.protocols.responses_request import read_responses
from mlx_gemma4.serve.protocols.wire import write
from mlx_gemma4.serve.protocols.writer import ChatWriter
from mlx_gemma4.serve.service import Service
from mlx_gemma4.serve.web.bodies import read_body
from mlx_gemma4.serve.web.preparing import Preparing
from mlx_gemma4.serve.web.streams import GONE, EventStream, take_all, while_connected, written
from mlx_gemma4.serve.work.questions import Tools


async def complete(service: Service, preparing: Preparing, request: Request) -> Response:
    """Answer a request of Chat Completions."""
    chat = read_chat(await read_body(request, service.limits.body, service.limits.idle))

    def writer(tools: Tools | None) -> ChatWriter:
        return ChatAnswer(
            id=f"chatcmpl-{secrets.token_hex(12)}",
            model=service.names[0],
            created=int(time.time()),
            next_id=lambda: _id("call"),
            tools=tools,
            one_call=chat.one_call,
            includes_usage=chat.stream_options is not None and bool(chat.stream_options.include_usage),
            lists_chances=bool(chat.logprobs),
        )

    return await _answer(service, preparing, request, chat, writer)


async def respond(service: Service, preparing: Preparing, request: Request) -> Response:
    """Answer a request of Responses."""
    asked, chat = read_responses(await read_body(request, service.limits.body, service.limits.idle))

    def writer(tools: Tools | None) -> ChatWriter:
        return ResponsesAnswer(
            asked, service.names[0], int(time.time()), next_id=_id, tools=tools, one_call=chat.one_call
        )

    return await _answer(service, preparing, request, chat, writer)


async def message(service: Service, preparing: Preparing, request: Request) -> Response:
    """Answer a request of Anthropic's protocol."""
    chat = read_messages(await read_body(request, service.limits.body, service.limits.idle))

    def writer(tools: Tools | None) -> ChatWriter:
        return MessagesAnswer(service.names[0], next_id=_id, tools=tools, one_call=chat.one_call)

    return await _answer(service, preparing, request, chat, writer)


async def count_tokens(service: Service, preparing: Preparing, request: Request) -> Response:
    """How many tokens a request of Anthropic's protocol has."""
    chat = read_messages(await read_body(request, service.limits.body, service.limits.idle))
    service.check_model(chat.model)
    question, _ = await preparing.prepare(chat)
    return Response(write({"input_tokens": len(question.prompt)}), media_type="application/json")


async def _answer(
    service: Service,
    preparing: Preparing,
    request: Request,
    chat: ChatRequest,
    make: Callable[[Tools | None], ChatWriter],
) -> Response:
    """Answer a chat, as a stream or as a whole."""
    started = time.monotonic()
    service.check_model(chat.model)
    prepared = await while_connected(request.receive, lambda: preparing.prepare(chat))
    if prepared is None:
        return Response(status_code=GONE)
    question, tools = prepared
    writer = make(tools)
    outbox: Outbox[ChatEvent] = Outbox()
    job = service.ask(question, outbox)
    events = counted(service, outbox, started)
    if chat.stream:
        return EventStream(written(events, writer), job.cancel, service.limits.idle)
    try:
        is_whole = await while_connected(request.receive, lambda: take_all(events, writer))
    finally:
        job.cancel()
    return Response(write(writer.whole()), media_type="application/json") if is_whole else Response(status_code=GONE)


async def counted(service: Service, outbox: Outbox[ChatEvent], started: float) -> AsyncIterator[ChatEvent]:
    """The events of an answer, which are counted in the metrics.

    Args:
        started: When the request came, by ``time.monotonic``.
    """
    metrics, is_first = service.metrics, True
    while (told := await outbox.get()) is not None:
        if isinstance(told, Began):
            metrics.add("prompt_tokens_total", told.prompt_tokens)
            metrics.add("cached_tokens_total", told.cached_tokens)
        elif isinstance(told, Finished):
            metrics.add("answer_tokens_total", told.tokens)
        elif is_first:
            is_first = False
            metrics.add("first_token_seconds_sum", time.monotonic() - started)
            metrics.add("first_token_seconds_count")
        yield told


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"
