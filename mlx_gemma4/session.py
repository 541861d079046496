"""One sequence that grows: text, sound and images go in as they come, in any cut; it can be marked and rewound.

This is where the two columns meet: numpy comes in, the model's rows and logits go out. A session knows nothing of
text, templates or files, and belongs to the thread that made it.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakSet

import mlx.core as mx
import numpy as np

from mlx_gemma4.decoder.cache import DEFAULT_ROOM, Held
from mlx_gemma4.decoder.masks import number_images
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.prompt import AUDIO, IMAGE, TEXT, Prompt
from mlx_gemma4.inputs.vision.image import Patches

PREFILL_STEP = 512
"""Positions computed in one forward, at most (an image longer than this goes in one)."""

MIN_ROOM = 2
"""Generating computes ahead of what it hands out, and takes that back when it ends."""

Piece = Prompt | Patches | Sequence[int] | np.ndarray
"""What a session takes: a Prompt, an image, token ids, or frames of sound (float [F, frame_samples])."""


class Mark:
    """A place in a session to go back to. Valid until the session is rewound to before it."""

    def __init__(self, position: int) -> None:
        self.position = position

    def __repr__(self) -> str:
        return f"Mark({self.position})"


class Session:
    """A growing sequence on a model.

    Args:
        room: How many positions can be rewound once the sequence is longer than the sliding window; each costs the
            memory of one more key and value on every sliding layer. Before that, every rewind is exact anyway.
    """

    def __init__(self, model: Model, *, room: int = DEFAULT_ROOM) -> None:
        if room < MIN_ROOM:
            raise ValueError(f"Expected room for {MIN_ROOM} or more positions, got {room}")
        self.model = model
        self.room = room
        self.forwards = 0
        """Forward passes so far."""
        self.computed = 0
        """Positions computed so far, those that were rewound included."""
        self.reset()

    def reset(self) -> None:
        """Start again with an empty sequence. Marks made before are no longer valid."""
        self._cache = self.model.make_cache(self.room)
        self._images: list[tuple[int, int]] = []
        self._marks: WeakSet[Mark] = WeakSet()

    @property
    def position(self) -> int:
        """Length of the sequence."""
        return self._cache.position

    @property
    def earliest(self) -> int:
        """The furthest position to which a rewind is exact."""
        return self._cache.earliest

    @property
    def nbytes(self) -> int:
        """Memory of the cached keys and values, in bytes."""
        return self._cache.nbytes

    def extend(self, piece: Piece, *, all_logits: bool = False) -> mx.array:
        """Append a piece and return the logits [V] for what comes next; with ``all_logits`` those of all L, [L, V].

        Keys and values are computed when this returns. Logits are lazy: where nobody reads them, the head does
        not run. If it is interrupted, the session is as it was before, or empty if that is out of reach.

        Raises:
            ValueError: The piece is empty, or does not fit the model: ids beyond the vocabulary, media that the
                checkpoint has no weights for, placeholders without media, half an image. The session is unchanged.
        """
        prompt = self._checked(piece)
        start = self.position
        hidden = []
        try:
            for chunk in prompt.chunks(PREFILL_STEP):
                h = self._forward(chunk)
                hidden.append(h if all_logits else h[:, -1:])
                mx.eval(self._cache.arrays)
                if len(chunk) == PREFILL_STEP:
                    mx.clear_cache()  # buffers of a size that will not come again
        except BaseException:
            self._withdraw(start)
            raise
        if all_logits:
            return self.model.logits(mx.concatenate(hidden, axis=1))[0]
        return self.model.logits(hidden[-1])[0, -1]

    def step(self, token: mx.array) -> mx.array:
        """Append one text token that may not be evaluated yet, and return the logits [V] after it, lazily."""
        h = self.model(self.model.embed_tokens(token.reshape(1, 1)), self._cache)
        self.forwards += 1
        self.computed += 1
        return self.model.logits(h)[0, -1]

    def held(self) -> Held:
        """A copy of the keys and values that the next position may see, to decode on in a batch (``Batch``)."""
        return self._cache.held()

    def mark(self) -> Mark:
        """Remember this place, to go back to it with ``rewind``. Costs nothing."""
        mark = Mark(self.position)
        self._marks.add(mark)
        return mark

    def rewind(self, to: Mark | int) -> None:
        """Forget all that came after a mark (or a position): as if it had never been there.

        Raises:
            ValueError: The mark is another session's or was passed by an earlier rewind; the position lies ahead,
                inside an image, or further back than sliding layers remember. The session is unchanged.
        """
        if isinstance(to, Mark) and to not in self._marks:
            raise ValueError(f"Expected a mark of this session that no rewind has passed, got {to}")
        position = to.position if isinstance(to, Mark) else to
        for start, stop in self._images:
            if start < position < stop:
                raise ValueError(f"Expected a position outside images to rewind to, got {position} in {start}–{stop}")
        self._cache.rewind(position)
        self._images = [span for span in self._images if span[1] <= position]
        for mark in [mark for mark in self._marks if mark.position > position]:
            self._marks.discard(mark)

    def _withdraw(self, start: int) -> None:
        """Take back a piece that was interrupted; where sliding layers have moved on too far, start again."""
        if start < self.earliest:
            self.reset()
        else:
            self.rewind(start)

    def _forward(self, chunk: Prompt) -> mx.array:
        rows = [self._rows(run) for run in chunk.spans()]
        vision = chunk.is_vision
        image_ids = number_images(vision) if vision.any() else None
        start = self.position
        h = self.model(rows[0] if len(rows) == 1 else mx.concatenate(rows, axis=1), self._cache, image_ids)
        if image_ids is not None:
            self._images += [
                (start + int(where[0]), start + int(where[-1]) + 1)
                for where in (np.flatnonzero(image_ids == run) for run in range(image_ids.max() + 1))
            ]
        self.forwards += 1
        self.computed += len(chunk)
        return h

    def _rows(self, run: Prompt) -> mx.array:
        """A run of one type → [1, L, D]."""
        if run.token_types[0] == TEXT:
            return self.model.embed_tokens(mx.array(run.token_ids)[None])
        if run.token_types[0] == AUDIO:
            return self.model.embed_frames(mx.array(run.frames)[None])
        return self.model.embed_image(mx.array(run.patches)[None], mx.array(run.patch_xy)[None])

    def _checked(self, piece: Piece) -> Prompt:
        prompt = self._prompt(piece)
        if len(prompt) == 0:
            raise ValueError("Expected something to extend the session with, got an empty piece")
        check_prompt(prompt, self.model)
        if prompt.is_vision[0] and self._images and self._images[-1][1] == self.position:
            raise ValueError("Expected text between two images, got an image right behind another")
        return prompt

    def _prompt(self, piece: Piece) -> Prompt:
        if isinstance(piece, Prompt):
            return piece
        ids = self.model.config.token_ids
        if isinstance(piece, Patches):
            return Prompt.from_patches(piece, _named(ids.image, "image"), IMAGE)
        array = np.asarray(piece)
        if array.ndim == 2 and np.issubdtype(array.dtype, np.floating):
            return Prompt.from_frames(array, _named(ids.audio, "audio"))
        if array.ndim == 1 and (np.issubdtype(array.dtype, np.integer) or array.size == 0):
            return Prompt.from_tokens(array)
        raise ValueError(
            "Expected a Prompt, Patches, token ids [L] or audio frames [F, frame_samples], "
            f"got {array.dtype} {list(array.shape)}"
        )


def _named(token_id: int | None, medium: str) -> int:
    if token_id is None:
        raise ValueError(f"Expected a checkpoint that takes {medium} input, got one that names no {medium} token")
    return token_id


def check_prompt(prompt: Prompt, model: Model) -> None:
    """Check on the numpy side what the model's gathers and products would not: bounds, sizes, counts.

    Raises:
        ValueError: Something does not fit; the message names it.
    """
    config = model.config
    ids = prompt.token_ids
    if ids.min() < 0 or ids.max() >= config.text_config.vocab_size:
        bad = ids[(ids < 0) | (ids >= config.text_config.vocab_size)][0]
        raise ValueError(f"Expected token ids from 0 to {config.text_config.vocab_size - 1}, got {bad}")
    for medium, part, positions, rows in (
        ("audio", config.audio_config, int((prompt.token_types == AUDIO).sum()), prompt.frames),
        ("image", config.vision_config, int(prompt.is_vision.sum()), prompt.patches),
    ):
        if positions != len(rows):
            raise ValueError(f"Expected as much {medium} as there are placeholders ({positions}), got {len(rows)} rows")
        if positions and part is None:
            raise ValueError(f"Expected a checkpoint that takes {medium} input, got one without {medium} weights")
    if config.audio_config is not None and len(prompt.frames):
        _check_width("audio frames", prompt.frames, config.audio_config.audio_embed_dim)
    if config.vision_config is not None and len(prompt.patches):
        _check_width("patches", prompt.patches, config.vision_config.patch_values)
        if prompt.patch_xy.min() < 0 or prompt.patch_xy.max() >= config.vision_config.mm_posemb_size:
            raise ValueError(
                f"Expected patch positions from 0 to {config.vision_config.mm_posemb_size - 1}, "
                f"got up to {prompt.patch_xy.max()}"
            )


def _check_width(name: str, rows: np.ndarray, width: int) -> None:
    if rows.shape[1] != width:
        raise ValueError(f"Expected {name} of {width} values each, got {rows.shape[1]}")
    if not np.isfinite(rows).all():
        raise ValueError(f"Expected finite values in {name}, got NaN or infinity")
