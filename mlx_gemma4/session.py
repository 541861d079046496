"""One growing sequence: text, sound and images go in as they come, cut anywhere; it can be marked and rewound.

This is where inputs and decoder meet: numpy arrays come in, logits go out. A session knows nothing of text, templates
or files. It belongs to the thread that made it.

    extend(prompt)      mark()      extend(frame) extend(frame) …      rewind(mark)
    ──────────────────────┼──────────────────────────────────▶ │
                          │◀───────────────────────────────────┘  as if the frames had never been

A rewind is exact within the room, and to a ``snapshot`` however far back it is (``decoder.points``). An image attends
inside itself, so it enters in one piece, and no rewind may end inside it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_gemma4.decoder.ahead import bounded_ahead
from mlx_gemma4.decoder.attention import Seen
from mlx_gemma4.decoder.budget import allocation_errors
from mlx_gemma4.decoder.cache import Cache, Held
from mlx_gemma4.decoder.head import RowLogits
from mlx_gemma4.decoder.identity import identity
from mlx_gemma4.decoder.memory import CHUNK, DEFAULT_ROOM, KEPT_BUFFERS, in_steps
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.decoder.points import Mark, Points, Snapshot
from mlx_gemma4.decoder.saved_file import Saved, read, write
from mlx_gemma4.inputs.content import Content
from mlx_gemma4.pieces import Piece, embed, longest_image
from mlx_gemma4.saved_session import Packed, pack, position_of, room_of, unpack

PREFILL_STEP = CHUNK
"""Positions computed in one forward, at most. An image longer than this goes in one."""

FEW_ROWS = 64
"""Rows of a forward that needs little memory."""

MIN_ROOM = 2
"""Generating computes one token ahead of what it hands out, and rewinds that when it ends."""


class Session:
    """A growing sequence on a model.

    Args:
        room: How many positions can be rewound once the sequence is longer than the sliding window. Each costs the
            memory of one more key and value on every sliding layer. Before that length, every rewind is exact anyway.

    Raises:
        ValueError: ``room`` is less than MIN_ROOM.
    """

    def __init__(self, model: Model, *, room: int = DEFAULT_ROOM) -> None:
        self.model = model
        self._room = _checked_room(room)
        self.forwards = 0
        """Forward passes so far."""
        self.computed = 0
        """Positions computed so far, including those that were rewound."""
        self._begin()

    def reset(self) -> None:
        """Start again with an empty sequence. Marks and snapshots made before are no longer valid."""
        self._points.clear()
        self._begin()

    def _begin(self, cache: Cache | None = None) -> None:
        self._cache = cache or self.model.make_cache(self._room)
        self._points = Points(self._cache, self.model.snapshots)
        self._content = Content()
        self._hidden: mx.array | None = None
        """Hidden states of the rows whose logits were returned last; they end before position ``_hidden_end``."""
        self._hidden_end = 0
        self._granted = 0
        """Positions up to which there is memory for steps."""

    @property
    def room(self) -> int:
        """How many positions can be rewound beyond the sliding window.

        It may be changed at any time: what comes from then on can be rewound so far. What has left does not come back.
        """
        return self._room

    @room.setter
    def room(self, room: int) -> None:
        self._room = self._cache.room = _checked_room(room)

    @property
    def position(self) -> int:
        """Length of the sequence."""
        return self._cache.position

    @property
    def content(self) -> Content:
        """What the sequence holds, media by their hashes; ``content.common_prefix(prompt)`` compares it."""
        self._content.cut(self.position)
        return self._content

    @property
    def context(self) -> int | None:
        """Positions that the sequence may have, at most (``load(context=…)``); None: there is no limit."""
        return self.model.budget.context

    @property
    def earliest(self) -> int:
        """The earliest position to which a rewind is exact without a snapshot, 0 aside."""
        return self._cache.earliest

    @property
    def nbytes(self) -> int:
        """Memory of the cached keys and values, in bytes."""
        return self._cache.nbytes

    @property
    def parked_nbytes(self) -> int:
        """What ``nbytes`` is after ``park``: the share of full layers."""
        return self._cache.nbytes - self._cache.sliding_bytes

    def extend(self, piece: Piece, *, logits_from: int | None = None, snapshots: Collection[int] = ()) -> mx.array:
        """Append a piece of L rows and return the logits [V] of the next token.

        Keys and values are computed when this returns. Logits are lazy: if nobody reads them, the head does not run.
        If this is interrupted, the session is as it was before; if that is out of reach, it is rewound further.

        Args:
            logits_from: Return the logits [L - logits_from, V] that follow this row of the piece and those behind it;
                0 returns all. The head does not run on other rows.
            snapshots: Take a snapshot before each of these rows of the piece; L is behind the last one. Of more than
                the budget has room for, the first ones are left out.

        Raises:
            ValueError: The piece is empty or does not fit the model: ids beyond the vocabulary, media that the
                checkpoint has no weights for, placeholders without media, half an image; or it has no row
                ``logits_from``, or one of ``snapshots`` lies outside the piece or inside an image. The session is
                unchanged.
            ContextFull: The sequence would become longer than ``context``. The session is unchanged.
            MemoryFull: The model's budget has too little memory left for it. The session is unchanged, unless it is
                the device that had none left: then it is as after an interruption.
        """
        start = self.position
        wanted = sorted(start + row for row in snapshots)
        content, chunks = embed(piece, self.model, self._sizes(wanted))
        length = len(content)
        images = self._points.images
        if content.begins_with_image and images and images[-1][1] == start:
            raise ValueError("An image follows another without text in between: put a token, or its markers, first")
        self._check_budget(length, min(length, max(PREFILL_STEP, longest_image(piece))))
        if logits_from is not None and not 0 <= logits_from < length:
            raise ValueError(f"Expected logits_from to be a row of the piece, 0 to {length - 1}, got {logits_from}")
        if wanted and not start <= wanted[0] <= wanted[-1] <= start + length:
            raise ValueError(f"Expected snapshots at rows of the piece, 0 to {length}, got {sorted(snapshots)}")
        wanted[:] = self._points.affordable(wanted, start + length, self.model.window_bytes)
        first = length - 1 if logits_from is None else logits_from
        self._hidden = None  # unread, it would keep a copy of the last layer's keys and values
        read = []
        self._take_snapshots(wanted)
        self.content.append(content)
        try:
            for rows, image_ids in chunks:
                held = self.nbytes
                skipped = first - (self.position - start)
                h = self._forward(rows, image_ids, min(max(skipped, 0), rows.shape[1] - 1))
                if skipped < rows.shape[1]:
                    read.append(h)
                is_last = self.position == start + length
                if is_last:
                    self._cache.compact()
                # lazy rows keep a copy of the last layer's keys and values; those of the last chunk may stay unread
                with allocation_errors(), bounded_ahead(kept=self.nbytes - held):
                    mx.eval([*self._cache.arrays, *(read[:-1] if is_last else read)])
                self._take_snapshots(wanted)
                if mx.get_cache_memory() > KEPT_BUFFERS:
                    mx.clear_cache()
        except BaseException:
            self.keep(start)
            raise
        self._hidden = read[0] if len(read) == 1 else mx.concatenate(read, axis=1)
        self._hidden_end = self.position
        logits = self.model.logits(self._hidden)
        return logits[0, -1] if logits_from is None else logits.squeeze(0)

    def step(self, tokens: mx.array, *, logits_from: int = 0) -> mx.array:
        """Append text tokens, which may be lazy, and return the lazy logits after each: [] → [V], [n] → [n, V].

        Args:
            logits_from: Return only those that follow this token and the ones behind it: [n - logits_from, V].

        Raises:
            ContextFull: The sequence would become longer than ``context``. The session is unchanged.
            MemoryFull: The model's budget has too little memory left. The session is unchanged.
        """
        cache = self.before_step(tokens)
        rows = self.model.embed_tokens(tokens.reshape(1, -1))
        hidden = self.after_step(tokens, self.model(rows, cache, read_from=logits_from))
        logits = self.model.logits(hidden)
        return logits.squeeze(0) if tokens.ndim else logits[0, 0]

    def before_step(self, tokens: mx.array) -> Cache:
        """Begin what ``step`` does, for a forward that several sessions share; raises as it does.

        Returns:
            The cache, which that forward writes to.
        """
        self._check_budget(tokens.size, tokens.size)
        self.content.append_ids(tokens, tokens.size)
        self._points.before_forward(tokens.size)
        return self._cache

    def after_step(self, tokens: mx.array, hidden: mx.array) -> mx.array:
        """End what ``before_step`` has begun, with the hidden states [1, n, D] of the tokens or of the last of them."""
        self.forwards += 1
        self.computed += tokens.size
        self._hidden, self._hidden_end = hidden, self.position
        return hidden

    def row_logits(self, count: int) -> RowLogits:
        """The logits that follow the last ``count`` rows, computed a few rows at a time when they are read.

        Raises:
            ValueError: They are not among those that ``extend`` or ``step`` returned last.
        """
        kept = 0 if self._hidden is None or self._hidden_end != self.position else self._hidden.shape[1]
        if self._hidden is None or not 1 <= count <= kept:
            raise ValueError(
                f"The logits of the last {count} rows are not kept, only {kept}; extend the session with logits_from"
            )
        return RowLogits(self.model.logits, self._hidden[:, kept - count :])

    def _check_budget(self, length: int, rows: int) -> None:
        """Check that ``length`` more positions fit, in forwards of at most ``rows``. Steps are checked now and then."""
        budget, end = self.model.budget, self.position + length
        budget.check_context(self.position, length)
        if budget.memory is not None and (rows > FEW_ROWS or end > self._granted):
            needed = budget.bytes_for(end, rows, self.room, self.nbytes)
            self.model.snapshots.allow(budget.spare(needed, mx.get_active_memory()))
            budget.check_memory(needed, mx.get_active_memory())
            self._granted = in_steps(end)

    @property
    def hidden(self) -> mx.array:
        """The hidden state [1, 1, D] of the last position, after the final norm: what a drafter continues from.

        Raises:
            ValueError: It is not kept: nothing was computed yet, or a rewind went back behind the rows whose logits
                were returned last.
        """
        count = 0 if self._hidden is None else self._hidden.shape[1]
        row = self.position - 1 - (self._hidden_end - count)
        if self._hidden is None or not 0 <= row < count:
            raise ValueError(
                f"The hidden state of position {self.position - 1} is not kept; extend the session before reading it"
            )
        return self._hidden[:, row : row + 1]

    def shared(self) -> dict[str, Seen]:
        """Keys and values of the last layer of each type, as a drafter sees them (``decoder.drafter``)."""
        self._points.resume()
        return self.model.shared(self._cache)

    def held(self) -> Held:
        """The keys and values that the next position may see, to decode on in a batch (``BatchCache``)."""
        self._points.resume()
        return self._cache.held()

    def mark(self) -> Mark:
        """Remember this position, for ``rewind``. Costs nothing."""
        return self._points.mark()

    def snapshot(self, position: int | None = None) -> Snapshot:
        """Remember a position, by default this one, so that a rewind to it is exact however far back it will be.

        The state of sliding layers is copied when it is about to leave the cache: 335 MB of the 12B, in the budget
        ``model.snapshots``. The session keeps it, until it is rewound to before it or the budget is used up.

        Raises:
            ValueError: The position lies ahead, inside an image, or further back than sliding layers remember.
        """
        return self._points.snapshot(self.position if position is None else position)

    def drop(self, position: int) -> None:
        """Forget the snapshot of a position, if there is one, and give back what it takes of the budget."""
        self._points.drop(position)

    def reachable(self, position: int) -> int:
        """The latest position, ``position`` or before, to which a rewind is exact: 0 always, never inside an image."""
        return self._points.reachable(position)

    def rewind(self, to: Mark | int) -> None:
        """Forget everything after a mark, a snapshot or a position, as if it had never been there.

        Raises:
            ValueError: The mark belongs to another session or was passed by an earlier rewind; or the position lies
                ahead, inside an image, or further back than sliding layers and snapshots remember. The session is
                unchanged.
            OSError: A snapshot could not be read from disk. The session is empty.
        """
        try:
            self._points.rewind(to)
        except ValueError:
            raise
        except BaseException:
            self.reset()
            raise

    def keep(self, position: int) -> int:
        """Rewind to ``position``, or as little further as is exact; return the new position.

        This is ``rewind(reachable(position))``, and it goes on if a snapshot cannot be read from disk.
        """
        with suppress(OSError):  # the session is empty then, and the budget has said why
            self.rewind(self.reachable(position))
        return self.position

    def park(self) -> None:
        """Move what sliding layers hold to the budget of snapshots, so that a session that waits takes little memory.

        Whatever comes next brings it back; where the budget may have lost it, ``keep`` says how far it can go on.
        """
        self._points.park()
        self._hidden = None

    def fork(self, position: int | None = None) -> Session:
        """Another session that begins as this one does, up to ``position``, by default all of it.

        Keys and values are copied, and snapshots are shared; nothing is computed.

        Raises:
            ValueError: A rewind to the position would not be exact; ``reachable`` says where it is.
            OSError: A snapshot could not be read from disk.
        """
        other = Session(self.model, room=self.room)
        other._begin(self._cache.empty())  # with keys and values of as many bits
        self._points.copy_to(other._points, self.position if position is None else position)
        other._content = self.content.copy(other.position)
        return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything that was computed to a file, so that another program can go on from there (``load``).

        The file belongs to this model: its weights, its sizes and the type that it computes in. It appears complete or
        not at all, and replaces only a file that this has written.

        Raises:
            ValueError: It cannot be written, or ``path`` is another file.
            OSError: A snapshot could not be read from disk.
        """
        write(Path(path), "session", identity(self.model), *self.packed())

    @classmethod
    def load(cls, model: Model, path: str | os.PathLike[str]) -> Session:
        """A session that goes on where another one was saved. ``content`` says what it holds.

        Raises:
            ValueError: There is no such file, it is damaged, or another model or version has written it.
            ContextFull: It holds more than the context of the model.
            MemoryFull: The model's budget has too little memory left for it. Nothing was allocated.
        """
        return cls.unpacked(model, read(Path(path), "session", identity(model)))

    def packed(self) -> Packed:
        """What ``save`` writes, for files that hold more than a session."""
        self._points.resume()
        return pack(self._cache, self._points, self.content)

    @classmethod
    def unpacked(cls, model: Model, saved: Saved) -> Session:
        """The session in a file that was read; raises as ``load`` does."""
        session = cls(model, room=room_of(saved))
        session._check_budget(position_of(saved), 1)
        session._content = unpack(saved, model.config, session._cache, session._points)
        return session

    def _take_snapshots(self, wanted: list[int]) -> None:
        """Take those of the sorted positions ``wanted`` that were reached, and remove them."""
        while wanted and wanted[0] <= self.position:
            self.snapshot(wanted.pop(0))

    def _forward(self, rows: mx.array, image_ids: np.ndarray | None, read_from: int) -> mx.array:
        """Rows [1, L, D] → hidden states [1, L - read_from, D]; arguments as the model takes them."""
        start = self.position
        self._points.before_forward(rows.shape[1])
        h = self.model(rows, self._cache, image_ids, read_from=read_from)
        if image_ids is not None:
            self._points.images += [
                (start + int(where[0]), start + int(where[-1]) + 1)
                for where in (np.flatnonzero(image_ids == image) for image in range(image_ids.max() + 1))
            ]
        self.forwards += 1
        self.computed += rows.shape[1]
        return h

    def _sizes(self, wanted: Sequence[int]) -> Iterator[int]:
        """How long the next chunk may be, each time that it is asked.

        Sliding layers must still remember the positions ``wanted`` when it is computed.
        """
        while True:
            ahead = next((position for position in wanted if position > self.position), None)
            yield PREFILL_STEP if ahead is None else min(PREFILL_STEP, ahead - self.position + self.room)


def _checked_room(room: int) -> int:
    if room < MIN_ROOM:
        raise ValueError(f"Expected room for {MIN_ROOM} or more positions, got {room}")
    return room
