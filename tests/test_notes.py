"""What ``listen`` and ``live`` say about a machine that is too slow."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import mlx.nn as nn
import pytest
from reference_cases import media_file

from mlx_gemma4.cli import main
from mlx_gemma4.cli.shared.notes import note_overload
from mlx_gemma4.live.hear.listener import Listener
from mlx_gemma4.live.hear.rhythm import Overload
from mlx_gemma4.live.talk.assistant import Assistant

BEHIND = "The text falls behind: the model needs 1.4 s for each second of speech."
CLOSING = "closing other programs that use the GPU or much memory"


@pytest.mark.parametrize(
    ("bits", "overload", "remedies"),
    [
        (4, Overload(1.4, False, False), CLOSING),
        (8, Overload(1.4, False, False), f"a checkpoint with 4 bits a weight, {CLOSING}"),
        (None, Overload(1.4, False, False), f"a checkpoint with 4 bits a weight, {CLOSING}"),
        (4, Overload(1.4, True, True), f"a larger --guess-every, or none, a shorter --max-segment, {CLOSING}"),
    ],
)
def test_only_what_can_help_is_proposed(
    capsys: pytest.CaptureFixture[str], bits: int | None, overload: Overload, remedies: str
) -> None:
    down_proj = nn.Linear(64, 64) if bits is None else nn.QuantizedLinear(64, 64, bits=bits)
    layer = SimpleNamespace(mlp=SimpleNamespace(down_proj=down_proj))
    model = SimpleNamespace(language_model=SimpleNamespace(model=SimpleNamespace(layers=[layer])))
    listener: Any = SimpleNamespace(model=model, overload=None)
    assert not note_overload(listener)
    listener.overload = overload
    assert note_overload(listener)
    assert capsys.readouterr().err == f"{BEHIND} What may help: {remedies}\n"


def test_a_session_is_told_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Listener, "overload", Overload(1.4, False, False))
    assert main(["listen", "--input", str(media_file("dialogue.wav")), "--fast", "--model", "demo"]) == 0
    assert capsys.readouterr().err.count(BEHIND) == 1
    monkeypatch.setattr(Assistant, "overload", Overload(1.4, False, False))
    question = ["--input", str(media_file("question.wav")), "--no-camera", "--fast", "--model", "demo"]
    assert main(["live", *question, "--max-tokens", "8"]) == 0
    assert capsys.readouterr().err.count(BEHIND) == 1


def test_a_period_of_guesses_is_checked_before_the_model_is_loaded(refused: Callable[..., str]) -> None:
    command = ["listen", "--input", media_file("question.wav"), "--model", "no/such-model", "--guess-every"]
    assert refused(*command, "-1") == "Expected guess_every in seconds, 0 or more, got -1"
