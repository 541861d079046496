"""Who may talk to the server, and what it tells without being asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import Running, serving

from mlx_gemma4.serve.web.guard import is_loopback

KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    """Open to other machines, as far as the guard knows."""
    with serving(host="0.0.0.0", key="secret", names=["my.host"], origins=["http://page.example:3000"]) as running:
        yield running


def test_models(server: Running) -> None:
    listed = server.get("/v1/models").json()
    assert [(model["id"], model["object"]) for model in listed["data"]] == [("demo", "model"), ("other-name", "model")]
    assert server.get("/v1/models/demo").json() == listed["data"][0]
    assert listed["data"][0]["input_modalities"] == ["text", "image", "video", "audio"]
    assert (server.get("/v1/models/a/b").status, server.get("/v1/models/a/b").error["code"]) == (404, "model_not_found")


def test_health(server: Running, locked: Running) -> None:
    for each in (server, locked):
        assert (each.get("/health").status, each.get("/health").json()) == (200, {"status": "ok"})


def test_what_does_not_exist(server: Running) -> None:
    assert server.get("/v1/nothing").error["code"] == "unknown_url"
    assert (server.get("/v1/chat/completions").status, server.get("/v1/chat/completions").error["message"]) == (
        405,
        "GET is not possible here",
    )


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:1", "LOCALHOST", "host.docker.internal:8080"])
def test_names_of_this_machine(server: Running, host: str) -> None:
    assert server.get("/v1/models", Host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "192.168.0.5", "user@localhost", "", "a b"])
def test_other_names(server: Running, host: str) -> None:
    """A page whose name resolves to this machine could read the answers otherwise."""
    reply = server.get("/health", Host=host)
    assert reply.status in (400, 403)
    if reply.status == 403:
        assert reply.error["code"] == "host_not_allowed"


@pytest.mark.parametrize("host", ["192.168.0.5:8080", "my.host"])
def test_names_of_a_server_that_others_reach(locked: Running, host: str) -> None:
    assert locked.send("GET", "/v1/models", headers={**KEY, "Host": host}).status == 200
    assert locked.send("GET", "/v1/models", headers={**KEY, "Host": "evil.example"}).status == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:3000", "https://127.0.0.1"])
def test_pages_of_other_addresses(server: Running, origin: str) -> None:
    reply = server.send("POST", "/v1/chat/completions", {}, headers={"Origin": origin})
    assert (reply.status, reply.error["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in reply.headers


def test_its_own_pages(server: Running) -> None:
    assert server.get("/v1/models", Origin=f"http://127.0.0.1:{server.port}").status == 200


def test_a_page_that_is_allowed(locked: Running) -> None:
    origin = {"Origin": "http://page.example:3000"}
    reply = locked.send("GET", "/v1/models", headers={**KEY, **origin})
    assert (reply.status, reply.headers["access-control-allow-origin"]) == (200, origin["Origin"])
    wished = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    assert locked.send("OPTIONS", "/v1/chat/completions", headers={**origin, **wished}).status == 200


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer other"}, {"Authorization": "secret"}, {"Authorization": "Basic secret"}]
)
def test_a_key_is_needed(locked: Running, headers: dict[str, str]) -> None:
    for path in ("/v1/models", "/metrics", "/nothing"):
        reply = locked.send("GET", path, headers=headers)
        assert (reply.status, reply.error["code"]) == (401, "invalid_api_key")
        assert reply.error["message"] == "The API key is missing or wrong; send it as Authorization: Bearer KEY"


def test_the_right_key(locked: Running) -> None:
    for headers in (KEY, {"Authorization": "bearer secret"}, {"x-api-key": "secret"}):
        assert locked.send("GET", "/v1/models", headers=headers).status == 200


def test_nothing_of_a_request_is_noted(server: Running, capfd: pytest.CaptureFixture[str]) -> None:
    server.chat({"role": "user", "content": "my secret"}, max_tokens=1)
    server.chat({"role": "my secret", "content": "my secret"})
    server.get("/my/secret")
    assert capfd.readouterr() == ("", "")


def test_an_unexpected_error_is_noted_without_its_message(
    server: Running, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise KeyError("my secret")

    monkeypatch.setattr(server.service.store, "open", fails)
    reply = server.chat({"role": "user", "content": "Hello"})
    expected = "The server failed with KeyError; its terminal says where"
    assert (reply.status, reply.error["message"], reply.error["type"]) == (500, expected, "server_error")
    (event,) = server.chat({"role": "user", "content": "Hello"}, stream=True).events
    assert event["error"]["message"] == expected
    err = capfd.readouterr().err
    assert err.startswith("A request failed with KeyError in fails (test_serve_guard.py:") and "secret" not in err


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_addresses_of_this_machine_alone(host: str, local: bool) -> None:
    assert is_loopback(host) is local
