"""A part of the sequence: token ids, the type of each position, and the raw media behind the placeholders.

    token_ids      2  105  258880 258880 258880 258880  3689  258881 258881
    token_types    text    image                        text  audio
    patches                one row of pixels each
    patch_xy               (0,0)  (1,0)  (0,1)  (1,1)
    frames                                                    640 samples each

A whole chat is a Prompt, and so are an image between its markers or three words. Slices and sums of Prompts are
Prompts; only an image cannot be cut. numpy only; knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mlx_gemma4.inputs.vision.image import Patches

TEXT, IMAGE, VIDEO, AUDIO = 0, 1, 2, 3
"""Token types, numbered as in transformers' ``mm_token_type_ids``."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """L positions of the sequence."""

    token_ids: np.ndarray
    """[L] int32; placeholders where media stand."""
    token_types: np.ndarray
    """[L] uint8: 0 text, 1 image, 2 video, 3 audio."""
    frames: np.ndarray
    """[audio positions, frame_samples] float32, in order."""
    patches: np.ndarray
    """[image and video positions, patch_values] float32, in order."""
    patch_xy: np.ndarray
    """[image and video positions, 2] int32: (x, y) of each patch."""

    @classmethod
    def from_tokens(cls, token_ids: Sequence[int] | np.ndarray) -> Prompt:
        """Text alone."""
        ids = np.asarray(token_ids, dtype=np.int32).reshape(-1)
        return cls(ids, np.full(len(ids), TEXT, np.uint8), _none(0), _none(0), _none(2).astype(np.int32))

    @classmethod
    def from_frames(cls, frames: np.ndarray, audio_token_id: int) -> Prompt:
        """Frames [F, frame_samples] of sound, to stand inside an audio block."""
        text = cls.from_tokens(np.full(len(frames), audio_token_id))
        types = np.full(len(frames), AUDIO, np.uint8)
        return cls(text.token_ids, types, frames.astype(np.float32, copy=False), text.patches, text.patch_xy)

    @classmethod
    def from_patches(cls, patches: Patches, placeholder: int, kind: int = IMAGE) -> Prompt:
        """One image or video frame, without the markers around it."""
        text = cls.from_tokens(np.full(len(patches), placeholder))
        types = np.full(len(patches), kind, np.uint8)
        return cls(text.token_ids, types, text.frames, patches.pixels, patches.patch_xy)

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def is_vision(self) -> np.ndarray:
        """[L] bool: positions of images and video frames, the ones that attend inside themselves."""
        return (self.token_types == IMAGE) | (self.token_types == VIDEO)

    def __getitem__(self, part: slice) -> Prompt:
        """A stretch of this one.

        Raises:
            ValueError: The cut goes through an image, which must enter a session whole.
        """
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError(f"Expected a slice of a prompt with step 1, got {step}")
        stop = max(start, stop)
        vision, audio = self.is_vision, self.token_types == AUDIO
        for cut in (start, stop):
            if 0 < cut < len(self) and vision[cut - 1] and vision[cut]:
                raise ValueError(f"The cut goes through an image, at {cut} of {len(self)}")
        heard = slice(int(audio[:start].sum()), int(audio[:stop].sum()))
        seen = slice(int(vision[:start].sum()), int(vision[:stop].sum()))
        return Prompt(
            self.token_ids[start:stop],
            self.token_types[start:stop],
            self.frames[heard],
            self.patches[seen],
            self.patch_xy[seen],
        )

    def __add__(self, other: Prompt) -> Prompt:
        return join([self, other])

    def spans(self) -> Iterator[Prompt]:
        """The longest stretches of one type each: text, one image, sound."""
        types = self.token_types
        cuts = [0, *(np.flatnonzero(types[1:] != types[:-1]) + 1).tolist(), len(self)]
        for start, stop in pairwise(cuts):
            if start < stop:
                yield self[start:stop]

    def chunks(self, sizes: Iterator[int]) -> Iterator[Prompt]:
        """Stretches of at most so many positions, or of one image where that is longer; a size is taken for each."""
        vision = np.append(self.is_vision, False)
        start = 0
        while start < len(self):
            stop = min(start + next(sizes), len(self))
            inside = vision[stop - 1] and vision[stop]
            if inside:
                begin = stop - 1
                while begin > start and vision[begin - 1]:
                    begin -= 1
                while vision[stop]:
                    stop += 1
                stop = begin if begin > start else stop
            yield self[start:stop]
            start = stop

    def common_prefix(self, other: Prompt) -> int:
        """How many positions at the start are the same in both, media included; never inside an image."""
        length = min(len(self), len(other))
        same = self.token_ids[:length] == other.token_ids[:length]
        same &= self.token_types[:length] == other.token_types[:length]
        for kind, mine, theirs in (
            (AUDIO, self.frames, other.frames),
            (IMAGE, self.patches, other.patches),
            (IMAGE, self.patch_xy, other.patch_xy),
        ):
            here = self.token_types[:length] == AUDIO if kind == AUDIO else self.is_vision[:length]
            count = min(int(here.sum()), len(theirs))
            if count:  # without media the arrays have no width to compare
                same[np.flatnonzero(here)[:count]] &= (mine[:count] == theirs[:count]).all(axis=1)
        prefix = length if same.all() else int(same.argmin())
        vision = self.is_vision
        while 0 < prefix < len(self) and vision[prefix - 1] and vision[prefix]:
            prefix -= 1
        return prefix


def join(parts: Iterable[Prompt]) -> Prompt:
    """One Prompt from several, in order; at least one."""
    parts = list(parts)
    filled = {name: [getattr(part, name) for part in parts if len(getattr(part, name))] for name in _FIELDS}
    first = parts[0]
    joined = {name: np.concatenate(arrays) if arrays else getattr(first, name) for name, arrays in filled.items()}
    return Prompt(**joined)


_FIELDS = ("token_ids", "token_types", "frames", "patches", "patch_xy")


def _none(width: int) -> np.ndarray:
    return np.zeros((0, width), dtype=np.float32)
