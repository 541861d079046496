"""Whether live transcription with the 12B keeps up on this machine: the real listener on a virtual clock.

The demo hears its recordings, one by one and all at once. Each forward takes as long on the clock as it would with the
12B, by what was measured (``speed``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlx_gemma4.decoder.costs import ForwardCosts
from mlx_gemma4.measure.checks.finding import Finding, Findings, Known
from mlx_gemma4.measure.speed.figures import number

if TYPE_CHECKING:
    from mlx_gemma4.measure.simulated_machine import Simulation

FRAMES_PER_SECOND = 25
TIGHT = 0.8
"""Seconds of computing for a second of speech that leave nothing for other programs."""
RELIEF = (
    "Close other programs that use the GPU, and shorten utterances (listen --max-segment 8); or record first, and "
    "transcribe afterwards."
)
AFTERWARDS = "Use a Mac with an M chip for the 12B."


@dataclass(frozen=True)
class MeasuredMachine:
    """This machine, by seconds of forwards of several sizes."""

    body: ForwardCosts
    head: ForwardCosts
    name: str = "this machine"

    @classmethod
    def of(cls, figures: Mapping[str, Any]) -> MeasuredMachine:
        """Of what the check ``speed`` has measured."""
        return cls(_costs(figures["rows"]), _costs(figures["head"]))

    def seconds(self, rows: int, head_rows: int, position: int = 0) -> float:
        """How long a forward takes, of whose rows ``head_rows`` go through the head."""
        return self.body.seconds(rows) + (self.head.seconds(head_rows) if head_rows else 0.0)


def check(known: Known) -> Findings:
    figures = known["speed"]
    yield without_gpu(figures) if known["device"]["device"] == "cpu" else follows(listen_to_the_demo(figures))


def listen_to_the_demo(figures: Mapping[str, Any]) -> Simulation:
    """Let the demo hear its recordings at the pace of the 12B."""
    import numpy as np

    from mlx_gemma4.checkpoint.hub import DEMO
    from mlx_gemma4.inputs.audio.recording import load_audio
    from mlx_gemma4.loading import load
    from mlx_gemma4.measure.probes import packaged_recordings
    from mlx_gemma4.measure.simulated_machine import simulate, with_pauses

    recordings = [load_audio(recording.path) for recording in packaged_recordings()]
    samples = with_pauses([*recordings, np.concatenate(recordings)])
    return simulate(MeasuredMachine.of(figures), *load(DEMO, dtype="float32"), samples)


def follows(simulation: Simulation) -> Finding:
    """How busy the machine was, and how late texts came."""
    late = [max(0.0, round(seconds, 3)) for seconds in sorted(simulation.late)]
    figures = {
        "busy": round(simulation.busy, 3),
        "behind": round(simulation.behind, 2),
        "late": late,
        "guesses_per_second": round(simulation.guesses / simulation.speech, 2),
        "overload": simulation.overload,
    }
    text = f"The 12B needs {simulation.busy:.2f} s of computing for a second of speech"
    if simulation.busy > 1 or simulation.overload:
        return Finding("live", "problem", f"{text}: it falls behind. Simulated, with measured costs.", RELIEF, figures)
    if late:
        text += (
            f", and has the text {late[len(late) // 2]:.2f} s after the silence that ends it, {late[-1]:.2f} s at most"
        )
    text += ". Simulated, with measured costs."
    if simulation.busy > TIGHT:
        return Finding("live", "warning", text, RELIEF, figures)
    return Finding("live", "ok", text, figures=figures)


def without_gpu(figures: Mapping[str, Any]) -> Finding:
    """On a CPU: at least what the frames of a second cost."""
    rows, seconds = max((int(rows), seconds) for rows, seconds in figures["rows"].items())
    busy = FRAMES_PER_SECOND * seconds / rows
    text = f"The 12B needs about {number(busy)} s of computing for a second of speech on this CPU: it cannot follow."
    return Finding("live", "problem", text, AFTERWARDS, {"busy": busy})


def _costs(seconds: Mapping[str, float]) -> ForwardCosts:
    costs = ForwardCosts()
    for rows, each in seconds.items():
        costs.record(int(rows), each)
    return costs
