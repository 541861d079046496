"""Logits to a token: greedy, or by mlx-lm's samplers and processors, which are imported only when they are used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

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
    """Gives the same answer each time; None draws from ``mx.random``, so that ``mx.random.seed`` decides."""

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
    """Chooses the tokens of one answer, one after the other, and never a suppressed one.

    Every token is drawn with a key of its own, which follows from the seed and the token's place in the answer. So a
    seed gives the same answer whether its tokens are chosen one by one or, behind a draft, several at once.

    Args:
        suppress: Ids whose logits become -inf (``Processor.suppressed_ids``).
        history: Ids of the prompt, for the repetition penalty.
    """

    def __init__(
        self, sampling: Sampling, vocab_size: int, *, suppress: Sequence[int] = (), history: Sequence[int] = ()
    ) -> None:
        self.suppressed = tuple(suppress)
        self._is_suppressed = _are_among(suppress, vocab_size)
        self._temperature = sampling.temperature
        self._filters: list[Callable[[mx.array], mx.array]] = []
        self._penalties: list[Callable[[mx.array, mx.array], mx.array]] = []
        self._history = mx.array(np.asarray(history, dtype=np.int32))
        self._key = mx.random.key(0)
        self._count = 0
        """Tokens chosen so far."""
        if sampling.temperature > 0:
            self._filters = _filters(sampling, vocab_size)
            # without a seed, the state of mlx's own generator decides
            seed = sampling.seed
            drawn = mx.random.randint(0, 2**31, (2,), dtype=mx.uint32) if seed is None else mx.random.key(seed)
            self._key = mx.random.split(drawn)[0]
        if sampling.repetition_penalty is not None:
            from mlx_lm.sample_utils import make_logits_processors

            self._penalties = make_logits_processors(repetition_penalty=sampling.repetition_penalty)

    def greedy(self, logits: mx.array) -> list[int]:
        """Logits [L, V] → the most likely token of each row that is not suppressed; evaluated.

        Raises:
            ValueError: A logit is NaN or infinite.
        """
        tokens, total = mx.argmax(self._allowed(logits), axis=-1), finite_sum(logits)
        mx.eval(tokens, total)
        check_finite(total, logits.dtype)
        return np.array(tokens).tolist()

    def __call__(self, logits: mx.array) -> mx.array:
        """Logits [V] → the next token of the answer [], not evaluated."""
        token = self.choose(logits[None])
        self.take(token)
        return token.squeeze(0)

    def choose(
        self, logits: mx.array, draft: mx.array | None = None, first: int = 0, *, allowed: mx.array | None = None
    ) -> mx.array:
        """Logits [R, V] → the token of each row [R], not evaluated and not taken.

        Args:
            draft: [R - 1] ids, which may be lazy: row r is chosen as if the first r of them were taken before it.
            first: The number of the first of these rows, if there are others before them.
            allowed: [R, W] uint32: row r is chosen among the ids whose bits are set, 32 of them in a word, the lowest
                bit first. By default among all that are not suppressed.
        """
        if self._penalties or self._temperature > 0:
            logits = logits.astype(mx.float32)
        if self._penalties:
            logits = self._penalized(logits, draft, first)
        logits = self._allowed(logits)
        if allowed is not None:
            logits = mx.where(_bits(allowed, logits.shape[-1]), logits, -mx.inf)
        if self._temperature == 0:
            return mx.argmax(logits, axis=-1)
        logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        return mx.concatenate([self._draw(logits[row : row + 1], first + row) for row in range(len(logits))])

    def take(self, tokens: mx.array) -> None:
        """Take the next tokens of the answer, ids [n], which may be lazy."""
        self._count += tokens.size
        if self._penalties:
            self._history = mx.concatenate([self._history, tokens.astype(mx.int32)])

    def _allowed(self, logits: mx.array) -> mx.array:
        return logits if self._is_suppressed is None else mx.where(self._is_suppressed, -mx.inf, logits)

    def _penalized(self, logits: mx.array, draft: mx.array | None, first: int) -> mx.array:
        history = self._history
        if draft is not None:
            history = mx.concatenate([history, draft.astype(mx.int32)])
        rows = []
        for index in range(len(logits)):
            row, known = logits[index : index + 1], history[: self._history.size + first + index]
            for process in self._penalties:
                row = process(known, row)
            rows.append(row)
        return mx.concatenate(rows)

    def _draw(self, logits: mx.array, row: int) -> mx.array:
        """A token [1] from the log-probabilities [1, V] of a row."""
        for keep in self._filters:  # row by row: mlx-lm compiles them for each shape
            logits = keep(logits)
        key = mx.random.split(self._key + mx.array([0, self._count + row], dtype=mx.uint32), 1)[0]
        return mx.random.categorical(logits / self._temperature, key=key)


def _filters(sampling: Sampling, vocab_size: int) -> list[Callable[[mx.array], mx.array]]:
    """Keep the likelier tokens of log-probabilities [1, V], in mlx-lm's order."""
    from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

    filters: list[Callable[[mx.array], mx.array]] = []
    if 0 < sampling.top_p < 1:
        filters.append(partial(apply_top_p, top_p=sampling.top_p))
    if sampling.min_p > 0:
        filters.append(partial(apply_min_p, min_p=sampling.min_p))
    if 0 < sampling.top_k < vocab_size:  # mlx-lm refuses a larger one
        filters.append(partial(apply_top_k, top_k=sampling.top_k))
    return filters


def finite_sum(logits: mx.array) -> mx.array:
    """A number [], not evaluated, that is finite if logits of any shape all are: to be computed along with a token.

    Without the check, the most likely token of NaN logits is 0, and the answer is empty.
    """
    # the sum of 262,144 capped logits is beyond float16
    return mx.sum(logits.astype(mx.float32) if logits.dtype == mx.float16 else logits)


def check_finite(total: mx.array, dtype: mx.Dtype) -> None:
    """Evaluate the result of ``finite_sum``.

    Args:
        dtype: The logits' type, in which the model computes.

    Raises:
        ValueError: Some logits were NaN or infinite; the message says what to do.
    """
    if math.isfinite(total.item()):  # type: ignore[arg-type]
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


def _bits(words: mx.array, count: int) -> mx.array:
    """Words [R, W] uint32 → their first ``count`` bits [R, count] as booleans, the lowest bit of each word first."""
    bits = (words[..., None] >> mx.arange(32, dtype=mx.uint32)) & 1
    return bits.reshape(len(words), -1)[:, :count].astype(mx.bool_)


def _are_among(token_ids: Sequence[int], vocab_size: int) -> mx.array | None:
    """[V] bool: which ids of the vocabulary are listed; None if none is."""
    inside = [token_id for token_id in token_ids if 0 <= token_id < vocab_size]
    if not inside:
        return None
    among = np.zeros(vocab_size, dtype=bool)
    among[inside] = True
    return mx.array(among)
