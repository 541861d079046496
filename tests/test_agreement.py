"""Committed words: those on which two guesses in a row agree, and never changed again."""

from __future__ import annotations

import numpy as np

from mlx_gemma4.live.agreement import Agreement


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


def test_what_the_final_text_has_otherwise_is_counted() -> None:
    """The words behind as many words as stand are still to be written."""
    agreement = Agreement()
    agreement.add("no four")
    agreement.add("no four")
    assert agreement.finish("go forward two meters") == (" two meters", 2)
    assert agreement.finish("no") == ("", 1)
    assert agreement.finish("") == ("", 2)


def test_committed_text_only_grows() -> None:
    """Over random guesses, however wild."""
    random = np.random.default_rng(0)
    for _ in range(200):
        agreement, shown = Agreement(), ""
        for _ in range(12):
            guess = " ".join(random.choice(["a", "b", "c"], random.integers(0, 6)).tolist())
            shown += agreement.add(guess)
            assert agreement.committed == shown
