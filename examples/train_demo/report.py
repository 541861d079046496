"""The report of a training: curves as a picture, and what the model can do as a table."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from .evaluate import word_error_rate
from .train import LOG


def report(work: Path) -> None:
    """Write ``work/report.md`` and ``work/curves.png`` from the training's log and the answers to the tests."""
    _draw(work / LOG, work / "curves.png")
    text = f"# What the demo can do\n\n{table(work)}\n\n![losses](curves.png)\n"
    (work / "report.md").write_text(text, encoding="utf-8")


def table(work: Path) -> str:
    """What was answered, set by set, as a Markdown table."""
    told = json.loads((work / "answers.json").read_text(encoding="utf-8"))
    lines = [
        "New recordings and pictures, none of them trained on; greedy, float32. The texts of *unseen* sets were not in",
        "training either.",
        "",
        "| tests | number | exact | WER | other than the reference's |",
        "|---|---:|---:|---:|---:|",
        *(_row(name, answers) for name, answers in told.items()),
    ]
    return "\n".join(lines)


def _row(name: str, answers: list[dict[str, Any]]) -> str:
    exact = sum(each["heard"] == each["answer"] for each in answers) / len(answers)
    differ = sum(each["heard"] != each["reference"] for each in answers)
    wer = "–"
    if name.startswith(("speech", "noisy")):
        wer = f"{word_error_rate(answers):.1%}"
    return f"| {name} | {len(answers)} | {exact:.1%} | {wer} | {differ} |"


def _draw(log: Path, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    told = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name in ("spoken", "seen", "sequences", "words", "bands"):
        points = [(line["step"], line[name]) for line in told if name in line]
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1)
    for before, after in pairwise(told):
        if after["stage"] != before["stage"]:
            axes.axvline(after["step"], color="grey", linewidth=0.5)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
