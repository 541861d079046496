"""How long texts took and how much was computed for them."""

from __future__ import annotations

from mlx_gemma4.live.hear.events import Final, ListenerEvent, Partial
from mlx_gemma4.live.hear.work import Work


class Delays:
    """How long first words and final texts took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        """For each utterance, from the decision that it has ended to its text."""
        self.after_speech: list[float] = []
        """For those that ended in silence or with the sound, from the last sample of speech to the text."""
        self._forwards: list[int] = []
        self._first_words: list[float] = []
        self._has_words = False

    def add(self, event: ListenerEvent) -> None:
        """Take every event, in order."""
        if isinstance(event, Partial) and event.committed + event.draft and not self._has_words:
            self._first_words.append(event.end - event.start)
            self._has_words = True
        elif isinstance(event, Final):
            self.seconds.append(event.delay)
            if event.reason in ("silence", "end of sound"):
                self.after_speech.append(event.after_speech)
            self._forwards.append(event.forwards)
            self._has_words = False

    def report(self, work: Work) -> str:
        """A few lines: how long texts took, and the work of the whole run."""
        lines = [
            f"utterances {work.utterances} · guesses {work.guesses} · committed words revised {work.revised}",
            f"frames of speech {work.speech_frames} · judged silent {work.silent_frames}, {work.gated_frames} of them "
            f"speech below --level · audio positions computed "
            f"{work.audio_computed} ({work.audio_computed / max(work.speech_frames, 1):.2f} a frame) · "
            f"forwards {work.forwards}",
        ]
        if work.speech:
            lines.append(
                f"in a second of speech: {work.busy / work.speech:.2f} s busy · "
                f"{work.guesses / work.speech:.1f} guesses · {work.forwards / work.speech:.1f} forwards · "
                f"{work.audio_computed / max(work.audio_forwards, 1):.1f} frames in each that computes frames"
            )
        if self._first_words:
            seconds = quantile(self._first_words, 0.5)
            lines.append(f"first words after {seconds:.2f} s of an utterance, pre-roll included (p50)")
        if self.seconds:
            lines.append(
                f"from the decision that speech has ended to its text: {_quantiles(self.seconds)}, "
                f"at most {max(self._forwards)} forwards"
            )
        if self.after_speech:
            lines.append(f"from the last sample of speech to its text: {_quantiles(self.after_speech)}")
        return "\n".join(lines)


def _quantiles(seconds: list[float]) -> str:
    return f"p50 {1000 * quantile(seconds, 0.5):.0f} ms, p95 {1000 * quantile(seconds, 0.95):.0f} ms"


def quantile(values: list[float], share: float) -> float:
    """The value that a share of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
