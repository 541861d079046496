"""Logits to a token: greedy, or by mlx-lm's samplers and processors, which are imported only when they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_gemma4.decoder.config import GenerationConfig


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; the default is greedy."""

    temperature: float = 0.0
    """0 takes the most likely token (greedy)."""
    top_k: int = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the most likely tokens that together reach this probability; 1 (or 0, as in mlx-lm) keeps all."""
    min_p: float = 0.0
    """Drop tokens less likely than this fraction of the most likely one."""
    repetition_penalty: float | None = None
    """Lowers the logits of recent tokens by this factor, as mlx-lm does; None changes nothing."""
    seed: int | None = None
    """For ``mx.random``; None leaves the state of the generator as it is."""

    @classmethod
    def from_config(cls, config: GenerationConfig) -> Sampling:
        """The settings of the checkpoint's ``generation_config.json``."""
        return cls(temperature=config.temperature, top_k=config.top_k, top_p=config.top_p)

    def __post_init__(self) -> None:
        for name, most in (("temperature", None), ("top_k", None), ("top_p", 1), ("min_p", 1)):
            value = getattr(self, name)
            # "not >=" and not "<": NaN is out of bounds, too
            if not value >= 0 or not (most is None or value <= most):
                raise ValueError(f"Expected {name} of 0 or more{f', at most {most}' if most else ''}, got {value}")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise ValueError(f"Expected a seed from 0 to {2**64 - 1}, got {self.seed}")
        if self.repetition_penalty is not None and not self.repetition_penalty > 0:
            raise ValueError(f"Expected a repetition_penalty above 0, got {self.repetition_penalty}")


class Sampler:
    """Chooses the next token, and never a suppressed one.

    Args:
        suppress: Ids whose logits become -inf (``Processor.suppressed_ids``).
        history: Ids of the prompt, for the repetition penalty.
    """

    def __init__(
        self, sampling: Sampling, vocab_size: int, *, suppress: Sequence[int] = (), history: Sequence[int] = ()
    ) -> None:
        self._suppressed = _minus_infinity(suppress, vocab_size)
        self._choose: Callable[[mx.array], mx.array] | None = None
        self._processors: list[Callable[[mx.array, mx.array], mx.array]] = []
        self._history = mx.array(np.asarray(history, dtype=np.int32))
        if sampling.seed is not None:
            mx.random.seed(sampling.seed)
        if sampling.temperature > 0:
            from mlx_lm.sample_utils import make_sampler

            # mlx-lm refuses a top_k of vocab_size or more
            top_k = sampling.top_k if sampling.top_k < vocab_size else 0
            self._choose = make_sampler(
                temp=sampling.temperature, top_p=sampling.top_p, min_p=sampling.min_p, top_k=top_k
            )
        if sampling.repetition_penalty is not None:
            from mlx_lm.sample_utils import make_logits_processors

            self._processors = make_logits_processors(repetition_penalty=sampling.repetition_penalty)

    def greedy(self, logits: mx.array) -> list[int]:
        """Logits [L, V] → the most likely token of each row that is not suppressed; evaluated.

        Raises:
            ValueError: A logit is NaN or infinite.
        """
        finite, dtype = are_finite(logits), logits.dtype
        logits = logits.astype(mx.float32)
        if self._suppressed is not None:
            logits = logits + self._suppressed
        tokens = mx.argmax(logits, axis=-1)
        mx.eval(tokens, finite)
        check_finite(finite, dtype)
        return np.array(tokens).tolist()

    def __call__(self, logits: mx.array) -> mx.array:
        """Logits [V] → a token id [], not evaluated."""
        logits = logits.astype(mx.float32)[None]
        for process in self._processors:
            logits = process(self._history, logits)
        if self._suppressed is not None:
            logits = logits + self._suppressed
        if self._choose is None:
            token = mx.argmax(logits, axis=-1)
        else:
            token = self._choose(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        if self._processors:
            self._history = mx.concatenate([self._history, token.astype(mx.int32)])
        return token[0]


def are_finite(logits: mx.array) -> mx.array:
    """Whether logits of any shape are all finite: a bool [], not evaluated, to be computed along with a token.

    Without the check, the most likely token of NaN logits is 0, and the answer is empty.
    """
    return mx.isfinite(mx.sum(logits.astype(mx.float32)))


def check_finite(finite: mx.array, dtype: mx.Dtype) -> None:
    """Evaluate the result of ``are_finite``.

    Args:
        dtype: The logits' type, in which the model computes.

    Raises:
        ValueError: Some logits were NaN or infinite; the message says what to do.
    """
    if finite.item():
        return
    name = str(dtype).rpartition(".")[2]
    if dtype == mx.float16:
        raise ValueError(
            "The model computed NaN in float16, whose range is too small for it: use --dtype bfloat16; "
            "if that computes NaN too, the weights are damaged"
        )
    raise ValueError(
        f"The model computed NaN in {name}: the checkpoint's weights are damaged; download or convert it again"
    )


def _minus_infinity(token_ids: Sequence[int], vocab_size: int) -> mx.array | None:
    inside = [token_id for token_id in token_ids if 0 <= token_id < vocab_size]
    if not inside:
        return None
    added = np.zeros(vocab_size, dtype=np.float32)
    added[inside] = -np.inf
    return mx.array(added)
