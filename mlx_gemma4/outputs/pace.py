"""How many tokens are worth drafting: from what forwards cost on this machine, and how many drafts were right.

A round reads ``k`` drafted tokens behind the last one, in a forward over ``1 + k`` rows. Where each is right with a
probability of ``a`` if those before it are, the round gives on average

    1 + a + a² + … + a^k   tokens,

so the best ``k`` has the most tokens a second. None is drafted where that is no more than without a draft. And since
any estimate can be wrong, losses are bounded: a round must be affordable even if nothing in it is right. In units of
the time of one token::

    balance = CREDIT + (1 + MOST_LOST) · tokens so far - time that they took
    affordable:  time of the round - 1  ≤  balance

So a program that drafts loses the time of two tokens at most, and one percent, whatever the drafts are.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from mlx_gemma4.decoder.costs import ForwardCosts, assumed

LENGTHS = (1, 2, 4, 7, 9, 15)
"""Lengths of a draft: with the last token, 2, 3, 5, 8, 10 and 16 rows, near which kernels change."""
MOST_DRAFTED = max(LENGTHS)
MOST_LOST = 0.01
"""Share of the time that drafts may cost more than they gain, beyond CREDIT."""
CREDIT = 2.0
"""Tokens whose time may be spent on the first drafts: nothing is known of them yet."""
MOST_SAVED = 16.0
"""Tokens whose time may be put at risk, at most, however much was gained before."""
MEMORY = 0.98
"""What a round leaves of the counts of earlier ones: the last 50 decide."""
RETURN = 0.995
"""What a token without a draft leaves of them: a source that was bad gets another chance after a few hundred tokens."""
PRIORS = {"drafter": (2.0, 1.0), "2-gram": (1.0, 1.5), "3-gram": (1.0, 1.0)}
"""Right and wrong drafted tokens that are assumed of a source; of longer n-grams OTHERS."""
OTHERS = 2.0, 1.0
OUTLIER = 4.0
"""What took so many times longer than expected was waited for: the program was suspended, or a pipe was full."""
UNSEEN = 1.25
"""A round of a size that was not seen yet costs at most so many times its tokens one by one."""


@dataclass
class _Counts:
    """Drafted tokens of a source that were right, and drafts that ended in a wrong one; older ones count less."""

    right: float
    wrong: float
    prior: tuple[float, float]

    @property
    def acceptance(self) -> float:
        return self.right / (self.right + self.wrong)

    def add(self, drafted: int, accepted: int) -> None:
        self.right = MEMORY * self.right + accepted
        self.wrong = MEMORY * self.wrong + (accepted < drafted)

    def forget(self) -> None:
        self.right = self.prior[0] + RETURN * (self.right - self.prior[0])
        self.wrong = self.prior[1] + RETURN * (self.wrong - self.prior[1])


class Pace:
    """Decides from which source to draft, and how much. Sources are names; each has its own acceptance and costs."""

    def __init__(self) -> None:
        self._plain = ForwardCosts()
        self._rounds: dict[str, ForwardCosts] = defaultdict(ForwardCosts)
        self._counts: dict[str, _Counts] = {}
        self._balance = CREDIT
        """Tokens whose time may be lost."""

    def acceptance(self, source: str) -> float:
        """The share of drafted tokens that are right, where all before them are."""
        return self._counts_of(source).acceptance

    def choose(self, sources: dict[str, int]) -> tuple[str, int]:
        """The source and the length of the next draft; a length of 0: decode one token.

        Args:
            sources: The most tokens that each can draft.
        """
        if not self._plain.knows(1):
            return "", 0
        plain = self._plain.seconds(1)
        best, best_rate = ("", 0), 1 / plain
        for source, most in sources.items():
            acceptance, expected = self.acceptance(source), 1.0
            for length in range(1, most + 1):
                expected += acceptance**length
                if length not in LENGTHS and length != most:
                    continue
                if self._dearest(source, length) > (1 + self._balance) * plain:
                    break
                rate = expected / self._cost(source, length)
                if rate > best_rate:
                    best, best_rate = (source, length), rate
        return best

    def step(self, seconds: float, *, waited: bool = False) -> None:
        """A token was decoded without a draft.

        Args:
            waited: Its forward was not queued before the last token was read, because a draft might have followed.
        """
        if not waited:
            self._plain.record(1, seconds)
        if self._plain.knows(1):
            self._account(1, seconds, self._plain.seconds(1))
        for counts in self._counts.values():
            counts.forget()

    def round(
        self, source: str, drafted: int, accepted: int, seconds: float | None, *, read: int | None = None
    ) -> None:
        """A draft was read, of which the first ``accepted`` tokens were right.

        Args:
            seconds: What that took; None: other tokens were read with it, and it counts as what it costs alone.
            read: How many tokens were read for it, if a grammar cut it or filled it up.
        """
        read = drafted if read is None else read
        if self._plain.knows(1):
            expected = self._dearest(source, read)
            self._account(1 + accepted, expected if seconds is None else seconds, expected)
        if seconds is not None:
            self._rounds[source].record(1 + read, seconds)
        self._counts_of(source).add(drafted, accepted)

    def _account(self, tokens: int, seconds: float, expected: float) -> None:
        spent = (expected if seconds > OUTLIER * expected else seconds) / self._plain.seconds(1)
        self._balance = min(self._balance + (1 + MOST_LOST) * tokens - spent, MOST_SAVED)

    def _counts_of(self, source: str) -> _Counts:
        if source not in self._counts:
            prior = PRIORS.get(source, OTHERS)
            self._counts[source] = _Counts(*prior, prior=prior)
        return self._counts[source]

    def _cost(self, source: str, length: int) -> float:
        """Seconds of a round, the draft included. A size that was not seen yet is given the benefit of the doubt."""
        rounds, rows = self._rounds[source], 1 + length
        hoped = self._plain.seconds(1) * assumed(rows)
        if not rounds.measured:
            return hoped
        return rounds.seconds(rows) if rounds.knows(rows) else min(hoped, rounds.seconds(rows))

    def _dearest(self, source: str, length: int) -> float:
        """The most that a round may cost."""
        if self._rounds[source].knows(1 + length):
            return self._cost(source, length)
        return max(self._cost(source, length), UNSEEN * (1 + length) * self._plain.seconds(1))
