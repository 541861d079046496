"""Follows a constraint token by token: which tokens may come next, and which must.

    {"colour": "            red          "}          the end
    └── forced ──┘   └── chosen ──┘  └─ forced ─┘  └─ forced ─┘

Forced tokens are those of the text's own tokenization, as a prompt has it: the tokenizer encodes the last token and the
forced text behind it, and tokens that could continue into what follows are left to the model (``"colour`` and ``":``
are forced, a space that may belong to the next word is not).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.text.tokenizer import Tokenizer
from mlx_gemma4.outputs.channels import MARKERS, open_thought
from mlx_gemma4.outputs.grammar.constraint import IN_THOUGHT, SHOWN, THINKING, Constraint, library
from mlx_gemma4.outputs.grammar.recursion import with_stack
from mlx_gemma4.outputs.grammar.vocabulary import Vocabulary, vocabulary

THINK = "<|think|>"
"""Templates write it into the prompt where thinking is on."""


@dataclass(frozen=True)
class Guess:
    """A draft as the grammar allows it."""

    tokens: list[int]
    forced: list[bool]
    """Which tokens must follow those before them."""
    is_open: bool
    """Whether the token behind them is chosen."""

    def right(self, choices: Sequence[int]) -> int:
        """How many tokens are right, given the choice before each of them."""
        pairs = enumerate(zip(self.tokens, self.forced, strict=True))
        wrong = (place for place, (token, forced) in pairs if not forced and choices[place] != token)
        return next(wrong, len(self.tokens))


NOTHING = Guess([], [], is_open=True)


class Matcher:
    """The state of one answer under a constraint.

    Args:
        before: The grammar of what comes before the answer (``thoughts_before``).

    Raises:
        ValueError: The constraint cannot be followed with this vocabulary.
    """

    def __init__(self, constraint: Constraint, vocabulary: Vocabulary, before: str | None = None) -> None:
        self.vocabulary = vocabulary
        self._kind = constraint.kind
        written = constraint.written(before)
        self._matcher = with_stack(lambda: library().LLMatcher(vocabulary.tokenizer, written, log_level=0))
        if self._matcher.is_error():
            raise constraint.error(self._matcher.get_error())
        self.mask()

    def take(self, tokens: Sequence[int]) -> None:
        """Take the next tokens of the answer, but not one that ends it.

        Raises:
            ValueError: They are not allowed, or the grammar became too complex.
        """
        if not self._matcher.consume_tokens(list(tokens)):
            self._check()

    def advance(self) -> list[int]:
        """Take the tokens that must come next and return them; the last one ends the answer if it can only end."""
        tokens = self._forced()
        return [*tokens, self.vocabulary.end_id] if self._is_complete() else tokens

    def follow(self, draft: Sequence[int], most: int) -> Guess:
        """Take the tokens of a draft as far as they are allowed, and those that must follow each of them.

        ``masks`` takes them back.

        Args:
            most: How many tokens to take at most.
        """
        tokens: list[int] = []
        forced: list[bool] = []
        at = 0
        while at < len(draft) and len(tokens) < most and self._allows(draft[at]):
            self.take(draft[at : at + 1])
            tokens.append(draft[at])
            forced.append(False)
            run = self._forced()
            if len(tokens) + len(run) > most:
                self._undo(len(run))
                return Guess(tokens, forced, is_open=False)
            tokens += run
            forced += [True] * len(run)
            if self._is_complete():
                return Guess(tokens, forced, is_open=False)
            drafted = list(draft[at + 1 : at + 1 + len(run)])
            if drafted != run[: len(drafted)]:
                break
            at += 1 + len(run)
        return Guess(tokens, forced, is_open=True)

    def masks(self, guess: Guess = NOTHING) -> list[np.ndarray]:
        """The ids that may come behind what is known, and behind each token of a guess, which is taken back.

        Each is [W] uint32, as ``Vocabulary.words`` has them; where the next token is forced, all bits are set.
        """
        chosen = [*(not forced for forced in guess.forced), guess.is_open]
        masks = []
        for place in range(len(guess.tokens), -1, -1):
            masks.append(self.mask() if chosen[place] else np.full_like(self.vocabulary.allowed, 0xFFFFFFFF))
            self._undo(min(place, 1))
        return masks[::-1]

    def mask(self) -> np.ndarray:
        """[W] uint32: the bits of the ids that may come next.

        Raises:
            ValueError: None may, or the grammar became too complex.
        """
        allowed = self.vocabulary.allowed
        words = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint32)[: len(allowed)] & allowed
        self._check()
        if self._matcher.is_accepting():
            words = words | self.vocabulary.stops
        if not words.any():
            raise ValueError(f"The {self._kind} asks for a token that is never chosen; leave that token out")
        return words

    def _forced(self) -> list[int]:
        tokens: list[int] = []
        while run := self._matcher.compute_ff_tokens():
            self.take(run)
            tokens += run
        return tokens

    def _is_complete(self) -> bool:
        """Whether the answer can only end."""
        self._check()
        return bool(self._matcher.is_stopped())

    def _allows(self, token: int) -> bool:
        return token not in self.vocabulary.stop_ids and self._matcher.validate_tokens([token]) == 1

    def _undo(self, count: int) -> None:
        if not self._matcher.rollback(count):
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = " ".join(self._matcher.get_error().partition("<state>")[0].split())[:SHOWN]
            if reason == "NoExtensionBias":
                raise ValueError(f"No text is what the {self._kind} asks for; change it")
            raise ValueError(f"The {self._kind} cannot be followed further; make it simpler: {reason}")


def open_matcher(constraint: Constraint, processor: Processor, prompt: Sequence[int]) -> Matcher:
    """The matcher of an answer to a prompt, of which these are the ids. Thoughts before the answer are free.

    Raises:
        ValueError: The constraint cannot be followed with this vocabulary.
    """
    before = None if constraint.has_thoughts else thoughts_before(processor.tokenizer, prompt)
    return Matcher(constraint, vocabulary(processor), before)


def thoughts_before(tokenizer: Tokenizer, prompt: Sequence[int]) -> str | None:
    """The grammar of the thoughts that may come between a prompt and the answer; None where thinking is off."""
    if any(tokenizer.token_id(marker) is None for marker in MARKERS["thought"]):
        return None
    if open_thought(tokenizer, prompt) is not None:
        return IN_THOUGHT
    return THINKING if tokenizer.token_id(THINK) in prompt else None
