"""Which frames of recordings are an utterance, by Silero and the default settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reference_cases import media_file

from mlx_gemma4.inputs.audio.endpoint import Begin, End, Endpointer, Speech
from mlx_gemma4.inputs.audio.frames import to_frames
from mlx_gemma4.inputs.audio.recording import load_audio
from mlx_gemma4.inputs.audio.voice import Voice


def events_of(events: list[Any], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


RECORDINGS = {
    "espeak-00.wav": 1,
    "espeak-01.wav": 1,
    "flite-01.wav": 1,
    "hibari-03.wav": 1,
    "hibari-04.wav": 1,
    "pico-01.wav": 1,
    "pico-04.wav": 1,
    "long-3.wav": 1,
    "dialogue.wav": 5,
}


def find(samples: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Utterances in a sound, by Silero and the default settings: their first frames, and their frames."""
    endpointer = Endpointer(Voice())
    events = endpointer.push(to_frames(samples, 640)) + endpointer.finish()
    begins, ends = events_of(events, Begin), events_of(events, End)
    speech = [event.frames for event in events_of(events, Speech)]
    return [(b.start, s[: e.length]) for b, s, e in zip(begins, speech, ends, strict=True)]


@pytest.mark.parametrize("name", RECORDINGS)
def test_utterances_of_a_recording(name: str) -> None:
    """As many as were spoken, each of them the recording's own frames, and nearly all energy in them."""
    samples = load_audio(media_file(name))
    found = find(samples)
    sound = to_frames(samples, 640)
    assert len(found) == RECORDINGS[name]
    for start, speech in found:
        assert np.array_equal(speech, sound[start : start + len(speech)])
    inside = sum(np.square(speech, dtype=np.float64).sum() for _, speech in found)
    assert inside > 0.999 * np.square(sound, dtype=np.float64).sum()


def test_silence_around_a_recording_is_left_out() -> None:
    """Three seconds before and after it: an utterance begins half a second before the speech and ends soon after."""
    samples = load_audio(media_file("hibari-03.wav"))
    silence = np.zeros(3 * 16_000, np.float32)
    ((start, speech),) = find(np.concatenate([silence, samples, silence]))
    assert 75 - 13 <= start <= 75 + 13
    assert start + len(speech) <= 75 + len(samples) / 640 + 6


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(160_000),
        np.random.default_rng(0).normal(0, 1e-3, 160_000),
        0.1 * np.sin(2 * np.pi * 50 * np.arange(160_000) / 16_000),
    ],
    ids=["digital silence", "noise at -60 dBFS", "a 50 Hz hum"],
)
def test_no_voice_is_no_utterance(sound: np.ndarray) -> None:
    assert find(sound) == []
