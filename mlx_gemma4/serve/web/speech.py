"""``POST /v1/audio/transcriptions`` and ``/translations``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from mlx_gemma4.serve.events import Listened, SpeechEvent
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.protocols.failure import wrong
from mlx_gemma4.serve.protocols.speech_answer import SpeechAnswer
from mlx_gemma4.serve.protocols.speech_request import read_speech
from mlx_gemma4.serve.protocols.wire import DONE, event
from mlx_gemma4.serve.service import Service
from mlx_gemma4.serve.web.bodies import bound
from mlx_gemma4.serve.web.failures import failure_of
from mlx_gemma4.serve.web.streams import GONE, EventStream, while_connected

MOST_FIELDS = 1000


async def transcribe(service: Service, request: Request, *, translates: bool) -> Response:
    """Transcribe an upload, as a stream or as a whole."""
    bounded = bound(request, service.limits.upload, service.limits.idle)
    form = await Request(request.scope, bounded).form(max_files=1, max_fields=MOST_FIELDS)
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]

    def close() -> None:
        for each in files:
            each.file.close()

    try:
        fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
        asked = read_speech(fields, translates=translates)
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise wrong("file", "The recording is missing: send it as the field file of multipart/form-data")
        outbox: Outbox[SpeechEvent] = Outbox()
        job, answer = service.recognise(asked, file.file, outbox)
    except BaseException:
        close()
        raise

    def ended() -> None:
        job.cancel()
        close()

    events = _counted(service, outbox)
    if asked.streams:
        return EventStream(_stream(events, answer), ended, service.limits.idle)
    try:
        is_whole = await while_connected(request.receive, lambda: _take_all(events, answer))
    finally:
        ended()
    return Response(answer.whole(), media_type=answer.media_type) if is_whole else Response(status_code=GONE)


async def _counted(service: Service, outbox: Outbox[SpeechEvent]) -> AsyncIterator[SpeechEvent]:
    while (told := await outbox.get()) is not None:
        if isinstance(told, Listened):
            service.metrics.add("audio_seconds_total", told.seconds)
            service.metrics.add("prompt_tokens_total", told.audio_tokens + told.text_tokens)
        else:
            service.metrics.add("answer_tokens_total", told.tokens)
        yield told


async def _take_all(events: AsyncIterator[SpeechEvent], answer: SpeechAnswer) -> bool:
    async for told in events:
        answer.take(told)
    return True


async def _stream(events: AsyncIterator[SpeechEvent], answer: SpeechAnswer) -> AsyncGenerator[bytes, None]:
    try:
        async for told in events:
            for record in answer.events(told):
                yield event(record)
    except Exception as error:  # the status is sent already: the error goes into the stream
        yield event(failure_of(error).record())
    yield DONE
