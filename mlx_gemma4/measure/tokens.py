"""KL divergence, top-1 agreement and perplexity of a model against its reference, from the logits of both, in nats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np


@dataclass(frozen=True, eq=False)
class Tokens:
    """The figures of each scored token: [n] float64 each."""

    kl: np.ndarray
    """KL(reference ‖ model) of the predictions of this token."""
    same: np.ndarray
    """1 where both models have the same most likely token."""
    logit_error: np.ndarray
    """Mean over the vocabulary of the squared differences of the logits."""
    nll: np.ndarray
    """Negative log likelihood: -log of the probability of the true token."""
    reference_nll: np.ndarray

    @classmethod
    def join(cls, parts: Sequence[Tokens]) -> Tokens:
        """One from several, at least one."""
        names = ("kl", "same", "logit_error", "nll", "reference_nll")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Scores:
    """The figures over many tokens."""

    tokens: int
    kl: float
    """KL(reference ‖ model), mean over tokens, in nats."""
    kl_p99: float
    """Its 99th percentile."""
    top1: float
    """Top-1 agreement: share of tokens at which both models have the same most likely token."""
    logit_error: float
    """Root mean square of the differences of the logits."""
    perplexity: float
    reference_perplexity: float

    @classmethod
    def of(cls, tokens: Tokens) -> Scores:
        return cls(
            tokens=len(tokens.kl),
            kl=float(tokens.kl.mean()),
            kl_p99=float(np.percentile(tokens.kl, 99)),
            top1=float(tokens.same.mean()),
            logit_error=float(np.sqrt(tokens.logit_error.mean())),
            perplexity=float(np.exp(tokens.nll.mean())),
            reference_perplexity=float(np.exp(tokens.reference_nll.mean())),
        )


def compare(reference: mx.array, model: mx.array, targets: np.ndarray) -> Tokens:
    """Compare logits [n, V] of both models for the tokens ``targets`` [n]."""
    expected, got = _log_softmax(reference), _log_softmax(model)
    true_ids = mx.array(targets)[:, None]
    kl = (mx.exp(expected) * (expected - got)).sum(axis=-1)
    same = reference.argmax(axis=-1) == model.argmax(axis=-1)
    nlls = [-mx.take_along_axis(log_probs, true_ids, axis=-1)[:, 0] for log_probs in (got, expected)]
    squared = mx.square(model.astype(mx.float32) - reference.astype(mx.float32)).mean(axis=-1)
    figures = [np.array(figure.astype(mx.float32), dtype=np.float64) for figure in (kl, same, squared, *nlls)]
    # a KL divergence is never negative, but rounding can make that of two nearly equal distributions -1e-8
    return Tokens(np.maximum(figures[0], 0), *figures[1:])


def _log_softmax(logits: mx.array) -> mx.array:
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)
