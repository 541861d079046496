"""Nothing is computed twice in a chat: after long answers, new answers, edits and restarts. Full contexts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from long_chats import WORDS, content, distance, like_12b, scripted, take_turn, two_layers

from mlx_gemma4 import Conversation, Model, Processor, Session
from mlx_gemma4.decoder.budget import Budget, ContextFull
from mlx_gemma4.inputs.messages import message_text
from mlx_gemma4.programs.chat import Work

ROOM, ANSWER, SHORT = 8, 66, 28
"""Answers are longer than the room, and than the window of the small checkpoint, which is 16."""
FEW = 16
"""What a turn computes besides its own positions, at most."""
EXACT = 2e-4
"""How far logits may differ from those of a fresh session, by rounding."""

Checkpoint = tuple[Model, Processor]
CHECKPOINT = two_layers()


@pytest.fixture(params=["own", "like the 12B's"])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    """With its template, which writes an answer once and for all, or one that writes it otherwise in the history."""
    return CHECKPOINT if request.param == "own" else like_12b(CHECKPOINT)


@pytest.fixture
def narrow() -> Iterator[Checkpoint]:
    """A checkpoint with a context of 300 positions."""
    model, processor = CHECKPOINT
    model.budget = Budget(context=160)
    yield model, processor
    model.budget = Budget()


def chat(checkpoint: Checkpoint, turns: int = 0, **options: Any) -> Conversation:
    """A conversation with a little room, after so many turns."""
    conversation = Conversation(*checkpoint, session=Session(checkpoint[0], room=ROOM), **options)
    for number in range(turns):
        take_turn(conversation, conversation.ask(content(number)), ANSWER, number)
    return conversation


def test_every_turn_computes_its_own_positions(checkpoint: Checkpoint) -> None:
    """And the answer before it again, where the template writes it otherwise. The history has a picture and sound."""
    conversation = chat(checkpoint)
    for number in range(4):
        turn = take_turn(conversation, conversation.ask(content(number)), ANSWER, number)
        rewritten = number > 0 and checkpoint is not CHECKPOINT
        assert turn.read_again == (ANSWER if rewritten else 0)
        assert 0 <= turn.other <= FEW
    assert distance(conversation) < EXACT


def test_what_the_user_reads_is_settled_meanwhile(checkpoint: Checkpoint) -> None:
    """Then a turn computes its message and its answer only, whatever the template writes."""
    conversation = chat(checkpoint, turns=3)
    for _ in conversation.settle():
        pass
    settled, before = conversation._settled, conversation.session.computed
    turn = take_turn(conversation, conversation.ask(content(3)), ANSWER, 3)
    work = conversation.work
    assert conversation.session.computed - before == turn.own + 1  # it is one token ahead
    assert (work.history, work.message + work.answer) == (settled, turn.own + 1)
    assert work.reused == conversation.session.position - turn.own - settled
    assert distance(conversation) < EXACT


@pytest.mark.parametrize("pieces", [0, 1, 2])
def test_settling_may_end_at_any_time(checkpoint: Checkpoint, pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn computes what is left: nothing is lost, and nothing is computed twice."""
    monkeypatch.setattr("mlx_gemma4.programs.chat.SETTLE_ROWS", 30)
    conversation = chat(checkpoint, turns=3)
    settling = conversation.settle()
    for _ in range(pieces):
        next(settling, None)
    settling.close()  # type: ignore[attr-defined]
    turn = take_turn(conversation, conversation.ask(content(3)), ANSWER, 3)
    assert 0 <= turn.other <= FEW
    assert distance(conversation) < EXACT


def test_another_answer(checkpoint: Checkpoint) -> None:
    """Once and again, before and after settling: it computes the answer, and a few positions before it."""
    conversation = chat(checkpoint, turns=4)
    for number in range(4, 6):
        before = conversation.session.computed
        take_turn(conversation, conversation.regenerate(), ANSWER, number)
        assert conversation.session.computed - before <= ANSWER + FEW
        assert conversation.turns == 4
        assert distance(conversation) < EXACT
    turn = take_turn(conversation, conversation.ask(content(4)), ANSWER, 1)
    assert turn.other <= FEW


def test_an_edited_turn(checkpoint: Checkpoint) -> None:
    """In the middle: the turns before it stay, and those behind it leave."""
    conversation = chat(checkpoint, turns=5)
    kept = list(conversation.messages[:4])
    turn = take_turn(conversation, conversation.edit(2, "three blue squares"), ANSWER, 2)
    assert (turn.read_again, turn.other <= FEW) == (0, True)
    assert conversation.messages[:4] == kept and message_text(conversation.messages[4]) == "three blue squares"
    turn = take_turn(conversation, conversation.edit(-1, content(0)), ANSWER, 2)
    assert (turn.read_again, turn.other <= FEW) == (0, True)
    assert conversation.turns == 3 and distance(conversation) < EXACT


def test_a_turn_that_is_taken_back(checkpoint: Checkpoint) -> None:
    conversation = chat(checkpoint, turns=4)
    before = list(conversation.messages)
    assert message_text(conversation.undo()) == f"go back {WORDS[3]}"
    assert message_text(conversation.undo()) == f"go back {WORDS[2]}"
    assert conversation.messages == before[:4]
    turn = take_turn(conversation, conversation.ask(content(5)), ANSWER, 5)
    assert turn.read_again + turn.other <= FEW and distance(conversation) < EXACT


def test_short_turns_share_snapshots(checkpoint: Checkpoint) -> None:
    """Each would take as much as a long one's. An edited turn computes what lies behind the last one, 64 at most."""
    conversation = Conversation(*checkpoint, session=Session(checkpoint[0], room=ROOM))
    for number in range(8):
        take_turn(conversation, conversation.ask("go"), 4, number)
    places = conversation.session._points.places
    assert all(after - before >= 64 for before, after in pairwise(places[:-1]))  # the last one is before the answer
    assert len(places) == 3
    before = conversation.session.computed
    turn = take_turn(conversation, conversation.edit(4, "red"), 4, 9)
    assert conversation.session.computed - before <= turn.own + 64
    assert distance(conversation) < EXACT


def test_turns_that_are_not_there(checkpoint: Checkpoint) -> None:
    conversation = chat(checkpoint)
    for act in (conversation.regenerate, conversation.undo, lambda: conversation.edit(0, "x")):
        with pytest.raises(ValueError, match=r"^The conversation has no turn yet: ask something first$"):
            act()
    take_turn(conversation, conversation.ask("go"), 3, 0)
    with pytest.raises(ValueError, match=r"^There is no turn 1: the conversation has 1$"):
        conversation.edit(1, "x")


@pytest.mark.parametrize("settled", [False, True])
def test_a_restart_from_disk(checkpoint: Checkpoint, tmp_path: Path, settled: bool) -> None:
    """The next turn, another answer and an edited turn compute as much as without it; media are still there."""
    conversation = chat(checkpoint, turns=4, system="Be short.")
    for _ in conversation.settle() if settled else ():
        pass
    conversation.save(tmp_path / "x")
    acts = {
        "ask": lambda chat: chat.ask(content(5)),
        "regenerate": lambda chat: chat.regenerate(),
        "edit": lambda chat: chat.edit(2, "seven"),
    }
    for name, act in acts.items():
        other = Conversation.load(*checkpoint, tmp_path / "x")
        assert other.turns == 4 and other.system == "Be short."
        assert checkpoint[1].prompt(other.messages).common_prefix(checkpoint[1].prompt(conversation.messages)) > 100
        turn = take_turn(other, act(other), ANSWER, 5)
        assert turn.other <= FEW, name
        assert distance(other) < EXACT


def test_a_conversation_without_what_was_computed(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Everything is computed again."""
    conversation = chat(checkpoint, turns=3)
    conversation.save(tmp_path / "x", computed=False)
    other = Conversation.load(*checkpoint, tmp_path / "x")
    assert other.session.position == 0
    take_turn(other, other.ask(content(3)), ANSWER, 3)
    take_turn(conversation, conversation.ask(content(3)), ANSWER, 3)
    assert other.work.reused == 0 and other.work.history > 3 * ANSWER
    assert distance(other) < EXACT


# a full context


def test_the_oldest_turns_leave(narrow: Checkpoint) -> None:
    """Whole, until half of the context is used; then it is a conversation of the messages that are left."""
    conversation = chat(narrow, system="Be short.")
    forgotten = 0
    for number in range(12):
        take_turn(conversation, conversation.ask(f"go {WORDS[number % 8]}"), SHORT, number)
        assert conversation.session.position <= 160
        assert conversation.turns == number + 1 - conversation.forgotten
        assert conversation.system == "Be short."
        if conversation.forgotten > forgotten:
            asked = conversation.session.position - SHORT
            assert asked <= 80
            forgotten = conversation.forgotten
        assert distance(conversation) < EXACT
    assert forgotten >= 6
    first = message_text(conversation.messages[1])
    assert first == f"go {WORDS[conversation.forgotten % 8]}"


def test_turns_leave_while_nobody_waits(narrow: Checkpoint) -> None:
    """When the next turn needs their place for certain: it computes nothing but its own then."""
    conversation, left = chat(narrow), 0
    for number in range(10):
        take_turn(conversation, conversation.ask("go"), SHORT, number)
        forgotten = conversation.forgotten
        for _ in conversation.settle():
            pass
        left += conversation.forgotten - forgotten
        assert conversation.session.position <= 160 - 40
        held = conversation.session.computed
        turn = take_turn(conversation, conversation.ask("back"), SHORT, number)
        if conversation.forgotten == forgotten + left:
            assert conversation.session.computed - held == turn.own + 1
    assert left >= 4


def test_a_message_that_is_too_long_loses_nothing(narrow: Checkpoint) -> None:
    conversation = chat(narrow)
    for number in range(2):
        take_turn(conversation, conversation.ask("go"), SHORT, number)
    before, held = list(conversation.messages), conversation.session.position
    with pytest.raises(ContextFull) as refused:
        list(conversation.ask("seven " * 60))
    length = len(narrow[1].prompt([{"role": "user", "content": "seven " * 60}]))
    assert str(refused.value) == (
        f"The message takes {length} positions, and the context has 160: shorten it, or start with a larger context "
        "(--context)"
    )
    assert (conversation.messages, conversation.session.position, conversation.forgotten) == (before, held, 0)
    take_turn(conversation, conversation.ask("go"), SHORT, 3)
    assert conversation.turns + conversation.forgotten == 3 and distance(conversation) < EXACT


def test_an_answer_ends_where_the_context_is_full(narrow: Checkpoint) -> None:
    """It keeps what was said."""
    conversation = chat(narrow)
    with scripted([30] * 500):
        *_, last = conversation.ask("go", max_tokens=1000)
    assert (last.finish_reason, conversation.session.position) == ("length", 160)
    take_turn(conversation, conversation.ask("back"), SHORT, 1)
    assert distance(conversation) < EXACT


def test_calls_leave_with_their_turn(narrow: Checkpoint) -> None:
    """Messages between two of the user's belong to the first."""
    conversation = chat(narrow)
    call = {"type": "function", "id": "call_1", "function": {"name": "lights", "arguments": {"room": "hall"}}}
    conversation.messages = [
        {"role": "user", "content": "seven " * 14},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "name": "lights", "content": "on"},
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "red " * 10},
        {"role": "assistant", "content": "done"},
    ]
    take_turn(conversation, conversation.ask("go"), 5, 0)
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"] * 2
    assert (conversation.forgotten, conversation.messages[0]["content"]) == (1, "red " * 10)


def test_work_of_a_first_turn(checkpoint: Checkpoint) -> None:
    conversation = chat(checkpoint)
    turn = take_turn(conversation, conversation.ask("go"), 5, 0)
    assert conversation.work == Work(reused=0, history=0, message=turn.own - 5, answer=6)
