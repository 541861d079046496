"""The page at ``/``: its files, their headers, and what they may hold. ``page_client.py`` runs it in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
from servers import Running, serving

from mlx_gemma4.serve import protocols
from mlx_gemma4.serve.protocols.realtime_events import ConversationEvent
from mlx_gemma4.serve.protocols.realtime_request import HYPOTHESES
from mlx_gemma4.serve.protocols.realtime_sound import TRANSCRIPTION
from mlx_gemma4.serve.web.page import FOLDER

ROOT = Path(__file__).parent.parent
FILES = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.iterdir())}
SCRIPTS = {name: text for name, text in FILES.items() if name.endswith(".js")}
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """One that asks for a key: the page does not."""
    with serving(key="secret") as running:
        yield running


def path_of(name: str) -> str:
    return "/" if name == "index.html" else f"/page/{name}"


@pytest.mark.parametrize("name", FILES)
def test_a_file(server: Running, name: str) -> None:
    reply = server.get(path_of(name))
    kind = KINDS[name.rpartition(".")[2]]
    assert (reply.status, reply.body.decode()) == (200, FILES[name])
    assert reply.headers["content-type"].partition(";")[0] == kind
    assert reply.headers["x-content-type-options"] == "nosniff"
    again = server.get(path_of(name), **{"If-None-Match": reply.headers["etag"]})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", reply.headers["etag"])
    assert server.get(path_of(name), **{"If-None-Match": '"another"'}).status == 200
    assert reply.headers["cache-control"] == "no-cache"


def test_what_the_page_may_do(server: Running) -> None:
    """No script, style or connection of another address, nothing inline, and no other page around it."""
    headers = server.get("/").headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["permissions-policy"] == "camera=(self), display-capture=(self), microphone=(self)"
    assert (headers["referrer-policy"], headers["cross-origin-resource-policy"]) == ("no-referrer", "same-origin")


@pytest.mark.parametrize(("path", "status"), [("/page/", 401), ("/page/../page.js", 401), ("/page/none.js", 401)])
def test_other_paths_need_the_key(server: Running, path: str, status: int) -> None:
    assert server.get(path).status == status
    assert server.get(path, Authorization="Bearer secret").status == 404


def test_who_may_load_it(server: Running) -> None:
    assert server.get("/", Host="evil.example").error["code"] == "host_not_allowed"
    assert server.get("/page/page.js", Origin="http://evil.example").error["code"] == "origin_not_allowed"
    assert server.send("POST", "/").status == 405
    assert server.send("HEAD", "/").status == 200


class Page(HTMLParser):
    """The elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found[name] for name in ("src", "href") if name in found]
        self.inline += [name for name in found if name == "style" or name.startswith("on")]
        self.inline += [tag] if tag == "style" or (tag == "script" and "src" not in found) else []


def test_it_needs_no_network_and_nothing_inline() -> None:
    page = Page()
    page.feed(FILES["index.html"])
    modules = [f"page/{name}" for text in SCRIPTS.values() for name in re.findall(r'from "\./([\w.]+)"', text)]
    workers = [f"page/{name}" for text in SCRIPTS.values() for name in re.findall(r'new URL\("([\w.]+\.js)"', text)]
    assert page.inline == []
    assert {*page.links, *modules, *workers} == {path_of(name)[1:] for name in FILES if name != "index.html"}
    outside = [url for text in FILES.values() for url in re.findall(r"(?:https?:)?//[\w.]+\.\w+[^\s\"']*", text)]
    assert outside == ["http://www.w3.org/2000/svg"]


def test_every_element_that_is_named_exists() -> None:
    page = Page()
    page.feed(FILES["index.html"])
    named = {name for text in SCRIPTS.values() for name in re.findall(r'\b(?:element|on)\("([\w-]+)"', text)}
    assert len(set(page.ids)) == len(page.ids)
    assert named - set(page.ids) == set() and len(named) > 10


@pytest.mark.parametrize(
    "way", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"]
)
def test_no_text_is_read_as_html(way: str) -> None:
    assert [name for name, text in SCRIPTS.items() if way in text] == []


def test_the_wheel_has_it() -> None:
    """As package data; the folder has no Python."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert settings.count('"mlx_gemma4.serve.page"') == 2
    assert '"mlx_gemma4.serve.page" = ["*"]' in settings


def test_it_names_only_events_that_the_server_knows() -> None:
    """Those that it sends, those that it reads, and the guesses that it asks for."""
    code = "".join(path.read_text(encoding="utf-8") for path in Path(protocols.__path__[0]).glob("realtime*.py"))
    told = {name.replace("{TRANSCRIPTION}", TRANSCRIPTION) for name in re.findall(r'event\(\s*f?"([\w.{}]+)"', code)}
    taken = {kind.__struct_config__.tag for kind in get_args(ConversationEvent)}
    named = set()
    for text in SCRIPTS.values():
        whole = text.replace("${TRANSCRIPTION}", TRANSCRIPTION)
        named |= set(re.findall(r'["`]((?:session|input_audio_buffer|conversation|response|item)\.[\w.]+)["`]', whole))
    assert named - told - taken == {HYPOTHESES, TRANSCRIPTION, "conversation.txt"}
    sent = set(re.findall(r'send\(\{ type: "([\w.]+)"', "".join(SCRIPTS.values())))
    assert sent - taken == set() and len(sent) >= 6
