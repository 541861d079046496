"""How fast a model is on this machine: prefill, decoding, first tokens, rows of a forward, memory.

Every run starts with an empty session. Nothing is measured while something else is computed: results are evaluated
before a clock is read.

    prefill   ├─ n positions ──────────┤first token          tokens/s: n / seconds
    decode                             ├─┼─┼─┼─┼─┼─┼─┼─┤     tokens/s: tokens after the first / seconds
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlx_gemma4.decoder.memory import Needs, Use, plan_memory
from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.measure.speed.bandwidth import bytes_read_per_token, copy_bandwidth
from mlx_gemma4.measure.speed.bench_drafts import measure_drafts
from mlx_gemma4.measure.speed.bench_live import measure_live
from mlx_gemma4.measure.speed.bench_media import PICTURE, SOUND_SECONDS, sound
from mlx_gemma4.measure.speed.figures import Figure, Figures, Repeats
from mlx_gemma4.measure.speed.scripted import scripted_model
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.outputs.sample import Sampler, Sampling
from mlx_gemma4.outputs.steps import generate_step
from mlx_gemma4.programs.transcribe import Transcriber
from mlx_gemma4.session import Session

ROWS = (1, 2, 4, 8, 16, 32)
ROWS_AT = 64
"""Positions before the rows."""
QUESTION = "What do you see in this picture?"
SEED = 0

Clock = Callable[[], float]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    positions: tuple[int, ...] = (64, 1024, 8192)
    tokens: int = 64
    """Decoded after a prompt, behind its first token."""
    repeats: Repeats = field(default_factory=Repeats)

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        repeats = {"repeats": self.repeats.count, "patience_seconds": self.repeats.patience}
        return {"positions": list(self.positions), "tokens": self.tokens, **repeats}


QUICK = Settings(positions=(64, 1024), tokens=16, repeats=Repeats(3, patience=3.0, warm_up=1.0))
LONGEST = 32768


@dataclass(frozen=True)
class TextRun:
    """One prompt of text and the tokens after it."""

    prefill_seconds: float
    """To the first token."""
    decode_seconds: float
    """Of the tokens after the first."""
    peak_bytes: int
    cache_bytes: int


class Bench:
    """Measures a model; ``figures`` holds what was measured so far.

    Args:
        drafters: By name, with which decoding is compared.
        scripted: The weights are random: what live transcription says is given (``scripted_model``).
        progress: Told what is measured next.
    """

    def __init__(
        self,
        model: Model,
        processor: Processor,
        settings: Settings | None = None,
        *,
        drafters: Mapping[str, Drafter] | None = None,
        scripted: bool = False,
        clock: Clock = time.perf_counter,
        progress: Progress = lambda text: None,
    ) -> None:
        self.model, self.processor, self.settings = model, processor, settings or Settings()
        self.figures = Figures()
        self._drafters, self._scripted = drafters or {}, scripted
        self._clock, self._progress = clock, progress
        size = model.config.text_config.vocab_size
        self._sampler = Sampler(Sampling(), size, suppress=processor.suppressed_ids)
        self._random = np.random.default_rng(SEED)

    def run(self) -> None:
        """Measure everything."""
        self.weights()
        self.bandwidth()
        self.text()
        self.first_tokens()
        self.rows()
        self.drafts()
        self.live()

    def loaded(self, seconds: float) -> None:
        """The checkpoint was loaded in this time."""
        self.figures.add(Figure("load", "checkpoint", "s", (seconds,)))

    def weights(self) -> None:
        """Sizes: of all weights, and of what a decode step reads of them."""
        nbytes = sum(tensor.nbytes for tensor in dict(tree_flatten(self.model.parameters())).values())
        for of, size in (("weights", nbytes), ("read by a token", bytes_read_per_token(self.model))):
            self.figures.add(Figure("model", of, "bytes", (float(size),)))

    def bandwidth(self) -> None:
        """The bandwidth of a copy, with which decoding is compared."""
        self._progress("copy bandwidth")
        self.figures.add(Figure("bandwidth", "copy", "bytes/s", (copy_bandwidth(clock=self._clock),)))

    def text(self) -> None:
        """Prefill and decoding after each number of positions."""
        context = self.model.budget.context
        for count in self.settings.positions:
            if context is not None and count + self.settings.tokens > context:
                self._progress(f"{count:,} positions are left out: the context is {context} (--context, --memory)")
                continue
            self._progress(f"prefill of {count:,} positions, {self.settings.tokens} tokens")
            runs = self._repeated(partial(self._text_run, count))
            self.figures.add(*self._text_figures(count, runs))

    def _text_run(self, count: int) -> TextRun:
        token_ids = self.token_ids(count)
        mx.clear_cache()
        mx.reset_peak_memory()
        session, tokens = Session(self.model), self.settings.tokens
        began = self._clock()
        steps = generate_step(session, session.extend(token_ids), self._sampler, max_tokens=tokens + 1)
        next(steps)
        first = self._clock()
        for _ in steps:
            pass
        return TextRun(first - began, self._clock() - first, mx.get_peak_memory(), session.nbytes)

    def _planned(self, positions: int) -> int:
        """The peak that the plan of memory has for a sequence, without its margin."""
        weights = sum(tensor.nbytes for tensor in dict(tree_flatten(self.model.parameters())).values())
        is_ahead = mx.default_device().type == mx.gpu
        needs = Needs(self.model.config.text_config, weights, number=self.model.dtype.size, is_ahead=is_ahead)
        return plan_memory(needs, Use(), positions).computing

    def token_ids(self, count: int) -> list[int]:
        """Random ids, other ones each time, without markers of media and ends of answers."""
        special = {*self.processor.suppressed_ids, *self.processor.stop_ids, self.processor.bos_id}
        size = self.model.config.text_config.vocab_size
        drawn = self._random.integers(0, size, 2 * count + 64).tolist()
        return [token_id for token_id in drawn if token_id not in special][:count]

    def first_tokens(self) -> None:
        """From a question, a picture's file or 10 s of sound to the first token of the answer."""
        vision, audio = self.model.config.vision_config, self.model.config.audio_config
        self._first_token("text", [{"type": "text", "text": QUESTION}])
        if vision is not None:
            self._first_token("picture", [{"type": "image", "image": PICTURE}, {"type": "text", "text": QUESTION}])
        if audio is not None:
            text = {"type": "text", "text": "Transcribe the audio."}
            self._first_token(f"{SOUND_SECONDS:g} s of sound", [text, {"type": "audio", "audio": sound()}])

    def rows(self) -> None:
        """A forward over several rows with the logits of each, as a draft is checked."""
        session = Session(self.model)
        session.extend(self.token_ids(ROWS_AT))
        mark = session.mark()

        def run(count: int) -> float:
            token_ids = self.token_ids(count)
            began = self._clock()
            mx.eval(mx.argmax(session.extend(token_ids, logits_from=0), axis=-1))
            seconds = self._clock() - began
            session.rewind(mark)
            return seconds

        for count in ROWS:
            self._progress(f"a forward over {count} rows")
            seconds = self._repeated(partial(run, count))
            self.figures.add(Figure("forward", f"{count} rows", "s", tuple(seconds), {"rows": count}))

    def drafts(self) -> None:
        """Decoding with and without drafts, in turns."""
        if self._drafters:
            self._progress(f"drafts: none, {', '.join(self._drafters)}, in turns")
            settings = self.settings
            self.figures.add(
                *measure_drafts(
                    self.model,
                    self.processor,
                    self._drafters,
                    tokens=settings.tokens,
                    repeats=settings.repeats,
                    clock=self._clock,
                )
            )

    def live(self) -> None:
        """From the end of speech to its text, in live transcription."""
        if self.model.config.audio_config is None:
            return
        self._progress("live transcription, at the pace of speech")
        model = scripted_model(self.model, self.processor) if self._scripted else self.model
        try:
            self.figures.add(*measure_live(Transcriber(model, self.processor)))
        except ImportError as error:  # of the voice detector, which has no wheel for every system
            self._progress(f"Live transcription is left out. {error}")

    def _first_token(self, name: str, content: list[dict[str, Any]]) -> None:
        self._progress(f"first token for {name}")
        prompt = self.processor.prompt([{"role": "user", "content": content}])

        def run() -> float:
            session = Session(self.model)
            began = self._clock()
            self._first(session, self.processor.prompt([{"role": "user", "content": content}]))
            return self._clock() - began

        seconds = self._repeated(run)
        self.figures.add(Figure("first token", name, "s", tuple(seconds), {"positions": len(prompt)}))

    def _first(self, session: Session, prompt: Prompt) -> None:
        mx.eval(self._sampler(session.extend(prompt)))

    def _repeated(self, run: Callable[[], Any]) -> list[Any]:
        return self.settings.repeats.collect(run, self._clock)

    def _text_figures(self, count: int, runs: list[TextRun]) -> list[Figure]:
        of, tokens = f"{count} positions", self.settings.tokens
        counts = {"positions": count}
        read = bytes_read_per_token(self.model, count + tokens // 2)
        rates = tuple(tokens / run.decode_seconds for run in runs)
        return [
            Figure("prefill", of, "tokens/s", tuple(count / run.prefill_seconds for run in runs), counts),
            Figure("prefill", f"{of}, first token", "s", tuple(run.prefill_seconds for run in runs), counts),
            Figure("decode", of, "tokens/s", rates, {**counts, "tokens": tokens}),
            Figure("decode", f"{of}, read", "bytes/s", tuple(read * rate for rate in rates), {"bytes_per_token": read}),
            Figure("memory", f"{of}, peak", "bytes", tuple(float(run.peak_bytes) for run in runs), counts),
            Figure("memory", f"{of}, planned", "bytes", (float(self._planned(count + tokens)),), counts),
            Figure("memory", f"{of}, keys and values", "bytes", tuple(float(run.cache_bytes) for run in runs), counts),
        ]
