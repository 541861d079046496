"""Does an hour of mixed requests stay within a budget? Faster than real time, on the demo:

    python tests/soak.py [--minutes 60] [--memory 1.0] [--seed 0]

Chat turns with pictures and sound, recordings alone and side by side, live transcription with guesses, and sessions
that are extended, rewound, forked and thrown away, in random order and of random lengths. Each counts as the time that
it would take a user: speech its length, a turn of a chat 20 seconds. What MLX holds, with the buffers that it keeps for
reuse, and what the process has grown since it loaded the model must never exceed the budget. A line for every five
minutes shows whether they grow.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable, Iterator

os.environ["MLX_ENABLE_TF32"] = "0"  # before mlx is imported

import mlx.core as mx
import numpy as np
from reference_cases import PICTURES, RECORDINGS, media_file

from mlx_gemma4 import Drafter, Model, Processor, Session, Transcriber, load, load_audio
from mlx_gemma4.decoder.budget import ContextFull, MemoryFull
from mlx_gemma4.live.hear.listener import Listener
from mlx_gemma4.live.hear.loop import listen
from mlx_gemma4.programs.chat import Conversation
from mlx_gemma4.programs.segments import transcribe_each

TURN = 20.0
"""Seconds that a turn counts: it is read and the next one is typed."""
EVERY = 300.0
"""Seconds between lines."""


class Requests:
    """Programs on one model, and random requests to them. Each returns the seconds that it counts."""

    def __init__(self, model: Model, processor: Processor, chance: random.Random) -> None:
        self._model, self._chance = model, chance
        self._sounds = [media_file(record["audio"]) for record in RECORDINGS]
        self._pictures = [media_file(record["image"]) for record in PICTURES]
        self._drafter = Drafter()
        self._chat = Conversation(model, processor, system="Be brief.", drafter=self._drafter)
        self._transcriber = Transcriber(model, processor, drafter=self._drafter)
        self._session = Session(model)
        self.refused = 0

    def any(self) -> float:
        """One of them. A refusal is an answer, too."""
        kinds: list[Callable[[], float]] = [self._turn, self._turn, self._recordings, self._live, self._pieces]
        try:
            return self._chance.choice(kinds)()
        except (ContextFull, MemoryFull):
            self.refused += 1
            self._session.reset()
            return TURN

    def _turn(self) -> float:
        content: list[dict[str, object]] = []
        if self._chance.random() < 0.4:
            content.append({"type": "image", "image": self._chance.choice(self._pictures)})
        content.append({"type": "text", "text": "What is this? " * self._chance.randint(1, 60)})
        if self._chance.random() < 0.3:
            content.append({"type": "audio", "audio": self._chance.choice(self._sounds)})
        again = self._chance.random()
        if again < 0.1:
            self._chat.reset()
        answers = (
            self._chat.regenerate(max_tokens=64)
            if again > 0.8 and self._chat.turns
            else self._chat.ask(content, max_tokens=self._chance.choice((8, 64, 300)))
        )
        for _ in answers:
            pass
        return TURN

    def _sound(self) -> np.ndarray:
        """A stretch of up to 20 s, of one recording or several."""
        samples = np.concatenate(
            [load_audio(self._chance.choice(self._sounds)) for _ in range(self._chance.randint(1, 4))]
        )
        length = self._chance.randint(8000, 320_000)
        return samples[:length]

    def _recordings(self) -> float:
        sounds = [self._sound() for _ in range(self._chance.randint(1, 6))]
        for _ in transcribe_each(sounds, self._transcriber, batch_size=self._chance.choice((1, 4, 8))):
            pass
        return sum(map(len, sounds)) / 16_000

    def _live(self) -> float:
        sound = self._sound()
        for _ in listen(sound, Listener(self._transcriber, guess_every=self._chance.choice((None, 0.5, 1.0)))):
            pass
        return len(sound) / 16_000

    def _pieces(self) -> float:
        """A session of any room that grows, is marked, rewound and forked."""
        session = self._session
        session.room = self._chance.choice((2, 100, 512))
        session.extend([self._chance.randrange(300) for _ in range(self._chance.randint(1, 900))])
        if self._chance.random() < 0.3:
            session.snapshot()
        session.rewind(session.reachable(self._chance.randint(0, session.position)))
        if self._chance.random() < 0.2 and session.position:
            other = session.fork(session.reachable(self._chance.randint(1, session.position)))
            other.extend([5, 6, 7])
            self._session = self._chance.choice((session, other))
        if self._chance.random() < 0.1:
            self._session = Session(self._model)
        return TURN


def resident() -> int:
    """Bytes of the process in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def soak(minutes: float, memory: float, seed: int) -> Iterator[str]:
    """A line now and then.

    Raises:
        AssertionError: The budget was exceeded.
    """
    chance = random.Random(seed)
    model, processor = load("demo", dtype="float32", memory=memory)
    requests = Requests(model, processor, chance)
    budget, start, began = memory * 1e9, resident(), time.monotonic()
    seconds, count, shown, most, grown = 0.0, 0, 0.0, 0, 0
    yield f"budget {memory:g} GB, context {model.budget.context}, resident {start / 1e6:.0f} MB when loaded"
    while seconds < 60 * minutes:
        mx.reset_peak_memory()
        seconds += requests.any()
        count += 1
        held = mx.get_peak_memory() + mx.get_cache_memory()
        most, grown = max(most, held), max(grown, resident() - start)
        assert held <= budget, f"MLX held {held / 1e6:.0f} MB at {seconds:.0f} s"
        assert grown <= budget, f"The process has grown by {grown / 1e6:.0f} MB at {seconds:.0f} s"
        if seconds - shown >= EVERY or seconds >= 60 * minutes:
            now = f"{mx.get_active_memory() / 1e6:.0f} and {mx.get_cache_memory() / 1e6:.0f} kept"
            yield (
                f"{seconds / 60:5.1f} min, {count} requests, {requests.refused} refused: MLX {most / 1e6:.0f} MB at "
                f"most, now {now}; the process +{(resident() - start) / 1e6:.0f} MB; {time.monotonic() - began:.0f} s"
            )
            shown, most = seconds, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--memory", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for line in soak(arguments.minutes, arguments.memory, arguments.seed):
        print(line, flush=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
