"""Snapshots: a rewind to one is exact however far back it is, and costs no forward. Forks begin as a session does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from reference_cases import reference_case
from test_session import tolerance

from mlx_gemma4 import Model, Session, Snapshots
from mlx_gemma4.decoder.model import MLP
from mlx_gemma4.decoder.snapshots import State
from mlx_gemma4.inputs.prompt import Prompt, join

WINDOW = 16
"""Of the checkpoint: shorter than nearly every piece here."""
FAR = np.arange(30, 230)
"""More than any window and room."""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """With a budget of snapshots of its own."""
    model = loaded("released")[0]
    monkeypatch.setattr(model, "snapshots", Snapshots())
    return model


def logits(session: Session, piece: object = (40, 41, 42)) -> np.ndarray:
    return np.array(session.extend(piece))  # type: ignore[arg-type]


def test_a_rewind_to_a_snapshot_is_exact_from_far_away(model: Model) -> None:
    """To the bit, for text, sound and images before and behind it, again and again, and without a forward."""
    mixed = reference_case("released", "mixed").prompt
    session, straight = Session(model, room=4), Session(model, room=4)
    for each in (session, straight):
        each.extend(mixed)
    snapshot, expected = session.snapshot(), logits(straight)
    for detour in (FAR, mixed[1:], [50]):
        session.extend(detour)
        before = session.computed
        session.rewind(snapshot)
        assert (session.position, session.computed) == (len(mixed), before)
        np.testing.assert_array_equal(logits(session), expected)


def test_a_position_with_a_snapshot_can_be_rewound_to(model: Model) -> None:
    """Nobody has to keep the snapshot itself."""
    session = Session(model, room=4)
    session.extend(FAR)
    session.snapshot()
    expected = logits(session)
    session.extend(FAR)
    assert session.reachable(300) == 200 < session.earliest
    session.rewind(200)
    np.testing.assert_array_equal(logits(session), expected)


def test_a_snapshot_of_an_earlier_position(model: Model) -> None:
    """Within the room it can be taken afterwards, as when a token has been computed ahead; not from further away."""
    session, straight = Session(model, room=8), Session(model, room=8)
    session.extend(FAR)
    session.step(mx.array(50))
    snapshot = session.snapshot(200)
    session.extend(FAR)
    session.rewind(snapshot)
    straight.extend(FAR)
    np.testing.assert_array_equal(logits(session), logits(straight))
    session.extend(FAR)
    with pytest.raises(
        ValueError,
        match=r"Expected a position that the session can be rewound to, got 300 at 403: the last one before it is 200",
    ):
        session.snapshot(300)


def test_a_snapshot_behind_a_queued_step(model: Model) -> None:
    """Nothing has to be computed when it is taken."""
    session, straight = Session(model, room=2), Session(model, room=2)
    for each in (session, straight):
        each.extend(FAR)
        each.step(mx.array(50))
    session.snapshot()
    for token in range(30, 60):
        session.step(mx.array(token))
    session.rewind(201)
    np.testing.assert_array_equal(logits(session), logits(straight))


def test_snapshots_within_a_piece(model: Model) -> None:
    """However long the piece and however small the room; forwards are cut where they must be."""
    long = np.arange(23, 371).repeat(2)
    rows = [0, 1, 300, 696]
    session = Session(model, room=2)
    session.extend([22])
    session.extend(long, snapshots=rows)
    for row in reversed(rows):
        assert session.reachable(1 + row) == 1 + row
        session.rewind(1 + row)
        straight = Session(model, room=2)
        straight.extend([22, *long[:row]])
        np.testing.assert_allclose(logits(session), logits(straight), atol=1e-4)
    roomy = Session(model, room=512)
    roomy.extend(long, snapshots=rows)
    assert roomy.forwards == 2  # no more than without snapshots


def test_snapshots_outside_a_piece_or_inside_an_image_are_refused(model: Model) -> None:
    """And the session stays as it was."""
    image = reference_case("released", "image").prompt
    session = Session(model)
    session.extend([22, 23])
    for row in (-1, 4):
        with pytest.raises(ValueError, match=r"Expected snapshots at rows of the piece, 0 to 3, got"):
            session.extend([30, 31, 32], snapshots=[row])
    with pytest.raises(ValueError, match="Position 32 lies inside the image at 7–67: rewind to 7 or 67"):
        session.extend(image, snapshots=[30])
    assert session.position == 2


def test_what_is_reachable(model: Model) -> None:
    """Never inside an image; the last snapshot before what is forgotten, or the beginning."""
    image = reference_case("released", "image").prompt  # an image at 5–65
    session = Session(model, room=8)
    session.extend(image)
    end = len(image)
    assert [session.reachable(at) for at in (-1, 0, 3, 64, 65, end, end + 9)] == [0, 0, 0, 0, 65, end, end]
    session.rewind(65)
    session.snapshot()
    session.extend(FAR)
    assert [session.reachable(at) for at in (4, 64, 65, 66, 100, 257, 300)] == [0, 0, 65, 65, 65, 257, 265]
    session.rewind(65)
    assert session.reachable(64) == 0  # the image begins at 5, further back than the window of 65
    with pytest.raises(
        ValueError, match=r"got 4 at 65: sliding layers keep room for 8 .*take a snapshot there in time"
    ):
        session.rewind(4)


def test_the_beginning_is_always_reachable(model: Model) -> None:
    """Rewound to 0, a session is like a new one; counts and buffers stay."""
    session = Session(model, room=2)
    expected = logits(Session(model, room=2), FAR)
    session.extend(FAR)
    session.rewind(0)
    np.testing.assert_array_equal(logits(session, FAR), expected)
    assert session.computed == 400


def test_a_short_snapshot_leads_to_all_before_it(model: Model) -> None:
    """It holds every key from 0 on, so one state serves all positions that are shorter than the window."""
    session = Session(model, room=2)
    session.extend(FAR[:15], snapshots=[3, 8, 15])
    session.extend(FAR)
    assert model.snapshots.memory_used == 10 * 2 * 2 * 15 * 32 * 4  # of ten layers, two heads of 32 in float32
    straight = Session(model)
    straight.extend(FAR[:7])
    session.rewind(7)
    np.testing.assert_array_equal(logits(session), logits(straight))


def test_a_snapshot_costs_nothing_until_it_is_needed(model: Model) -> None:
    """It is copied when its window leaves: the window alone, not the buffers it lies in."""
    session = Session(model, room=64)
    session.extend(FAR)
    session.snapshot()
    session.extend(FAR[:64])
    assert model.snapshots.memory_used == 0
    held = mx.get_active_memory()
    session.extend([30])
    assert model.snapshots.memory_used == 10 * 2 * 2 * 15 * 32 * 4
    assert mx.get_active_memory() - held < 2 * model.snapshots.memory_used


def test_a_snapshot_does_not_hold_the_buffers_of_the_session(model: Model) -> None:
    """The session writes in place afterwards: nothing is copied because of the snapshot."""
    session = Session(model, room=2)
    session.extend(FAR)
    session.snapshot()
    session.extend(FAR[:20])  # the snapshot is copied
    buffers = session._cache.arrays
    session.extend([30])
    peak = len(buffers)
    del buffers
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    session.step(mx.array(30))
    mx.eval(session._cache.arrays)
    assert peak and mx.get_peak_memory() - before < session.nbytes // 2


def test_snapshots_die_with_a_rewind_past_them(model: Model) -> None:
    session = Session(model, room=4)
    session.extend(FAR)
    early = session.snapshot()
    session.extend(FAR)
    late = session.snapshot()
    session.extend(FAR)
    session.rewind(early)
    assert model.snapshots.memory_used == 10 * 2 * 2 * 15 * 32 * 4
    session.extend(FAR)
    with pytest.raises(ValueError, match=r"Snapshot\(400\) is not a mark of this session, or an earlier rewind"):
        session.rewind(late)
    with pytest.raises(ValueError, match=r"Snapshot\(200\) is not a mark of this session"):
        Session(model).rewind(early)
    session.reset()
    with pytest.raises(ValueError, match=r"Snapshot\(200\) is not a mark of this session"):
        session.rewind(early)
    assert model.snapshots.memory_used == 0


def test_no_snapshot_is_copied_in_vain(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long piece, only as many as the budget has room for: the last ones. Those that the cache holds are free."""
    taken: list[int] = []
    take = Snapshots.take

    def counted(budget: Snapshots, start: int, position: int, arrays: list[mx.array]) -> State:
        taken.append(position)
        return take(budget, start, position, arrays)

    monkeypatch.setattr(Snapshots, "take", counted)
    size = model.window_bytes
    model.snapshots = Snapshots(memory=size, disk=2 * size)
    session = Session(model, room=20)
    session.extend(np.full(400, 30), snapshots=range(20, 401, 20))
    assert taken == [320, 340, 360]
    assert [session.reachable(at) for at in (319, 320, 379, 380, 390, 400)] == [0, 320, 360, 380, 390, 400]
    assert model.snapshots.memory_used + model.snapshots.disk_used == 3 * size


def test_marks_survive_a_rewind_to_a_snapshot_behind_them(model: Model) -> None:
    """A mark at a snapshot's position is one to go back to; others before it are out of reach."""
    session = Session(model, room=4)
    session.extend(FAR)
    mark = session.mark()
    session.snapshot()
    session.extend(FAR)
    session.rewind(mark)
    assert session.position == 200


def test_a_room_that_shrinks_loses_no_snapshot(model: Model) -> None:
    session = Session(model, room=200)
    session.extend(FAR)
    session.snapshot(100)
    session.room = 2
    session.extend([30])
    assert (session.earliest, session.reachable(150)) == (199, 100)
    with pytest.raises(ValueError, match="Expected room for 2 or more positions, got 1"):
        session.room = 1
    assert session.room == 2


def test_an_interrupted_piece_is_withdrawn_to_a_snapshot(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sliding layers have moved on too far: the session is as before the piece, not empty."""
    session, straight = Session(model, room=2), Session(model, room=2)
    for each in (session, straight):
        each.extend(FAR)
    session.snapshot()
    real, calls = MLP.__call__, iter(range(100))

    def interrupted(mlp: MLP, x: mx.array) -> mx.array:
        if next(calls) == 17:  # in the second forward
            raise KeyboardInterrupt
        return real(mlp, x)

    with monkeypatch.context() as patch:
        patch.setattr(MLP, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.extend(np.full(600, 30))
    assert session.position == 200
    np.testing.assert_array_equal(logits(session), logits(straight))


@pytest.mark.parametrize("position", [0, 5, 65, 150, 265])
def test_a_fork_begins_as_its_session_does(model: Model, position: int) -> None:
    """And neither changes the other. It computes nothing."""
    image = reference_case("released", "image").prompt
    session, straight = Session(model, room=130), Session(model)
    session.extend(image[:65], snapshots=[5, 65])
    session.extend(FAR)
    whole = join([image[:65], Prompt.from_tokens(FAR)])
    if position:
        straight.extend(whole[:position])
    fork = session.fork(position)
    assert (fork.position, fork.computed, fork.room) == (position, 0, 130)
    expected = logits(straight)
    before = logits(session.fork())
    np.testing.assert_allclose(logits(fork), expected, atol=tolerance(reference_case("released", "image")))
    fork.extend(FAR)
    np.testing.assert_array_equal(logits(session), before)


def test_a_fork_shares_snapshots(model: Model) -> None:
    """One copy, which stays as long as one of both needs it."""
    session = Session(model, room=2)
    session.extend(FAR[:100], snapshots=[50])
    session.extend(FAR)
    size = model.snapshots.memory_used
    fork = session.fork()
    session.rewind(0)
    assert model.snapshots.memory_used == size > 0
    fork.rewind(50)
    straight = Session(model)
    straight.extend(FAR[:50])
    np.testing.assert_allclose(logits(fork), logits(straight), atol=1e-5)
    del fork
    assert model.snapshots.memory_used == 0


def test_a_fork_out_of_reach_or_inside_an_image_is_refused(model: Model) -> None:
    image = reference_case("released", "image").prompt
    session = Session(model, room=2)
    session.extend(image)
    with pytest.raises(ValueError, match="Position 30 lies inside the image at 5–65: rewind to 5 or 65"):
        session.fork(30)
    with pytest.raises(ValueError, match=r"got 5 at \d+: the last one before it is 0; fork there"):
        session.fork(5)


LOSSES: list[tuple[str, Callable[[], Snapshots]]] = [
    ("nothing fits", lambda: Snapshots(memory=0, disk=0)),
    ("one fits in memory", lambda: Snapshots(memory=80_000, disk=0)),
    ("one fits on disk", lambda: Snapshots(memory=0, disk=80_000)),
]


@pytest.mark.parametrize(("name", "budget"), LOSSES, ids=[name for name, _ in LOSSES])
def test_what_the_budget_loses_is_computed_again(model: Model, name: str, budget: Callable[[], Snapshots]) -> None:
    """keep() rewinds as far as is exact, and says where that is."""
    model.snapshots = budget()
    session = Session(model, room=2)
    session.extend(FAR, snapshots=[50, 100])
    session.extend(FAR)
    kept = session.keep(100)
    assert kept == session.position == (0 if name == "nothing fits" else 100)
    if kept < 100:
        session.extend(FAR[kept:100])
    straight = Session(model, room=2)
    straight.extend(FAR[:100])
    np.testing.assert_allclose(logits(session), logits(straight), atol=1e-5)


def test_a_snapshot_that_cannot_be_read_leaves_an_empty_session(model: Model) -> None:
    """keep() goes on from there; rewind() says so."""
    said: list[str] = []
    for way in ("keep", "rewind"):
        model.snapshots = Snapshots(memory=0, say=said.append)
        session = Session(model, room=2)
        session.extend(FAR, snapshots=[100])
        state = session.snapshot(100).state
        assert state is not None and state._file is not None
        state._file.truncate(10_000)
        if way == "keep":
            assert session.keep(100) == 0
        else:
            with pytest.raises(OSError, match="shorter than what was written"):
                session.rewind(100)
        assert session.position == 0
        np.testing.assert_array_equal(logits(session, FAR), logits(Session(model, room=2), FAR))
    assert len(said) == 2


@pytest.mark.parametrize("memory", [0, 10**8])
def test_a_parked_session_goes_on_as_if_it_had_waited(model: Model, memory: int) -> None:
    """To the bit, whatever comes next; meanwhile it holds full layers only, and nothing is computed again."""
    straight = Session(model, room=20)
    straight.extend(FAR)
    places = [180, 190, 196, 200]
    expected = {at: straight.fork(at) for at in places}
    for use in ("extend", "step", "rewind", "fork", "packed"):
        model.snapshots = Snapshots(memory=memory)
        session = Session(model, room=20)
        session.extend(FAR, snapshots=[190, 196])
        before = session.nbytes
        session.park()
        session.park()
        assert session.nbytes == session.parked_nbytes == 2 * 80 * 4 * 256 < before
        # what the earliest snapshot and the end see
        assert model.snapshots.memory_used + model.snapshots.disk_used == 10 * 2 * 2 * (15 + 10) * 32 * 4
        assert [session.reachable(at) for at in places] == [0, 190, 196, 200]
        if use == "extend":
            np.testing.assert_array_equal(logits(session), logits(expected[200].fork()))
        elif use == "step":
            np.testing.assert_array_equal(session.step(mx.array(40)), expected[200].fork().step(mx.array(40)))
        elif use == "packed":
            assert session.packed()[1]["layers.0.keys"].shape[2] == 25
        else:
            for at in (196, 190):
                other = session.fork(at) if use == "fork" else session
                if use == "rewind":
                    session.rewind(at)
                    session.park()
                np.testing.assert_array_equal(logits(other), logits(expected[at].fork()))
                session.rewind(at)
        assert session.computed <= 206
    empty = Session(model)
    empty.park()
    np.testing.assert_array_equal(logits(empty, FAR), logits(Session(model), FAR))


def test_a_parked_session_that_was_lost_says_so(model: Model) -> None:
    """It goes on from where it can."""
    model.snapshots = Snapshots(memory=0, disk=0)
    session = Session(model, room=20)
    session.extend(FAR)
    session.park()
    for use in (session.held, session.packed, lambda: session.step(mx.array(30))):
        with pytest.raises(ValueError, match=r"parked at 200, and the budget .* has lost .*; rewind to 0 \(keep\)"):
            use()
    with pytest.raises(ValueError, match="Expected a position within the last 0 to rewind to, got 200 at 200"):
        session.rewind(200)
    assert session.keep(200) == 0
    np.testing.assert_array_equal(logits(session, FAR), logits(Session(model, room=20), FAR))


def test_a_state_that_is_shared_does_not_lead_to_what_was_rewound(model: Model) -> None:
    """Not behind its snapshot: not now, and not in a file."""
    session = Session(model, room=2)
    session.extend(FAR[:15], snapshots=[3, 8, 15])
    session.extend(FAR)
    session.rewind(8)
    other = np.arange(300, 340)
    session.extend(other)
    assert [session.reachable(at) for at in (8, 12, 15)] == [8, 8, 8]
    assert sorted(session._points.kept(10**9)) == [8]
    straight = Session(model, room=2)
    straight.extend(FAR[:8])
    straight.extend(other)
    straight.rewind(0)
    session.rewind(8)
    straight.extend(FAR[:8])
    np.testing.assert_array_equal(logits(session), logits(straight))


@pytest.mark.parametrize("bits", [8, 4])
def test_keys_and_values_in_few_bits(bits: int) -> None:
    """Snapshots, forks and parked sessions are as exact, also when later sessions have other bits."""
    config = loaded("released")[0].config
    text = config.text_config
    layers = (text.layers[4], replace(text.layers[5], head_dim=256))
    mx.random.seed(3)
    model = Model(replace(config, text_config=replace(text, layers=layers)))
    model.kv_bits = bits
    session, straight = Session(model, room=2), Session(model, room=2)
    for each in (session, straight):
        each.extend(FAR)
    expected = logits(straight)
    session.snapshot()
    session.extend(FAR)
    session.rewind(200)
    model.kv_bits = None
    fork = session.fork()
    session.park()
    for each in (session, fork):
        np.testing.assert_array_equal(logits(each), expected)
    assert not np.array_equal(expected, logits(Session(model), [*FAR, 40, 41, 42]))
