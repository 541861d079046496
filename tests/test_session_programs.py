"""Random programs: whatever was extended, rewound, restored, lost, saved or forked, logits are a fresh session's.

    SESSION_PROGRAMS=1000 python -m pytest tests/test_session_programs.py -s      # a few are run without the variable

The model's window is 16, shorter than most pieces. Each program has a budget of snapshots that it changes as it
goes, from all in memory to none anywhere. ``-s`` shows how often each thing has happened.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from long_chats import two_layers

from mlx_gemma4 import Session, Snapshots
from mlx_gemma4.inputs.prompt import Prompt, join
from mlx_gemma4.inputs.vision.image import Patches

PROGRAMS = int(os.environ.get("SESSION_PROGRAMS", "20"))
STEPS = 18
"""Of a program, at most."""
LONGEST = 250
"""Positions of a sequence: a longer one begins again."""
CLOSE = 1e-4
"""Logits of one sequence that was cut differently differ by less than this; those of another one by far more."""
IMAGE, SOUND = 260, 261
COUNTS: Counter[str] = Counter()
MODEL = two_layers()[0]
"""One sliding layer with a window of 16, and one full layer."""

SEEDS = st.integers(0, 2**20)
ROOMS = st.sampled_from([2, 3, 10, 40])
MEMORIES = st.sampled_from([0, 0, 16_000, 10**8])
"""A snapshot has 15,360 bytes, or fewer near the beginning."""


def text(seed: int, length: int) -> Prompt:
    return Prompt.from_tokens(np.random.default_rng(seed).integers(30, 250, length))


def sound(seed: int, length: int) -> Prompt:
    return Prompt.from_frames(np.random.default_rng(seed).normal(0, 0.1, (length, 640)), SOUND)


def image(seed: int, length: int) -> Prompt:
    """Between two tokens, since two images do not stand side by side."""
    random = np.random.default_rng(seed)
    places = random.integers(0, 64, (length, 2)).astype(np.int32)
    patches = Patches(random.random((length, 48 * 48 * 3), np.float32), places)
    return join([text(seed, 1), Prompt.from_patches(patches, IMAGE), text(seed + 1, 1)])


def places(prompt: Prompt) -> list[int]:
    """Where a prompt may be cut, its ends included."""
    vision = np.concatenate([[False], prompt.is_vision, [False]])
    return np.flatnonzero(~(vision[1:] & vision[:-1])).tolist()


class SessionPrograms(RuleBasedStateMachine):
    """Sessions, and a prompt of what each should hold."""

    @initialize(room=ROOMS, memory=MEMORIES, disk=st.sampled_from([True, True, False]), seed=SEEDS, data=st.data())
    def begin(self, room: int, memory: int, disk: bool, seed: int, data: st.DataObject) -> None:
        """A sequence with everything in it, longer than window and room, and snapshots anywhere."""
        self.model = MODEL
        self.said: list[str] = []
        self.model.snapshots = Snapshots(memory=memory, disk=10**8 if disk else 0, say=self.said.append)
        self.sessions: list[tuple[Session, Prompt, list[Any]]] = []
        """Each with its prompt, and the marks and snapshots that are valid."""
        self.sessions.append((Session(self.model, room=room), Prompt.from_tokens([]), []))
        self.extend(join([text(seed, 30), image(seed + 2, 20), sound(seed + 4, 10), text(seed + 5, 30)]), data)

    @property
    def session(self) -> Session:
        """The session that is used now."""
        return self.sessions[-1][0]

    @property
    def held(self) -> Prompt:
        return self.sessions[-1][1]

    @property
    def marks(self) -> list[Any]:
        return self.sessions[-1][2]

    def hold(self, prompt: Prompt) -> None:
        """The session holds this now; marks behind it have died."""
        marks = [mark for mark in self.marks if mark.position <= len(prompt)]
        self.sessions[-1] = (self.session, prompt, marks)

    def settle(self) -> None:
        """A session that was parked, and then lost by the budget, goes on from where it can."""
        if self.session.reachable(len(self.held)) < len(self.held):
            COUNTS["parked and lost"] += 1
            self.hold(self.held[: self.session.keep(len(self.held))])

    def extend(self, piece: Prompt, data: st.DataObject) -> None:
        self.settle()
        snapshots = data.draw(st.lists(st.sampled_from(places(piece)), min_size=1, max_size=4))
        if len(self.held) + len(piece) > LONGEST:
            self.session.reset()
            self.sessions[-1] = (self.session, Prompt.from_tokens([]), [])
        logits = self.session.extend(piece, snapshots=snapshots)
        self.hold(join([self.held, piece]))
        self.check(logits)

    def check(self, logits: mx.array) -> None:
        fresh = Session(self.model).extend(self.held)
        error = float(np.abs(np.array(logits) - np.array(fresh)).max())
        COUNTS["logits compared"] += 1
        COUNTS["largest error, in millionths"] = max(COUNTS["largest error, in millionths"], round(error * 1e6))
        assert error < CLOSE

    @rule(seed=SEEDS, length=st.integers(1, 70), data=st.data())
    def extend_text(self, seed: int, length: int, data: st.DataObject) -> None:
        self.extend(text(seed, length), data)

    @rule(seed=SEEDS, length=st.integers(1, 40), data=st.data())
    def extend_sound(self, seed: int, length: int, data: st.DataObject) -> None:
        self.extend(sound(seed, length), data)

    @rule(seed=SEEDS, length=st.integers(1, 40), data=st.data())
    def extend_image(self, seed: int, length: int, data: st.DataObject) -> None:
        self.extend(image(seed, length), data)

    @precondition(lambda self: 0 < len(self.held) < LONGEST - 3)
    @rule(tokens=st.lists(st.integers(30, 250), min_size=1, max_size=3))
    def step(self, tokens: list[int]) -> None:
        """Token by token, nothing computed before the last one."""
        self.settle()
        for token in tokens:
            logits = self.session.step(mx.array(token))
        self.hold(join([self.held, Prompt.from_tokens(tokens)]))
        self.check(logits)

    @rule()
    def mark(self) -> None:
        self.marks.append(self.session.mark())

    @rule()
    def snapshot(self) -> None:
        self.settle()
        self.marks.append(self.session.snapshot())

    @precondition(lambda self: self.marks)
    @rule(data=st.data())
    def rewind_to_mark(self, data: st.DataObject) -> None:
        """Exact, or refused if its window is out of reach or its snapshot is lost."""
        self.rewind(data.draw(st.sampled_from(self.marks)))

    @rule(data=st.data())
    def rewind_to_position(self, data: st.DataObject) -> None:
        self.rewind(data.draw(st.integers(0, len(self.held))))

    @precondition(lambda self: self.session._points.places)
    @rule(data=st.data())
    def rewind_to_snapshot(self, data: st.DataObject) -> None:
        self.rewind(data.draw(st.sampled_from(self.session._points.places)))

    def rewind(self, to: Any) -> None:
        position = to if isinstance(to, int) else to.position
        before = self.session.computed
        if self.session.reachable(position) == position:
            state = self.session._points._state(position) if 0 < position < self.session.earliest else None
            COUNTS["rewinds"] += 1
            COUNTS["from memory"] += state is not None and state.in_memory
            COUNTS["from disk"] += state is not None and state.on_disk
            self.session.rewind(to)
            self.hold(self.held[:position])
        else:
            COUNTS["rewinds refused"] += 1
            with pytest.raises(ValueError, match=r"to rewind to, got|lies inside the image"):
                self.session.rewind(to)
        assert (self.session.position, self.session.computed) == (len(self.held), before)

    @rule(data=st.data())
    def keep(self, data: st.DataObject) -> None:
        """As far as is exact; the place is one where a prompt can be cut."""
        position = data.draw(st.integers(0, len(self.held)))
        kept = self.session.keep(position)
        COUNTS["keeps"] += 1
        COUNTS["keeps of less than asked"] += kept < position
        assert kept <= position and kept in places(self.held)
        self.hold(self.held[:kept])

    @rule(memory=MEMORIES)
    def evict(self, memory: int) -> None:
        """What leaves the memory goes to disk, or is lost."""
        budget = self.model.snapshots
        budget.memory = memory
        assert budget.memory_used <= memory

    @rule(room=ROOMS)
    def change_room(self, room: int) -> None:
        self.session.room = room

    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        """Go on with the fork; the session waits."""
        position = self.session.reachable(data.draw(st.integers(0, len(self.held))))
        COUNTS["forks"] += 1
        self.sessions.append((self.session.fork(position), self.held[:position], []))
        assert self.session.computed == 0

    @precondition(lambda self: len(self.sessions) > 1)
    @rule(drops=st.booleans())
    def switch(self, drops: bool) -> None:
        """Go on with the session that waits longest. This one waits too, or is forgotten."""
        self.sessions.insert(0, self.sessions.pop())
        if drops:
            self.sessions.pop(0)

    @rule()
    def park(self) -> None:
        """The budget takes what sliding layers hold."""
        self.session.park()
        COUNTS["parked"] += 1

    @rule()
    def save_and_load(self) -> None:
        """What a file gives back goes on as the session would; marks belong to the session that was saved."""
        self.settle()
        COUNTS["saves"] += 1
        with TemporaryDirectory() as folder:
            self.session.save(Path(folder) / "session")
            again = Session.load(self.model, Path(folder) / "session")
        self.sessions[-1] = (again, self.held, [])

    def teardown(self) -> None:
        if hasattr(self, "sessions"):
            for session, held, _ in self.sessions:
                if session.reachable(len(held)) < len(held):
                    session.rewind(0)  # it was parked and lost while it waited
                    continue
                assert session.position == len(held) == session.content.common_prefix(held)
                if 0 < len(held) < LONGEST - 3:
                    logits = session.extend([40, 41, 42])
                    fresh = Session(self.model).extend(join([held, Prompt.from_tokens([40, 41, 42])]))
                    np.testing.assert_allclose(np.array(logits), np.array(fresh), atol=CLOSE)
            assert self.said == []


def test_random_programs() -> None:
    run_state_machine_as_test(
        SessionPrograms,
        settings=settings(
            max_examples=PROGRAMS,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(dict(COUNTS))
    assert COUNTS["logits compared"] > 2 * PROGRAMS
