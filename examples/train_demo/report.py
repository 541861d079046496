"""The report of a training: curves as a picture, and what the model can do as a table."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from .evaluate import word_error_rate
from .tests import SOUNDS
from .train import LOG
from .voices import ENGINES


def report(work: Path) -> None:
    """Write ``work/report.md`` and ``work/curves.png`` from the training's log and the answers to the tests."""
    _draw(work / LOG, work / "curves.png")
    text = f"# What the demo can do\n\n{table(work)}\n\n![losses](curves.png)\n"
    (work / "report.md").write_text(text, encoding="utf-8")


def table(work: Path) -> str:
    """The answers, together and by engine, as Markdown tables."""
    answers = json.loads((work / "answers.json").read_text(encoding="utf-8"))
    spoken = [each for name, some in answers.items() if name.startswith(SOUNDS) for each in some]
    pace = sum(each["seconds"] for each in spoken) / sum(each["sound"] for each in spoken)
    return "\n".join(
        [
            "New recordings and pictures, none of them trained on; greedy, float32, by mlx_gemma4 and by transformers.",
            "The texts of *unseen* sets were not in training either. ±: one standard error of drawing recordings.",
            f"One CPU core needed {pace:.2f} s for a second of sound.",
            "",
            *_rows(_together(answers)),
            "",
            "Engine by engine:",
            "",
            *_rows({name: some for name, some in answers.items() if name.startswith(SOUNDS)}),
        ]
    )


def _together(by_set: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Join the sets of all engines that were trained on."""
    joined: dict[str, list[dict[str, Any]]] = {}
    for name, answers in by_set.items():
        kind, _, rest = name.partition(" ")
        if kind in SOUNDS:
            prompt, engine, texts = rest.split()
            trained = "voices of training" if not ENGINES[engine].held_out else f"never heard: {engine}"
            name = f"{kind}, {prompt} prompt, {texts} texts, {trained}"
        joined.setdefault(name, []).extend(answers)
    return joined


def _rows(by_set: dict[str, list[dict[str, Any]]]) -> list[str]:
    head = ["| tests | number | exact | WER | other than the reference's |", "|---|---:|---:|---:|---:|"]
    return head + [_row(name, answers) for name, answers in by_set.items()]


def _row(name: str, answers: list[dict[str, Any]]) -> str:
    exact = sum(each["heard"] == each["answer"] for each in answers) / len(answers)
    differ = sum(each["heard"] != each["reference"] for each in answers)
    wer = "{:.1%} ± {:.1%}".format(*word_error_rate(answers)) if name.startswith(SOUNDS) else "–"
    return f"| {name} | {len(answers)} | {exact:.1%} | {wer} | {differ} |"


def _draw(log: Path, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name in ("spoken", "seen", "sequences", "words", "counts", "looks", "bands", "pictures"):
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1)
    for before, after in pairwise(lines):
        if after["stage"] != before["stage"]:
            axes.axvline(after["step"], color="grey", linewidth=0.5)
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
