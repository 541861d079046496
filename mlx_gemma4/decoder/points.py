"""Where a sequence can be rewound to: what its cache still holds, and snapshots of what sliding layers have forgotten.

    positions   0 ─────────── s ──────────── e ─────────── position
    rewind to   0             s              e … position
                always        a snapshot     the cache holds the window of every position from e on (``earliest``)

A snapshot is copied only when its window is about to leave the cache: in a sequence that is not longer than window and
room it costs nothing. Full layers are never copied, since they hold the prefix as long as nobody rewinds behind it.
Positions inside an image are no places to go back to: what stays of it would have seen what is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from weakref import WeakSet

import mlx.core as mx

from mlx_gemma4.decoder.cache import Cache
from mlx_gemma4.decoder.snapshots import Snapshots, State


class Mark:
    """A position of a session to go back to. Valid until the session is rewound to before it."""

    def __init__(self, position: int) -> None:
        self.position = position

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.position})"


class Snapshot(Mark):
    """A mark that keeps what sliding layers hold, so that a rewind to it is exact however far back it is."""

    def __init__(self, position: int, state: State | None = None) -> None:
        super().__init__(position)
        self.state = state
        """None as long as the cache itself holds it."""


class Points:
    """The marks, snapshots and images of a sequence.

    Args:
        cache: That of the sequence; this rewinds it.
        snapshots: The budget that copies are kept in.
    """

    def __init__(self, cache: Cache, snapshots: Snapshots) -> None:
        self.images: list[tuple[int, int]] = []
        """The first position of each image, and the one after its last."""
        self._cache = cache
        self._budget = snapshots
        self._marks: WeakSet[Mark] = WeakSet()
        self._snapshots: dict[int, Snapshot] = {}

    def mark(self) -> Mark:
        mark = Mark(self._cache.position)
        self._marks.add(mark)
        return mark

    def snapshot(self, position: int) -> Snapshot:
        """Keep what is needed to go back to ``position``.

        Raises:
            ValueError: It lies ahead or inside an image, or a rewind to it would not be exact any more.
        """
        self._check(position)
        known = self._snapshots.get(position)
        if known is None or (known.state is not None and known.state.is_lost):
            if self.reachable(position) != position:
                raise ValueError(f"{self._out_of_reach(position)}; take a snapshot while sliding layers remember it")
            known = Snapshot(position, None if self._is_held(position) else self._state(position))
            self._snapshots[position] = known
        return known

    def affordable(self, positions: list[int], end: int, nbytes: int) -> list[int]:
        """Those of the sorted positions whose snapshots are not lost again before the sequence has grown to ``end``.

        Others would be copied, and perhaps written to disk, for nothing.

        Args:
            nbytes: Of a snapshot.
        """
        held = [position for position in positions if position >= end - self._cache.room]
        leaving = positions[: len(positions) - len(held)]
        return leaving[max(0, len(leaving) - self._budget.capacity(nbytes)) :] + held

    def reachable(self, position: int) -> int:
        """The latest position, ``position`` or before, to which a rewind is exact; 0 always is."""
        position = max(0, min(position, self._cache.position))
        position = next((start for start, stop in self.images if start < position < stop), position)
        if self._is_held(position) or self._state(position) is not None:
            return position
        return max((at for at in self._snapshots if at < position and self._state(at) is not None), default=0)

    def rewind(self, to: Mark | int) -> None:
        """Forget everything after a mark or a position.

        Raises:
            ValueError: As for ``Session.rewind``. Nothing is changed.
            OSError: A snapshot could not be read back. The cache is broken then.
        """
        if isinstance(to, Mark) and to not in self._marks and self._snapshots.get(to.position) is not to:
            raise ValueError(f"{to} is not a mark of this session, or an earlier rewind has passed it; make a new one")
        position = to.position if isinstance(to, Mark) else to
        self._check(position)
        state = None if self._is_held(position) else self._state(position)
        if state is not None:
            self._cache.restore_windows(self._budget.read(state), state.position)
        self._cache.rewind(position)
        self._forget(position)

    def before_forward(self, rows: int) -> None:
        """Copy what snapshots need and what leaves the cache when ``rows`` more positions come."""
        self.resume()
        if not self._snapshots:
            return
        earliest = self._cache.earliest_after(rows)
        leaving = [at for at in self._snapshots if self._snapshots[at].state is None and 0 < at < earliest]
        short = [at for at in leaving if at < self._cache.window]
        # the longest one that holds all from 0 on serves the shorter ones; then the last one is the most recently used
        for position in [*sorted(short, reverse=True), *sorted(set(leaving) - set(short))]:
            self._snapshots[position].state = self._state(position) or self._take(position, position)

    def park(self) -> None:
        """Move what sliding layers hold to the budget, as far as the position and snapshots need it."""
        position = self._cache.position
        if position == 0 or self._cache.is_released:
            return
        pending = [at for at, snapshot in self._snapshots.items() if snapshot.state is None and at > 0]
        state = self._take(min([position, *pending]), position)
        end = self.snapshot(position)
        for at in pending:
            self._snapshots[at].state = state
        end.state = state
        self._cache.release()

    def resume(self) -> None:
        """Bring back what ``park`` has moved away.

        Raises:
            ValueError: The budget has lost it.
            OSError: It could not be read back. The cache is broken then.
        """
        if not self._cache.is_released:
            return
        position = self._cache.position
        if self._state(position) is None:
            raise ValueError(
                f"The session was parked at {position}, and the budget of snapshots has lost what it held; "
                f"rewind to {self.reachable(position)} (keep), and compute the rest again"
            )
        self.rewind(position)

    def copy_to(self, other: Points, position: int) -> None:
        """Let another sequence, which is empty, begin with this one's positions before ``position``.

        Raises:
            ValueError: It lies ahead or inside an image, or a rewind to it would not be exact any more.
        """
        self._check(position)
        if self._is_held(position):
            other._cache.restore(self._cache.state(position), position)
        else:
            state = self._state(position)
            if state is None:
                raise ValueError(f"{self._out_of_reach(position)}; fork there, and compute the rest again")
            other._cache.restore_full(self._cache, position)
            other._cache.restore_windows(self._budget.read(state), state.position)
            other._cache.rewind(position)
        other.images = [span for span in self.images if span[1] <= position]
        other._snapshots = {at: Snapshot(at, it.state) for at, it in self._snapshots.items() if at <= position}

    def drop(self, position: int) -> None:
        """Forget the snapshot at a position, if there is one."""
        dropped = self._snapshots.pop(position, None)
        if dropped is not None:
            dropped.state = None

    @property
    def places(self) -> list[int]:
        """The positions of the snapshots that can be gone back to."""
        return [at for at in sorted(self._snapshots) if self._is_held(at) or self._state(at) is not None]

    def kept(self, most: int) -> dict[int, list[mx.array]]:
        """The windows that snapshots keep, by position: the latest ones of at most ``most`` bytes.

        Raises:
            OSError: One could not be read from disk.
        """
        ends: dict[State, int] = {}
        for at, snapshot in self._snapshots.items():
            if snapshot.state is not None and not snapshot.state.is_lost:
                ends[snapshot.state] = max(at, ends.get(snapshot.state, 0))
        windows = {}
        for state, at in sorted(ends.items(), key=lambda item: item[1], reverse=True):
            if state.nbytes <= most:
                held = slice(max(0, at - self._cache.window + 1) - state.start, at - state.start)
                windows[at] = [array[..., held, :] for array in self._budget.read(state)]
                most -= state.nbytes
        return windows

    def restore(self, images: list[tuple[int, int]], places: list[int], kept: Mapping[int, Sequence[mx.array]]) -> None:
        """Have images and snapshots again, once the cache holds the sequence.

        Args:
            places: As they were.
            kept: As it was. Snapshots whose windows are not among them, nor in the cache, are lost.
        """
        self.images = images
        self._snapshots = {
            at: Snapshot(at, self._budget.take(at - windows[0].shape[3], at, windows)) for at, windows in kept.items()
        }
        for at in places:
            state = self._state(at)
            if at not in self._snapshots and (state is not None or self._is_held(at)):
                self._snapshots[at] = Snapshot(at, state)

    def clear(self) -> None:
        """Forget everything: the sequence begins again with other points."""
        self._forget(-1)

    def _forget(self, position: int) -> None:
        """Forget marks, snapshots and images behind ``position``."""
        self.images = [span for span in self.images if span[1] <= position]
        for at in [at for at in self._snapshots if at > position]:
            self._snapshots.pop(at).state = None  # whoever still has the snapshot does not keep its bytes
        for mark in [mark for mark in self._marks if mark.position > position]:
            self._marks.discard(mark)

    def _is_held(self, position: int) -> bool:
        """Whether the cache itself can go back there."""
        return position == 0 or position >= self._cache.earliest

    def _take(self, first: int, position: int) -> State:
        """A copy of what ``first`` and all positions from there to ``position`` see."""
        start = max(self._cache.start, first - self._cache.window + 1)
        return self._budget.take(start, position, self._cache.windows(start, position))

    def _state(self, position: int) -> State | None:
        """A state that holds all that ``position`` sees."""
        for at, snapshot in self._snapshots.items():
            state = snapshot.state
            # behind its snapshot, a state that others share may hold what was rewound
            if state is None or state.is_lost or at < position:
                continue
            if state.start == 0 or position >= state.start + self._cache.window - 1:
                return state
        return None

    def _check(self, position: int) -> None:
        if not 0 <= position <= self._cache.position:
            raise ValueError(f"Expected a position from 0 to {self._cache.position} to rewind to, got {position}")
        for start, stop in self.images:
            if start < position < stop:
                raise ValueError(
                    f"Position {position} lies inside the image at {start}–{stop}: rewind to {start} or {stop}"
                )

    def _out_of_reach(self, position: int) -> str:
        return (
            f"Expected a position that the session can be rewound to, got {position} at {self._cache.position}: "
            f"the last one before it is {self.reachable(position)}"
        )
