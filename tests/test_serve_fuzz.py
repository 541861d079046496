"""Random requests and event sequences: a small part of what ``fuzz_server.py`` sends."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from fuzz_requests import make_request
from fuzz_server import check_request, check_sequence, event_check, idle
from servers import Running, serving

SEED = 7


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(sessions=4) as running:
        yield running


def test_requests(server: Running, capfd: pytest.CaptureFixture[str]) -> None:
    """No 5xx, each error with a message, nothing on the terminal, and no session that is left."""
    found = {check_request(server.port, make_request(Random(f"{SEED} http {number}"))) for number in range(80)}
    assert {"200", "400", "404", "405"} <= found
    idle(server.port)
    assert capfd.readouterr().err == ""


def test_event_sequences(server: Running, capfd: pytest.CaptureFixture[str], caplog: Any) -> None:
    """Each session answers to its end, whatever came before."""
    caplog.set_level("CRITICAL", logger="websockets")
    check = event_check()
    found = {check_sequence(server.port, number, SEED, check) for number in range(40)}
    assert found == {"answered", "vanished"}
    idle(server.port)
    assert capfd.readouterr().err == ""
