"""Measures one program on one checkpoint, in the environment whose Python runs this text.

It imports nothing of this package but in ``Ours``, so that it runs where only the peer is installed. All programs go
the same way; each is called as its own command line calls it. A job comes on stdin, its result goes to stdout:

    job      {"program": "mlx-lm", "folder": …, "prompts": {"64": [ids], …}, "tokens": 64, "picture": path, …}
    result   {"versions": {…}, "rows": {"load": {"wall": s, "cpu": s, "runs": 3}, "prefill 64": {…}, …}}
             and "error", one line, if it got no further
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import metadata
from typing import Any

QUESTION = "What do you see in this picture?"
TRANSCRIBE = "Transcribe the audio."
RUNS, PATIENCE = 3, 4.0
"""Runs that are kept of a row, at most, and seconds after which no further one begins."""
WARM_UP = 10.0
"""The first run is a warm-up and not kept, unless it takes longer than this."""


class Ours:
    """This package."""

    packages = ("mlx-gemma4", "mlx")
    hears = sees = True
    positions = 0
    """Of the last question about a picture or sound."""

    def __init__(self) -> None:
        from mlx_gemma4 import load
        from mlx_gemma4.outputs.sample import Sampler, Sampling
        from mlx_gemma4.outputs.steps import generate_step
        from mlx_gemma4.session import Session

        self._load, self._sampler, self._sampling = load, Sampler, Sampling()
        self._steps, self._session = generate_step, Session

    def load(self, folder: str) -> None:
        self.model, self.processor = self._load(folder)

    def tokens(self, ids: Sequence[int], count: int) -> Iterator[int]:
        return self._generate(ids, count)

    def picture(self, path: str) -> Iterator[Any]:
        return self._ask([{"type": "image", "image": path}, {"type": "text", "text": QUESTION}])

    def sound(self, path: str) -> Iterator[Any]:
        return self._ask([{"type": "text", "text": TRANSCRIBE}, {"type": "audio", "audio": path}])

    def _ask(self, content: list[dict[str, str]]) -> Iterator[Any]:
        prompt = self.processor.prompt([{"role": "user", "content": content}])
        self.positions = len(prompt)
        return self._generate(prompt, 1)

    def _generate(self, prompt: Any, count: int) -> Iterator[int]:
        size = self.model.config.text_config.vocab_size
        sampler = self._sampler(self._sampling, size, suppress=self.processor.suppressed_ids)
        session = self._session(self.model)
        return self._steps(session, session.extend(prompt), sampler, max_tokens=count)


class MlxLm:
    """mlx-lm, which takes text."""

    packages = ("mlx-lm", "mlx")
    hears = sees = False

    def __init__(self) -> None:
        import mlx.core as mx
        from mlx_lm import load
        from mlx_lm.generate import generate_step

        self._mx, self._load, self._steps = mx, load, generate_step

    def load(self, folder: str) -> None:
        self.model, self.tokenizer = self._load(folder)

    def tokens(self, ids: Sequence[int], count: int) -> Iterator[int]:
        for token, _ in self._steps(self._mx.array(list(ids)), self.model, max_tokens=count):
            yield int(token)


class MlxVlm:
    """mlx-vlm."""

    packages = ("mlx-vlm", "mlx")
    hears = sees = True
    positions = 0

    def __init__(self) -> None:
        import mlx.core as mx
        from mlx_vlm import load
        from mlx_vlm.generate import generate_step, stream_generate
        from mlx_vlm.prompt_utils import apply_chat_template

        self._mx, self._load, self._steps = mx, load, generate_step
        self._stream, self._template = stream_generate, apply_chat_template

    def load(self, folder: str) -> None:
        self.model, self.processor = self._load(folder)

    def tokens(self, ids: Sequence[int], count: int) -> Iterator[int]:
        prompt = self._mx.array([list(ids)])
        for token, _ in self._steps(prompt, self.model, None, None, max_tokens=count, temperature=0.0):
            yield int(token)

    def picture(self, path: str) -> Iterator[Any]:
        prompt = self._template(self.processor, self.model.config, QUESTION, num_images=1)
        return self._answer(prompt, image=[path])

    def sound(self, path: str) -> Iterator[Any]:
        prompt = self._template(self.processor, self.model.config, TRANSCRIBE, num_audios=1)
        return self._answer(prompt, audio=[path])

    def _answer(self, prompt: Any, **media: Any) -> Iterator[Any]:
        for response in self._stream(self.model, self.processor, prompt, max_tokens=1, temperature=0.0, **media):
            self.positions = response.prompt_tokens
            yield response


PROGRAMS: dict[str, Any] = {"mlx-gemma4": Ours, "mlx-lm": MlxLm, "mlx-vlm": MlxVlm}


class Stopwatch:
    """Wall time and CPU time, of all threads, since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._wall, time.process_time() - self._cpu


def repeated(run: Callable[[], tuple[float, float]]) -> dict[str, Any]:
    """Median times of a run that returns them, after a warm-up."""
    first = run()
    began, times = time.perf_counter(), [first] if first[0] > WARM_UP else []
    while not times or (first[0] <= WARM_UP and len(times) < RUNS and time.perf_counter() - began < PATIENCE):
        times.append(run())
    middle = len(times) // 2
    wall, cpu = (sorted(column)[middle] for column in zip(*times, strict=True))
    return {"wall": wall, "cpu": cpu, "runs": len(times)}


def loaded(program: Any, folder: str) -> tuple[float, float]:
    """Times to load a checkpoint; the one that was loaded before is released first."""
    import mlx.core as mx

    program.model = None
    mx.clear_cache()
    watch = Stopwatch()
    program.load(folder)
    return watch.read()


def first_token(make_steps: Callable[[], Iterator[Any]]) -> tuple[float, float]:
    """Times to the first token."""
    watch = Stopwatch()
    steps = make_steps()
    next(steps)
    return watch.read()


def decoded(program: Any, ids: Sequence[int], count: int) -> tuple[float, float]:
    """Times of the tokens behind the first."""
    steps = program.tokens(ids, count + 1)
    next(steps)
    watch = Stopwatch()
    for _ in steps:
        pass
    return watch.read()


def rows_of(program: Any, job: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows that the program can do, one by one."""
    import mlx.core as mx

    yield "load", repeated(partial(loaded, program, job["folder"]))
    for name, ids in job["prompts"].items():
        mx.reset_peak_memory()
        row = repeated(partial(first_token, partial(program.tokens, ids, 1)))
        yield f"prefill {name}", {**row, "peak_bytes": mx.get_peak_memory()}
    shortest = next(iter(job["prompts"]))
    yield f"decode {job['tokens']}", repeated(partial(decoded, program, job["prompts"][shortest], job["tokens"]))
    if program.sees and job.get("picture"):
        row = repeated(partial(first_token, partial(program.picture, job["picture"])))
        yield "picture", {**row, "positions": program.positions}
    if program.hears and job.get("sound"):
        row = repeated(partial(first_token, partial(program.sound, job["sound"])))
        yield "sound", {**row, "positions": program.positions}


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """The result of a job."""
    kind = PROGRAMS[job["program"]]
    try:
        program = kind()
    except ImportError as error:
        return {"error": f"{job['program']} cannot be imported: {error}"}
    versions = {package: version(package) for package in kind.packages}
    rows: dict[str, dict[str, Any]] = {}
    try:
        for name, row in rows_of(program, job):
            rows[name] = row
    except Exception as error:
        done = f"after {list(rows)[-1]}" if rows else "while it loaded the checkpoint"
        return {"versions": versions, "rows": rows, "error": f"{done}: {type(error).__name__}: {error}"}
    return {"versions": versions, "rows": rows}


def main() -> None:
    result, sys.stdout = sys.stdout, sys.stderr  # programs print as they please
    print(json.dumps(measure(json.load(sys.stdin))), file=result, flush=True)


if __name__ == "__main__":
    main()
