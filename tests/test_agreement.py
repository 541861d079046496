"""Committed words: those on which two guesses in a row agree, and never changed again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gemma4.live.hear.agreement import Agreement, align


def test_two_guesses_agree_on_a_prefix() -> None:
    """Word by word, with the space before each; the rest is draft."""
    agreement = Agreement()
    assert (agreement.add("go forward two"), agreement.committed, agreement.draft) == ("", "", "go forward two")
    assert (agreement.add("go forward ten meters"), agreement.draft) == ("go forward", " ten meters")
    assert (agreement.add("go forward ten meters now"), agreement.committed) == (" ten meters", "go forward ten meters")
    assert agreement.finish("go forward ten meters now please") == (" now please", 0)


def test_words_are_whole() -> None:
    """'for' and 'forward' share letters, not a word."""
    agreement = Agreement()
    agreement.add("go for")
    assert agreement.add("go forward") == "go"


def test_scripts_without_spaces_go_by_characters() -> None:
    agreement = Agreement()
    agreement.add("今日は天")
    assert agreement.add("今日は雨です") == "今日は"
    assert agreement.draft == "雨です"


def test_a_contradiction_commits_nothing_and_hides_its_draft() -> None:
    """What stands stays; what the guess says otherwise is not shown behind it."""
    agreement = Agreement()
    agreement.add("no four")
    agreement.add("no four")
    assert (agreement.add("go forward two"), agreement.committed, agreement.draft) == ("", "no four", "")
    assert agreement.add("no four two") == ""
    assert agreement.add("no four two") == " two"


@pytest.mark.parametrize(
    ("final", "rest", "revised"),
    [
        ("no four two meters", " two meters", 0),
        ("go forward two meters", " two meters", 2),
        ("no go four two", " two", 1),
        ("four two", " two", 1),
        ("no no four two", " two", 1),
        ("no", "", 1),
        ("four", "", 1),
        ("", "", 2),
    ],
)
def test_what_the_final_text_has_otherwise(final: str, rest: str, revised: int) -> None:
    """Words are aligned: one that the final text has more or less moves none of those behind it."""
    agreement = Agreement()
    agreement.add("no four")
    agreement.add("no four")
    assert agreement.finish(final) == (rest, revised)


@given(st.lists(st.sampled_from("abc"), max_size=4), st.lists(st.sampled_from("abc"), max_size=6))
def test_what_is_shown_is_the_final_text_but_for_the_revised_words(shown: list[str], final: list[str]) -> None:
    """Where nothing is revised, the words that stand and the rest are the final text; otherwise they are as many edits
    away from it as are counted, and no cut of it would have needed fewer."""
    behind, revised = align(shown, final)
    assert distance(shown, final[:behind]) == revised
    assert revised == min(distance(shown, final[:cut]) for cut in range(len(final) + 1)) or not shown
    assert revised or shown + final[behind:] == final


def distance(one: list[str], other: list[str]) -> int:
    """Edits from one list of words to another, by the definition."""
    if not one or not other:
        return len(one) + len(other)
    kept = distance(one[1:], other[1:]) + (one[0] != other[0])
    return min(kept, distance(one[1:], other) + 1, distance(one, other[1:]) + 1) if kept else 0


def test_committed_text_only_grows() -> None:
    """Over random guesses, however wild."""
    random = np.random.default_rng(0)
    for _ in range(200):
        agreement, shown = Agreement(), ""
        for _ in range(12):
            guess = " ".join(random.choice(["a", "b", "c"], random.integers(0, 6)).tolist())
            shown += agreement.add(guess)
            assert agreement.committed == shown
