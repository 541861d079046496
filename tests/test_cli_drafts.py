"""``--draft-model`` and ``--draft``: the text stays what it is, and what cannot be is refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drafters import Eager, save_random
from golden import clearest, said, seen
from reference_cases import REFERENCE, media_file

from mlx_gemma4 import Model, Processor
from mlx_gemma4.cli import main, parse
from mlx_gemma4.cli.shared.drafts import open_drafter
from mlx_gemma4.outputs import drafter as drafter_module

SPEECH = str(media_file("hibari-03.wav"))
PICTURE = str(media_file("picture-01.png"))
DEMO = ("--model", "demo", "--dtype", "float32")
COMMANDS = {
    "generate": ("-p", "Describe the image.", "--image", PICTURE, "--temp", "0"),
    "chat": (),
    "transcribe": (SPEECH,),
    "listen": ("--input", SPEECH, "--fast"),
    "describe": (PICTURE,),
    "watch": (PICTURE,),
    "live": ("--no-sound", "--camera", PICTURE),
}

Refused = Callable[..., str]


@pytest.mark.parametrize("command", COMMANDS)
def test_options_that_exclude_each_other(command: str, refused: Refused) -> None:
    """In every command, and before the model is loaded."""
    for draft in ("none", "ngram"):
        message = refused(command, *COMMANDS[command], "--model", "nowhere", "--draft-model", "x", "--draft", draft)
        assert message == f"--draft {draft} does not use --draft-model; leave out one of them"


def test_what_is_no_drafter(refused: Refused) -> None:
    """The message names the model's drafter, or the option for a drafter."""
    message = refused("generate", *DEMO, "-p", "Hi", "--draft-model", "demo")
    assert message == (
        "Expected a drafter (model_type gemma4_unified_assistant), got 'gemma4_unified'; the one of the 12B is "
        "google/gemma-4-12B-it-assistant"
    )
    folder = str(REFERENCE / "drafter" / "checkpoint")
    message = refused("generate", "--model", folder, "-p", "Hi")
    assert message == (
        "This is a drafter, which runs beside a model: name the model with --model, and this with --draft-model"
    )
    message = refused("generate", *DEMO, "-p", "Hi", "--draft-model", folder)
    assert message.startswith("The drafter was made for another model: its hidden_size is 64, the model's 256;")


@pytest.mark.parametrize("draft", ["none", "ngram", "model"])
def test_the_text_stays(
    draft: str,
    demo: tuple[Model, Processor],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a picture and of speech, one command after the other, with drafts of random weights wherever possible."""
    monkeypatch.setattr(drafter_module, "Pace", Eager)
    save_random(demo[0], tmp_path / "drafter")
    drafts: list[drafter_module.Drafter] = []
    begin = drafter_module.Drafter.begin

    def begun(self: drafter_module.Drafter, *arguments: Any) -> drafter_module.Drafts:
        drafts[:] = [self] if self.model is not None else []
        return begin(self, *arguments)

    monkeypatch.setattr(drafter_module.Drafter, "begin", begun)
    options = ["--draft-model", str(tmp_path / "drafter")] if draft == "model" else ["--draft", draft]
    speech = str(media_file(clearest()))
    for command, expected in (
        (["generate", *COMMANDS["generate"], "--stats"], seen("picture-01.png").text),
        (["listen", "--input", speech, "--fast"], said(clearest())),
        (["watch", PICTURE], seen("picture-01.png").text),
        (["transcribe", speech], said(clearest())),
    ):
        assert main([*command, *DEMO, *options]) in (0, None)
        out, err = capsys.readouterr()
        assert expected in out
        assert not drafts or drafts.pop().drafted > 0
        assert (" tokens drafted, " in err) == ("--stats" in command and draft == "model")


@pytest.mark.parametrize(
    ("options", "drafts"),
    [
        ([], True),
        (["--draft", "ngram"], True),
        (["--draft", "none"], False),
        (["--seed", "1"], False),
        (["--seed", "1", "--draft", "ngram"], True),
    ],
)
def test_a_seed_asks_for_the_same_answer_each_time(options: list[str], drafts: bool) -> None:
    """What is drafted depends on the time that forwards take, so it must be asked for."""
    assert (open_drafter(parse(["generate", "-p", "Hi", *options])) is not None) == drafts
