"""Counts for ``/metrics``, in Prometheus' text format. No text of a user is among them."""

from __future__ import annotations

import threading
from collections.abc import Mapping

PREFIX = "mlx_gemma4_"
COUNTERS = {
    "requests_total": "Requests, by route and status.",
    "prompt_tokens_total": "Tokens of prompts.",
    "cached_tokens_total": "Tokens of prompts that were in a cache already.",
    "answer_tokens_total": "Tokens of answers.",
    "audio_seconds_total": "Seconds of sound that were transcribed.",
    "first_token_seconds_sum": "Seconds from requests to their first tokens.",
    "first_token_seconds_count": "Answers that have begun.",
    "turns_total": "Forwards and checks of the engine, by kind.",
    "drafted_tokens_total": "Tokens of answers that were guessed, and those of them that were right.",
}
GAUGES = {
    "sessions": "Requests that are computed.",
    "waiting": "Requests that wait for a session.",
    "memory_bytes": "Memory in use, as MLX counts it.",
}


class Metrics:
    """Counters. Any thread may add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Count. The name is one of COUNTERS."""
        key = name, tuple(sorted(labels.items()))
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + value

    def text(self, gauges: Mapping[str, float], others: Mapping[tuple[str, str], float]) -> str:
        """All figures.

        Args:
            gauges: The present values of GAUGES.
            others: Counts that somebody else keeps, by name and kind.
        """
        with self._lock:
            counts = dict(self._counts)
        counts.update({(name, (("kind", kind),)): value for (name, kind), value in others.items()})
        lines = []
        for name, told in COUNTERS.items():
            lines += [f"# HELP {PREFIX}{name} {told}", f"# TYPE {PREFIX}{name} counter"]
            found = sorted((labels, value) for (each, labels), value in counts.items() if each == name)
            lines += [f"{PREFIX}{name}{_labels(labels)} {value:g}" for labels, value in found or [((), 0)]]
        for name, told in GAUGES.items():
            lines += [
                f"# HELP {PREFIX}{name} {told}",
                f"# TYPE {PREFIX}{name} gauge",
                f"{PREFIX}{name} {gauges[name]:.17g}",
            ]
        return "\n".join(lines) + "\n"


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    return "{" + ",".join(f'{key}="{value}"' for key, value in labels) + "}" if labels else ""
