"""Test files: new sounds and pictures that were not trained on, with the right answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import soundfile
import soxr
from PIL import Image

from . import pictures, recordings, texts
from .sound import RATE, heard
from .voices import ENGINES

SILENT, PICTURES, ASKED, CHANGES = 60, 300, 300, 200
"""Number of tests of each kind."""
NOISE_DECIBELS = 15
SOUNDS = ("speech", "noisy", "narrow", "long")
"""As recorded; in white noise; over a telephone: 8000 samples a second; several recordings in a row, up to 15 s."""
LONG = 10
"""Number of long tests, of each engine and kind of text."""


def make_tests(work: Path) -> None:
    """Write ``work/tests``: manifests of clean and disturbed recordings by engine, and of questions about pictures."""
    folder = work / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    for sound in SOUNDS:
        _write(folder / f"{sound}.jsonl", _speech(work, folder / sound))
    _write(folder / "silence.jsonl", _silence(folder / "silence"))
    _write(folder / "pictures.jsonl", _pictures(folder / "pictures"))
    _write(folder / "asked.jsonl", _asked(work, folder / "asked"))
    _write(folder / "changes.jsonl", _changes(folder / "changes"))


def _speech(work: Path, folder: Path) -> Iterator[dict[str, Any]]:
    random, generator = Random(1), np.random.default_rng(1)
    folder.mkdir(exist_ok=True)
    for engine in ENGINES:
        for kind in ("new", "unseen"):
            items = recordings.load(recordings.path_of(work / "recordings", engine, kind))
            if folder.name == "long":
                items = [in_a_row(items, random) for _ in range(LONG)]
            for number, item in enumerate(items):
                path = folder / f"{engine}-{kind}-{number:03d}.wav"
                _save(path, item.samples, random, generator, folder.name)
                yield {"audio": f"{folder.name}/{path.name}", "text": item.text, "set": f"{engine} {kind}"}


def in_a_row(items: list[recordings.Recording], random: Random) -> recordings.Recording:
    """Join random ones, with pauses of 0.1 to 0.8 s, as many as fit into 10 to 14 s."""
    room = random.uniform(10, 14) * RATE
    said, pieces = [], []
    while True:
        item, pause = random.choice(items), np.zeros(random.randint(1600, 12800), np.int16)
        room -= len(item.samples) + len(pause)
        if room < 0:
            return recordings.Recording(" ".join(said), items[0].voice, np.concatenate(pieces))
        said.append(item.text)
        pieces += [item.samples, pause]


def _silence(folder: Path) -> Iterator[dict[str, Any]]:
    """A quarter is digital silence, the rest noise from soft to loud."""
    random = Random(5)
    folder.mkdir(exist_ok=True)
    for number in range(SILENT):
        samples = heard(None, random, 1.0)[0].ravel() * (number % 4 > 0)
        soundfile.write(folder / f"{number:03d}.wav", samples, RATE, subtype="PCM_16")
        yield {"audio": f"{folder.name}/{number:03d}.wav", "text": "", "set": "alone"}


def _pictures(folder: Path) -> Iterator[dict[str, Any]]:
    random = Random(2)
    for number in range(PICTURES):
        picture = pictures.random_picture(random)
        path = _draw(folder, f"{number:03d}.png", picture)
        yield {"content": [{"image": path}, {"text": random.choice(texts.DESCRIBE)}], "answer": picture.name}


def _asked(work: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Spoken questions about pictures, by voices of all engines, in either order."""
    random, generator = Random(3), np.random.default_rng(3)
    spoken = {
        engine: recordings.load(recordings.path_of(work / "recordings", engine, "questions")) for engine in ENGINES
    }
    about = {text: kind for kind, all_texts in texts.QUESTIONS.items() for text in all_texts}
    for number in range(ASKED):
        engine = list(ENGINES)[number % len(ENGINES)]
        item, picture = random.choice(spoken[engine]), pictures.random_picture(random)
        image = _draw(folder, f"{number:03d}.png", picture)
        path = folder / f"{number:03d}.wav"
        _save(path, item.samples, random, generator, "speech")
        content = [{"image": image}, {"audio": f"{folder.name}/{path.name}"}]
        if random.random() < 0.5:
            content.reverse()
        yield {"content": content, "answer": picture.about(about[item.text]), "set": engine}


def _changes(folder: Path) -> Iterator[dict[str, Any]]:
    random = Random(4)
    for number in range(CHANGES):
        before = pictures.random_picture(random)
        after, answer = pictures.changed(before, random)
        frames = [_draw(folder, f"{number:03d}-{part}.png", each) for part, each in enumerate((before, after))]
        content = [{"video": frames}, {"text": random.choice(texts.CHANGED)}]
        yield {"content": content, "answer": answer}


def _save(path: Path, samples: np.ndarray, random: Random, generator: np.random.Generator, sound: str) -> None:
    """A recording with silence around it, at half of full scale, as one of SOUNDS."""
    loud = samples.astype(np.float32) / np.abs(samples).max() / 2
    heard = np.concatenate([np.zeros(random.randint(1600, 8000)), loud, np.zeros(random.randint(3200, 8000))])
    if sound == "noisy":
        power = float(np.sqrt(np.mean(loud**2)))
        heard = heard + generator.normal(0, power * 10 ** (-NOISE_DECIBELS / 20), len(heard))
    elif sound == "narrow":
        heard = soxr.resample(soxr.resample(heard, RATE, 8000), 8000, RATE)
    soundfile.write(path, np.clip(heard, -1, 1), RATE, subtype="PCM_16")


def _draw(folder: Path, name: str, picture: pictures.Picture) -> str:
    folder.mkdir(exist_ok=True)
    Image.fromarray(pictures.draw(picture)).save(folder / name)
    return f"{folder.name}/{name}"


def _write(path: Path, lines: Iterator[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
