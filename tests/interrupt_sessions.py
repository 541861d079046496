"""Send signals at random moments of real sessions; check the output and how long the end takes.

    python tests/interrupt_sessions.py --rounds 20 --seed 0

Each round starts ``listen``, ``live`` and ``transcribe`` on the demo checkpoint as processes of their own, and sends
each of SIGINT, SIGTERM and SIGHUP once, at a moment between the start and the end of the recording. Afterwards:

* the exit code is 0 (Ctrl-C in a live session, or the recording had ended), 130, 143 or 129
* stderr has no traceback
* stdout has every utterance that had ended, and words of one that was being spoken
* the saved WAV is valid and is the beginning of the recording
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from reference_cases import media_file

ROOT = Path(__file__).parent.parent
RECORDING = media_file("dialogue.wav")
RATE = 16_000
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COMMANDS = ("listen", "live", "transcribe")
MODEL = ["--model", "demo"]
DECIDED = 0.7
"""Seconds after an utterance by which its end is decided and its text is written."""
WORDS = 1.6
"""Seconds of speech, pre-roll included, after which there has been a guess."""
FAULTS = ("Traceback", "Exception ignored", "Fatal", "Error:")
LIMIT = 30.0
"""Seconds after which a process is killed."""


@dataclass
class Run:
    """One session that was interrupted."""

    command: str
    number: int
    moment: float
    code: int
    seconds: float
    """From the signal to the end."""
    out: str
    err: str
    faults: list[str]


@dataclass(frozen=True)
class Truth:
    """The results of the whole recording."""

    samples: np.ndarray
    utterances: list[tuple[float, float, str]]
    """Start, end, text."""
    transcript: str

    @property
    def length(self) -> float:
        return len(self.samples) / RATE


def run(command: str, number: int, moment: float, truth: Truth, folder: Path) -> Run:
    """Start a session, interrupt it after ``moment`` seconds, check its output."""
    wav = folder / f"{command}-{number}-{moment:.6f}.wav"
    with subprocess.Popen(
        [sys.executable, "-m", "mlx_gemma4", *arguments(command, wav)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        sent = time.monotonic()
        try:
            out, err = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
        seconds = time.monotonic() - sent
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode  # as a shell reports it
    done = Run(command, number, moment, code, seconds, out, err, [])
    done.faults += [*ends(done), *CHECKS[command](done, truth, wav)]
    return done


def arguments(command: str, wav: Path) -> list[str]:
    if command == "transcribe":
        return [command, str(RECORDING), *MODEL, "--max-segment", "10"]
    if command == "live":
        return [command, "--no-camera", "--input", str(RECORDING), *MODEL, "--format", "jsonl", "--max-tokens", "20"]
    return [command, "--input", str(RECORDING), *MODEL, "--save-audio", str(wav)]


def ends(done: Run) -> Iterator[str]:
    """Faults of the end of a session."""
    if done.code not in (0, 128 + done.number):
        yield f"exit code {done.code}"
    for each in FAULTS:
        if each in done.err:
            yield f"{each} on stderr"


def check_listen(done: Run, truth: Truth, wav: Path) -> Iterator[str]:
    if not wav.exists():
        if done.out:
            yield "text, but no sound was saved"
        return
    samples, rate = soundfile.read(wav, dtype="int16")
    if rate != RATE or wav.stat().st_size != 44 + 2 * len(samples):
        yield f"the WAV is not valid: {len(samples)} samples in {wav.stat().st_size} bytes"
    if not np.array_equal(samples, truth.samples[: len(samples)]):
        yield "the WAV is not the beginning of the recording"
    yield from check_text(done.out.splitlines(), truth, len(samples) / RATE)


def check_text(lines: list[str], truth: Truth, heard: float) -> Iterator[str]:
    """Faults of the text of the first ``heard`` seconds."""
    ended = [text for _, end, text in truth.utterances if text and end + DECIDED <= heard]
    if lines[: len(ended)] != ended:
        yield f"after {heard:.2f} s, {len(ended)} utterances had ended, stdout has {lines}"
    being_spoken = [start for start, end, text in truth.utterances if text and start + WORDS <= heard < end + DECIDED]
    if being_spoken and len(lines) <= len(ended):
        yield f"after {heard:.2f} s, somebody spoke since {being_spoken[0]:.2f} s, stdout has {lines}"


def check_live(done: Run, truth: Truth, wav: Path) -> Iterator[str]:
    try:
        events = [json.loads(line)["event"] for line in done.out.splitlines()]
    except ValueError as error:
        yield f"a line is not JSON: {error}"
        return
    if events.count("heard") - events.count("answered") > 1:
        yield f"questions without an answer: {events}"


def check_transcribe(done: Run, truth: Truth, wav: Path) -> Iterator[str]:
    if not truth.transcript.startswith(done.out):
        yield f"stdout is not the beginning of the transcript: {done.out!r}"


CHECKS: dict[str, Callable[[Run, Truth, Path], Iterator[str]]] = {
    "listen": check_listen,
    "live": check_live,
    "transcribe": check_transcribe,
}


def read_truth() -> Truth:
    """The recording and its texts, from uninterrupted sessions."""
    command = [sys.executable, "-m", "mlx_gemma4"]
    listened = subprocess.run(
        [*command, "listen", "--input", str(RECORDING), "--fast", *MODEL, "--format", "jsonl"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    events = [json.loads(line) for line in listened.stdout.splitlines()]
    transcribed = subprocess.run(
        [*command, *arguments("transcribe", Path())], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return Truth(
        soundfile.read(RECORDING, dtype="int16")[0],
        [(event["start"], event["end"], event["text"]) for event in events if event["event"] == "final"],
        transcribed.stdout,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Interrupt sessions at random moments.")
    parser.add_argument("--rounds", type=int, default=20, help="sessions of each command and signal (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--command", choices=COMMANDS, action="append", help="only this one; may be repeated")
    options = parser.parse_args()
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)  # a shell may have started this with some of them ignored
    truth, moments = read_truth(), random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            run(command, number, moments.uniform(0.1, longest(command, truth)), truth, Path(folder))
            for command in options.command or COMMANDS
            for number in SIGNALS
            for _ in range(options.rounds)
        ]
    report(runs)
    return any(done.faults for done in runs)


def longest(command: str, truth: Truth) -> float:
    """The latest moment: live sessions play the recording in real time."""
    return 4.0 if command == "transcribe" else truth.length + 2.0


def report(runs: list[Run]) -> None:
    for command in COMMANDS:
        for number in SIGNALS:
            some = [done for done in runs if (done.command, done.number) == (command, number)]
            if some:
                slowest, late = max(done.seconds for done in some), sum(done.seconds >= 2 for done in some)
                codes = {code: [done.code for done in some].count(code) for code in {done.code for done in some}}
                bad = sum(bool(done.faults) for done in some)
                print(
                    f"{command:10} {signal.Signals(number).name:7} {len(some):3} runs · faults {bad} · slowest end "
                    f"{slowest:.2f} s, {late} of 2 s or more · exit codes {codes}"
                )
    for done in runs:
        for fault in done.faults:
            print(f"{done.command} {signal.Signals(done.number).name} after {done.moment:.2f} s: {fault}")
            print(f"    {done.err.strip()[-300:]}", file=sys.stderr)


if __name__ == "__main__":
    os.environ["MLX_ENABLE_TF32"] = "0"
    sys.exit(main())
