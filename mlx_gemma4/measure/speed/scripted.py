"""Random weights that speak: a model whose forwards cost what they cost, and whose transcripts are given.

A live transcript of random weights would change with every frame, so that no guess could be checked as a draft. Here
every forward is computed as it is, head included; then the token of the script is made the most likely one:

    heard 1.2 s    word 1, word 2, word 3, word 4, end of turn       WORDS_PER_SECOND, as a speaker has them
    heard 1.6 s    word 1, word 2, word 3, word 4, word 5, end       a guess finds its draft right, and one word more
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import mlx.core as mx
import numpy as np

from mlx_gemma4.decoder.cache import Cache
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor

WORDS_PER_SECOND = 3.0
FRAMES_PER_SECOND = 25
WORDS = 100
"""Words of the script: more than the longest utterance has."""
CERTAIN = 29.0
"""Logit of the scripted token, near the cap."""


def scripted_model(model: Model, processor: Processor) -> Model:
    """The model, with a transcript whose length follows the sound that was heard.

    Raises:
        ValueError: The vocabulary has too few words.
    """
    tokens = map(processor.tokenizer.token, range(model.config.text_config.vocab_size))
    words = [index for index, token in enumerate(tokens) if token is not None and _is_word(token)][:WORDS]
    if len(words) < WORDS:
        raise ValueError(f"Expected a vocabulary of {WORDS} or more words, got {len(words)}")
    return cast(Model, _Scripted(model, words, min(processor.stop_ids)))


def _is_word(token: str) -> bool:
    return token[:1] in ("Ġ", "▁") and token[1:].isascii() and token[1:].isalpha()


class _Scripted:
    """Stands in for a Model. Nothing here waits for the device."""

    def __init__(self, model: Model, words: Sequence[int], stop: int) -> None:
        self._model, self._words, self._stop = model, words, stop
        size = model.config.text_config.vocab_size
        following = np.full(size, words[0], dtype=np.int32)
        for word, after in pairwise(words):
            following[word] = after
        self._following = mx.array(following)
        self._vocabulary = mx.arange(size)
        self._token_ids = mx.zeros((1, 0), dtype=mx.int32)
        self._arrived = self._heard = 0
        self._first: int | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed_tokens(self, token_ids: mx.array) -> mx.array:
        self._token_ids = token_ids
        return self._model.embed_tokens(token_ids)

    def embed_frames(self, frames: mx.array) -> mx.array:
        self._arrived += frames.shape[1]
        return self._model.embed_frames(frames)

    def __call__(
        self, h: mx.array, cache: Cache, image_ids: np.ndarray | None = None, *, read_from: int = 0
    ) -> mx.array:
        if self._arrived:
            self._first = cache.position if self._first is None else min(self._first, cache.position)
            before = 0 if cache.position == self._first else self._heard
            self._heard, self._arrived = before + self._arrived, 0
        return self._model(h, cache, image_ids, read_from=read_from)

    def logits(self, hidden: mx.array) -> mx.array:
        """[B, L, D] → [B, L, V]; the last L tokens are those that were embedded last."""
        logits = self._model.logits(hidden)
        last = self._token_ids[:, -hidden.shape[1] :]
        if last.shape[1] < hidden.shape[1]:
            return logits  # rows of sound: nobody asks for a word behind them
        count = min(len(self._words), max(1, round(WORDS_PER_SECOND * self._heard / FRAMES_PER_SECOND)))
        wanted = mx.where(last == self._words[count - 1], self._stop, self._following[last])
        return mx.where(self._vocabulary == wanted[..., None], CERTAIN, logits)
