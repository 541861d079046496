"""Loops, too many words, and remarks about the sound."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
from test_chat_tools import said

from mlx_gemma4 import Conversation, Model, Processor, Session, stream_generate
from mlx_gemma4.inputs.content import Content
from mlx_gemma4.outputs.guards import LoopGuard, before_loop, is_remark, loop_start, most_tokens


@pytest.mark.parametrize(
    ("tokens", "start"),
    [
        ([1] * 16, 1),
        ([9, 8, 7] + [1] * 16, 4),
        ([1] * 15, None),
        ([1, 2] * 8, 2),
        ([5, 6, 7] + [1, 2, 3, 4] * 4, 7),
        ([1, 2, 3, 4] * 3, None),
        ([1, 2, 3, 4, 5, 6, 7, 8] * 4, 8),
        ([3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5], None),
        ([], None),
    ],
)
def test_a_loop_is_long_and_often(tokens: list[int], start: int | None) -> None:
    """Four digits in a row are no loop."""
    assert loop_start(tokens) == start


def test_time_bounds_the_words() -> None:
    assert [most_tokens(seconds) for seconds in (0.0, 1.0, 15.0, 30.0)] == [24, 36, 204, 384]


@pytest.mark.parametrize(
    "text",
    [
        "The audio was not provided. Please provide it.",
        "I'm sorry, I cannot hear any speech in the recording.",
        "I cannot transcribe the audio.",
        "Please provide the audio file.",
        "There is no audio in the recording provided.",
        "Sorry, the audio is empty.",
    ],
)
def test_remarks_are_recognised(text: str) -> None:
    assert is_remark(text)


@pytest.mark.parametrize(
    "text",
    [
        "The audience was provided with seats.",
        "I'm sorry, I am late.",
        "Please provide your name.",
        "go forward two meters",
        "No sound.",
        "He said: I cannot hear the audio.",
        "",
    ],
)
def test_what_people_say_is_not_a_remark(text: str) -> None:
    assert not is_remark(text)


def words(text: str) -> list[int]:
    """Token ids of a text: of its words, and of the characters between them."""
    found = re.findall(r"\w+|\W", text)
    ids = {word: number for number, word in enumerate(dict.fromkeys(found))}
    return [ids[word] for word in found]


def stopped_at(tokens: list[int], *, thinking: bool = False, text: bool = True) -> int | None:
    guard = LoopGuard(text=text)
    return next((n for n, token in enumerate(tokens, 1) if guard.push(token, thinking=thinking)), None)


SENTENCE = "I will look at the picture again, and then I will say what I see in it. "
REFRAIN = "Row, row, row your boat, gently down the stream; merrily, merrily, merrily, merrily, life is but a dream. "
PARAGRAPH = " ".join(f"Point {number} is about {name}." for number, name in enumerate("abcdefghijklmnopqrst"))


@pytest.mark.parametrize(
    "text",
    [
        f"[{', '.join(['0'] * 150)}]",
        "-" * 500,
        "| 0 | 0 | 0 |\n" * 30,
        REFRAIN * 7,
        "".join(f"x[{n}] = 0\n" for n in range(400)),
        "".join(f"{{ 'id': {n}, 'value': None }},\n" for n in range(200)),
        "".join(f"{n} bottles of beer on the wall, {n} bottles of beer. " for n in range(99, 0, -1)),
        ("la " * 100 + "\n") + SENTENCE * 3,
        PARAGRAPH * 3,
    ],
)
def test_text_that_repeats_is_no_loop(text: str) -> None:
    """Tables, refrains, rulers, lists that count: people ask for them."""
    assert stopped_at(words(text)) is None


@pytest.mark.parametrize(
    ("text", "thinking", "at"),
    [
        ("no " * 600, False, 512),
        ("Well: " + "no " * 600, False, 528),
        (SENTENCE * 40, False, 544),
        (PARAGRAPH * 9, False, 1760),
        (SENTENCE * 20, True, 288),
        ("Hm. " + PARAGRAPH * 5, True, 880),
    ],
)
def test_an_answer_that_goes_on_for_ever(text: str, thinking: bool, at: int) -> None:
    """A thought is stopped sooner; a form may want repetition in its text."""
    tokens = words(text)
    assert stopped_at(tokens, thinking=thinking) == at
    assert (stopped_at(tokens, thinking=thinking, text=False) is None) == (not thinking)
    start = before_loop(tokens[:at])
    assert start == loop_start(tokens[:at], 4, 256) and start < at // 3


def test_a_thought_and_its_answer_are_looked_at_apart() -> None:
    guard = LoopGuard()
    assert not any(guard.push(1, thinking=True) for _ in range(200))
    assert not any(guard.push(1, thinking=False) for _ in range(511))
    assert guard.push(1, thinking=False)


def looping(monkeypatch: pytest.MonkeyPatch, processor: Processor, *answers: str) -> None:
    """Answers that begin as they are told to, and repeat their last token for ever unless it ends them.

    64 tokens are a loop then.
    """
    monkeypatch.setattr("mlx_gemma4.outputs.guards.TEXT_TOKENS", 64)
    monkeypatch.setattr("mlx_gemma4.outputs.guards.THOUGHT_TOKENS", 32)
    left = list(answers)

    def steps(session: Session, *_: object, max_tokens: int, **__: object) -> Iterator[int]:
        tokens = processor.tokenizer.encode_markup(left.pop(0))
        ends = (
            iter(tokens) if tokens[-1] in processor.stop_ids else itertools.chain(tokens, itertools.repeat(tokens[-1]))
        )
        last: int | None = None
        for token in itertools.islice(ends, max_tokens):
            if last is not None:
                session.extend([last])
            last = token
            yield token

    monkeypatch.setattr("mlx_gemma4.outputs.generate.answer_plan", steps)


@pytest.mark.parametrize(("stops", "reason", "tokens"), [(True, "loop", 64), (False, "length", 80)])
def test_an_answer_is_stopped_if_that_is_wished(
    demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, stops: bool, reason: str, tokens: int
) -> None:
    looping(monkeypatch, demo[1], "red")
    session = Session(demo[0])
    *_, last = stream_generate(*demo, "x", max_tokens=80, session=session, stop_loops=stops)
    assert (last.finish_reason, last.generation_tokens) == (reason, tokens)


def test_a_chat_goes_on_after_a_loop(demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps the first round; the session holds what a new one would."""
    model, processor = demo
    looping(monkeypatch, processor, "a red circle", "blue<turn|>")
    conversation = Conversation(model, processor)
    text = said(conversation.ask("What?", max_tokens=2000))
    assert text.startswith("a red circle") and len(text) > 60
    kept = conversation.messages[-1]["content"]
    assert "a red circle".startswith(kept) and len(kept) > 5 and conversation.calls == []
    assert said(conversation.ask("And now?")) == "blue"
    prompt = processor.prompt(conversation.messages[:-1])
    assert conversation.session.content.common_prefix(Content.of(prompt)) == len(prompt)
    assert Conversation(model, processor, stop_loops=False).stop_loops is False
