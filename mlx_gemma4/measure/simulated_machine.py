"""Live transcription on a simulated Mac: the real listener on a virtual clock. Each forward takes as long on it as it
would with the 12B in 4 bits. A small checkpoint does the hearing.

    sound ──▶ listener ──▶ session.extend(…), session.step(…)     real texts, real decisions
                 ▲              │ rows, and rows of the head
                 └── clock ◀────┘ seconds of such a forward on the machine

What a forward costs follows from MLX's kernels for quantized matrices (``mlx/backend/metal/quantized.cpp``, 0.32):

    chip      rows      kernel      reads of all weights
    M3, M4    1         qmv         1
              2–12      qmv_wide    1 for every 5 rows; the arithmetic of more than 2 rows takes longer than the read
              13–       qmm         tiles of 32 rows, limited by arithmetic: 13 rows cost as much as 32
    M1, M2    1–5       qmv         nearly one for each row
              6–        qmm         as above

The constants are those of an M4 Pro with MLX 0.32, as published for matrices like these: 3 rows cost 1.13 times as much
as one, 4 rows 1.43, 5 rows 1.75, 8 rows 2.84, and 10 to 32 rows 4.5 (github.com/ml-explore/mlx/issues/3852). They are
not exact for any other machine. A simulation shows what a policy does; only a measurement shows what a Mac does.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import mlx.core as mx
import numpy as np

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.audio.endpoint import Endpointing
from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.live.hear.delays import quantile
from mlx_gemma4.live.hear.events import Final, ListenerEvent
from mlx_gemma4.live.hear.listener import Listener
from mlx_gemma4.live.hear.loop import listen
from mlx_gemma4.live.hear.sources import FileSource
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.pieces import Piece
from mlx_gemma4.programs.transcribe import Transcriber
from mlx_gemma4.session import Session

BODY_BYTES, BODY_FLOP = 6.25e9, 2 * 10.9e9
"""Read by each forward: 48 layers at 4.5 bits a weight; and computed for each row."""
HEAD_BYTES, HEAD_FLOP = 0.82e9, 2 * 1.007e9
"""The head: 262,144 tokens × 3840 at 6.5 bits a weight."""
POSITION_BYTES = 40 * 8192 + 8 * 2048
"""Keys and values of a position that a forward reads, within the window: 40 sliding layers and 8 full ones in bf16."""
TAIL_TOKENS = 10
"""End of the 12B's prompt: ``<audio|><turn|>``, a newline, the model's turn, and an empty thought block."""
OVERHEAD = 0.004
"""Seconds of a forward in which the GPU waits for the host."""
READ_EFFICIENCY = 0.85
"""Share of the memory's bandwidth at which weights are read."""


class CostModel(Protocol):
    """What forwards cost on a machine."""

    @property
    def name(self) -> str: ...

    def seconds(self, rows: int, head_rows: int, position: int = 0) -> float:
        """How long a forward takes, of whose rows ``head_rows`` go through the head."""


@dataclass(frozen=True)
class Machine:
    """A Mac."""

    name: str
    bandwidth: float
    """GB/s."""
    tflops: float
    """Of the GPU, in 10^12 operations a second."""
    kernels: Literal["M1, M2", "M3, M4"] = "M3, M4"
    wide: float = 0.25
    """Share of ``tflops`` that qmv_wide reaches."""
    tiled: float = 0.65
    """Share of ``tflops`` that qmm reaches."""

    def seconds(self, rows: int, head_rows: int, position: int = 0) -> float:
        """How long a forward takes, of whose rows ``head_rows`` go through the head."""
        body = self._matrix(BODY_BYTES, BODY_FLOP, rows)
        head = self._matrix(HEAD_BYTES, HEAD_FLOP, head_rows) if head_rows else 0.0
        return body + head + position * POSITION_BYTES / self._bytes_per_second + OVERHEAD

    @property
    def _bytes_per_second(self) -> float:
        return self.bandwidth * 1e9 * READ_EFFICIENCY

    def _matrix(self, size: float, flop: float, rows: int) -> float:
        """Seconds of products with matrices of ``size`` bytes, at ``flop`` operations a row."""
        read = size / self._bytes_per_second
        if rows > 12 or (rows > 5 and self.kernels == "M1, M2"):
            return max(read, math.ceil(rows / 32) * 32 * flop / (self.tflops * 1e12 * self.tiled))
        if self.kernels == "M1, M2":
            return read * (1 + 0.8 * (rows - 1))
        tiles = math.ceil(rows / 5)
        return tiles * max(read, math.ceil(rows / tiles) * flop / (self.tflops * 1e12 * self.wide))


MACHINES = (
    Machine("120 GB/s, 4.3 TFLOPS", 120, 4.3),
    Machine("150 GB/s, 7 TFLOPS", 150, 7),
    Machine("273 GB/s, 16 TFLOPS", 273, 16),
    Machine("400 GB/s, 30 TFLOPS", 400, 30),
    Machine("M2 Pro: 8 rows cost 7 steps", 200, 6.8, "M1, M2", tiled=0.347),
    Machine("M3 Pro: 8 rows cost 3.4 steps", 150, 7.4, wide=0.135),
)


@dataclass(frozen=True)
class Forward:
    """A forward on a simulated machine."""

    kind: Literal["frames", "guess", "token"]
    rows: int
    head_rows: int
    seconds: float


class SimulatedClock:
    """The time on a machine: it passes when something waits, and with each forward of a session.

    Attributes:
        now: Seconds.
        forwards: All forwards so far.
    """

    def __init__(self, machine: CostModel) -> None:
        self.machine = machine
        self.now = 0.0
        self.forwards: list[Forward] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def forward(self, kind: Literal["frames", "guess", "token"], rows: int, head_rows: int, position: int) -> None:
        """Let a forward take its time."""
        seconds = self.machine.seconds(rows, head_rows, position)
        self.now += seconds
        self.forwards.append(Forward(kind, rows, head_rows, seconds))

    @contextmanager
    def timing(self, session: Session, missing: int) -> Iterator[None]:
        """Charge the forwards of a session. Those with logits have ``missing`` rows more: the 12B's longer prompt."""
        extend, step = session.extend, session.step

        def timed_extend(piece: Piece, *, logits_from: int | None = None, snapshots: Collection[int] = ()) -> mx.array:
            rows = len(piece)
            if logits_from is None:
                self.forward("frames", rows, 0, session.position)
            else:
                self.forward("guess", rows + missing, rows - logits_from, session.position)
            return extend(piece, logits_from=logits_from, snapshots=snapshots)

        def timed_step(tokens: mx.array, *, logits_from: int = 0) -> mx.array:
            self.forward("token", tokens.size, tokens.size - logits_from, session.position)
            return step(tokens, logits_from=logits_from)

        watched: Any = session
        watched.extend, watched.step = timed_extend, timed_step
        try:
            yield
        finally:
            del watched.extend, watched.step


@dataclass
class Simulation:
    """What live transcription did on a machine."""

    machine: CostModel
    speech: float
    """Seconds of speech, as the endpointer counts it: with pauses, pre-roll and tail."""
    forwards: list[Forward]
    guesses: int
    behind: float
    """Seconds of sound that had piled up, at most."""
    late: list[float] = field(default_factory=list)
    """For each utterance that a silence ended: seconds from the end of that silence to its text."""
    texts: list[str] = field(default_factory=list)
    overload: bool = False

    @property
    def busy(self) -> float:
        """Seconds of the GPU for a second of speech."""
        return sum(forward.seconds for forward in self.forwards) / self.speech

    def per_second(self, kind: str) -> tuple[float, float, float]:
        """Forwards of a kind in a second of speech, their rows, and rows of the head."""
        forwards = [forward for forward in self.forwards if forward.kind == kind]
        rows, head_rows = (sum(getattr(each, name) for each in forwards) for name in ("rows", "head_rows"))
        return len(forwards) / self.speech, rows / self.speech, head_rows / self.speech

    def __str__(self) -> str:
        counts = " ".join(
            f"{kind} {{:.1f}}/{{:.1f}}/{{:.1f}}".format(*self.per_second(kind)) for kind in ("frames", "guess", "token")
        )
        late = f"{1000 * quantile(self.late, 0.5):4.0f} {1000 * max(self.late):5.0f} ms" if self.late else "-"
        return (
            f"{self.machine.name:30} busy {self.busy:.2f}  late {late}  behind {self.behind:.2f} s  "
            f"guesses {self.guesses / self.speech:.2f}/s  forwards/rows/head rows a second: {counts}"
        )


def simulate(
    machine: CostModel,
    model: Model,
    processor: Processor,
    samples: np.ndarray,
    settings: Endpointing | None = None,
    *,
    text: str | None = None,
    guess_every: float | None = None,
) -> Simulation:
    """Let somebody speak ``samples`` [n] into a machine, at the pace of speech; the other arguments are those of a
    ``Listener`` and its ``Transcriber``."""
    clock = SimulatedClock(machine)
    transcriber = Transcriber(model, processor, text=text, drafter=Drafter(clock=clock))
    missing = max(0, TAIL_TOKENS - transcriber.guess_rows)
    listener = Listener(transcriber, settings, guess_every=guess_every, clock=clock)
    source = FileSource(samples, clock=clock, sleep=clock.sleep)
    behind, overload, events = 0.0, False, list[ListenerEvent]()
    with clock.timing(transcriber.session, missing):
        for event in listen(source, listener):
            events.append(event)
            behind = max(behind, listener.behind)
            overload = overload or listener.overload is not None
    finals = [event for event in events if isinstance(event, Final)]
    frames = round(listener.endpointer.settings.silence / transcriber.frame_seconds)
    silence = frames * transcriber.frame_seconds
    return Simulation(
        machine=machine,
        speech=listener.endpointer.spoken * transcriber.frame_seconds,
        forwards=clock.forwards,
        guesses=listener.work.guesses,
        behind=behind,
        late=[final.after_speech - silence for final in finals if final.reason == "silence"],
        texts=[final.text for final in finals],
        overload=overload,
    )


def with_pauses(recordings: list[np.ndarray], *, noise: float = 1e-4, seconds: float = 1.0) -> np.ndarray:
    """Recordings one after the other, with the faint noise of a room between and behind them."""
    random = np.random.default_rng(0)
    pause = round(seconds * SAMPLE_RATE)
    parts = [part for each in recordings for part in (each, random.normal(0, noise, pause).astype(np.float32))]
    return np.concatenate(parts)
