"""How much is drafted, on machines whose forwards cost what users report: gains where there are any, bounded losses."""

from __future__ import annotations

import numpy as np
import pytest

from mlx_gemma4.outputs.pace import MOST_DRAFTED, Pace

MACHINES = {
    "H100": {1: 12, 2: 25, 4: 39, 8: 31, 16: 32},
    "M3 Pro": {1: 45, 2: 50, 4: 70, 8: 153, 16: 160},
    "M2 Pro": {1: 45, 2: 60, 4: 150, 8: 320, 16: 330},
    "flat": {1: 45, 2: 46, 4: 47, 8: 50, 16: 55},
    "linear": {rows: 45 * rows for rows in (1, 2, 4, 8, 16)},
}
"""Milliseconds by rows: measured on an H100; M3 Pro and M2 Pro by the ratio of 8 rows to 1 that users report."""
DRAFTING = 3
"""Milliseconds to draft a token."""


def speed(machine: str, right: list[float], count: int, *, seed: int = 0, source: str = "drafter") -> float:
    """How many times faster than without drafts; ``right``: the acceptance in one stretch of the text after another."""
    costs = MACHINES[machine]
    random, pace, spent, tokens = np.random.default_rng(seed), Pace(), 0.0, 0
    while tokens < count:
        chosen, length = pace.choose({source: min(MOST_DRAFTED, count - tokens - 1)})
        if length == 0:
            pace.step(costs[1])
            spent, tokens = spent + costs[1], tokens + 1
            continue
        wrong = random.random(length) >= right[tokens * len(right) // count]
        accepted = int(wrong.argmax()) if wrong.any() else length
        seconds = DRAFTING * length + float(np.interp(1 + length, list(costs), list(costs.values())))
        pace.round(chosen, length, accepted, seconds)
        spent, tokens = spent + seconds, tokens + 1 + accepted
    return tokens * costs[1] / spent


@pytest.mark.parametrize("machine", MACHINES)
def test_drafts_never_cost_more_than_two_percent(machine: str) -> None:
    """From 200 tokens on; of fewer, the time of two tokens. Good and bad drafts, and those that become bad."""
    for right in ([0.0], [0.3], [0.6], [1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]):
        for count in (20, 200, 1000):
            for source in ("drafter", "2-gram"):
                assert speed(machine, right, count, source=source) > (0.98 if count >= 200 else count / (count + 2.2))


def test_good_drafts_pay_where_rows_are_cheap() -> None:
    """On a machine whose 8 rows cost hardly more than one, and on one where they cost 3.4 times as much."""
    assert speed("flat", [0.9], 1000) > 2.5
    assert speed("M3 Pro", [0.9], 1000) > 1.5
    assert speed("M3 Pro", [1.0], 1000) > 2.2
    assert speed("M2 Pro", [0.8], 1000) > 1.1


def test_a_source_gets_another_chance() -> None:
    """Drafts that were bad for long and are good from then on: they are found out."""
    assert speed("flat", [0.0, 1.0, 1.0, 1.0], 4000) > 2


def test_the_better_source_is_chosen() -> None:
    """Once both are known, the one that is right more often drafts, with the length that pays."""
    pace = Pace()
    for _ in range(300):
        pace.step(45)
    for _ in range(20):
        pace.round("drafter", 4, 1, 50)
        pace.round("4-gram", 4, 4, 50)
    assert pace.choose({"drafter": 15, "4-gram": 15})[0] == "4-gram"
    assert pace.choose({"drafter": 15, "4-gram": 15})[1] >= 4
    assert pace.choose({"drafter": 15, "4-gram": 0}) == ("drafter", pace.choose({"drafter": 15})[1])
    assert pace.choose({}) == ("", 0)
    assert pace.acceptance("drafter") < 0.6 < 0.9 < pace.acceptance("4-gram")


def test_nothing_is_drafted_before_a_token_was_measured() -> None:
    assert Pace().choose({"drafter": 15}) == ("", 0)


def test_a_pause_is_no_cost() -> None:
    """The program is suspended for a minute during a token: drafts go on."""
    pace = Pace()
    for _ in range(100):
        pace.step(0.045)
    before = pace.choose({"drafter": 15})
    pace.step(60.0)
    for _ in range(20):
        pace.step(0.045)
    assert before[1] > 0 and pace.choose({"drafter": 15})[1] > 0


def test_what_a_grammar_cuts_or_fills() -> None:
    """A cut draft was wrong; what was read for it is what it cost; what other tokens paid for costs as expected."""
    pace, other = Pace(), Pace()
    for each in (pace, other):
        each.step(1.0)
        each.round("drafter", 4, 2, 2.0)
    pace.round("drafter", 4, 1, 2.0)
    other.round("drafter", 4, 1, 1.3, read=1)
    assert pace.acceptance("drafter") == other.acceptance("drafter")
    assert other._rounds["drafter"].seconds(2) == 1.3
    balance = other._balance
    other.round("drafter", 4, 1, None, read=4)
    assert other._balance == pytest.approx(balance + 1.01 * 2 - 2.0)
    assert other._rounds["drafter"].seconds(5) == 2.0
