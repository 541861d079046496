"""What a bench shows a model: a picture and recordings of the demo."""

from __future__ import annotations

import numpy as np

from mlx_gemma4.checkpoint.hub import demo_folder
from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE, load_audio

MEDIA = demo_folder() / "media"
RECORDINGS = tuple(MEDIA / name for name in ("hibari-03.wav", "pico-04.wav", "espeak-00.wav"))
PICTURE = MEDIA / "picture-01.png"
SOUND_SECONDS = 10.0
PAUSE = 1.0
"""Seconds of silence behind each utterance: more than ends it."""


def sound(seconds: float = SOUND_SECONDS) -> np.ndarray:
    """The recordings, one after the other, again and again: float32 [n] at 16 kHz."""
    spoken = np.concatenate([load_audio(path) for path in RECORDINGS])
    return np.resize(spoken, round(seconds * SAMPLE_RATE))


def utterances() -> np.ndarray:
    """The recordings with pauses between them: float32 [n] at 16 kHz."""
    pause = np.zeros(round(PAUSE * SAMPLE_RATE), dtype=np.float32)
    return np.concatenate([part for path in RECORDINGS for part in (load_audio(path), pause)])
