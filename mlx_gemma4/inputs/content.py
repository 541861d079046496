"""What a sequence holds, position by position: token ids, and a hash of what stands behind placeholders.

    position   token id   type    hash (128 bits)
    0          2          text    0
    1          258880     image   of all pixels of the image and where they lie: an image is one unit,
    2          258880     image   so it differs from another one at its first position
    3          258881     sound   of the frame's samples
    4          …          text    0, or the id alone, which may be lazy until somebody asks

So a picture is recognised by what it shows and not by its name, and no pixels are kept.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np

from mlx_gemma4.inputs.prompt import AUDIO, IMAGE, TEXT, VIDEO, Prompt

WORDS = 6
"""Words of a row, uint32 each: the id, the type, and four of the hash."""
LAZY = 64
"""Parts that are kept as they came, at most."""


class Content:
    """The rows of a sequence, as it grows.

    Args:
        rows: [L, WORDS] uint32, as ``rows`` gave them.
    """

    def __init__(self, rows: np.ndarray | None = None) -> None:
        self._parts: list[tuple[Any, int]] = [] if rows is None else [(rows, len(rows))]
        """Rows [n, WORDS], or token ids of text, [] or [n], which numpy can read when they are needed; and n."""
        self._length = 0 if rows is None else len(rows)

    @classmethod
    def of(cls, prompt: Prompt) -> Content:
        """The content of a prompt. A second of sound takes 0.1 ms, a picture of 280 patches 9 ms."""
        rows = _text_rows(prompt.token_ids)
        rows[:, 1] = prompt.token_types
        if len(prompt.frames):
            rows[prompt.token_types == AUDIO, 2:] = [_hash(frame) for frame in prompt.frames]
        seen = 0
        for start, stop in _runs(prompt.is_vision):
            part = slice(seen, seen + stop - start)
            rows[start:stop, 2:] = _hash(prompt.patches[part], prompt.patch_xy[part])
            seen = part.stop
        return cls(rows)

    @classmethod
    def of_ids(cls, token_ids: np.ndarray) -> Content:
        """The content of text."""
        return cls(_text_rows(token_ids))

    @classmethod
    def of_frames(cls, frames: np.ndarray, placeholder: int) -> Content:
        """The content of frames of sound [F, frame_samples] float32."""
        rows = np.empty((len(frames), WORDS), np.uint32)
        rows[:, 0], rows[:, 1] = placeholder, AUDIO
        rows[:, 2:] = [_hash(frame) for frame in frames]
        return cls(rows)

    def __len__(self) -> int:
        return self._length

    @property
    def rows(self) -> np.ndarray:
        """[L, WORDS] uint32. Lazy ids are computed."""
        self._merge(len(self._parts))
        rows: np.ndarray = self._parts[0][0] if self._parts else np.zeros((0, WORDS), np.uint32)
        return rows

    @property
    def begins_with_image(self) -> bool:
        """Whether the first position is one of an image, or of a video frame."""
        return len(self) > 0 and int(self.rows[0, 1]) in (IMAGE, VIDEO)

    @property
    def images(self) -> list[tuple[int, int]]:
        """The first position of each image or video frame, and the one after its last."""
        return _runs(np.isin(self.rows[:, 1], (IMAGE, VIDEO)))

    def append(self, other: Content) -> None:
        """Append what another one holds."""
        self._parts.append((other.rows, len(other)))
        self._length += len(other)

    def append_ids(self, ids: Any, count: int) -> None:
        """Append ``count`` token ids of text, [] or [n], which need not be computed."""
        self._parts.append((ids, count))
        self._length += count
        if len(self._parts) > LAZY:
            self._merge(len(self._parts) - 2)  # the last ones may be queued

    def cut(self, length: int) -> None:
        """Forget what lies behind ``length`` positions."""
        while self._length > length:
            part, count = self._parts.pop()
            self._length -= count
            kept = length - self._length
            if kept > 0:
                self._parts.append((part[:kept], kept))
                self._length = length

    def copy(self, length: int) -> Content:
        """The first ``length`` positions, to grow on their own."""
        return Content(self.rows[:length])

    def common_prefix(self, other: Content | Prompt) -> int:
        """How many positions at the start are the same in both, media included; never inside an image."""
        theirs = other if isinstance(other, Content) else Content.of(other)
        length = min(len(self), len(theirs))
        differs = (self.rows[:length] != theirs.rows[:length]).any(axis=1)
        return int(differs.argmax()) if differs.any() else length

    def _merge(self, count: int) -> None:
        """Make one array of the first ``count`` parts."""
        if count > 1 or (count and not _is_rows(self._parts[0][0])):
            parts = [part if _is_rows(part) else _text_rows(np.array(part)) for part, _ in self._parts[:count]]
            rows = np.concatenate(parts)
            self._parts[:count] = [(rows, len(rows))]


def _is_rows(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.ndim == 2


def _text_rows(ids: np.ndarray) -> np.ndarray:
    ids = ids.reshape(-1)
    rows = np.zeros((len(ids), WORDS), np.uint32)
    rows[:, 0], rows[:, 1] = ids, TEXT
    return rows


def _hash(*arrays: np.ndarray) -> np.ndarray:
    digest = blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return np.frombuffer(digest.digest(), np.uint32)


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Where each run of consecutive True begins, and where it ends."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
