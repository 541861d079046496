"""How likely the tokens of an answer were, from the same logits that they are chosen from."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from mlx_gemma4.inputs.text.tokenizer import Tokenizer
from mlx_gemma4.outputs.sample import Sampler, Sampling
from mlx_gemma4.serve.events import TokenChance

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
SPACE = "\u2581"
"""How vocabularies write a space."""


class WatchedSampler(Sampler):
    """A sampler that also keeps how likely its tokens were: as the model says, before temperature and penalties.

    Args:
        alternatives: How many of the most likely tokens are kept beside each one.
    """

    def __init__(
        self, sampling: Sampling, vocab_size: int, *, suppress: Sequence[int], history: Sequence[int], alternatives: int
    ) -> None:
        super().__init__(sampling, vocab_size, suppress=suppress, history=history)
        self._alternatives = alternatives
        self._kept: deque[tuple[mx.array, mx.array, mx.array]] = deque()
        """Of each token, lazily: its log-probability, and the ids of the most likely ones with theirs."""

    def choose(
        self, logits: mx.array, draft: mx.array | None = None, first: int = 0, *, allowed: mx.array | None = None
    ) -> mx.array:
        assert draft is None, "which tokens of a draft are right is not known yet"
        tokens = super().choose(logits, draft, first, allowed=allowed)
        self.see(logits, tokens)
        return tokens

    def see(self, logits: mx.array, tokens: mx.array) -> None:
        """Keep how likely the next tokens [n] are, whether they were chosen or had to follow.

        Args:
            logits: [n, V], before each of them.
        """
        for row, token in zip(logits.astype(mx.float32), tokens, strict=True):
            scores = row - mx.logsumexp(row)
            best = mx.argpartition(-scores, kth=max(self._alternatives - 1, 0))[: self._alternatives]
            self._kept.append((scores[token], best, scores[best]))

    def taken(self, token_id: int, tokenizer: Tokenizer) -> TokenChance:
        """How likely the next token was; ask once for each token, in order."""
        score, best, scores = self._kept.popleft()
        mx.eval(score, best, scores)
        others = sorted(zip(np.array(scores).tolist(), np.array(best).tolist(), strict=True), reverse=True)
        alternatives = tuple(_chance(tokenizer, other, chance) for chance, other in others)
        return _chance(tokenizer, token_id, float(np.array(score)), alternatives)


def _chance(
    tokenizer: Tokenizer, token_id: int, logprob: float, alternatives: tuple[TokenChance, ...] = ()
) -> TokenChance:
    written = tokenizer.token(token_id) or ""
    byte = _BYTE.fullmatch(written)
    if byte is not None:
        return TokenChance(f"\\x{byte[1].lower()}", logprob, bytes.fromhex(byte[1]), alternatives)
    # SentencePiece drops the space of a first word
    spaced = written.startswith(SPACE)
    text = written.replace(SPACE, " ") if spaced else tokenizer.decode([token_id], skip_special=False)
    return TokenChance(text, logprob, text.encode("utf-8"), alternatives)
