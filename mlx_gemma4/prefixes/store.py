"""Sessions of many conversations: a new prompt goes on from the longest prefix that was computed before.

    prompt            system, turn 1, turn 2 …           what happens
    ────────────────  ─────────────────────────────────  ─────────────────────────────────────────────
    next turn         [system turn 1 answer] turn 2      the same session goes on
    another answer    [system turn 1]                    the same session; the old answer is forgotten
    edited turn       [system] turn 1'                   a fork, and the session stays; or it alone, if memory is short
    another chat      [system] other turn                a fork
    another system    other system …                     a new session

Prefixes are found by content (``Session.content``), so nobody has to say which conversation a prompt belongs to, and a
picture is recognised by what it shows. Reusing one costs a rewind, or a copy of its keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlx_gemma4.decoder.memory import DEFAULT_ROOM, Needs, Use, plan_memory
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.checks import check_prompt
from mlx_gemma4.inputs.content import Content
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.session import Session

LIMIT = 2_000_000_000
"""Bytes of all sessions by default: three or four conversations of the 12B, and others that are parked."""
REWRITTEN = 64
"""Positions at the end of a prompt that templates write otherwise in the next turn, at most."""


@dataclass(eq=False)
class _Entry:
    """A session, and what the store knows of its use."""

    session: Session
    asked: int = 0
    """Positions of the prompt it was opened for last. What lies behind them is an answer."""
    kept: int = 0
    """Positions that its owner found computed, and does not change."""
    in_use: bool = True


class PrefixStore:
    """Sessions on a model, within a limit of bytes.

    When memory is short, sessions that nobody holds are parked, the least recently used first: their sliding layers,
    335 MB of the 12B and more, go to the budget of snapshots, mostly to disk, and 10 KB a position stay. When that is
    not enough, or the budget is used up, they leave.

    It belongs to the model's thread, like its sessions: there are no locks, no threads and no clocks in it. A server
    calls it from the thread that generates.

    Args:
        limit: Bytes of keys and values of all sessions; by default LIMIT, or what the model's budget has for them if
            that is less. Snapshots have a budget of their own (``model.snapshots``). A session that somebody holds does
            not leave, even if it exceeds the limit.
        room: Of the sessions: how far each can be rewound without a snapshot.
    """

    def __init__(self, model: Model, *, limit: int | None = None, room: int = DEFAULT_ROOM) -> None:
        self.model = model
        most = model.budget.sessions
        self.limit = (LIMIT if most is None else min(LIMIT, most)) if limit is None else limit
        self.room = room
        self._entries: list[_Entry] = []
        """The least recently used first."""

    def __len__(self) -> int:
        """How many sessions there are."""
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values of all sessions."""
        return sum(entry.session.nbytes for entry in self._entries)

    def open(self, prompt: Prompt) -> tuple[Session, int]:
        """A session that holds the first rows of a prompt, and how many; fewer than the prompt has.

        Extend it with ``prompt[kept:]``, and take snapshots (``landmarks``), from which other prompts can go on. Until
        ``close``, the session is the caller's, who may do anything but change the rows that it found computed.

        Raises:
            ValueError: The prompt is empty, or does not fit the model.
        """
        if len(prompt) == 0:
            raise ValueError("There is nothing to open a session for: the prompt is empty")
        check_prompt(prompt, self.model.config)
        content = Content.of(prompt)
        reuse = [(self._usable(entry, content), entry) for entry in self._entries]
        kept, source = max(reuse, key=lambda pair: pair[0], default=(0, None))
        entry = self._new(len(prompt)) if source is None or kept == 0 else self._reused(source, kept, len(prompt))
        entry.asked, entry.kept, entry.in_use = len(prompt), entry.session.keep(kept), True
        self._touch(entry)
        self._shrink(self._bytes(len(prompt)) - entry.session.nbytes)
        return entry.session, entry.kept

    def close(self, session: Session) -> None:
        """Give a session back, with whatever it holds now. The caller does not use it any more.

        Raises:
            ValueError: It was not opened here, or was closed already.
        """
        entry = next((entry for entry in self._entries if entry.session is session and entry.in_use), None)
        if entry is None:
            raise ValueError("The session is not open in this store: close each session once, where it was opened")
        entry.in_use = False
        self._touch(entry)
        self._shrink(0)

    def clear(self) -> None:
        """Forget all sessions that nobody holds."""
        self._entries = [entry for entry in self._entries if entry.in_use]

    def _usable(self, entry: _Entry, content: Content) -> int:
        """How many positions of a prompt a session spares. The last one is always computed, for its logits."""
        common = min(entry.session.content.common_prefix(content), len(content) - 1)
        return entry.session.reachable(min(common, entry.kept) if entry.in_use else common)

    def _new(self, length: int) -> _Entry:
        self._shrink(self._bytes(length))
        entry = _Entry(Session(self.model, room=self.room))
        self._entries.append(entry)
        return entry

    def _reused(self, source: _Entry, kept: int, length: int) -> _Entry:
        """The session itself, if only its answer is lost or if there is no room for another one; else a fork."""
        if not source.in_use and (source.asked - kept <= REWRITTEN or not self._make_room(self._bytes(length), source)):
            return source
        entry = _Entry(_fork(source.session, kept))
        self._entries.append(entry)
        return entry

    def _make_room(self, needed: int, source: _Entry) -> bool:
        """Let sessions be parked, or leave if they were used before ``source``; none if that is not enough."""
        index = self._entries.index(source)
        least = source.session.nbytes + sum(
            entry.session.nbytes if entry.in_use else entry.session.parked_nbytes * (number > index)
            for number, entry in enumerate(self._entries)
            if entry is not source
        )
        if least + needed > self.limit:
            return False
        self._shrink(needed, source)
        return True

    def _shrink(self, growth: int, source: _Entry | None = None) -> None:
        """Park sessions, and let them leave, until the limit holds with so many bytes more."""
        idle = [entry for entry in self._entries if not entry.in_use and entry is not source]
        for entry in idle:
            if self.nbytes + growth <= self.limit:
                return
            entry.session.park()
            if entry.session.reachable(entry.session.position) == 0:  # the budget could not take it
                self._entries.remove(entry)
        for entry in idle:
            if self.nbytes + growth <= self.limit:
                return
            if entry in self._entries:
                self._entries.remove(entry)

    def _touch(self, entry: _Entry) -> None:
        self._entries.remove(entry)
        self._entries.append(entry)

    def _bytes(self, length: int) -> int:
        """What a session of so many positions holds when they are computed."""
        needs = Needs(self.model.config.text_config, 0, number=self.model.dtype.size, kv_bits=self.model.kv_bits)
        return plan_memory(needs, Use(room=self.room, rows=1), length).state


def _fork(session: Session, position: int) -> Session:
    """A fork at a position, or before it if snapshots cannot be read from disk: then they are lost."""
    while True:
        try:
            return session.fork(session.reachable(position))
        except OSError:
            continue
