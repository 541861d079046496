"""Drafts of what comes next: by a drafter, a small model beside the model, and by n-grams of what was said before.

A ``Drafter`` remembers what drafts cost and how often they were right, so one object serves all answers of a program.
Each answer has its own ``Drafts``, which know its history.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_gemma4.checkpoint.hub import checkpoint_folder
from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.drafter import DrafterModel, Shared
from mlx_gemma4.decoder.drafter_config import DrafterConfig
from mlx_gemma4.decoder.weights import load_drafter as load_folder
from mlx_gemma4.loading import compute_type
from mlx_gemma4.outputs.ngrams import Ngrams
from mlx_gemma4.outputs.pace import MOST_DRAFTED, Pace
from mlx_gemma4.session import MIN_ROOM, Session

MODEL = "drafter"
"""The source of drafts by a model; the others are called "2-gram", "3-gram", …"""


@dataclass(frozen=True)
class Draft:
    """Tokens that may come next."""

    tokens: mx.array
    """[k] ids, not evaluated where a model drafts them."""
    source: str


class Drafter:
    """Drafts for the answers of a model (``stream_generate``). Text stays what it is; it comes in fewer forwards.

    Args:
        model: A drafter's model (``load_drafter``); None drafts from n-grams alone.
        ngrams: Draft from n-grams of the prompt and the answer, too.
        clock: Measures what drafts cost.

    Raises:
        ValueError: There is nothing to draft from.
    """

    def __init__(
        self,
        model: DrafterModel | None = None,
        *,
        ngrams: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if model is None and not ngrams:
            raise ValueError("There is nothing to draft from: give a drafter's model, or allow n-grams")
        self.model = model
        self.ngrams = ngrams
        self.clock = clock
        self.pace = Pace()
        self.drafted = 0
        """Tokens drafted so far."""
        self.accepted = 0
        """Those of them that were right."""

    def begin(self, session: Session, history: Sequence[int] | np.ndarray, excluded: Sequence[int] = ()) -> Drafts:
        """The drafts of an answer.

        Args:
            history: Ids that n-grams are taken from: the prompt's, and what else may be repeated.
            excluded: Ids that are never chosen.

        Raises:
            ValueError: The drafter's model was made for another model; the message names what differs.
        """
        if self.model is not None:
            check_fit(self.model.config, session.model.config)
        return Drafts(self, session, Ngrams(history, excluded))


class Drafts:
    """The drafts of one answer."""

    def __init__(self, drafter: Drafter, session: Session, ngrams: Ngrams) -> None:
        self._drafter, self._pace, self._session, self._ngrams = drafter, drafter.pace, session, ngrams
        self._most = min(MOST_DRAFTED, session.room - MIN_ROOM)
        self._read_at: float | None = None
        """When the last tokens were known."""

    def waits(self, left: int) -> bool:
        """Whether a draft may follow the token that is being computed: then nothing is queued behind it.

        Args:
            left: Tokens that the answer may still have behind that one.
        """
        # the token itself is not known: an n-gram must foretell it, and another one behind it
        return self._choose(left, ahead=1)[1] > 0

    @property
    def most(self) -> int:
        """The most tokens of a draft."""
        return self._most

    def propose(self, token: mx.array, left: int, *, by_model: bool = True) -> Draft | None:
        """A draft of what follows the last token [1]; None: decode one token.

        Args:
            by_model: False where the session lacks more than the last token: the drafter's model continues from what
                the session holds.
        """
        source, length = self._choose(left, ahead=0, by_model=by_model)
        if length == 0:
            return None
        if source == MODEL:
            assert self._drafter.model is not None
            return Draft(draft_tokens(self._drafter.model, self._session, token, length), source)
        return Draft(mx.array(self._ngrams.find(length)[1]), source)

    def take(self, tokens: Sequence[int], draft: Draft | None = None, *, waited: bool = False) -> None:
        """Take the tokens that are known now: one that was decoded, or what a draft's forward gave.

        Args:
            waited: Whether the forward of a decoded token was queued late, because of ``waits``.
        """
        self._ngrams.add(tokens)
        seconds = self._seconds()
        if draft is not None:
            self._round(draft, len(tokens) - 1, seconds)
        elif seconds is not None:
            self._pace.step(seconds, waited=waited)

    def take_constrained(
        self, tokens: Sequence[int], draft: Draft | None, accepted: int, *, read: int, is_plain: bool, waited: bool
    ) -> None:
        """As ``take``, under a grammar, which forces tokens and cuts drafts.

        Args:
            draft: As it was proposed.
            accepted: How many of its tokens were right. Those that were forced do not count.
            read: Tokens of the draft's forward behind the last known one, forced ones included.
            is_plain: Whether the forward read a single token, and the draft behind it: others say nothing of its cost.
        """
        self._ngrams.add(tokens)
        seconds = self._seconds()
        if draft is not None:
            self._round(draft, accepted, seconds if is_plain else None, read=read)
        elif seconds is not None and is_plain:
            self._pace.step(seconds, waited=waited)

    def forget_time(self) -> None:
        """Others have computed since the last tokens were known: that time says nothing of this answer."""
        self._read_at = None

    def _seconds(self) -> float | None:
        """Seconds since the last tokens were known."""
        before, self._read_at = self._read_at, self._drafter.clock()
        return None if before is None else self._read_at - before

    def _round(self, draft: Draft, accepted: int, seconds: float | None, *, read: int | None = None) -> None:
        self._pace.round(draft.source, draft.tokens.size, accepted, seconds, read=read)
        self._drafter.drafted += draft.tokens.size
        self._drafter.accepted += accepted

    def _choose(self, left: int, *, ahead: int, by_model: bool = True) -> tuple[str, int]:
        most = min(self._most, left)
        sources = {}
        if most > 0 and by_model and self._drafter.model is not None:
            sources[MODEL] = most
        if most > 0 and self._drafter.ngrams:
            length, following = self._ngrams.find(most + ahead)
            if len(following) > ahead:
                sources[f"{length + ahead}-gram"] = len(following) - ahead
        return self._pace.choose(sources)


def draft_tokens(model: DrafterModel, session: Session, token: mx.array, count: int) -> mx.array:
    """What the drafter says after ``token`` [1], which the session does not hold yet: ``count`` ids, not evaluated."""
    hidden, tokens = session.hidden, []
    shared = {name: Shared(seen, session.position) for name, seen in session.shared().items()}
    for _ in range(count):
        state, hidden = model(session.model.embed_tokens(token[None]), hidden, shared)
        logits, ids = model.logits(state[0, -1])
        token = ids[mx.argmax(logits)][None]
        tokens.append(token)
    return mx.concatenate(tokens)


def check_fit(drafter: DrafterConfig, model: Config) -> None:
    """Raise a ValueError if a drafter cannot look into a model's keys and values: it was made for another size."""
    layers = {layer.layer_type: layer for layer in model.text_config.layers}
    pairs = [
        ("hidden_size", drafter.backbone_hidden_size, model.text_config.hidden_size),
        ("vocab_size", drafter.text_config.vocab_size, model.text_config.vocab_size),
    ]
    for layer in drafter.text_config.layers:
        if layer.layer_type not in layers:
            raise ValueError(f"The drafter has a layer of type {layer.layer_type}, and the model has none")
        pairs.append((f"head_dim of {layer.layer_type}", layer.head_dim, layers[layer.layer_type].head_dim))
    for name, expected, actual in pairs:
        if expected != actual:
            raise ValueError(
                f"The drafter was made for another model: its {name} is {expected}, the model's {actual}; "
                "use the drafter of this model, or none"
            )


def load_drafter(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: str | mx.Dtype | None = None,
    ngrams: bool = True,
) -> Drafter:
    """Load a drafter (``gemma4_unified_assistant``).

    Args:
        name: A folder, or a Hugging Face repo id such as ``"google/gemma-4-12B-it-assistant"``; as released or
            converted.
        revision: Branch, tag or commit of the repo.
        dtype: ``"bfloat16"``, ``"float16"`` or ``"float32"`` (or mlx's own) to compute in, instead of the
            checkpoint's.
        ngrams: As for ``Drafter``.

    Raises:
        ValueError: There is no such checkpoint, it is no drafter, or it is broken; the message says what and where.
    """
    compute = compute_type(dtype)
    folder = checkpoint_folder(name, revision=revision, has_tokenizer=False)
    return Drafter(load_folder(folder, dtype=compute), ngrams=ngrams)
