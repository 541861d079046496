"""Who may talk to the server. It listens on this machine alone unless told otherwise, and a browser is not a friend.

A web page that the user visits can send requests to ``127.0.0.1``, and with a name of its own that resolves to it also
read the answers. So the Host must be a name of this machine, and the Origin, which browsers send, must be the server's
own or one that the user has allowed.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.wire import write

LOCAL_NAMES = ("localhost", "host.docker.internal", "host.containers.internal")
OPEN = ("/health",)
"""Paths that need no key: they tell nothing. Those of the page are others."""
WRONG_KEY = "The API key is missing or wrong; send it as Authorization: Bearer KEY"
KEY_PROTOCOL = "openai-insecure-api-key."
"""Browsers cannot set headers of WebSockets, so OpenAI's client sends the key as a subprotocol. What a subprotocol must
not contain may be percent-encoded there."""
POLICY_VIOLATION = 1008
"""Code with which a WebSocket is closed."""


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Passes on requests that may be answered.

    Args:
        host: The address that the server listens on.
        key: What clients must send; None: nothing.
        names: Further names that the Host may have.
        origins: Web pages that may send requests, such as ``http://localhost:3000``.
        open_paths: Further paths that need no key.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        key: str | None,
        names: Iterable[str] = (),
        origins: Iterable[str] = (),
        open_paths: Iterable[str] = (),
    ) -> None:
        self._app = app
        self._is_local = is_loopback(host)
        self._key = key
        own = socket.gethostname().lower().rstrip(".")
        machine = () if self._is_local else (own, f"{own.partition('.')[0]}.local")
        self._names = {*LOCAL_NAMES, host.lower(), *machine, *(name.lower() for name in names)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._open = {*OPEN, *open_paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        failure = self._check(scope) if scope["type"] in ("http", "websocket") else None
        if failure is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": failure.code or ""})
        else:
            await failed(failure)(scope, receive, send)

    def _check(self, scope: Scope) -> Failure | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_known(host):
            return Failure(
                403,
                "The Host of this request is not a name of this server; start it with --allow-host NAME to allow it",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if origin is not None and not self._is_allowed(origin.lower(), host.lower()):
            return Failure(
                403,
                "A web page at another address has sent this request; start the server with --allow-origin ORIGIN to "
                "allow it",
                code="origin_not_allowed",
            )
        if self._key is not None and scope["path"] not in self._open and not self._has_key(headers):
            return Failure(401, WRONG_KEY, code="invalid_api_key")
        return None

    def _is_known(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname if "@" not in host and "/" not in host else None
        if name is None:
            return False
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name.rstrip(".") in self._names
        return address.is_loopback or not self._is_local or name in self._names

    def _is_allowed(self, origin: str, host: str) -> bool:
        return origin in self._origins or urlsplit(origin).netloc == host

    def _has_key(self, headers: Headers) -> bool:
        kind, _, sent = headers.get("authorization", "").partition(" ")
        found = [sent.strip()] if kind.lower() == "bearer" else []
        found += [headers.get("x-api-key", "")]
        protocols = [each.strip() for each in headers.get("sec-websocket-protocol", "").split(",")]
        by_protocol = [each.removeprefix(KEY_PROTOCOL) for each in protocols if each.startswith(KEY_PROTOCOL)]
        found += [*by_protocol, *map(unquote, by_protocol)]
        assert self._key is not None
        return any(hmac.compare_digest(each.encode(), self._key.encode()) for each in found)


def failed(failure: Failure) -> Response:
    """The response of a request that cannot be answered."""
    headers = {"Retry-After": "1"} if failure.status == 503 else {}
    if failure.status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    return Response(write(failure.record()), failure.status, headers, "application/json")
