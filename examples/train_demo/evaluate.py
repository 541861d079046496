"""What the checkpoint can do, on files that were not trained on: through mlx_gemma4, and through transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mlx_gemma4 import Model, Processor, generate, load
from mlx_gemma4.evaluate import Score, normalizer, score

from . import texts
from .reference import Reference

SHORT = "Transcribe the audio."
Answer = Callable[[list[dict[str, Any]], Path], str]
"""A turn's content, and where its files lie, to what is answered."""


def evaluate(work: Path, progress: Callable[[str], None] = print) -> None:
    """Answer every test twice and write ``work/answers.json``: each answer, what is right, and where the two differ."""
    told: dict[str, list[dict[str, Any]]] = {}
    model, processor = load(work / "checkpoint", dtype="float32")
    reference = Reference(work / "checkpoint")
    for name, tests in all_tests(work / "tests").items():
        told[name] = []
        for test in tests:
            mine = answer(model, processor, test["content"], work / "tests")
            its = reference.answer(test["content"], work / "tests")
            told[name].append({**test, "heard": mine, "reference": its})
        right = sum(each["heard"] == each["answer"] for each in told[name])
        differ = sum(each["heard"] != each["reference"] for each in told[name])
        progress(f"{name}: {right} of {len(tests)} exact, {differ} other than the reference's; {_wer(told[name])}")
    (work / "answers.json").write_text(json.dumps(told, indent=1), encoding="utf-8")


def all_tests(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Sets of turns with their right answers."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, prompts in (("speech", (texts.GOOGLE, SHORT)), ("noisy", (texts.GOOGLE,))):
        for line in _lines(folder / f"{name}.jsonl"):
            for prompt in prompts:
                group = f"{name} {'short' if prompt == SHORT else 'google'} {line['set']}"
                test = {"content": [{"text": prompt}, {"audio": line["audio"]}], "answer": line["text"]}
                found.setdefault(group, []).append(test)
    for name in ("pictures", "asked", "changes"):
        found[name] = _lines(folder / f"{name}.jsonl")
    return found


def answer(model: Model, processor: Processor, content: list[dict[str, Any]], folder: Path) -> str:
    """What mlx_gemma4 answers."""
    parts = [_part(kind, value, folder) for part in content for kind, value in part.items()]
    return generate(model, processor, processor.prompt([{"role": "user", "content": parts}]), max_tokens=40).strip()


def _part(kind: str, value: Any, folder: Path) -> dict[str, Any]:
    if kind == "video":  # one frame a second
        value = np.stack([np.asarray(Image.open(folder / path)) for path in value]), 1.0
    elif kind != "text":
        value = folder / value
    return {"type": kind, kind: value}


def word_error_rate(told: list[dict[str, Any]]) -> float:
    """Of all answers together."""
    total = sum((score(each["answer"], each["heard"], normalizer("none")) for each in told), Score())
    return total.wer or 0.0


def _wer(told: list[dict[str, Any]]) -> str:
    if not any("audio" in part for part in told[0]["content"]):
        return ""
    return f"WER {word_error_rate(told):.2%}"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
