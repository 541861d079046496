"""The application: routes, and what every request passes through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.models import model_list, model_record
from mlx_gemma4.serve.protocols.wire import write
from mlx_gemma4.serve.service import Service
from mlx_gemma4.serve.web import chat, page, realtime, speech
from mlx_gemma4.serve.web.failures import failure_of
from mlx_gemma4.serve.web.guard import Guard, failed
from mlx_gemma4.serve.web.preparing import Preparing
from mlx_gemma4.serve.web.sessions import Sessions
from mlx_gemma4.serve.web.streams import GONE

Handle = Callable[[Request], Awaitable[Response]]


def make_app(
    service: Service,
    sessions: Sessions,
    *,
    host: str,
    key: str | None = None,
    names: Sequence[str] = (),
    origins: Sequence[str] = (),
    fetches: Sequence[str] = (),
) -> ASGIApp:
    """The server as an ASGI application.

    Args:
        sessions: Knows the Realtime connections that are open.
        fetches: Kinds of addresses that may be fetched (``Fetcher``). The others are those of ``Guard``.
    """
    routes = Routes(service, fetches, sessions)
    app: ASGIApp = Starlette(
        routes=[
            *(routes.route(path, routes.page, "GET") for path in routes.files),
            routes.route("/health", routes.health, "GET"),
            routes.route("/metrics", routes.metrics, "GET"),
            routes.route("/v1/models", routes.models, "GET"),
            routes.route("/v1/models/{name:path}", routes.model, "GET"),
            routes.route("/v1/chat/completions", routes.chat),
            routes.route("/v1/responses", routes.responses),
            routes.route("/v1/messages", routes.messages),
            routes.route("/v1/messages/count_tokens", routes.count_tokens),
            routes.route("/v1/audio/transcriptions", routes.transcription),
            routes.route("/v1/audio/translations", routes.translation),
            WebSocketRoute("/v1/realtime", routes.realtime),
        ],
        exception_handlers={HTTPException: routes.not_found},
    )
    app = Guard(app, host=host, key=key, names=names, origins=origins, open_paths=routes.files)
    if origins:
        app = CORSMiddleware(app, allow_origins=list(origins), allow_methods=["*"], allow_headers=["*"])
    return app


class Routes:
    """What each path answers.

    Attributes:
        files: The page's, by path.
    """

    def __init__(self, service: Service, fetches: Sequence[str], sessions: Sessions) -> None:
        self._service, self._sessions = service, sessions
        self.files = page.read_files()
        self._preparing = Preparing(service, fetches)

    def route(self, path: str, handle: Handle, method: str = "POST") -> Route:
        """A path whose handler's exceptions become responses, and whose requests are counted."""

        async def run(request: Request) -> Response:
            try:
                response = await handle(request)
            except ClientDisconnect:
                response = Response(status_code=GONE)
            except Exception as error:
                response = failed(failure_of(error))
            self._service.metrics.add("requests_total", route=path, status=str(response.status_code))
            return response

        return Route(path, run, methods=[method])

    async def not_found(self, request: Request, error: Exception) -> Response:
        """A path or a method that does not exist."""
        assert isinstance(error, HTTPException)
        self._service.metrics.add("requests_total", route="other", status=str(error.status_code))
        if error.status_code == 405:
            return failed(Failure(405, f"{request.method} is not possible here", code="method_not_allowed"))
        return failed(Failure(404, "There is nothing at this address; the API begins at /v1", code="unknown_url"))

    async def page(self, request: Request) -> Response:
        return page.send(self.files, request)

    async def health(self, request: Request) -> Response:
        if not self._service.engine.is_alive:
            return Response(write({"status": "stopping"}), 503, media_type="application/json")
        return _json({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        return PlainTextResponse(self._service.figures(), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        return _json(model_list(self._service.names, self._service.created, self._service.takes))

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        self._service.check_model(name)
        return _json(model_record(name, self._service.created, self._service.takes))

    async def chat(self, request: Request) -> Response:
        return await chat.complete(self._service, self._preparing, request)

    async def responses(self, request: Request) -> Response:
        return await chat.respond(self._service, self._preparing, request)

    async def messages(self, request: Request) -> Response:
        return await chat.message(self._service, self._preparing, request)

    async def count_tokens(self, request: Request) -> Response:
        return await chat.count_tokens(self._service, self._preparing, request)

    async def transcription(self, request: Request) -> Response:
        return await speech.transcribe(self._service, request, translates=False)

    async def translation(self, request: Request) -> Response:
        return await speech.transcribe(self._service, request, translates=True)

    async def realtime(self, websocket: WebSocket) -> None:
        self._service.metrics.add("requests_total", route="/v1/realtime", status="101")
        await realtime.converse(self._service, self._preparing.fetcher, self._sessions, websocket)


def _json(record: dict[str, object]) -> Response:
    return Response(write(record), media_type="application/json")
