"""``POST /v1/chat/completions``."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from mlx_gemma4.serve.events import Began, ChatEvent, Finished
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.protocols.chat_answer import ChatAnswer
from mlx_gemma4.serve.protocols.chat_request import read_chat
from mlx_gemma4.serve.protocols.wire import DONE, event, write
from mlx_gemma4.serve.service import Service
from mlx_gemma4.serve.web.bodies import read_body
from mlx_gemma4.serve.web.failures import failure_of
from mlx_gemma4.serve.web.streams import GONE, EventStream, while_connected
from mlx_gemma4.serve.web.threads import Threads


async def complete(service: Service, threads: Threads, request: Request) -> Response:
    """Answer a chat, as a stream or as a whole."""
    started = time.monotonic()
    asked = read_chat(await read_body(request, service.limits.body, service.limits.idle))
    service.check_model(asked.model)
    prepared = await while_connected(request.receive, lambda: threads.run(lambda: service.prepare(asked)))
    if prepared is None:
        return Response(status_code=GONE)
    question, answer = prepared
    outbox: Outbox[ChatEvent] = Outbox()
    job = service.ask(question, outbox)
    events = _counted(service, outbox, started)
    if asked.stream:
        return EventStream(_stream(events, answer), job.cancel, service.limits.idle)
    try:
        is_whole = await while_connected(request.receive, lambda: _take_all(events, answer))
    finally:
        job.cancel()
    return Response(write(answer.whole()), media_type="application/json") if is_whole else Response(status_code=GONE)


async def _counted(service: Service, outbox: Outbox[ChatEvent], started: float) -> AsyncIterator[ChatEvent]:
    """The events of an answer."""
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


async def _take_all(events: AsyncIterator[ChatEvent], answer: ChatAnswer) -> bool:
    async for told in events:
        answer.take(told)
    return True


async def _stream(events: AsyncIterator[ChatEvent], answer: ChatAnswer) -> AsyncGenerator[bytes, None]:
    try:
        async for told in events:
            for chunk in answer.chunks(told):
                yield event(chunk)
    except Exception as error:  # the status is sent already: the error goes into the stream
        yield event(failure_of(error).record())
    yield DONE
