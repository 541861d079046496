"""Two models' logits for the same tokens, compared. Numbers are nats; knows nothing of where logits come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np


@dataclass(frozen=True, eq=False)
class Tokens:
    """What was measured at each scored token: [n] float64 each."""

    kl: np.ndarray
    same: np.ndarray
    """1 where both models have the same most likely token."""
    nll: np.ndarray
    """Negative log likelihood: -log of the probability of the true token."""
    reference_nll: np.ndarray

    @classmethod
    def join(cls, parts: Sequence[Tokens]) -> Tokens:
        """One from several, at least one."""
        names = ("kl", "same", "nll", "reference_nll")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Scores:
    """Means over many tokens."""

    tokens: int
    kl: float
    """KL(reference ‖ model), mean over tokens, in nats."""
    kl_p99: float
    """Its 99th percentile."""
    top1: float
    """Share of tokens at which both models have the same most likely token."""
    perplexity: float
    reference_perplexity: float

    @classmethod
    def of(cls, tokens: Tokens) -> Scores:
        return cls(
            tokens=len(tokens.kl),
            kl=float(tokens.kl.mean()),
            kl_p99=float(np.percentile(tokens.kl, 99)),
            top1=float(tokens.same.mean()),
            perplexity=float(np.exp(tokens.nll.mean())),
            reference_perplexity=float(np.exp(tokens.reference_nll.mean())),
        )


def compare(reference: mx.array, model: mx.array, targets: np.ndarray) -> Tokens:
    """Compare logits [n, V] of both models for the tokens ``targets`` [n]."""
    expected, got = _log_softmax(reference), _log_softmax(model)
    came = mx.array(targets)[:, None]
    kl = (mx.exp(expected) * (expected - got)).sum(axis=-1)
    same = reference.argmax(axis=-1) == model.argmax(axis=-1)
    nlls = [-mx.take_along_axis(each, came, axis=-1)[:, 0] for each in (got, expected)]
    found = [np.array(each.astype(mx.float32), dtype=np.float64) for each in (kl, same, *nlls)]
    # of two all but equal distributions rounding can make it -1e-8, which it never is
    return Tokens(np.maximum(found[0], 0), *found[1:])


def _log_softmax(logits: mx.array) -> mx.array:
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)
