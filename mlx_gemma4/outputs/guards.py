"""Detects answers that are no transcript: loops, more tokens than the time allows, remarks about the audio."""

from __future__ import annotations

import re
from collections.abc import Sequence

TOKENS_PER_SECOND = 12
"""Fast speech has 3 to 4 words a second; a translation doubles them."""
TOKENS_AT_LEAST = 24
"""Allowed in addition, so that a short utterance is not cut."""

LOOP_REPEATS = 4
LOOP_TOKENS = 16
"""A loop repeats the same tokens at least this often, over at least this many tokens in all."""

REMARK = re.compile(
    r"^(i('m| am)? (sorry|unable|cannot|can't)|sorry|please (provide|upload|share)|(the|no|there is no) (audio|sound))"
    r"\b[^.]*\b(audio|speech|sound|recording|provided?|transcribe|hear)\b",
    re.IGNORECASE,
)
"""The beginning of an answer about the audio ("The audio was not provided …") instead of its transcript."""


def most_tokens(seconds: float) -> int:
    """The most tokens that a transcript of ``seconds`` of speech may have."""
    return TOKENS_AT_LEAST + int(TOKENS_PER_SECOND * seconds)


def loop_start(tokens: Sequence[int]) -> int | None:
    """The index where a loop at the end of ``tokens`` repeats for the first time, or None.

    Keeping ``tokens[:loop_start(tokens)]`` keeps what came before the loop and its first round.
    """
    for length in range(1, len(tokens) // LOOP_REPEATS + 1):
        rounds = 1
        while tokens[-length * (rounds + 1) : len(tokens) - length * rounds] == tokens[-length:]:
            rounds += 1
        if rounds >= LOOP_REPEATS and rounds * length >= LOOP_TOKENS:
            return len(tokens) - (rounds - 1) * length
    return None


def is_remark(text: str) -> bool:
    """Whether ``text`` is about the audio instead of a transcript of it."""
    return REMARK.match(text) is not None
