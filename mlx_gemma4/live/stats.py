"""How long texts took and how much was computed for them."""

from __future__ import annotations

from mlx_gemma4.live.events import Event, Final
from mlx_gemma4.live.listener import Work


class Delays:
    """Delays of final texts."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._forwards: list[int] = []

    def add(self, event: Event) -> None:
        if isinstance(event, Final):
            self.seconds.append(event.delay)
            self._forwards.append(event.forwards)

    def report(self, work: Work) -> str:
        """A few lines: delays from the end of speech to the text, and the work of the whole run."""
        lines = [
            f"utterances {work.utterances} · guesses {work.guesses} · committed words revised {work.revised}",
            f"frames of speech {work.speech_frames} · judged silent {work.silent_frames} · audio positions computed "
            f"{work.audio_computed} ({work.audio_computed / max(work.speech_frames, 1):.2f} a frame) · "
            f"forwards {work.forwards}",
        ]
        if self.seconds:
            lines.append(
                f"end of speech to text: p50 {1000 * _quantile(self.seconds, 0.5):.0f} ms, "
                f"p95 {1000 * _quantile(self.seconds, 0.95):.0f} ms, at most {max(self._forwards)} forwards"
            )
        return "\n".join(lines)


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
