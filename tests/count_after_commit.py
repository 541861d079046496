"""What a server computes behind the last sample: of sound that was heard while it came, and of a whole clip at once.

    python tests/count_after_commit.py

Counts, not times: forwards of the demo, and positions in them, from the last sample to the text. All at once, the sound
is heard in slices with guesses in between, as where a client sends a clip faster than it is spoken.
"""

from __future__ import annotations

import os

os.environ["MLX_ENABLE_TF32"] = "0"  # before mlx is imported: float32 is to be float32

from typing import Any

import numpy as np
from reference_cases import media_file

from mlx_gemma4 import load, load_audio
from mlx_gemma4.serve.hearing import Commit, Committed, Sound
from mlx_gemma4.serve.work.hearing import Inbox, hear
from mlx_gemma4.serve.work.speech import Transcribers

BLOCK = 1600
"""Samples of an append: 0.1 s."""


class Told(list[Any]):
    """An outbox that is never full."""

    is_full = False
    put = list.append


def count(transcribers: Transcribers, samples: np.ndarray, *, live: bool) -> tuple[int, int]:
    """Forwards and positions behind the last sample."""
    inbox, told = Inbox(), Told()
    work = hear(inbox, transcribers, "English", told)  # type: ignore[arg-type]
    transcriber = None
    for start in range(0, len(samples), BLOCK):
        inbox.put(Sound(samples[start : start + BLOCK]))
        while live and inbox.seconds:
            next(work)
        if live:
            next(work)
            transcriber = transcriber or work.gi_frame.f_locals["ear"]._transcriber
    before = (0, 0) if transcriber is None else (transcriber.session.forwards, transcriber.session.computed)
    inbox.put(Commit())
    if transcriber is None:
        kept = transcribers._idle[-1][1]
        before, transcriber = (kept.session.forwards, kept.session.computed), kept
    while not any(isinstance(event, Committed) for event in told):
        next(work)
    return transcriber.session.forwards - before[0], transcriber.session.computed - before[1]


def main() -> None:
    transcribers = Transcribers(*load("demo", dtype="float32"))
    speech = load_audio(media_file("hibari-03.wav"))[: 3 * 16_000]
    count(transcribers, speech, live=True)  # learns what forwards cost
    for seconds in (3, 10, 28):
        for live in (True, False):
            forwards, positions = count(transcribers, np.resize(speech, seconds * 16_000), live=live)
            how = "as it is spoken" if live else "all at once"
            print(f"{seconds} s, {how}: {forwards} forwards of {positions} positions behind the last sample")


if __name__ == "__main__":
    main()
