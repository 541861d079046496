"""Live transcription on simulated Macs, as a table: python tests/simulate_live.py [RECORDING …]."""

from __future__ import annotations

import sys

from reference_cases import SHORT, media_file

from mlx_gemma4 import load, load_audio
from mlx_gemma4.measure.simulated_machine import MACHINES, simulate, with_pauses

NAMES = ("hibari-03.wav", "pico-04.wav", "long-1.wav", "dialogue.wav", "long-3.wav")


def main() -> None:
    paths = sys.argv[1:] or [media_file(name) for name in NAMES]
    samples = with_pauses([load_audio(path) for path in paths])
    model, processor = load("demo", dtype="float32")
    for machine in MACHINES:
        print(simulate(machine, model, processor, samples, text=SHORT), flush=True)


if __name__ == "__main__":
    main()
