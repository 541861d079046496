"""Evaluate the checkpoint on files that were not trained on, with mlx_gemma4 and with transformers."""

from __future__ import annotations

import json
import math
import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image

from mlx_gemma4 import Model, Processor, generate, load
from mlx_gemma4.measure.wer import Score, normalizer, score

from . import texts
from .reference import LONGEST, Reference

SHORT = "Transcribe the audio."
PROMPTS = {
    "speech": (texts.GOOGLE, SHORT),
    "noisy": (texts.GOOGLE,),
    "narrow": (SHORT,),
    "long": (texts.GOOGLE,),
    "silence": (texts.GOOGLE,),
}
"""The typed prompt of each kind of sound."""
PROCESSES = 2
_LOADED: dict[Path, tuple[Model, Processor, Reference]] = {}


def evaluate(work: Path, progress: Callable[[str], None] = print) -> None:
    """Answer every test twice and write ``work/answers.json``: both answers, the right one, and the seconds it took."""
    answers: dict[str, list[dict[str, Any]]] = {}
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        for name, tests in all_tests(work / "tests").items():
            answers[name] = pool.map(partial(_answered, work), tests, chunksize=10)
            right = sum(each["heard"] == each["answer"] for each in answers[name])
            differ = sum(each["heard"] != each["reference"] for each in answers[name])
            progress(
                f"{name}: {right} of {len(tests)} exact, {differ} other than the reference's; {_wer(answers[name])}"
            )
    (work / "answers.json").write_text(json.dumps(answers, indent=1), encoding="utf-8")


def _answered(work: Path, test: dict[str, Any]) -> dict[str, Any]:
    """Run in a process of its own, which loads the checkpoint once."""
    if work not in _LOADED:
        torch.set_num_threads(1)
        _LOADED[work] = (*load(work / "checkpoint", dtype="float32"), Reference(work / "checkpoint"))
    model, processor, reference = _LOADED[work]
    began = time.perf_counter()
    text = answer(model, processor, test["content"], work / "tests")
    seconds = time.perf_counter() - began
    expected = reference.answer(test["content"], work / "tests")
    sound = sum(soundfile.info(work / "tests" / part["audio"]).duration for part in test["content"] if "audio" in part)
    return {**test, "heard": text, "reference": expected, "seconds": round(seconds, 3), "sound": round(sound, 3)}


def all_tests(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Sets of turns with their right answers."""
    tests: dict[str, list[dict[str, Any]]] = {}
    for name, prompts in PROMPTS.items():
        for line in _lines(folder / f"{name}.jsonl"):
            for prompt in prompts:
                group = f"{name} {'short' if prompt == SHORT else 'google'} {line['set']}"
                test = {"content": [{"text": prompt}, {"audio": line["audio"]}], "answer": line["text"]}
                tests.setdefault(group, []).append(test)
    for name in ("pictures", "asked", "changes"):
        tests[name] = _lines(folder / f"{name}.jsonl")
    return tests


def answer(model: Model, processor: Processor, content: list[dict[str, Any]], folder: Path) -> str:
    """The answers of mlx_gemma4."""
    parts = [_part(kind, value, folder) for part in content for kind, value in part.items()]
    return generate(
        model, processor, processor.prompt([{"role": "user", "content": parts}]), max_tokens=LONGEST
    ).strip()


def _part(kind: str, value: Any, folder: Path) -> dict[str, Any]:
    if kind == "video":  # one frame a second
        value = np.stack([np.asarray(Image.open(folder / path)) for path in value]), 1.0
    elif kind != "text":
        value = folder / value
    return {"type": kind, kind: value}


def word_error_rate(answers: list[dict[str, Any]]) -> tuple[float, float]:
    """WER over all answers, and its standard error over draws of recordings (a ratio; Cochran, "Sampling", 6.4)."""
    scores = [score(each["answer"], each["heard"], normalizer("none")) for each in answers]
    total = sum(scores, Score())
    rate = total.wer or 0.0
    squares = sum((each.errors - rate * each.words) ** 2 for each in scores)
    return rate, math.sqrt(squares) / max(total.words, 1)


def _wer(answers: list[dict[str, Any]]) -> str:
    if not any("audio" in part for part in answers[0]["content"]):
        return ""
    return f"WER {word_error_rate(answers)[0]:.2%}"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
