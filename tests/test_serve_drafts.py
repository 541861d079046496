"""Drafts of answers in ``serve``: the same text in fewer forwards, and what is learned of their cost."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, cast

import mlx.core as mx
import pytest
from conftest import loaded
from drafters import eager, random_model
from golden import utterances
from servers import Running, serving
from test_serve_chat import PICTURE, sound, text, user

from mlx_gemma4 import Drafter, Model, Processor, Session, load
from mlx_gemma4.cli import parser
from mlx_gemma4.cli.shared.drafts import open_drafter
from mlx_gemma4.outputs.drafter import Drafts
from mlx_gemma4.prefixes.store import PrefixStore
from mlx_gemma4.serve.engine import Asked
from mlx_gemma4.serve.events import Finished
from mlx_gemma4.serve.limits import Limits
from mlx_gemma4.serve.protocols.chat_request import read_chat
from mlx_gemma4.serve.work.chat import Answerer, answer
from mlx_gemma4.serve.work.questions import Questions

SPEECH = "pico-04.wav"
ASK = user(sound(SPEECH), text("Transcribe the audio."))
SAID = " ".join(utterances(SPEECH))


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each forward of an answer."""
    rows: list[int] = []
    step = Session.step

    def counted(self: Session, tokens: mx.array, **options: Any) -> mx.array:
        rows.append(tokens.size)
        return step(self, tokens, **options)

    monkeypatch.setattr(Session, "step", counted)
    return rows


def ask(server: Running, **options: Any) -> str:
    """Ask again what was answered before: n-grams of the history foretell the answer."""
    history = [ASK, {"role": "assistant", "content": SAID}]
    answer: str = server.chat(*history, ASK, temperature=0, **options).json()["choices"][0]["message"]["content"]
    return answer


def test_the_text_stays_and_comes_in_fewer_forwards(forwards: list[int]) -> None:
    with serving() as server:
        expected = ask(server)
        plain = len(forwards)
    forwards.clear()
    with serving(drafter=eager) as server:
        assert ask(server) == expected
        assert len(forwards) < plain and max(forwards) > 1
        figures = server.get("/metrics").body.decode()
        assert server.service.drafter is not None
        drafted, right = server.service.drafter.drafted, server.service.drafter.accepted
        assert f'drafted_tokens_total{{kind="all"}} {drafted}\n' in figures and drafted >= right > 0
        assert f'drafted_tokens_total{{kind="right"}} {right}\n' in figures
        forwards.clear()
        assert ask(server, seed=1) == ask(server, logprobs=True) == expected and max(forwards) == 1


def test_drafts_of_a_model_and_of_bound_answers(forwards: list[int]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["one two three", "four five"]}}}
    options: list[dict[str, Any]] = [{}, {"response_format": form}]
    made: list[tuple[Model, Processor]] = []

    def load_model() -> tuple[Model, Processor]:
        made.append(load("demo", dtype="float32"))
        return made[0]

    def answers(server: Running) -> list[str]:
        replies = [server.chat(PICTURE, temperature=0, **each).json() for each in options]
        return [reply["choices"][0]["message"]["content"] for reply in replies]

    with serving() as server:
        expected = answers(server)
    forwards.clear()
    with serving(drafter=lambda: eager(random_model(made[0][0])), model=load_model) as server:
        assert answers(server) == expected
    assert max(forwards) > 2


class Taken:
    """An outbox, whose reader is always quick or always late by a turn."""

    def __init__(self, *, is_slow: bool) -> None:
        self.events: list[Any] = []
        self._is_slow, self._looked = is_slow, 0

    @property
    def is_full(self) -> bool:
        self._looked += self._is_slow
        return self._looked % 2 == 1

    def put(self, event: Any) -> None:
        self.events.append(event)


@pytest.mark.parametrize(("others", "is_slow"), [(0, False), (1, False), (0, True)])
def test_time_of_others_does_not_count(others: int, is_slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a forward costs is learned where an answer is alone, and its reader quick."""
    seconds: list[float | None] = []
    own = Drafts._seconds

    def kept(self: Drafts) -> float | None:
        seconds.append(own(self))
        return seconds[-1]

    monkeypatch.setattr(Drafts, "_seconds", kept)
    model, processor = loaded("demo")
    body = {"messages": [ASK], "temperature": 0}
    question, _ = Questions(model, processor, Limits()).prepare(read_chat(json.dumps(body).encode()))
    turns, outbox = [0], Taken(is_slow=is_slow)
    by = Answerer(model, processor, PrefixStore(model), Drafter(), lambda: turns[0])
    work, result = answer(question, by, cast(Any, outbox)), None
    with suppress(StopIteration):
        while True:
            asked = work.send(result)
            result = asked.forward.compute() if isinstance(asked, Asked) else None
            turns[0] += 1 + others
    assert isinstance(outbox.events[-1], Finished) and len(seconds) >= 5
    assert seconds[0] is None and seconds.count(None) == (len(seconds) if others or is_slow else 1)


def test_the_options_of_drafts() -> None:
    drafter = open_drafter(parser().parse_args(["serve"]))
    assert drafter is not None and drafter.model is None and drafter.ngrams
    assert open_drafter(parser().parse_args(["serve", "--draft", "none"])) is None
