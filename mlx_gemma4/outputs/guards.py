"""Detects answers that go wrong: loops; of transcripts also too many words and remarks about the audio.

A loop is what a model falls into when it repeats itself: the same tokens, round after round, to the end. A transcript
has no reason to, so four rounds are a loop. Other text may: a table of zeros, a refrain, a ruler of hyphens. So an
answer is stopped late, and only where it may go on for ever (``LoopGuard``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

TOKENS_PER_SECOND = 12
"""Fast speech has 3 to 4 words a second; a translation doubles them."""
TOKENS_AT_LEAST = 24
"""Allowed in addition, so that a short utterance is not cut."""

LOOP_REPEATS = 4
LOOP_TOKENS = 16
"""A loop of a transcript repeats the same tokens at least this often, over at least this many tokens in all."""
THOUGHT_REPEATS, THOUGHT_TOKENS = 4, 256
"""The same of a thought,"""
TEXT_REPEATS, TEXT_TOKENS = 8, 512
"""and of the text of an answer."""
WINDOW = 2048
"""Tokens in which an answer's loop is looked for: its rounds have at most this many by the number of repeats."""
LOOK_EVERY = 16
"""Tokens from one look to the next."""

REMARK = re.compile(
    r"^(i('m| am)? (sorry|unable|cannot|can't)|sorry|please (provide|upload|share)|(the|no|there is no) (audio|sound))"
    r"\b[^.]*\b(audio|speech|sound|recording|provided?|transcribe|hear)\b",
    re.IGNORECASE,
)
"""The beginning of an answer about the audio ("The audio was not provided …") instead of its transcript."""


def most_tokens(seconds: float) -> int:
    """The most tokens that a transcript of ``seconds`` of speech may have."""
    return TOKENS_AT_LEAST + int(TOKENS_PER_SECOND * seconds)


def loop_start(tokens: Sequence[int], repeats: int = LOOP_REPEATS, least: int = LOOP_TOKENS) -> int | None:
    """The index where a loop at the end of ``tokens`` repeats for the first time, or None.

    Keeping ``tokens[:loop_start(tokens)]`` keeps what came before the loop and its first round.

    Args:
        repeats: Rounds of a loop, at least.
        least: Tokens of a loop, at least.
    """
    for length in range(1, len(tokens) // repeats + 1):
        if tokens[-1 - length] != tokens[-1]:
            continue
        rounds = 1
        while tokens[-length * (rounds + 1) : len(tokens) - length * rounds] == tokens[-length:]:
            rounds += 1
        if rounds >= repeats and rounds * length >= least:
            return len(tokens) - (rounds - 1) * length
    return None


class LoopGuard:
    """Finds an answer that repeats itself, while it is generated.

    Args:
        text: Whether the text is looked at, too, and not only thoughts. A grammar may want repetition.
    """

    def __init__(self, *, text: bool = True) -> None:
        self._text = text
        self._thinking = False
        self._tokens: list[int] = []

    def push(self, token: int, *, thinking: bool) -> bool:
        """Take the next token; return whether the answer is in a loop."""
        if thinking != self._thinking:
            self._thinking, self._tokens = thinking, []
        self._tokens.append(token)
        if len(self._tokens) % LOOK_EVERY or not (thinking or self._text):
            return False
        last = self._tokens[-WINDOW:]
        if thinking:
            return loop_start(last, THOUGHT_REPEATS, THOUGHT_TOKENS) is not None
        return loop_start(last, TEXT_REPEATS, TEXT_TOKENS) is not None


def before_loop(tokens: Sequence[int]) -> int:
    """How many tokens of an answer that ``LoopGuard`` stopped come before the loop, its first round included."""
    start = loop_start(tokens, THOUGHT_REPEATS, THOUGHT_TOKENS)  # these bounds are lower than those of text
    return len(tokens) if start is None else start


def is_remark(text: str) -> bool:
    """Whether ``text`` is about the audio instead of a transcript of it."""
    return REMARK.match(text) is not None
