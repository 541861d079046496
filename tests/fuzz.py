"""Damaged and hostile files, by the thousand: each must be read, or refused in one line, within 10 s and 1 GB.

    python tests/fuzz.py --count 10000 --seed 1 --keep findings
    python tests/fuzz.py --count 500 --only sound

Inputs are made in worker processes, which are ended when one takes too long. An input depends on the seed and its
number alone: ``--first N --count 1`` makes number N again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any

import fuzz_mutate as mutate
import fuzz_seeds

KINDS = ("checkpoints", "headers", "pictures", "sound", "video")
SECONDS, BYTES = 10.0, 10**9
MOST_MESSAGE = 2000
"""Characters of a message: a path may be long, a value is cut."""


@dataclass(frozen=True)
class Finding:
    """An input that was neither read nor refused as it should be."""

    number: int
    kind: str
    file: str
    what: str


def make_input(kind: str, seeds: Path, folder: Path, random: Random) -> Path:
    """Damage one file of a kind; what is to be read, a file or a checkpoint's folder. ``folder`` is empty."""
    if kind in ("checkpoints", "headers"):
        return _damaged_checkpoint(kind, random.choice(sorted((seeds / kind).iterdir())), folder, random)
    source = random.choice(sorted((seeds / kind).iterdir()))
    target = folder / source.name
    target.write_bytes(mutate.mutate_media(source.read_bytes(), source.suffix, random))
    return target


def _damaged_checkpoint(kind: str, source: Path, folder: Path, random: Random) -> Path:
    names = sorted(path.name for path in source.iterdir())
    wanted = [name for name in names if name.endswith(".safetensors") == (kind == "headers")]
    damaged = {random.choice(wanted) for _ in range(random.choice((1, 1, 1, 2)))}
    for name in names:
        data = (source / name).read_bytes() if name in damaged else b""
        if name not in damaged:
            os.link(source / name, folder / name)
        elif name.endswith(".json"):
            (folder / name).write_bytes(mutate.mutate_json(data, random))
        elif name.endswith(".jinja"):
            (folder / name).write_bytes(mutate.mutate_template(data, random))
        elif name.endswith(".safetensors"):
            (folder / name).write_bytes(mutate.mutate_safetensors(data, random))
        else:
            (folder / name).write_bytes(mutate.mutate_bytes(data, random))
    (folder / "DAMAGED").write_text(" ".join(sorted(damaged)))
    return folder


def targets(kind: str) -> list[Callable[[Path], object]]:
    """What reads an input of a kind; each is tried, whatever the one before it says."""
    if kind in ("checkpoints", "headers"):
        return [_answer, _open_source, _read_record]
    return {"pictures": [_patches], "sound": [_load_sound, _stream_sound], "video": [_film, _decode_video]}[kind]


def _answer(folder: Path) -> object:
    """Load a checkpoint, read a chat with sound, and answer with a few tokens, as ``generate`` does."""
    import numpy as np

    from mlx_gemma4 import Processor, Sampling, generate
    from mlx_gemma4.decoder.weights import load_model

    processor = Processor.from_folder(folder)
    processor.tokenizer.decode(
        processor.tokenizer.encode("Hello, aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  b\n\n" * 20)
    )
    chat = [{"role": "user", "content": "Hello"}]
    failed: list[ValueError] = []
    try:
        processor.prompt(chat)
        part = {"type": "audio", "audio": np.zeros(1000, np.float32)}
        processor.prompt([{"role": "user", "content": [{"type": "text", "text": "Write"}, part]}])
    except ValueError as error:
        failed.append(error)  # the weights are looked at all the same
    model = load_model(folder)
    if failed:
        raise failed[0]
    prompt = processor.prompt(chat)
    if len(prompt) > 2000:
        return prompt  # a template may write a long text, which takes the model its time
    return generate(model, processor, prompt, max_tokens=2, sampling=Sampling.from_config(processor.generation))


def _open_source(folder: Path) -> object:
    from mlx_gemma4.convert.job import plan_conversion

    return plan_conversion(folder, "4bit", note=lambda _: None)


def _read_record(folder: Path) -> object:
    from mlx_gemma4.convert.card import card
    from mlx_gemma4.convert.publish import check_folder
    from mlx_gemma4.convert.record import Record

    check_folder(folder)
    return card(Record.read(folder), None)


def _patches(path: Path) -> object:
    from mlx_gemma4.inputs.vision.image import load_image, to_patches

    return to_patches(load_image(path), 70, 48)


def _load_sound(path: Path) -> object:
    from mlx_gemma4.inputs.audio.recording import load_audio

    return load_audio(path)


def _stream_sound(path: Path) -> object:
    from mlx_gemma4.inputs.audio.recording import stream_audio

    with path.open("rb") as file, stream_audio(file) as stream:
        return sum(len(block) for block in stream)


def _film(path: Path) -> object:
    from mlx_gemma4.inputs.vision.video import Selection, frames

    return [pixels.shape for _, pixels in frames(path, Selection(4))]


def _decode_video(path: Path) -> object:
    from mlx_gemma4.inputs.vision.video_file import Picture, VideoFile

    return [each.pixels().shape for each in VideoFile(path).decode(sound=True) if isinstance(each, Picture)]


def outcome(target: Callable[[Path], object], path: Path) -> str:
    """``read``, ``refused``, or what is wrong."""
    try:
        target(path)
    except (ValueError, ImportError) as error:
        message = str(error)
        if not message.strip() or len(message) > MOST_MESSAGE or any(ord(each) < 32 for each in message):
            return f"{target.__name__}: a message that is not one line: {message[:200]!r}"
        return "refused"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        own = [
            each
            for each in traceback.extract_tb(error.__traceback__)
            if "mlx_gemma4" in each.filename or "convert" in each.filename
        ]
        place = own[-1] if own else where
        line = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {' '.join(str(error).split())}"
        return f"{target.__name__}: {line[:300]}"
    return "read"


def work(seed: int, seeds: Path) -> None:
    """A worker: the numbers and kinds of inputs come in, one line each; what became of them goes out."""
    os.environ["MALLOC_ARENA_MAX"] = "2"
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)  # libraries and panics write there
    for kind in KINDS:
        for source in sorted((seeds / kind).iterdir()):
            for target in targets(kind):
                outcome(target, source)  # what is imported and compiled once is not the inputs' doing
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + 3 * BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers.write("ready\n")
    for line in sys.stdin:
        number, kind = line.split()
        with tempfile.TemporaryDirectory(dir=seeds.parent) as folder:
            path = make_input(kind, seeds, Path(folder), Random(f"{seed} {number} {kind}"))
            for target in targets(kind):
                before = _reset_peak()
                said = outcome(target, path)
                grown = _memory("VmHWM") - before
                if grown > BYTES:
                    said = f"{target.__name__}: {grown / 1e9:.1f} GB of memory"
                answers.write(json.dumps([int(number), said]) + "\n")
        answers.write(json.dumps([int(number), "done"]) + "\n")


def _memory(name: str) -> int:
    """Bytes, of ``/proc``; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def _reset_peak() -> int:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _memory("VmHWM")
    return _memory("VmRSS")


class Worker:
    """A process that reads inputs, started again when it has died or was ended."""

    def __init__(self, seed: int, seeds: Path) -> None:
        self._arguments = [sys.executable, __file__, "--work", str(seeds), "--seed", str(seed)]
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self.busy: tuple[int, str] | None = None
        self.since = 0.0
        self.outcomes: list[str] = []

    def give(self, number: int, kind: str) -> None:
        if self._process is None:
            environment = {**os.environ, "MALLOC_ARENA_MAX": "2", "MLX_ENABLE_TF32": "0"}
            self._process = subprocess.Popen(
                self._arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
            self._rest = b""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number} {kind}\n".encode())
        self._process.stdin.flush()
        self.busy, self.since, self.outcomes = (number, kind), monotonic(), []

    @property
    def output(self) -> Any:
        assert self._process is not None
        return self._process.stdout

    def take(self) -> bool:
        """Read what it says; whether it has done, or died."""
        data = os.read(self.output.fileno(), 65536)
        if not data:
            assert self._process is not None
            self.outcomes.append(f"the process ended with {self._process.wait()}")
            self.end()
            return True
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.since = monotonic()
            said = "ready" if line == b"ready" else json.loads(line)[1]
            if said == "done":
                return True
            if said != "ready":
                self.outcomes.append(said)
        return False

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            # closes its pipes, too
            self._process.communicate()
            self._process = None


def run(
    count: int,
    seed: int,
    *,
    kinds: tuple[str, ...] = KINDS,
    first: int = 0,
    workers: int = 1,
    keep: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[list[Finding], Counter[str]]:
    """Try inputs; the findings, and how many of all were read and refused."""
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory() as place:
        seeds = Path(place) / "seeds"
        fuzz_seeds.make_seeds(seeds)
        crew = [Worker(seed, seeds) for _ in range(workers)]
        waiting = iter([(number, kinds[number % len(kinds)]) for number in range(first, first + count)])
        try:
            for finding in _findings(crew, waiting, counts):
                kept = _with_file(finding, seeds, seed, keep)
                findings.append(kept)
                tell(f"{kept.number} {kept.kind} {kept.file}: {kept.what}")
        finally:
            for worker in crew:
                worker.end()
    return findings, counts


def _findings(crew: list[Worker], waiting: Iterator[tuple[int, str]], counts: Counter[str]) -> Iterator[Finding]:
    while True:
        for worker in crew:
            following = None if worker.busy else next(waiting, None)
            if following is not None:
                worker.give(*following)
        busy = [worker for worker in crew if worker.busy]
        if not busy:
            return
        ready, _, _ = select.select([worker.output for worker in busy], [], [], 0.5)
        for worker in busy:
            assert worker.busy is not None
            done = worker.output in ready and worker.take()
            # starting takes longer: it tries every whole file
            if not done and monotonic() - worker.since > (SECONDS if worker.outcomes else 6 * SECONDS):
                worker.outcomes.append("no end after 10 s")
                worker.end()
                done = True
            if done:
                counts.update(said for said in worker.outcomes if said in ("read", "refused"))
                wrong = [said for said in worker.outcomes if said not in ("read", "refused")]
                yield from (Finding(*worker.busy, "", said) for said in wrong)
                worker.busy = None


def _with_file(finding: Finding, seeds: Path, seed: int, keep: Path | None) -> Finding:
    """Make the input again: for its name, and to keep it."""
    with tempfile.TemporaryDirectory(dir=seeds.parent) as folder:
        path = make_input(finding.kind, seeds, Path(folder), Random(f"{seed} {finding.number} {finding.kind}"))
        name = (path / "DAMAGED").read_text() if path.is_dir() else path.name
        if keep is not None:
            target = keep / f"{seed}-{finding.number}"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(folder, target)
    return Finding(finding.number, finding.kind, name, finding.what)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--count", type=int, default=1000, help="inputs (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first input (default: 0)")
    parser.add_argument("--only", choices=KINDS, action="append", help="inputs of this kind; may be given again")
    parser.add_argument("--workers", type=int, choices=(1, 2), default=1, help="processes (default: 1)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="put the inputs of findings there")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        work(arguments.seed, arguments.work)
        return 0
    findings, counts = run(
        arguments.count,
        arguments.seed,
        kinds=tuple(arguments.only or KINDS),
        first=arguments.first,
        workers=arguments.workers,
        keep=arguments.keep,
        tell=lambda line: print(line, flush=True),
    )
    print(f"{counts['read']} read, {counts['refused']} refused, {len(findings)} findings", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
