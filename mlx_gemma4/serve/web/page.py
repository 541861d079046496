"""``GET /``: a page for browsers, with microphone, camera and screen. Its files lie in ``serve/page``.

The page is a client of ``/v1/realtime`` like any other. Its files hold nothing of a user and need no key; the page asks
for the key and sends it with each connection.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent.parent / "page"
KINDS = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""Nothing is loaded from elsewhere, and text that the model writes can never run."""
HEADERS = {
    "Cache-Control": "no-cache",  # a browser asks each time: files of two versions are never mixed
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), display-capture=(self), microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class File:
    """A file of the page."""

    body: bytes
    kind: str
    tag: str
    """Changes with the content."""


def read_files(folder: Path = FOLDER) -> dict[str, File]:
    """The files of the page by their paths, the page itself at ``/``."""
    found = {}
    for path in sorted(folder.iterdir()):
        body = path.read_bytes()
        where = "/" if path.name == "index.html" else f"/page/{path.name}"
        found[where] = File(body, KINDS[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return found


def send(files: Mapping[str, File], request: Request) -> Response:
    """A file of the page, or 304 if the browser has it."""
    file = files[request.url.path]
    headers = {**HEADERS, "ETag": file.tag}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers=headers, media_type=file.kind)
