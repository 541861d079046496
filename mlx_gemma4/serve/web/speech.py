"""``POST /v1/audio/transcriptions`` and ``/translations``."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from mlx_gemma4.serve.events import Listened, SpeechEvent
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.protocols.failure import wrong
from mlx_gemma4.serve.protocols.speech_request import read_speech
from mlx_gemma4.serve.service import Service
from mlx_gemma4.serve.web.bodies import bound
from mlx_gemma4.serve.web.streams import GONE, EventStream, take_all, while_connected, written

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
        return EventStream(written(events, answer), ended, service.limits.idle)
    try:
        is_whole = await while_connected(request.receive, lambda: take_all(events, answer))
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
