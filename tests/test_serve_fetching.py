"""Media by address: what is fetched and from where, and that nobody's own network can be reached."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from golden import seen
from reference_cases import DESCRIBE, media_file
from servers import serving
from test_serve_conversation import dial
from test_serve_realtime import send, until

from mlx_gemma4.serve.limits import Limits
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.web import fetching
from mlx_gemma4.serve.web.fetching import Fetcher, is_public

PICTURE = media_file("picture-01.png")
CERTIFICATE = Path(__file__).parent / "data" / "certificates" / "pictures.example.pem"
"""Of pictures.example, with its key, for tests alone."""
REMEDY = "send the data itself, as data:…;base64,…"
HOSTS = {
    "pictures.example": ["127.0.0.1"],
    "other.example": ["127.0.0.1"],
    "printer.example": ["192.168.0.9"],
    "both.example": ["127.0.0.1", "10.0.0.1"],
    "none.example": [],
}
"""What the resolver of these tests knows. 127.0.0.1 counts as public: the server of the tests is there."""


class Handler(BaseHTTPRequestHandler):
    """A site with a picture, and with traps."""

    seen: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.headers["Host"].partition(":")[0], self.path))
        port = self.server.server_address[1]
        moved = {
            "/moved": "/picture%20one.png?a=b c",
            "/elsewhere": f"http://other.example:{port}/picture",
            "/printer": f"http://printer.example:{port}/",
            "/router": f"http://10.1:{port}/",
            "/file": "file:///etc/passwd",
            "/loop": "/loop",
        }
        if self.path in moved:
            self.send_response(302)
            self.send_header("Location", moved[self.path])
            self.end_headers()
        elif self.path == "/missing":
            self.send_error(404)
        elif self.path == "/garbage":
            self.wfile.write(b"220 smtp.example ESMTP\r\n" * 3)
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"x")
        elif self.path in ("/slow", "/big"):
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * (1 if self.path == "/slow" else 10_000))
                    time.sleep(0.02 if self.path == "/slow" else 0)
            except OSError:
                return
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PICTURE.read_bytes())

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


@contextmanager
def site(context: ssl.SSLContext | None = None) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were resolved."""
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        if host not in HOSTS and not host[0].isdigit():
            raise socket.gaierror
        found = HOSTS.get(host, [socket.inet_ntoa(socket.inet_aton(host))] if host[0].isdigit() else [])
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(fetching.anyio, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(fetching, "is_public", lambda text: text == "127.0.0.1" or is_public(text))
    Handler.seen.clear()
    return asked


@pytest.fixture
def port(resolver: list[str]) -> Iterator[int]:
    with site() as port:
        yield port


def fetch(*urls: str, schemes: tuple[str, ...] = ("https", "http"), **limits: Any) -> list[bytes]:
    fetcher = Fetcher(schemes, Limits(**limits))
    fetched = asyncio.run(fetcher.fetch([(f"part {n}", url) for n, url in enumerate(urls)]))
    return [fetched[url] for url in urls if url in fetched]


def problem(*urls: str, **options: Any) -> str:
    with pytest.raises(Failure) as failed:
        fetch(*urls, **options)
    assert (failed.value.status, failed.value.param) == (400, f"part {len(urls) - 1}")
    return failed.value.message


@pytest.mark.parametrize("path", ["/picture.png", "/moved", "/elsewhere", ""])
def test_what_is_at_an_address(port: int, path: str) -> None:
    assert fetch(f"http://pictures.example:{port}{path}") == [PICTURE.read_bytes()]


def test_an_address_is_sent_as_it_is_and_a_picture_is_fetched_once(port: int, resolver: list[str]) -> None:
    url = f"HTTP://Pictures.example:{port}/ä b?q=1%202#part"
    assert fetch(url, "data:image/png;base64,AA", url) == [PICTURE.read_bytes()] * 2
    assert Handler.seen == [("pictures.example", "/%C3%A4%20b?q=1%202")] and resolver == ["pictures.example"]


def test_a_redirect_is_checked_like_an_address(port: int, resolver: list[str]) -> None:
    for path, name in (("/printer", "printer.example"), ("/router", "10.1")):
        expected = f"part 0: {name} is not at a public address; {REMEDY}"
        assert problem(f"http://pictures.example:{port}{path}") == expected
    assert {host for host, _ in Handler.seen} == {"pictures.example"}
    told = problem(f"http://pictures.example:{port}/file")
    assert told.startswith("part 0: it is no valid address")
    told = problem(f"http://pictures.example:{port}/loop")
    assert told == f"part 0: pictures.example redirects more than 3 times; {REMEDY}"
    assert len(Handler.seen) == 3 + 4


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://printer.example/", "printer.example is not at a public address"),
        ("http://both.example/", "both.example is not at a public address"),
        ("http://none.example/", "none.example is not at a public address"),
        ("http://missing.example/", "there is no host missing.example"),
        ("http://0xa.1:80/", "0xa.1 is not at a public address"),
        ("http://167772161/", "167772161 is not at a public address"),
        (
            "https://me:secret@pictures.example/",
            "the address of pictures.example has a user name, or the port of another",
        ),
        (
            "http://pictures.example:25/",
            "the address of pictures.example has a user name, or the port of another service",
        ),
        ("http://pictures.example:99999/", "it is no valid address"),
        ("http:///etc/passwd", "it is no valid address"),
        ("http://[::1/", "it is no valid address"),
        (f"http://{'ä' * 100}/", "it is no valid address"),
    ],
)
def test_addresses_that_are_not_fetched(resolver: list[str], url: str, message: str) -> None:
    assert problem(url).startswith(f"part 0: {message}")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/missing", "pictures.example answered with status 404"),
        ("/garbage", "pictures.example does not speak HTTP as expected"),
        ("/short", "pictures.example does not speak HTTP as expected"),
        ("/slow", "pictures.example did not send it within 0.3 s"),
        ("/big", "pictures.example sends more bytes than a request may have"),
    ],
)
def test_sites_that_are_no_good(port: int, path: str, message: str) -> None:
    assert problem(f"http://pictures.example:{port}{path}", fetch=0.3, body=100_000) == f"part 0: {message}; {REMEDY}"


def test_bytes_and_media_of_a_request_are_counted_together(port: int) -> None:
    url, size = f"http://pictures.example:{port}/", len(PICTURE.read_bytes())
    assert len(fetch(f"{url}1", f"{url}2", body=2 * size)) == 2
    assert "more bytes" in problem(f"{url}1", f"{url}2", body=2 * size - 1)
    assert problem("data:,a", "data:,b", media=1) == "A request may hold at most 1 pictures, sounds and videos"


def test_a_site_that_is_down(resolver: list[str]) -> None:
    with site() as port:
        pass
    expected = f"part 0: pictures.example cannot be reached, or has broken off; {REMEDY}"
    assert problem(f"http://pictures.example:{port}/") == expected


def test_certificates_are_checked(resolver: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with site(context) as port:
        url = f"https://pictures.example:{port}/"
        told = problem(url)
        assert told == f"part 0: the certificate of pictures.example is not trusted (self-signed certificate); {REMEDY}"
        trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
        monkeypatch.setattr(fetching.ssl, "create_default_context", lambda: trusting)
        assert fetch(url, schemes=("https",)) == [PICTURE.read_bytes()]
        told = problem(f"https://other.example:{port}/")
        assert told.startswith("part 0: the certificate of other.example is not trusted (Hostname mismatch")
        told = problem(f"https://pictures.example:{port}/elsewhere", schemes=("https",))
        assert told == (
            "part 0: other.example is at an address of the kind http:, which is not fetched; "
            f"start the server with --allow-fetch http to allow it; {REMEDY}"
        )


@pytest.mark.parametrize("host", ["a\0b", "x" * 70, "a..b", "-", "[2606:2800::]"])
def test_names_that_no_host_has(host: str) -> None:
    """The real resolver is asked, which has its own ways to refuse."""
    told = problem(f"http://{host}:1025/", fetch=5.0)
    assert told.startswith("part 0: ") and told.endswith(REMEDY)


PRIVATE = """
127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 240.0.0.1
::1 :: fe80::1 fe80::1%eth0 fc00::1 ff02::1 ::ffff:127.0.0.1 ::ffff:93.184.216.34 64:ff9b::7f00:1 2002:7f00:1::
2001:0:7f00:1::
"""


def test_what_is_public() -> None:
    assert is_public("93.184.216.34") and is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c")
    assert [address for address in PRIVATE.split() if is_public(address)] == []


# the server


def ask(url: str) -> dict[str, Any]:
    picture = {"type": "image_url", "image_url": {"url": url}}
    return {"role": "user", "content": [picture, {"type": "text", "text": DESCRIBE}]}


def test_pictures_by_address_in_every_protocol(port: int) -> None:
    url, text = f"http://pictures.example:{port}/", {"type": "text", "text": DESCRIBE}
    expected = seen("picture-01.png").sure
    with serving(fetches=("http",)) as server:
        reply = server.chat(ask(url), temperature=0).json()
        assert reply["choices"][0]["message"]["content"] == expected
        data = f"data:image/png;base64,{base64.b64encode(PICTURE.read_bytes()).decode()}"
        assert reply["usage"]["prompt_tokens"] == server.chat(ask(data)).json()["usage"]["prompt_tokens"]
        content = [{"type": "input_image", "image_url": url}, {"type": "input_text", "text": DESCRIBE}]
        body = {"input": [{"role": "user", "content": content}], "temperature": 0}
        (item,) = server.send("POST", "/v1/responses", body).json()["output"]
        assert item["content"][0]["text"] == expected
        content = [{"type": "image", "source": {"type": "url", "url": url}}, text]
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 50, "temperature": 0}
        assert server.send("POST", "/v1/messages", body).json()["content"][0]["text"] == expected
        counted = server.send("POST", "/v1/messages/count_tokens", body).json()
        assert counted == {"input_tokens": reply["usage"]["prompt_tokens"]}
        error = server.chat(ask(f"http://pictures.example:{port}/missing")).error
        assert error["param"] == "messages[0].content[0].image_url.url" and error["code"] == "not_fetched"
        assert error["message"] == f"{error['param']}: pictures.example answered with status 404; {REMEDY}"


def test_pictures_by_address_in_realtime_conversations(port: int) -> None:
    with serving(fetches=("http",)) as server, dial(server) as socket:

        def say(path: str) -> None:
            content = [
                {"type": "input_image", "image_url": f"http://pictures.example:{port}{path}"},
                {"type": "input_text", "text": DESCRIBE},
            ]
            item = {"type": "message", "role": "user", "content": content}
            send(socket, "conversation.item.create", item=item, event_id="mine")

        until(socket, "session.created")
        say("/missing")
        error = json.loads(socket.recv(timeout=20))["error"]
        where = "item.content[0].image_url"
        assert (error["event_id"], error["param"], error["code"]) == ("mine", where, "not_fetched")
        assert error["message"] == f"{where}: pictures.example answered with status 404; {REMEDY}"
        say("/picture.png")
        send(socket, "response.create")
        assert until(socket, "response.output_text.done")[-1]["text"] == seen("picture-01.png").sure


def test_nothing_is_fetched_unless_it_is_allowed(port: int, resolver: list[str]) -> None:
    with serving() as server:
        error = server.chat(ask(f"http://pictures.example:{port}/")).error
    assert error["message"].endswith(f"{REMEDY}, or start it with --allow-fetch")
    assert resolver == [] and Handler.seen == []
