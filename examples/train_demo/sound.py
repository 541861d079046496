"""Augmentation: recordings joined, at other speeds, in rooms, through bad lines, with noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from .recordings import Recording
from .texts import WORDS

RATE, FRAME = 16000, 640
UNKNOWN, SILENCE = -100, 0
WORD_IDS = {word: number for number, word in enumerate(WORDS, 1)}
_PAUSES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.5)
_LONGEST_SPEECH, _LONGEST = 13 * RATE, 15 * RATE
"""Most samples of an utterance without its pauses, and with them, at the speed of the recordings."""
_SEVERAL = 0.1
"""Share of utterances that mix voices of several engines."""


@dataclass(frozen=True)
class Utterance:
    """Recordings in a row, and where each of them is."""

    text: str
    samples: np.ndarray
    parts: tuple[tuple[int, int, str], ...]
    """Start, length, text."""


class Speech:
    """Recordings to draw from, engine by engine."""

    def __init__(self, by_engine: Mapping[str, Sequence[Recording]], weights: Mapping[str, float]) -> None:
        self._engines = {name: list(each) for name, each in by_engine.items()}
        self._single = {name: [item for item in each if " " not in item.text] for name, each in self._engines.items()}
        self._weights = [weights[name] for name in self._engines]
        self._exact: dict[str, list[Recording]] = {}
        for item in (item for each in self._engines.values() for item in each):
            self._exact.setdefault(item.text, []).append(item)

    def say(self, text: str, random: Random) -> Utterance:
        """A recording of just this text."""
        return _joined([random.choice(self._exact[text])], random)

    def utterance(self, random: Random, max_words: int, *, words_apart: bool, long: bool = False) -> Utterance:
        """Recordings in a row: single words or whole texts, at most ``max_words`` words; some words are repeated.

        Args:
            long: Every length up to ``max_words`` is equally likely; otherwise most are short.
        """
        pool = self._single if words_apart else self._engines
        engine = self._engine(random)
        several = random.random() < _SEVERAL
        parts: list[Recording] = []
        more = 1.0 if long else 0.9 if words_apart else 0.5
        most = random.randint(min(3, max_words), max_words)
        while not parts or random.random() < more:
            if several:
                engine = self._engine(random)
            item = random.choice(pool[engine])
            if words_apart and parts and random.random() < 0.2:
                item = random.choice([parts[-1], random.choice(self._exact[parts[-1].text])])
            count = sum(len(part.text.split()) for part in (*parts, item))
            if count > most or sum(len(part.samples) for part in (*parts, item)) > _LONGEST_SPEECH:
                if parts:
                    break
                continue
            parts.append(item)
        return _joined(parts, random)

    def _engine(self, random: Random) -> str:
        return random.choices(list(self._engines), self._weights)[0]


def _joined(parts: Sequence[Recording], random: Random) -> Utterance:
    pieces, places, length = [], [], 0
    speed = random.uniform(0.84, 1.2)
    longest_gap = (_LONGEST - sum(len(part.samples) for part in parts)) // len(parts)
    for number, part in enumerate(parts):
        if number:
            gap = min(int(RATE * random.choice(_PAUSES) * random.uniform(0.5, 1.5)), longest_gap)
            pieces.append(np.zeros(gap, np.float32))
            length += gap
            if random.random() < 0.5:
                speed = random.uniform(0.84, 1.2)
        samples = _faster(part.samples, speed) * random.uniform(0.6, 1.0)
        places.append((length, len(samples), part.text))
        pieces.append(samples.astype(np.float32))
        length += len(samples)
    return Utterance(" ".join(part.text for part in parts), np.concatenate(pieces), tuple(places))


def _faster(samples: np.ndarray, speed: float) -> np.ndarray:
    """Resampled: pitch and formants move with the speed, as they do from voice to voice. Peak 1."""
    points = np.arange(0, len(samples) - 1, speed, dtype=np.float32)
    heard = np.interp(points, np.arange(len(samples)), samples).astype(np.float32)
    return heard / (np.abs(heard).max() + 1e-3)


def heard(utterance: Utterance | None, random: Random, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Frames [F, 640] as a microphone hears them, and labels [F, 2]: the word in each frame, and how many words were
    said up to there.

    SILENCE (0) is no word; UNKNOWN (-100) is left out of losses.

    Args:
        utterance: None for a stretch without speech.
        strength: Of the augmentation: 0 as recorded, 1 the strongest.
    """
    generator = np.random.default_rng(random.randrange(1 << 62))
    if utterance is None:
        count = int(RATE * random.uniform(0.3, 3.0))
        samples, labels = np.zeros(-(-count // FRAME) * FRAME, np.float32), None
    else:
        head = int(RATE * random.choice([0.0, 0.04, 0.15, 0.3, 0.5]) * random.uniform(0.3, 1.3))
        tail = random.randint(300, 2000) + int(RATE * random.uniform(0.0, random.choice([0.5, 0.5, 0.5, 2.5])))
        count = -(-(head + len(utterance.samples) + tail) // FRAME) * FRAME
        samples = np.zeros(count, np.float32)
        samples[head : head + len(utterance.samples)] = utterance.samples
        labels = _labels(utterance, head, count)
    if strength:
        samples = _in_a_room(samples, generator, strength)
    samples = _with_noise(samples, generator, strength if utterance is not None else 1.0)
    frames = samples.reshape(-1, FRAME)
    return frames, np.zeros((len(frames), 2), np.int64) if labels is None else labels


def _labels(utterance: Utterance, head: int, count: int) -> np.ndarray:
    centers = np.arange(count // FRAME) * FRAME + FRAME // 2
    labels, said = np.full((len(centers), 2), SILENCE), 0
    for start, length, text in utterance.parts:
        inside = centers - (head + start)
        said += len(text.split())
        if " " in text:
            labels[(inside > 0) & (inside < length + 1000)] = UNKNOWN
            labels[inside >= length + 1000, 1] = said
        else:
            labels[(inside > 0.12 * length) & (inside < 0.5 * length)] = UNKNOWN
            labels[(inside >= 0.5 * length) & (inside < length + FRAME), 0] = WORD_IDS[text]
            labels[inside >= 0.5 * length, 1] = said
    return labels


def _in_a_room(samples: np.ndarray, generator: np.random.Generator, strength: float) -> np.ndarray:
    """A random equaliser, band limits and reverberation, in one pass through the spectrum."""
    size = 1 << (len(samples) + 4000).bit_length()
    size = size * 3 // 4 if size * 3 // 4 >= len(samples) + 4000 else size
    spectrum = np.fft.rfft(samples, size)
    hertz = np.linspace(0, RATE / 2, len(spectrum))
    decibels = np.interp(hertz, np.linspace(0, RATE / 2, 9), generator.normal(0, 4.5 * strength, 9))
    decibels += generator.uniform(-6, 4) * strength * np.log2((hertz + 200) / 1000)
    low_pass = generator.uniform(2600, 4200) if generator.random() < 0.35 * strength else generator.uniform(5000, 9000)
    high_pass = generator.uniform(100, 300) if generator.random() < 0.5 * strength else generator.uniform(5, 60)
    decibels -= 40 * np.maximum(np.log2(hertz / low_pass + 1e-6), 0)
    decibels -= 24 * np.maximum(np.log2(high_pass / (hertz + 1)), 0)
    spectrum *= 10 ** (np.clip(decibels, -60, 20) / 20)
    if generator.random() < 0.4 * strength:
        decay = np.exp(-6.9 * np.arange(4000) / RATE / generator.uniform(0.08, 0.45))
        echo = generator.normal(size=4000) * decay
        echo *= generator.uniform(0.2, 1.0) / np.linalg.norm(echo)
        echo[0] = 1
        spectrum *= np.fft.rfft(echo, size)
    return np.fft.irfft(spectrum, size)[: len(samples)].astype(np.float32)


_BANK: list[np.ndarray] = []


def _noise(generator: np.random.Generator, count: int) -> np.ndarray:
    """Noise between white and brown, of power 1."""
    if not _BANK:
        generator_of_bank = np.random.default_rng(0)
        hertz = np.linspace(0, RATE / 2, (1 << 18) + 1) + 40
        for slope in (0, 0, 0.5, 1.0, 1.5):
            spectrum = np.fft.rfft(generator_of_bank.normal(size=1 << 19)) * (hertz / 1000) ** -slope
            _BANK.append(np.fft.irfft(spectrum).astype(np.float32))
    bank = _BANK[generator.integers(len(_BANK))]
    start = generator.integers(len(bank) - count)
    noise = bank[start : start + count]
    return noise / np.sqrt(np.mean(noise**2) + 1e-12)


def _with_noise(samples: np.ndarray, generator: np.random.Generator, strength: float) -> np.ndarray:
    power = max(float(np.sqrt(np.mean(samples**2))), 1e-3)
    if generator.random() < 0.85:
        ratio = generator.uniform(30 - 30 * strength, 45)
        samples = samples + _noise(generator, len(samples)) * power * 10 ** (-ratio / 20)
    samples = samples / (np.abs(samples).max() + 1e-4) * 10 ** (generator.uniform(-30, 0) / 20)
    return np.round(samples * 32768).astype(np.float32) / 32768
