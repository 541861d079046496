"""What a model may say that is no transcript: loops, more words than fit into the time, remarks about the sound."""

from __future__ import annotations

import re
from collections.abc import Sequence

TOKENS_PER_SECOND = 12
"""Fast speech has 3 to 4 words a second; a translation doubles them."""
TOKENS_AT_LEAST = 24

LOOP_REPEATS = 4
LOOP_TOKENS = 16
"""A loop is one stretch, repeated at least this often, over at least this many tokens."""

REMARK = re.compile(
    r"^(i('m| am)? (sorry|unable|cannot|can't)|sorry|please (provide|upload|share)|(the|no|there is no) (audio|sound))"
    r"\b[^.]*\b(audio|speech|sound|recording|provided?|transcribe|hear)\b",
    re.IGNORECASE,
)
"""How an answer about the sound begins ("The audio was not provided …"), instead of its words."""


def most_tokens(seconds: float) -> int:
    """How many tokens the text of ``seconds`` of speech may have."""
    return TOKENS_AT_LEAST + int(TOKENS_PER_SECOND * seconds)


def loop_start(tokens: Sequence[int]) -> int | None:
    """Where the second round of a loop at the end of ``tokens`` begins, None where there is no loop."""
    for length in range(1, len(tokens) // LOOP_REPEATS + 1):
        rounds = 1
        while tokens[-length * (rounds + 1) : len(tokens) - length * rounds] == tokens[-length:]:
            rounds += 1
        if rounds >= LOOP_REPEATS and rounds * length >= LOOP_TOKENS:
            return len(tokens) - (rounds - 1) * length
    return None


def is_remark(text: str) -> bool:
    """Whether ``text`` speaks about the sound instead of being what was said."""
    return REMARK.match(text) is not None
