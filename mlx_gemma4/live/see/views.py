"""What stands before a question: the newest picture, or a memory of pictures as a video. Each is a session.

    Glance   system, turn … │ picture, question ─▶ answer          rewound to │ for every new picture
    Memory   system, turn … picture picture │ picture, question    pictures that are kept stay in the cache

A question computes what is new, and itself, in one forward; then it is rewound with its answer. A picture that is the
same to the last pixel is not computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import IMAGE, Prompt
from mlx_gemma4.inputs.vision.image import Patches
from mlx_gemma4.inputs.vision.video import Film
from mlx_gemma4.outputs.answer import answer
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.outputs.sample import Sampler, Sampling
from mlx_gemma4.session import Session

NOTHING = Prompt.from_tokens([])
MARKERS = 32
"""Positions for the time of a picture and its markers."""
LATE = 5999.0
"""Seconds of a picture whose time, 99:59, differs from 00:00 at its first character."""


class View(Protocol):
    """Pictures in a session, with a question after them."""

    session: Session

    @property
    def tail(self) -> Prompt:
        """The prompt after the pictures: the question and what stands around it."""

    def take(self, pixels: np.ndarray, seconds: float, *, passing: bool = False) -> None:
        """Take a picture, uint8 [H, W, 3], and its time. It is computed with the next question or picture.

        Args:
            passing: The next picture replaces this one.
        """

    def ask(self, draft: Sequence[int] = ()) -> list[int]:
        """The tokens of the answer, including the one that ended it; ``draft`` guesses them."""


class Asking:
    """How a question is asked and answered: greedily, with the last answer as a draft."""

    def __init__(
        self,
        model: Model,
        processor: Processor,
        *,
        question: str,
        system: str | None,
        max_tokens: int,
        drafter: Drafter | None = None,
    ) -> None:
        if max_tokens < 1:
            raise ValueError(f"Expected max_tokens of 1 or more, got {max_tokens}")
        self.processor = processor
        self.model = model
        self.max_tokens = max_tokens
        self._drafter = drafter
        self._question = question
        self._system = system
        self._sampler = Sampler(Sampling(), model.config.text_config.vocab_size, suppress=processor.suppressed_ids)

    def prompt(self, kind: str, medium: Patches | Film) -> Prompt:
        """The whole prompt, as the template writes it: a picture ("image") or a video ("video"), and the question."""
        messages: list[dict[str, Any]] = [{"role": "system", "content": self._system}] if self._system else []
        content = [{"type": kind, kind: medium}, {"type": "text", "text": self._question}]
        return self.processor.prompt([*messages, {"role": "user", "content": content}])

    def answer(self, session: Session, piece: Prompt, draft: Sequence[int]) -> list[int]:
        """Tokens after ``piece``.

        Forwards: one for the piece and one for each further token; or, where the first one is the draft's, one for
        all of the draft that holds.
        """
        [first] = self._sampler.greedy(session.extend(piece)[None])
        if first in self.processor.stop_ids or self.max_tokens == 1:
            return [first]
        rest = answer(
            session,
            Prompt.from_tokens([first]),
            self._sampler,
            stop_ids=self.processor.stop_ids,
            max_tokens=self.max_tokens - 1,
            draft=draft[1:] if draft and draft[0] == first else (),
            drafter=self._drafter,
        )
        return [first, *rest]


class Glance:
    """The newest picture alone. Everything before it is computed once, and so is a picture that stays the same."""

    def __init__(self, asking: Asking, *, image_tokens: int | None = None) -> None:
        self._asking = asking
        self._budget = image_tokens or asking.processor.limits.image_tokens
        blank = asking.processor.patches(_BLANK, image_tokens=self._budget)
        prompt = asking.prompt("image", blank)
        start, stop = _ends(prompt)
        self._head, self._tail = prompt[:start], prompt[stop:]
        self._shown = self._head
        self.session = Session(asking.model, room=self._budget + len(self._tail) + asking.max_tokens)
        self.session.extend(self._head)

    @property
    def tail(self) -> Prompt:
        return self._tail

    def take(self, pixels: np.ndarray, seconds: float, *, passing: bool = False) -> None:
        processor = self._asking.processor
        placeholder = processor.config.token_ids.image
        assert placeholder is not None
        patches = processor.patches(pixels, image_tokens=self._budget)
        self._shown = self._head + Prompt.from_patches(patches, placeholder, IMAGE)

    def ask(self, draft: Sequence[int] = ()) -> list[int]:
        kept = self.session.keep(self.session.content.common_prefix(self._shown))
        tokens = self._asking.answer(self.session, self._shown[kept:] + self._tail, draft)
        self.session.rewind(len(self._shown))
        return tokens


class Memory:
    """The last pictures as one video with their times. Each is computed once.

    A passing picture stays until the next one comes. When there are more than ``size``, the older half leaves and the
    rest is computed again, exactly as a prompt of them.
    """

    def __init__(self, asking: Asking, *, size: int, image_tokens: int | None = None) -> None:
        if size < 1:
            raise ValueError(f"Expected a memory of 1 picture or more, got {size}")
        self._asking = asking
        self._size = size
        self._budget = image_tokens or asking.processor.limits.video_tokens
        self._frames: list[tuple[Patches, float]] = []
        self._new = NOTHING
        self._passing = False
        blank = asking.processor.patches(_BLANK, image_tokens=self._budget)
        prompt = asking.prompt("video", Film((blank,), (0.0,)))
        self._tail = prompt[_ends(prompt)[1] :]
        self._head = prompt[: prompt.common_prefix(asking.prompt("video", Film((blank,), (LATE,))))]
        self.session = Session(asking.model, room=self._budget + MARKERS + len(self._tail) + asking.max_tokens)
        self.session.extend(self._head)
        self.session.snapshot()  # it serves again when the older pictures leave

    @property
    def tail(self) -> Prompt:
        return self._tail

    @property
    def film(self) -> Film:
        """The pictures that are remembered."""
        frames, seconds = zip(*self._frames, strict=True)
        return Film(frames, seconds)

    def take(self, pixels: np.ndarray, seconds: float, *, passing: bool = False) -> None:
        self._drop_passing()
        self._passing = passing
        patches = self._asking.processor.patches(pixels, image_tokens=self._budget)
        self._frames.append((patches, seconds))
        if len(self._frames) > self._size:
            self._frames = self._frames[len(self._frames) // 2 :]
            self._rewind(self._shown(self._frames))
        elif len(self._frames) == 1:
            self._rewind(self._shown(self._frames))
        else:
            if len(self._new):
                self.session.extend(self._new)
            self._new = self._shown(self._frames[-2:])[len(self._shown(self._frames[-2:-1])) :]

    def ask(self, draft: Sequence[int] = ()) -> list[int]:
        end = self.session.position + len(self._new)
        tokens = self._asking.answer(self.session, self._new + self._tail, draft)
        self.session.rewind(end)
        self._new = NOTHING
        return tokens

    def _rewind(self, shown: Prompt) -> None:
        """Rewind to what the session has in common with a prompt; the rest of that is to be computed."""
        kept = self.session.keep(self.session.content.common_prefix(shown))
        self._new = shown[kept:]

    def _drop_passing(self) -> None:
        """Remove a passing picture."""
        if not self._passing:
            return
        self._passing = False
        self._frames.pop()
        self._rewind(self._shown(self._frames) if self._frames else self._head)

    def _shown(self, frames: Sequence[tuple[Patches, float]]) -> Prompt:
        """A prompt of these frames, up to the last one."""
        pictures, seconds = zip(*frames, strict=True)
        prompt = self._asking.prompt("video", Film(pictures, seconds))
        return prompt[: _ends(prompt)[1]]


_BLANK = np.zeros((1, 1, 3), np.uint8)


def _ends(prompt: Prompt) -> tuple[int, int]:
    """Where the pictures of a prompt begin, and where they end."""
    where = np.flatnonzero(prompt.is_vision)
    return int(where[0]), int(where[-1]) + 1
