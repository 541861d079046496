"""Reaches an MCP server by streamable HTTP, within bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp.client.streamable_http import streamable_http_client

from mlx_gemma4.mcp.address import Address
from mlx_gemma4.mcp.bounds import MOST_BYTES

TIME_LIMIT = 30.0
"""Seconds to connect and to send."""
READ_LIMIT = 3600.0
"""Seconds between two parts of an answer; calls have time limits of their own."""
EVENTS = "text/event-stream"


@asynccontextmanager
async def http(address: Address) -> AsyncIterator[Any]:
    """A transport of the ``mcp`` package. Proxies of the environment are not used: the server is on this machine."""
    assert address.url is not None
    client = httpx2.AsyncClient(
        headers=dict(address.headers),
        timeout=httpx2.Timeout(TIME_LIMIT, read=READ_LIMIT),
        transport=_Transport(trust_env=False),
        trust_env=False,
    )
    async with (
        client,
        streamable_http_client(address.url, http_client=client, max_sse_event_size=MOST_BYTES) as streams,
    ):
        yield streams


class _Transport(httpx2.AsyncHTTPTransport):  # type: ignore[misc]  # imported only where it is used
    """Bounds answers. Compressed ones are refused: nobody asked for them, and a small one may be large inside."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["accept-encoding"] = "identity"
        response = await super().handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise httpx2.RemoteProtocolError("The server sends compressed answers")
        if EVENTS not in response.headers.get("content-type", "") and isinstance(
            response.stream, httpx2.AsyncByteStream
        ):
            response.stream = _Bounded(response.stream)
        return response


class _Bounded(httpx2.AsyncByteStream):  # type: ignore[misc]
    """A body of at most MOST_BYTES."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream, self._left = stream, MOST_BYTES

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._left -= len(chunk)
            if self._left < 0:
                raise httpx2.StreamError(f"it has more than {MOST_BYTES // 2**20} MB")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
