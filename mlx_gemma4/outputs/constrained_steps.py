"""The tokens of an answer that follows a grammar (``Matcher``), one by one or behind drafts.

    tokens      {"colour": "  red  ", "shape": "  circle  "}  end
                └─ forced ──┘  c   └── forced ─┘    c    └ forced ┘      c is chosen
    forwards    1: what comes before c    1: c, and what comes before the next c    …

Tokens that must come next cost no choice: they are handed out at once, and the next forward reads them together with
the chosen token before them. A draft is followed in the grammar before it is read; what the grammar forces in it is
filled in, and it ends where the grammar does not allow it. So the text is the same with and without drafts.

The host waits once for each forward. While the device computes it, the host finds out which tokens may be chosen behind
it: that needs only the tokens so far. After a while without forced tokens, the next forward is queued before a token is
read, as ``generate_step`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import mlx.core as mx
import numpy as np

from mlx_gemma4.decoder.budget import allocation_errors
from mlx_gemma4.outputs.drafter import Draft, Drafts
from mlx_gemma4.outputs.grammar.matcher import NOTHING, Guess, Matcher
from mlx_gemma4.outputs.sample import Sampler, check_finite, finite_sum
from mlx_gemma4.outputs.steps import CLEAR_CACHE_EVERY, MAX_TOKENS, generate_plan
from mlx_gemma4.outputs.together import Plan, Step, computed
from mlx_gemma4.session import Session

PATIENCE = 12
"""Chosen tokens without a forced one before the next forward is queued early: before forced ones it is superfluous."""
AT_ONCE = 64
"""Forced tokens that are read in the same forward as what follows them, at most."""

Watch = Callable[[mx.array, mx.array], None]
"""Takes note of tokens [n] that had to follow, and of the logits [n, V] that they would have been chosen from."""


def constrained_plan(
    session: Session,
    logits: mx.array,
    sampler: Sampler,
    matcher: Matcher,
    *,
    max_tokens: int = MAX_TOKENS,
    drafts: Drafts | None = None,
    watch: Watch | None = None,
    patience: int = PATIENCE,
) -> Plan:
    """Yield the tokens that follow, up to one that ends the answer.

    When the generator ends or is closed, the session holds all tokens that were yielded but the last.

    Args:
        logits: [V], which the first token is chosen from if it is not forced.
        drafts: Guesses of all others.
        watch: Called for forced tokens before they are yielded. They are computed one run earlier than otherwise, and
            not behind drafts.
        patience: How many tokens are chosen in a row behind a forced one before the next forward is queued early.

    Raises:
        ValueError: A logit is NaN or infinite, or the grammar became too complex.
    """
    if session.context is not None:
        max_tokens = min(max_tokens, session.context - session.position + 1)  # the last token does not enter it
    assert drafts is None or watch is None
    steps = _Steps(session, logits, sampler, matcher, drafts, watch)
    try:
        known = steps.begin(max_tokens)
        single = 0 if known else patience
        while True:
            for token in known:
                steps.tokens.append(token)
                if len(steps.tokens) % CLEAR_CACHE_EVERY == 0:
                    mx.clear_cache()
                yield token
                if len(steps.tokens) >= max_tokens or token in matcher.vocabulary.stop_ids:
                    return
            known = yield from steps.next(max_tokens - len(steps.tokens), may_queue=single >= patience)
            single = single + 1 if len(known) == 1 else 0
    finally:
        steps.settle()


def answer_plan(
    session: Session,
    logits: mx.array,
    sampler: Sampler,
    matcher: Matcher | None,
    *,
    max_tokens: int = MAX_TOKENS,
    drafts: Drafts | None = None,
    watch: Watch | None = None,
) -> Plan:
    """``constrained_plan``, or ``generate_plan`` where nothing has to be followed."""
    if matcher is None:
        return generate_plan(session, logits, sampler, max_tokens=max_tokens, drafts=drafts)
    return constrained_plan(session, logits, sampler, matcher, max_tokens=max_tokens, drafts=drafts, watch=watch)


class _Steps:
    """The tokens of an answer, its session, and what is computed ahead."""

    def __init__(
        self,
        session: Session,
        logits: mx.array,
        sampler: Sampler,
        matcher: Matcher,
        drafts: Drafts | None,
        watch: Watch | None,
    ) -> None:
        self.tokens: list[int] = []
        """Those that were yielded. The session may lack the last ones."""
        self._session, self._sampler, self._matcher = session, sampler, matcher
        self._drafts, self._watch = drafts, watch
        self._start = session.position
        self._logits = logits
        """[V]: what follows the session's end, where the session lacks nothing."""
        self._waited = False
        """The next forward was not queued early, because a draft might have followed."""

    def begin(self, left: int) -> list[int]:
        """The forced tokens that the answer begins with.

        Args:
            left: Tokens that the answer may have.
        """
        return self._with_forced([], left)

    def next(self, left: int, *, may_queue: bool) -> Generator[Step, mx.array | None, list[int]]:
        """Choose the next token, or several behind a draft, and add what is forced behind them.

        Args:
            left: Tokens that the answer may still have.
            may_queue: Whether a forward may be queued behind the chosen token before it is read.
        """
        lacking = self.tokens[self._session.position - self._start :]
        draft, guess = self._guess(lacking, left - 1)
        logits = yield from self._read(lacking, guess)
        mx.async_eval(logits)
        chosen, total = self._choose(logits, guess), finite_sum(logits)
        mx.async_eval(chosen, total)
        waits = self._drafts is not None and self._drafts.waits(left - 2)
        if may_queue and not guess.tokens and left > 1 and not waits:
            self._logits = yield from computed(Step(self._session, chosen.squeeze(0)))
            mx.async_eval(self._logits)
        with allocation_errors():
            check_finite(total, logits.dtype)
            choices: list[int] = np.array(chosen).tolist()
        right = guess.right(choices)
        if guess.tokens:
            self._session.rewind(self._start + len(self.tokens) + right)
        known = guess.tokens[:right]
        if right < len(guess.tokens) or guess.is_open:
            known.append(choices[right])
        known = self._with_forced(known, left)
        if self._drafts is not None:
            self._drafts.take_constrained(
                known,
                draft,
                guess.forced[:right].count(False),
                read=len(guess.tokens),
                is_plain=len(lacking) <= 1,
                waited=self._waited,
            )
        self._waited = waits
        return known

    def settle(self) -> None:
        """Make the session hold all tokens that were yielded but the last."""
        end = self._start + max(len(self.tokens) - 1, 0)
        if self._session.position > end:
            self._session.rewind(end)
        self._feed(self.tokens[self._session.position - self._start : end - self._start])

    def _with_forced(self, known: list[int], left: int) -> list[int]:
        """Take tokens, and those that must follow them; return both."""
        chosen = len(known)
        self._matcher.take([token for token in known if token not in self._matcher.vocabulary.stop_ids])
        if not known or known[-1] not in self._matcher.vocabulary.stop_ids:
            known = [*known, *self._matcher.advance()]
        self._sampler.take(mx.array(known, dtype=mx.int32))
        if self._watch is not None:
            self._show(known[:chosen], known[chosen:left], self._watch)
        return known

    def _show(self, chosen: list[int], forced: list[int], watch: Watch) -> None:
        """Compute what comes before forced tokens, and let them be watched."""
        lacking = [*self.tokens, *chosen, *forced][self._session.position - self._start :]
        if forced and len(lacking) == len(forced):  # the logits before the first one are there
            watch(self._logits[None], mx.array(forced[:1]))
            forced = forced[1:]
        for begin in range(0, len(forced), AT_ONCE):
            block = mx.array(lacking[begin : begin + min(AT_ONCE, len(forced) - begin)])
            watch(self._session.step(block, logits_from=0), mx.array(forced[begin : begin + AT_ONCE]))

    def _guess(self, lacking: list[int], most: int) -> tuple[Draft | None, Guess]:
        """A draft of what follows the tokens that the session lacks, and what the grammar makes of it."""
        if self._drafts is None or not lacking:
            return None, NOTHING
        draft = self._drafts.propose(mx.array(lacking[-1:]), most, by_model=len(lacking) == 1)
        if draft is None:
            return None, NOTHING
        return draft, self._matcher.follow(np.array(draft.tokens).tolist(), min(most, self._drafts.most))

    def _read(self, lacking: list[int], guess: Guess) -> Generator[Step, mx.array | None, mx.array]:
        """Compute what the session lacks, and the guess behind it: the logits [1 + k, V] from there on."""
        if not lacking:
            return self._logits[None]
        if len(lacking) > AT_ONCE:
            self._feed(lacking[:-1])
            lacking = lacking[-1:]
        return (yield from computed(Step(self._session, mx.array([*lacking, *guess.tokens]), len(lacking) - 1)))

    def _feed(self, tokens: list[int]) -> None:
        """Compute tokens that are known. If there are many, as a prompt, whose memory is bounded."""
        if len(tokens) > AT_ONCE:
            self._session.extend(tokens)
        elif tokens:
            self._session.step(mx.array(tokens), logits_from=len(tokens) - 1)

    def _choose(self, logits: mx.array, guess: Guess) -> mx.array:
        """The token [1 + k] behind what is known and behind each token of the guess, not evaluated."""
        allowed = mx.array(np.stack(self._matcher.masks(guess)))
        return self._sampler.choose(logits, mx.array(guess.tokens) if guess.tokens else None, allowed=allowed)
