"""Put the checkpoint and its model card into the package."""

from __future__ import annotations

import shutil
from pathlib import Path

from .lessons import STAGES
from .report import table
from .voices import ENGINES

DEMO = Path(__file__).parents[2] / "mlx_gemma4" / "demo"
CARD = """\
# The embedded checkpoint

A `gemma4_unified` checkpoint of {parameters:.1f} M parameters in bfloat16: the 12B's architecture in every respect
(sliding and full layers, values that are keys, two head sizes, raw frames, raw patches). It exists so that everything
can be shown and tested without a download; nothing about the 12B's accuracy follows from it.

It transcribes digits, numbers and a few commands in English, up to 15 s, and writes nothing for silence and noise. It
names a coloured shape and its place in a picture, answers spoken and typed questions about it, and says what changed
between two frames of a video. It knows the prompts of `examples/train_demo/texts.py`, including Google's transcription
prompt, and nothing else. Its lessons had at most {longest} words; in long utterances it loses or repeats some.

It was trained from scratch by `examples/train_demo`, with transformers, on drawn pictures and on recordings of:

{voices}

## What it can do

{table}

`media/`: recordings of synthetic voices (16 kHz mono) and drawn pictures.
"""


def pack(work: Path, demo: Path = DEMO) -> None:
    """Replace the embedded checkpoint and its card; tests/make_reference.py then makes the tests' golden files."""
    folder = demo / "checkpoint"
    shutil.rmtree(folder)
    shutil.copytree(work / "checkpoint", folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors are written for their owner alone
    parameters = (folder / "model.safetensors").stat().st_size / 2 / 1e6
    longest = max(stage.max_words for stage in STAGES)
    text = CARD.format(parameters=parameters, longest=longest, voices=_voices(), table=table(work))
    (demo / "README.md").write_text(text, encoding="utf-8")


def _voices() -> str:
    lines = ["| engine | licence | from | used for |", "|---|---|---|---|"]
    for engine in ENGINES.values():
        use = "tests only" if engine.held_out else "training"
        lines.append(f"| {engine.name} | {engine.licence} | {engine.source} | {use} |")
    return "\n".join(lines)
