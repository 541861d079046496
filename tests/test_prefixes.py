"""The prefix store: what was computed is not computed again, by counts, and logits are those of a fresh session."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from conftest import loaded
from long_chats import answer_tokens, like_12b, scripted, two_layers
from reference_cases import media_file

from mlx_gemma4 import Model, Session, Snapshots, stream_generate
from mlx_gemma4.inputs.prompt import Prompt, join
from mlx_gemma4.inputs.vision.image import Patches
from mlx_gemma4.prefixes.landmarks import landmarks
from mlx_gemma4.prefixes.store import PrefixStore

END = 7
"""Ends a message."""
IMAGE, SOUND = 260, 261
"""Placeholders."""
ROOM = 16


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """With a window of 16, and a budget of snapshots of its own."""
    model = loaded("released")[0]
    monkeypatch.setattr(model, "snapshots", Snapshots())
    return model


def message(seed: int, length: int) -> Prompt:
    return Prompt.from_tokens([*np.random.default_rng(seed).integers(30, 250, length - 1), END])


def picture(seed: int, patches: int = 280) -> Prompt:
    config = loaded("released")[0].config.vision_config
    assert config is not None
    pixels = np.random.default_rng(seed).random((patches, config.patch_values), np.float32)
    places = np.stack(np.unravel_index(np.arange(patches), (20, 14)), axis=1).astype(np.int32)
    return Prompt.from_patches(Patches(pixels, places), IMAGE)


def recording(seed: int, frames: int = 750) -> Prompt:
    return Prompt.from_frames(np.random.default_rng(seed).normal(0, 0.1, (frames, 640)), SOUND)


@dataclass
class Use:
    kept: int
    computed: int
    logits: np.ndarray


def use(store: PrefixStore, *parts: Prompt, answer: int = 0) -> Use:
    """Open a prompt, compute it with its landmarks, and append an answer of so many tokens."""
    prompt = join(parts)
    session, kept = store.open(prompt)
    before = session.computed
    logits = session.extend(prompt[kept:], snapshots=landmarks(prompt, [END], start=kept))
    result = Use(kept, session.computed - before, np.array(logits))
    if answer:
        session.extend(message(99, answer + 1)[:answer])
    store.close(session)
    return result


def check(result: Use, *parts: Prompt, kept: int) -> None:
    """What was kept, what was computed, and the logits of a fresh session."""
    prompt = join(parts)
    assert (result.kept, result.computed) == (kept, len(prompt) - kept)
    fresh = np.array(Session(store_model()).extend(prompt))
    np.testing.assert_allclose(result.logits, fresh, atol=2e-3)


def store_model() -> Model:
    return loaded("released")[0]


SYSTEM = message(0, 100)
ASK, AGAIN = message(1, 30), message(2, 30)


def test_the_next_turn_goes_on(model: Model) -> None:
    """In the same session: question and answer are there."""
    store = PrefixStore(model, room=ROOM)
    use(store, SYSTEM, ASK, answer=40)
    answer = message(99, 41)
    check(use(store, SYSTEM, ASK, answer, AGAIN), SYSTEM, ASK, answer, AGAIN, kept=170)
    assert len(store) == 1


@pytest.mark.parametrize("medium", [picture(1), recording(1)], ids=["picture", "recording"])
def test_a_second_question_about_the_same_medium_computes_only_the_question(model: Model, medium: Prompt) -> None:
    """A 280-token picture, 30 s of sound; the sequence is far longer than the window, and the answer is forgotten."""
    store = PrefixStore(model, room=ROOM)
    begin = Prompt.from_tokens([30, 31])
    first = use(store, SYSTEM, begin, medium, ASK, answer=200)
    assert (first.kept, first.computed) == (0, 132 + len(medium))
    check(use(store, SYSTEM, begin, medium, AGAIN), SYSTEM, begin, medium, AGAIN, kept=102 + len(medium))


def test_a_second_question_as_a_later_turn_computes_only_itself(model: Model) -> None:
    """The picture stays where it is in the history."""
    store = PrefixStore(model, room=ROOM)
    first, answer = [SYSTEM, picture(1), ASK], message(99, 300)
    use(store, *first, answer=299)
    check(use(store, *first, answer, AGAIN), *first, answer, AGAIN, kept=100 + 280 + 30 + 299)


def test_an_edited_turn_computes_what_comes_after_it(model: Model) -> None:
    """From the end of the message before; the other branch stays."""
    store = PrefixStore(model, room=ROOM)
    turns = [message(seed, 80) for seed in range(10, 16)]
    use(store, *turns)
    edited = [*turns[:3], message(50, 80)]
    check(use(store, *edited), *edited, kept=240)
    assert len(store) == 2
    check(use(store, *turns, AGAIN), *turns, AGAIN, kept=480)
    check(use(store, *edited, AGAIN), *edited, AGAIN, kept=320)
    assert len(store) == 2


def test_another_answer_takes_the_place_of_the_last_one(model: Model) -> None:
    """The prompt's last row gives its logits; what lies before it is kept."""
    store = PrefixStore(model, room=ROOM)
    use(store, SYSTEM, ASK, answer=200)
    check(use(store, SYSTEM, ASK), SYSTEM, ASK, kept=100)
    use(store, SYSTEM, ASK, Prompt.from_tokens([40, 41]), answer=10)
    check(use(store, SYSTEM, ASK, Prompt.from_tokens([40, 41])), SYSTEM, ASK, Prompt.from_tokens([40, 41]), kept=131)
    assert len(store) == 1


def test_another_chat_shares_the_system_message(model: Model) -> None:
    """And both stay."""
    store = PrefixStore(model, room=ROOM)
    one, other = [SYSTEM, message(10, 100)], [SYSTEM, message(11, 100)]
    use(store, *one)
    check(use(store, *other), *other, kept=100)
    check(use(store, *one, AGAIN), *one, AGAIN, kept=200)
    check(use(store, *other, AGAIN), *other, AGAIN, kept=200)
    assert len(store) == 2
    check(use(store, ASK, AGAIN), ASK, AGAIN, kept=0)
    assert len(store) == 3


def test_pictures_are_told_apart_by_what_they_show(model: Model) -> None:
    """And the same picture is found again, decoded anew."""
    store = PrefixStore(model, room=ROOM)
    use(store, SYSTEM, picture(1), ASK)
    check(use(store, SYSTEM, picture(2), ASK), SYSTEM, picture(2), ASK, kept=100)
    check(use(store, SYSTEM, picture(1), AGAIN), SYSTEM, picture(1), AGAIN, kept=380)


def test_what_the_disk_lost_is_computed_again(model: Model) -> None:
    """Without snapshots, from the beginning."""
    model.snapshots = Snapshots(memory=0, disk=0)
    store = PrefixStore(model, room=ROOM)
    use(store, SYSTEM, ASK, answer=100)
    check(use(store, SYSTEM, AGAIN), SYSTEM, AGAIN, kept=0)


def test_a_snapshot_that_cannot_be_read_costs_no_more_than_itself(model: Model) -> None:
    """Earlier ones still count."""
    said: list[str] = []
    model.snapshots = Snapshots(memory=0, say=said.append)
    store = PrefixStore(model, room=ROOM)
    turns = [message(seed, 80) for seed in range(10, 16)]
    use(store, *turns)
    points = store._entries[0].session._points._snapshots
    for position in (160, 240):
        state = points[position].state
        assert state is not None and state._file is not None
        state._file.truncate(1000)
    edited = [*turns[:3], message(50, 80)]
    check(use(store, *edited), *edited, kept=80)
    assert len(said) == 1


def test_the_least_recently_used_session_leaves(model: Model) -> None:
    """The limit holds whenever nobody holds a session; bytes are those of all keys and values."""
    model.snapshots = Snapshots(memory=0, disk=0)
    chats = [[message(seed, 200)] for seed in range(20, 24)]
    alone = PrefixStore(model, room=ROOM)
    use(alone, *chats[0])
    store = PrefixStore(model, room=ROOM, limit=3 * alone.nbytes)
    for chat in chats[:3]:
        use(store, *chat)
    assert (len(store), store.nbytes) == (3, 3 * alone.nbytes)
    check(use(store, *chats[0], ASK), *chats[0], ASK, kept=200)
    use(store, *chats[3])
    assert len(store) == 3 and store.nbytes <= store.limit
    assert use(store, *chats[0], ASK).kept == 229
    assert use(store, *chats[1], ASK).kept == 0
    store.clear()
    assert (len(store), store.nbytes) == (0, 0)


def test_sessions_are_parked_before_they_leave(model: Model) -> None:
    """Their sliding layers go to disk: many more conversations stay, and go on without computing anything again."""
    model.snapshots = Snapshots(memory=0)
    chats = [[message(seed, 100)] for seed in range(20, 30)]
    alone = PrefixStore(model, room=ROOM)
    use(alone, *chats[0])
    store = PrefixStore(model, room=ROOM, limit=5 * alone.nbytes)
    for chat in chats:
        use(store, *chat)
    assert len(store) == 10 and store.nbytes <= store.limit and model.snapshots.disk_used > 0
    for chat in chats:
        check(use(store, *chat, ASK), *chat, ASK, kept=100)
    assert len(store) == 10 and store.nbytes <= store.limit
    store.clear()
    alone.clear()
    gc.collect()
    assert (model.snapshots.memory_used, model.snapshots.disk_used) == (0, 0)


def test_a_branch_takes_the_session_where_memory_is_short(model: Model) -> None:
    """The one that would have to leave for it is its own."""
    alone = PrefixStore(model, room=ROOM)
    use(alone, SYSTEM, message(10, 100))
    store = PrefixStore(model, room=ROOM, limit=alone.nbytes + 1000)
    use(store, SYSTEM, message(10, 100))
    check(use(store, SYSTEM, message(11, 100)), SYSTEM, message(11, 100), kept=100)
    assert (len(store), store.nbytes) == (1, alone.nbytes)


def test_who_holds_a_session_does_not_lose_it(model: Model) -> None:
    """Not to the limit, and not to another prompt with the same beginning, which gets a fork."""
    store = PrefixStore(model, room=ROOM, limit=0)
    held, _ = store.open(SYSTEM)
    held.extend(SYSTEM)
    other, kept = store.open(join([SYSTEM, ASK]))
    assert kept == 0 and other is not held  # its owner may still change all of it
    store.close(other)
    assert len(store) == 1
    store.close(held)
    assert len(store) == 0


def test_what_an_owner_found_computed_serves_others_meanwhile(model: Model) -> None:
    """A server answers several at once: each has a session, and their system message is computed once."""
    store = PrefixStore(model, room=ROOM)
    use(store, SYSTEM)
    chats = [join([SYSTEM, message(seed, 50)]) for seed in range(30, 33)]
    opened = [store.open(chat) for chat in chats]
    assert [kept for _, kept in opened] == [100, 100, 100]
    assert len({id(session) for session, _ in opened}) == 3
    for chat, (session, kept) in zip(chats, opened, strict=True):
        np.testing.assert_allclose(session.extend(chat[kept:]), Session(model).extend(chat), atol=2e-3)
        store.close(session)


def test_an_interrupted_prompt_leaves_what_was_there(model: Model) -> None:
    """The session knows what it holds; the store asks it."""
    store = PrefixStore(model, room=ROOM)
    use(store, SYSTEM, ASK)
    session, kept = store.open(join([SYSTEM, ASK, AGAIN]))
    with pytest.raises(ValueError, match="Expected token ids from 0 to 370"):
        session.extend([999])
    store.close(session)
    check(use(store, SYSTEM, ASK, AGAIN), SYSTEM, ASK, AGAIN, kept=kept)


def test_what_cannot_be_opened_or_closed(model: Model) -> None:
    store = PrefixStore(model, room=ROOM)
    with pytest.raises(ValueError, match="There is nothing to open a session for: the prompt is empty"):
        store.open(Prompt.from_tokens([]))
    half = picture(1, 4)
    with pytest.raises(ValueError, match="The prompt has 4 image placeholders but 3 patches"):
        store.open(replace(half, patches=half.patches[:3], patch_xy=half.patch_xy[:3]))
    session, _ = store.open(ASK)
    store.close(session)
    for stranger in (session, Session(model)):
        with pytest.raises(ValueError, match="The session is not open in this store: close each session once"):
            store.close(stranger)


def test_landmarks() -> None:
    """Behind messages and media, 64 positions apart, counted from the first row that is not computed."""
    prompt = join([SYSTEM, Prompt.from_tokens([30]), picture(1), Prompt.from_tokens([31]), ASK, recording(1), AGAIN])
    assert landmarks(prompt, [END]) == [100, 381, 1162]
    assert landmarks(prompt, [END], start=100) == [281, 1062]
    assert landmarks(prompt, [], start=381) == [781]
    assert landmarks(ASK, [END]) == [30]
    assert landmarks(Prompt.from_tokens([]), [END]) == []


def test_a_long_prompt_has_few_landmarks() -> None:
    """Dense at its end, rare at its beginning, which has one."""
    rows = np.array(landmarks(join([message(0, 100)] * 1000), [END]))
    gaps, distances = np.diff(rows), 100_000 - rows[1:]
    assert (rows[0], rows[-1], len(rows)) == (100, 100_000, 46)
    assert (gaps >= distances / 8).all() and (gaps <= 100 + distances / 8 + gaps / 8).all()


def test_random_requests(model: Model, seed: int = 0) -> None:
    """Prompts that branch anywhere, several open at once, little memory: logits are right, and the limit holds."""
    random = np.random.default_rng(seed)
    parts = [message(1, 30), message(2, 70), picture(3, 20), picture(4, 70), recording(5, 25), message(6, 12)]
    alone = PrefixStore(model, room=ROOM)
    use(alone, *parts[:4])
    model.snapshots = Snapshots(memory=2 * model.window_bytes, disk=6 * model.window_bytes)
    store = PrefixStore(model, room=ROOM, limit=3 * alone.nbytes)
    opened: list[tuple[Session, Prompt, int]] = []
    for _ in range(25):
        chosen = random.choice(len(parts), random.integers(1, 5))
        apart = Prompt.from_tokens([20])  # images do not stand side by side
        prompt = join([piece for number in chosen for piece in (parts[number], apart)])
        session, kept = store.open(prompt)
        opened.append((session, prompt, kept))
        assert len({id(session) for session, _, _ in opened}) == len(opened)
        if random.random() < 0.6 or len(opened) == 3:
            random.shuffle(opened)  # type: ignore[arg-type]
            for session, prompt, kept in opened:
                logits = session.extend(prompt[kept:], snapshots=landmarks(prompt, [END], start=kept))
                np.testing.assert_allclose(logits, Session(model).extend(prompt), atol=1e-4)
                session.extend(message(7, int(random.integers(1, 40))))
                store.close(session)
            opened = []
            assert store.nbytes <= store.limit


@pytest.mark.parametrize(("template", "more"), [("its own", 0), ("like the 12B's", 1)])
def test_requests_of_a_server_compute_what_is_new(template: str, more: int) -> None:
    """Each brings the whole chat, as an HTTP API does. A template that moves answers costs the last one again."""
    length = 150
    model, processor = two_layers() if more == 0 else like_12b(two_layers())
    store, counts = PrefixStore(model, room=32), list[int]()
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Be brief. " * 30}]

    def request(messages: list[dict[str, Any]], number: int) -> int:
        with scripted(answer_tokens(processor, length, number)):
            stream = stream_generate(model, processor, processor.prompt(messages), max_tokens=200, store=store)
            pieces = list(stream)
        messages.append({"role": "assistant", "content": "".join(piece.text for piece in pieces)})
        return pieces[-1].prompt_tokens

    picture = {"type": "image", "image": media_file("picture-01.png")}
    for number in range(5):
        question = [*([picture] if number == 0 else []), {"type": "text", "text": f"question {number} please"}]
        messages.append({"role": "user", "content": question})
        counts.append(request(messages, number))
    assert max(counts[1:]) < 50 + more * (length + 10)
    again, edited = messages[:-1], [*messages[:5], {"role": "user", "content": "another question"}]
    other = [messages[0], {"role": "user", "content": [picture, {"type": "text", "text": "what else is there"}]}]
    assert [request(chat, 9) < 50 for chat in (again, edited, other)] == [True] * 3
    assert len(store) == 3
