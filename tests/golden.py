"""Answers of the reference implementation with the demo's checkpoint: ``data/demo/golden.json``.

``make_reference.py`` writes it. Tests take their expected values from here, so that a new checkpoint changes no test.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reference_cases import DATA, DESCRIBE, GOOGLE, TURNS

GOLDEN: dict[str, Any] = json.loads((DATA / "demo" / "golden.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Answer:
    """The reference's greedy answer in float32."""

    text: str | None
    """None if the answer does not end."""
    sure: str
    """The beginning of the text that is certain in the checkpoint's own precision too, where close tokens may swap."""
    lead: float
    """The smallest lead of one of its tokens over the second most likely one, in logits."""
    tokens: list[int]
    """Including the one that ends it."""


def heard(name: str, prompt: str = "google") -> Answer:
    """The answer to a whole recording, with Google's prompt or the ``short`` one."""
    return Answer(**GOLDEN["recordings"][name][prompt])


def said(name: str, prompt: str = "google") -> str:
    return _text(heard(name, prompt))


def spans(name: str) -> list[tuple[int, int]]:
    """The utterances that endpointing finds in a recording: first frame, and the frame after the last."""
    return [(each["start"], each["end"]) for each in GOLDEN["recordings"][name]["utterances"]]


def parts(name: str, prompt: str = "google") -> list[Answer]:
    """The answers to each utterance of a recording alone."""
    return [Answer(**each[prompt]) for each in GOLDEN["recordings"][name]["utterances"]]


def utterances(name: str, prompt: str = "google") -> list[str]:
    return [_text(answer) for answer in parts(name, prompt)]


def seen(name: str) -> Answer:
    """The answer to "Describe the image."."""
    return Answer(**GOLDEN["pictures"][name])


def named(name: str) -> str:
    return _text(seen(name))


def answered(name: str) -> Answer:
    """The answer to a turn of ``data/demo/turns.jsonl``."""
    return Answer(**GOLDEN["turns"][name])


def clearest(prompt: str = "google") -> str:
    """The recording of several words whose answer is the least sensitive to rounding, as of quantized weights."""
    whole = {name: heard(name, prompt) for name in GOLDEN["recordings"] if prompt in GOLDEN["recordings"][name]}
    return max(whole, key=lambda name: (" " in (whole[name].text or ""), whole[name].lead))


def clearest_picture() -> str:
    return max(GOLDEN["pictures"], key=lambda name: seen(name).lead)


def is_demo(output: str) -> bool:
    """Whether this is the output of ``mlx_gemma4 demo``, as far as it is certain in the checkpoint's own precision."""
    pictures = (seen("picture-01.png"), seen("picture-02.png"))
    answers = [*parts("pico-04.wav"), *pictures, answered("question"), answered("change")]
    lines, sure = output.splitlines(), [answer.sure for answer in answers]
    return len(lines) == len(sure) and all(map(str.startswith, lines, sure))


def packaged(golden: Mapping[str, Any] = GOLDEN) -> dict[str, Any]:
    """What the package compares its own answers with: ``mlx_gemma4/measure/checks/golden.json``."""
    speech, picture = "hibari-03.wav", "picture-01.png"
    said = golden["recordings"][speech]["google"], [{"text": GOOGLE}, {"audio": speech}]
    named = golden["pictures"][picture], [{"image": picture}, {"text": DESCRIBE}]
    asked = golden["turns"]["question"], TURNS["question"]
    changed = golden["turns"]["change"], TURNS["change"]
    cases = {"speech": said, "a picture": named, "a spoken question": asked, "a video": changed}
    answers = {name: {"content": content, **answer} for name, (answer, content) in cases.items()}
    found = [{key: each[key] for key in ("start", "end")} for each in golden["recordings"][speech]["utterances"]]
    return {"answers": answers, "utterances": {speech: found}}


def _text(answer: Answer) -> str:
    assert answer.text is not None, "an answer that does not end"
    return answer.text
