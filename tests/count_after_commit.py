"""What a server computes behind the last sample: of sound that was heard while it came, and of a whole clip.

    python tests/count_after_commit.py

Counts, not times: forwards of the demo, and positions in them, from the last sample to the text. A whole clip is the
sound of a chat, as servers of clips take it.
"""

from __future__ import annotations

import os

os.environ["MLX_ENABLE_TF32"] = "0"  # before mlx is imported: float32 is to be float32


import numpy as np
from reference_cases import media_file
from servers import Told

from mlx_gemma4 import Model, Processor, Session, load, load_audio, stream_generate
from mlx_gemma4.serve.hearing import Commit, Committed, Sound
from mlx_gemma4.serve.work.hearing import Inbox, hear
from mlx_gemma4.serve.work.speech import Transcribers

BLOCK = 1600
"""Samples of an append: 0.1 s."""


def count_live(transcribers: Transcribers, samples: np.ndarray) -> tuple[int, int]:
    """Forwards and positions behind the last sample, if each block is heard when it comes."""
    inbox, told = Inbox(clock=lambda: 0.0), Told()
    work = hear(inbox, transcribers, "English", told)  # type: ignore[arg-type]
    for start in range(0, len(samples), BLOCK):
        inbox.put(Sound(samples[start : start + BLOCK]))
        while inbox.seconds:
            next(work)
        next(work)
    session = work.gi_frame.f_locals["ear"]._listening.listener._transcriber.session
    before = session.forwards, session.computed
    inbox.put(Commit())
    while not any(isinstance(event, Committed) for event in told):
        next(work)
    return session.forwards - before[0], session.computed - before[1]


def count_clip(model: Model, processor: Processor, samples: np.ndarray) -> tuple[int, int]:
    """Forwards and positions of a chat about the whole clip."""
    content = [{"type": "text", "text": "Transcribe the audio."}, {"type": "audio", "audio": samples}]
    session = Session(model)
    for _ in stream_generate(
        model, processor, processor.prompt([{"role": "user", "content": content}]), session=session
    ):
        pass
    return session.forwards, session.computed


def main() -> None:
    model, processor = load("demo", dtype="float32")
    transcribers = Transcribers(model, processor)
    speech = load_audio(media_file("hibari-03.wav"))[: 3 * 16_000]
    count_live(transcribers, speech)  # learns what forwards cost
    for seconds in (3, 10, 28):
        samples = np.resize(speech, seconds * 16_000)
        for how, (forwards, positions) in (
            ("heard while it came", count_live(transcribers, samples)),
            ("as a whole clip", count_clip(model, processor, samples)),
        ):
            print(f"{seconds} s, {how}: {forwards} forwards of {positions} positions behind the last sample")


if __name__ == "__main__":
    main()
