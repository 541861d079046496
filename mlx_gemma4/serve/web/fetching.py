"""Fetches pictures, sound and videos that a request names by address, if the server's owner allows it.

A client could make the server talk to machines that only the server reaches. So only addresses of the internet are
connected to. A name is resolved once, and what is checked is what is connected to; a redirect begins anew.

    https://example.com/a.png   resolve ─▶ 93.184.216.34 is public ─▶ connect to 93.184.216.34 ─▶ TLS for example.com
    https://evil.example/a.png  resolve ─▶ 192.168.0.1 is not ─▶ refuse, whatever else the name resolves to
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import anyio
import h11
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from mlx_gemma4.serve.limits import Limits
from mlx_gemma4.serve.protocols.failure import Failure, wrong
from mlx_gemma4.serve.work.media import too_many

PORTS = {"https": 443, "http": 80}
PRIVILEGED = 1024
"""Ports below are those of other services."""
REDIRECTS = 3
MOVED = (301, 302, 303, 307, 308)
SAFE = "!$%&'()*+,/:;=?@[]~"
"""Characters of a path and a query that stay as they are."""
AGENT = "mlx_gemma4"
REMEDY = "send the data itself, as data:…;base64,…"
TRANSLATED = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that stand for IPv4 ones (RFC 6052)."""

Address = tuple[socket.AddressFamily, tuple[str, int]]


@dataclass(frozen=True)
class Target:
    """A URL that may be fetched."""

    scheme: str
    host: str
    port: int
    path: str
    """With the query."""

    @property
    def shown(self) -> str:
        """The Host of a request."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == PORTS[self.scheme] else f"{name}:{self.port}"


class Fetcher:
    """Fetches what requests name.

    Args:
        schemes: What may be fetched: nothing, ``https``, or ``https`` and ``http``.
    """

    def __init__(self, schemes: Sequence[str], limits: Limits) -> None:
        self._schemes, self._limits = tuple(schemes), limits
        self._tls = ssl.create_default_context() if schemes else None

    @property
    def is_allowed(self) -> bool:
        """Whether anything may be fetched."""
        return bool(self._schemes)

    async def fetch(self, places: Sequence[tuple[str, str]]) -> dict[str, bytes]:
        """Fetch what a request names.

        Args:
            places: Fields of the request, and the URLs in them. Others than web addresses are left alone.

        Returns:
            URLs → what is there.

        Raises:
            Failure: Something cannot be fetched; the message names the field and the host.
        """
        fetched: dict[str, bytes] = {}
        if not self.is_allowed:
            return fetched
        room, most = self._limits.body, self._limits.media
        if len(places) > most:
            raise too_many(places[most][0], most)
        for where, url in places:
            if url not in fetched and url.partition(":")[0].lower() in PORTS:
                fetched[url] = await self._fetch(url, where, room)
                room -= len(fetched[url])
        return fetched

    async def _fetch(self, url: str, where: str, room: int) -> bytes:
        host = _host(url)
        try:
            with anyio.fail_after(self._limits.fetch):
                return await self._follow(url, where, room)
        except TimeoutError:
            problem = f"{host} did not send it within {self._limits.fetch:g} s"
        except ssl.SSLCertVerificationError as error:
            problem = f"the certificate of {host} is not trusted ({error.verify_message})"
        except h11.ProtocolError:
            problem = f"{host} does not speak HTTP as expected"
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream):
            problem = f"{host} cannot be reached, or has broken off"
        raise _failed(where, problem)

    async def _follow(self, url: str, where: str, room: int) -> bytes:
        """Fetch from an address, or from the one that it leads to."""
        for _ in range(REDIRECTS + 1):
            target = self._target(url, where)
            found = await self._request(target, where, room)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise _failed(where, f"{_host(url)} redirects more than {REDIRECTS} times")

    def _target(self, url: str, where: str) -> Target:
        """Read an address.

        Raises:
            Failure: It is wrong, or of a kind that is not fetched.
        """
        try:
            parts = urlsplit(url)
            host = _ascii_host(parts)
            port = parts.port
        except ValueError:
            raise _failed(where, "it is no valid address") from None
        if parts.scheme not in self._schemes:
            hint = "; start the server with --allow-fetch http to allow it" if parts.scheme == "http" else ""
            raise _failed(
                where, f"{host[:100]} is at an address of the kind {parts.scheme[:20]}:, which is not fetched{hint}"
            )
        port = PORTS[parts.scheme] if port is None else port
        if parts.username is not None or (port < PRIVILEGED and port not in PORTS.values()):
            raise _failed(where, f"the address of {host[:100]} has a user name, or the port of another service")
        path = quote(f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}", safe=SAFE)
        return Target(parts.scheme, host, port, path)

    async def _request(self, target: Target, where: str, room: int) -> bytes | str:
        """What is there, or the address that it leads to."""
        head = h11.Request(
            method="GET",
            target=target.path,
            headers=[("Host", target.shown), ("User-Agent", AGENT), ("Accept", "*/*"), ("Connection", "close")],
        )
        connection = h11.Connection(h11.CLIENT)
        sent = (connection.send(head) or b"") + (connection.send(h11.EndOfMessage()) or b"")
        async with await self._connect(target, where) as stream:
            await stream.send(sent)
            response = await _next(connection, stream)
            while isinstance(response, h11.InformationalResponse):
                response = await _next(connection, stream)
            if not isinstance(response, h11.Response):
                raise anyio.EndOfStream
            headers = dict(response.headers)
            if response.status_code in MOVED and b"location" in headers:
                return headers[b"location"].decode("latin-1")
            if response.status_code != 200:
                raise _failed(where, f"{target.host} answered with status {response.status_code}")
            return await _body(connection, stream, target, where, room)

    async def _connect(self, target: Target, where: str) -> ByteStream:
        """A connection to a public address of a host.

        Raises:
            Failure: Not all of its addresses are public.
        """
        try:
            found = await anyio.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, ValueError):  # no such name, or none that could be one
            raise _failed(where, f"there is no host {target.host[:100]}") from None
        addresses = [str(address[0]) for _, _, _, _, address in found]
        if not addresses or not all(map(is_public, addresses)):
            raise _failed(where, f"{target.host[:100]} is not at a public address")
        stream = await anyio.connect_tcp(addresses[0], target.port)
        if target.scheme == "http":
            return stream
        try:
            # many servers close the connection without a word
            return await TLSStream.wrap(stream, hostname=target.host, ssl_context=self._tls, standard_compatible=False)
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise


def is_public(text: str) -> bool:
    """Whether an IP address is one of the internet, and not of this machine or its network."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:  # it has a scope, such as fe80::1%eth0
        return False
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    return address not in TRANSLATED and not (address.ipv4_mapped or address.sixtofour or address.teredo)


async def _next(connection: h11.Connection, stream: ByteStream) -> object:
    """The next event of a response."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        try:
            connection.receive_data(await stream.receive())
        except anyio.EndOfStream:
            connection.receive_data(b"")
    return event


async def _body(connection: h11.Connection, stream: ByteStream, target: Target, where: str, room: int) -> bytes:
    parts, length = [], 0
    while isinstance(event := await _next(connection, stream), h11.Data):
        parts.append(bytes(event.data))
        length += len(event.data)
        if length > room:
            raise _failed(where, f"{target.host} sends more bytes than a request may have")
    return b"".join(parts)


def _ascii_host(parts: SplitResult) -> str:
    """The name of a host as it is resolved.

    Raises:
        ValueError: It has none.
    """
    if not parts.hostname:
        raise ValueError
    return parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "the host")[:100]
    except ValueError:
        return "the host"


def _failed(where: str, problem: str) -> Failure:
    return wrong(where, f"{where}: {problem}; {REMEDY}", code="not_fetched")
