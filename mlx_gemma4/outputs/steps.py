"""The tokens of an answer, one by one or behind drafts: several tokens are guessed, and one forward reads them all.

    step        the last token ── forward over 1 row ────────────────▶ 1 token
    round       the last token, d1, d2, d3 ── forward over 4 rows ───▶ 1 to 4 tokens
                                                  choices c1 c2 c3 c4
                  d1 = c1, d2 = c2, d3 ≠ c3: c1 c2 c3 are the tokens, and the session is rewound to behind d2

A choice is what the sampler takes from the row's logits, and it draws each token of an answer with a key of its own. So
the text is the same with and without drafts, greedy or sampled (Leviathan et al. 2023, "Fast Inference from
Transformers via Speculative Decoding", with a draft that is a single guess). The exception is a tie: a forward over
several rows rounds differently from one over a single row, so where two tokens are equally likely to the last bit of
the precision, either may be chosen.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import mlx.core as mx
import numpy as np

from mlx_gemma4.decoder.ahead import bounded_ahead
from mlx_gemma4.decoder.budget import allocation_errors
from mlx_gemma4.decoder.head import RowLogits
from mlx_gemma4.outputs.drafter import Draft, Drafts
from mlx_gemma4.outputs.sample import Sampler, check_finite, finite_sum
from mlx_gemma4.outputs.together import Plan, Step, alone, computed
from mlx_gemma4.session import Session

MAX_TOKENS = 256
CLEAR_CACHE_EVERY = 256
"""Tokens between calls of ``mx.clear_cache``: a longer sequence needs other buffers, and MLX keeps the unused ones."""


def generate_step(
    session: Session,
    logits: mx.array | RowLogits,
    sampler: Sampler,
    *,
    max_tokens: int = MAX_TOKENS,
    draft: Sequence[int] = (),
    drafts: Drafts | None = None,
    patience: int = 0,
) -> Generator[int, None, None]:
    """Yield the tokens that follow, the first one chosen from ``logits``.

    The next forward is queued (``mx.async_eval``) before a token is read, so that the device works while the caller
    does; not where a draft may follow it. When the generator ends or is closed, what the caller did not get is rewound:
    the session then holds all tokens that were yielded but the last. It also ends where the session's context is full.

    Args:
        logits: [V], or with ``draft`` those of 1 + len(draft) rows (``Session.row_logits``).
        draft: A guess of the first tokens, which the session holds already.
        drafts: Guesses of all others.
        patience: How many tokens are waited for before the next one is queued. Each answer that ends behind a queued
            token has computed one too many, which a short one does not earn back.

    Raises:
        ValueError: A logit is NaN or infinite.
    """
    return alone(
        generate_plan(session, logits, sampler, max_tokens=max_tokens, draft=draft, drafts=drafts, patience=patience)
    )


def generate_plan(
    session: Session,
    logits: mx.array | RowLogits,
    sampler: Sampler,
    *,
    max_tokens: int = MAX_TOKENS,
    draft: Sequence[int] = (),
    drafts: Drafts | None = None,
    patience: int = 0,
) -> Plan:
    """``generate_step`` for a caller that computes the forwards (``together``)."""
    start, taken, single = session.position - len(draft), 0, 0
    if session.context is not None:
        max_tokens = min(max_tokens, session.context - start + 1)  # the last token does not enter the session
    chosen = _Chosen(sampler, logits, mx.array(list(draft)) if draft else None)
    following: Draft | None = None
    waited = False
    try:
        while True:
            ahead = None
            waits = drafts is not None and chosen.is_single and drafts.waits(max_tokens - taken - 2)
            if chosen.is_single and single >= patience and taken + 1 < max_tokens and not waits:
                ahead = _Chosen(sampler, (yield from computed(Step(session, chosen.tokens.squeeze(0)))))
            tokens = chosen.read()
            if not chosen.is_single:
                session.rewind(start + taken + len(tokens) - 1)
            if drafts is not None:
                drafts.take(tokens, following, waited=waited)
            single = single + 1 if chosen.is_single else 0
            for token in tokens:
                taken += 1
                if taken % CLEAR_CACHE_EVERY == 0:
                    mx.clear_cache()
                yield token
                if taken >= max_tokens:
                    return
            following, waited = None, waits
            if ahead is None:
                last = mx.array(tokens[-1:])
                following = None if drafts is None else drafts.propose(last, max_tokens - taken - 1)
                ahead = yield from _read(session, sampler, last, following)
            chosen = ahead
    finally:
        session.rewind(start + max(taken - 1, 0))


def _read(
    session: Session, sampler: Sampler, last: mx.array, draft: Draft | None
) -> Generator[Step, mx.array | None, _Chosen]:
    """Compute the last token [1], and the draft behind it."""
    if draft is None:
        return _Chosen(sampler, (yield from computed(Step(session, last[0]))))
    logits = yield from computed(Step(session, mx.concatenate([last, draft.tokens])))
    return _Chosen(sampler, logits, draft.tokens)


class _Chosen:
    """Choices of the sampler that are being computed: one, or one behind each token of a draft as well."""

    def __init__(self, sampler: Sampler, logits: mx.array | RowLogits, draft: mx.array | None = None) -> None:
        self._sampler, self._draft, self._dtype = sampler, draft, logits.dtype
        if isinstance(logits, RowLogits):
            blocks = logits.read(lambda block, row: [sampler.choose(block, draft, row), finite_sum(block)])
            tokens, totals = zip(*blocks, strict=True)
            self.tokens = tokens[0] if len(tokens) == 1 else mx.concatenate(list(tokens))
            self._total = sum(totals[1:], start=totals[0])
            with bounded_ahead():
                mx.async_eval(self.tokens, self._total)
        else:
            self.tokens = sampler(logits)[None] if draft is None else sampler.choose(logits, draft)
            self._total = finite_sum(logits)
            mx.async_eval(self.tokens, self._total)

    @property
    def is_single(self) -> bool:
        return self._draft is None

    def read(self) -> list[int]:
        """Wait for the tokens, up to the first one that is not the draft's, and take them."""
        with allocation_errors():
            check_finite(self._total, self._dtype)
            tokens: list[int] = np.array(self.tokens).tolist()
        if self._draft is not None:
            drafted: list[int] = np.array(self._draft).tolist()
            right = next((index for index, token in enumerate(drafted) if tokens[index] != token), len(drafted))
            tokens = tokens[: right + 1]
            self._sampler.take(mx.array(tokens))
        return tokens
