"""Recordings of synthetic voices, made and read: for each engine one set for training and three for tests.

The same call gives the same texts and voices. Existing sets are not made again; an interrupted run resumes.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np

from examples.train_demo.texts import QUESTIONS, WORDS, random_text, spoken
from examples.train_demo.voices import ENGINES, RATE, unpack

TRAIN = {"espeak": 9000, "flite": 3500, "hibari": 3500, "pico": 3000, "kokoro": 2000}
"""Number of recordings for training, by engine; as many as its speed allows."""
TEST = {"new": 40, "unseen": 40, "questions": 40}
"""Number of recordings for tests, of each engine: new texts, texts held out of training, and questions."""
PART = 125
"""Recordings that a process makes at a time."""
LONGEST_SECONDS, SHORTEST_SECONDS = 7.0, 0.1
QUIETEST = 300
"""A peak below this is silence."""


@dataclass(frozen=True)
class Recording:
    """A text, the voice that says it, and the sound: 16 kHz, mono, int16."""

    text: str
    voice: str
    samples: np.ndarray


@dataclass(frozen=True)
class Part:
    """A part of one set, with its own random numbers."""

    engine: str
    kind: str
    index: int
    count: int
    path: Path


def make_all(
    work: Path, *, scale: float = 1.0, progress: Callable[[str], None] = print, processes: int | None = None
) -> None:
    """Make all sets of all engines in ``work``, by default in a process for each core.

    Args:
        scale: Share of the recordings to make. Existing sets stay as they are, whatever their scale.
    """
    work.mkdir(parents=True, exist_ok=True)
    sets = [
        (engine, kind) for engine in ENGINES for kind in _counts(engine) if not path_of(work, engine, kind).exists()
    ]
    parts = {(engine, kind): list(_parts(work, engine, kind, scale)) for engine, kind in sets}
    missing = [part for some in parts.values() for part in some if not part.path.exists()]
    if any(part.engine.startswith("kokoro") for part in missing):
        unpack()
    # spawned, not forked: ONNX's threads do not survive a fork
    with multiprocessing.get_context("spawn").Pool(processes or os.cpu_count() or 1) as pool:
        made = pool.imap(_make_part, missing)
        for engine, kind in sets:
            for part in parts[engine, kind]:
                if part in missing:
                    next(made)
            _join(parts[engine, kind], path_of(work, engine, kind))
            progress(f"{engine} {kind}: {sum(part.count for part in parts[engine, kind])} recordings")


def path_of(work: Path, engine: str, kind: str) -> Path:
    """The file of a set; ``kind``: train, new, unseen or questions."""
    return work / f"{engine}-{kind}.npz"


def load(path: Path) -> list[Recording]:
    """The recordings of a set."""
    with np.load(path) as arrays:
        samples, ends = arrays["samples"], arrays["ends"]
        texts, voices = arrays["texts"].tolist(), arrays["voices"].tolist()
    pieces = np.split(samples, ends[:-1])
    return [Recording(*recording) for recording in zip(texts, voices, pieces, strict=True)]


def save(path: Path, recordings: list[Recording]) -> None:
    """Write a set, whole or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            samples=np.concatenate([recording.samples for recording in recordings]),
            ends=np.cumsum([len(recording.samples) for recording in recordings]),
            texts=np.array([recording.text for recording in recordings]),
            voices=np.array([recording.voice for recording in recordings]),
        )
    partial.replace(path)


def _counts(engine: str) -> dict[str, int]:
    return TEST if ENGINES[engine].held_out else {"train": TRAIN[engine], **TEST}


def _parts(work: Path, engine: str, kind: str, scale: float) -> Iterator[Part]:
    total = max(1, round(_counts(engine)[kind] * scale))
    for index, start in enumerate(range(0, total, PART)):
        name = f"{engine}-{kind}.{total}-{index}.part"
        yield Part(engine, kind, index, min(PART, total - start), work / name)


def _make_part(part: Part) -> None:
    random = Random(f"{part.engine} {part.kind} {part.index}")
    save(part.path, [_record(part, random) for _ in range(part.count)])


def _record(part: Part, random: Random) -> Recording:
    """Try until a recording is neither silent nor too long."""
    for _ in range(20):
        text = _draw_text(part.kind, random)
        samples, voice = ENGINES[part.engine].say(spoken(text, random), random)
        if SHORTEST_SECONDS <= len(samples) / RATE <= LONGEST_SECONDS and np.abs(samples.astype(int)).max() > QUIETEST:
            return Recording(text, voice, samples)
    raise RuntimeError(f"{part.engine} gave no usable speech in 20 attempts: all was silent, too short or too long")


def _draw_text(kind: str, random: Random) -> str:
    """A fifth of the training texts are single words, so that each occurs alone; some are questions."""
    dice = random.random()
    if kind == "questions" or (kind == "train" and dice < 0.08):
        return random.choice(random.choice(list(QUESTIONS.values())))
    if kind == "train" and dice < 0.28:
        return random.choice(WORDS)
    return random_text(random, held_out=kind == "unseen")


def _join(parts: list[Part], path: Path) -> None:
    save(path, [recording for part in parts for recording in load(part.path)])
    for part in parts:
        part.path.unlink()
