"""Recordings transcribed live, as fast as the model can, and again offline: what streaming costs in accuracy, and how
long after the end of speech the text comes."""

from __future__ import annotations

import numpy as np

from mlx_gemma4.inputs.audio.endpoint import Endpointing
from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
from mlx_gemma4.live.hear.delays import Delays
from mlx_gemma4.live.hear.events import Final
from mlx_gemma4.live.hear.listener import Listener
from mlx_gemma4.live.hear.loop import listen
from mlx_gemma4.live.hear.work import Work
from mlx_gemma4.programs.transcribe import Transcriber


class LiveEvaluation:
    """Transcribes one recording after the other, and counts.

    Attributes:
        delays: From the end of each utterance to its text.
        work: Of all recordings.
        utterances, different: How many there were, and how many differ between live and offline.
    """

    def __init__(self, transcriber: Transcriber, settings: Endpointing) -> None:
        self._transcriber = transcriber
        self._settings = settings
        self._last: list[tuple[Final, np.ndarray]] = []
        self.delays = Delays()
        self.work = Work()
        self.utterances = 0
        self.different = 0

    def hear(self, samples: np.ndarray) -> str:
        """A recording [n] at 16 kHz in blocks of 40 ms, each worked off before the next; its utterances, joined."""
        listener = Listener(self._transcriber, self._settings)
        events = list(listen(samples, listener))
        for event in events:
            self.delays.add(event)
        self.work += listener.work
        finals = [event for event in events if isinstance(event, Final)]
        self._last = [(final, _stretch(samples, final)) for final in finals]
        return " ".join(final.text for final in finals if final.text)

    def again(self) -> str:
        """The utterances of the recording that was just heard, each transcribed as a whole, joined."""
        texts = []
        for final, stretch in self._last:
            [segment] = self._transcriber.transcribe(stretch)
            texts.append(segment.text)
            self.different += segment.text != final.text
        self.utterances += len(texts)
        return " ".join(text for text in texts if text)


def _stretch(samples: np.ndarray, final: Final) -> np.ndarray:
    return samples[round(final.start * SAMPLE_RATE) : round(final.end * SAMPLE_RATE)]
