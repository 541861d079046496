"""A recording has the same cues offline and live, at any level, with any silence around it; noise has none."""

from __future__ import annotations

import numpy as np
import pytest
from reference_cases import media_file
from sweep_speech import FAINT, level, live, offline, same_utterances, softer, texts

from mlx_gemma4 import Model, Processor, Transcriber, load_audio

NAMES = ("espeak-00.wav", "hibari-03.wav", "pico-04.wav", "dialogue.wav")


@pytest.mark.parametrize("name", NAMES[:3])
def test_live_and_offline_have_the_same_cues(demo: tuple[Model, Processor], name: str) -> None:
    samples, transcriber = load_audio(media_file(name)), Transcriber(*demo)
    assert offline(samples, transcriber) == live(samples, transcriber)


@pytest.mark.parametrize("name", NAMES[:3])
def test_softer_speech_has_the_same_text(demo: tuple[Model, Processor], name: str) -> None:
    """Down to -55 dBFS."""
    samples, transcriber = load_audio(media_file(name)), Transcriber(*demo)
    decibels = int(level(samples) - FAINT)
    assert decibels > 30
    assert texts(offline(softer(samples, decibels), transcriber)) == texts(offline(samples, transcriber))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("before", "behind"), [(1, 0), (0, 14), (5, 5), (14, 14)])
def test_digital_silence_changes_nothing_but_times(name: str, before: int, behind: int) -> None:
    """Bit for bit the same utterances."""
    assert same_utterances(load_audio(media_file(name)), before, behind)


@pytest.mark.parametrize("decibels", [0, 40])
def test_tones_and_noise_have_no_text(demo: tuple[Model, Processor], decibels: int) -> None:
    """However short: a recording that fits into one segment goes the same way as a long one."""
    turns = np.arange(3 * 16_000) / 16_000
    sounds = [np.abs(300 * turns % 1 - 0.5) - 0.25, np.random.default_rng(0).normal(0, 0.1, len(turns)), 0 * turns]
    for sound in sounds:
        assert offline(softer(sound, decibels), Transcriber(*demo)) == []
