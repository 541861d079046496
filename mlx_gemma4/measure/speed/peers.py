"""Another program on the same checkpoint, in turns with this one: processes of their own, one at a time.

    turn 1    peer, ours        each: load, prefill, decode, picture, sound; then a process that answers one token
    turn 2    ours, peer        the order changes, so that a machine that becomes slower favours nobody
    …

Only one of them is in memory at any time.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

OURS = "mlx-gemma4"
PEERS = ("mlx-lm", "mlx-vlm")
MODULES = {OURS: "mlx_gemma4", "mlx-lm": "mlx_lm", "mlx-vlm": "mlx_vlm"}
ONE_TOKEN = ("--prompt", "Hello", "--max-tokens", "1")
GREEDY = {OURS: "--temp", "mlx-lm": "--temp", "mlx-vlm": "--temperature"}
EXIT = "start to exit"
OPTIONS = "MLX_GEMMA4_"
"""Beginning of the variables that set options of our own command line."""

Row = dict[str, Any]
"""Of one turn: "wall" and "cpu" seconds, "runs", and what else a row has."""


@dataclass(frozen=True)
class Job:
    """What each program does in a turn."""

    folder: Path
    prompts: dict[int, list[int]]
    """Token ids of each length; behind the shortest one, tokens are decoded."""
    tokens: int
    picture: Path | None
    sound: Path | None
    """None if the checkpoint takes none."""

    def to_json(self, program: str) -> str:
        prompts = {str(count): ids for count, ids in self.prompts.items()}
        fields = {"program": program, "folder": str(self.folder), "prompts": prompts, "tokens": self.tokens}
        media = {"picture": self.picture, "sound": self.sound}
        return json.dumps({**fields, **{name: path and str(path) for name, path in media.items()}})


@dataclass
class Comparison:
    """The rows of all turns so far, by program."""

    peer: str
    rows: dict[str, dict[str, list[Row]]] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    """What a program could not do in the last turn."""

    def add(self, program: str, row: str, values: Row) -> None:
        self.rows.setdefault(program, {}).setdefault(row, []).append(values)

    @property
    def names(self) -> list[str]:
        """Rows in the order of our own."""
        ours, theirs = self.rows.get(OURS, {}), self.rows.get(self.peer, {})
        return [*ours, *(name for name in theirs if name not in ours)]

    def median(self, program: str, row: str, key: str) -> float | None:
        """Of all turns; None if the program has no such row."""
        values = [values[key] for values in self.rows.get(program, {}).get(row, []) if key in values]
        return median(values) if values else None

    def ratio(self, row: str, key: str) -> float | None:
        """The peer's median by ours: above 1, we are so many times as fast."""
        ours, theirs = self.median(OURS, row, key), self.median(self.peer, row, key)
        return None if not ours or theirs is None else theirs / ours

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        ratios = {name: {key: self.ratio(name, key) for key in ("wall", "cpu")} for name in self.names}
        return {"peer": self.peer, "versions": self.versions, "rows": self.rows, "ratios": ratios}


class Programs:
    """Runs programs; each peer has an interpreter.

    Args:
        peer: "mlx-lm" or "mlx-vlm".
        python: The interpreter of an environment that has it.

    Raises:
        ValueError: There is no such peer.
    """

    def __init__(self, peer: str, python: str) -> None:
        if peer not in PEERS:
            raise ValueError(f"Expected a peer of {', '.join(PEERS)}, got {peer!r}")
        self.peer = peer
        self._pythons = {OURS: sys.executable, peer: python}
        self._script = files("mlx_gemma4.measure.speed").joinpath("peer_script.py").read_text(encoding="utf-8")

    def check(self) -> None:
        """Raise a ValueError if the peer's interpreter cannot be run, or has no such package."""
        module = MODULES[self.peer]
        code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
        done = self._run(self.peer, ["-c", code])
        if done.returncode == 1 and not done.stderr:
            raise ValueError(
                f"There is no {self.peer} in the environment of {self._pythons[self.peer]}; "
                "name the Python interpreter of one that has it with --peer"
            )
        if done.returncode:
            raise ValueError(self._crash(self.peer, done))

    def measure(self, program: str, job: Job) -> dict[str, Any]:
        """The result of a job, as peer_script.py describes it.

        Raises:
            ValueError: The program did not get as far as a result; the message has its last line.
        """
        done = self._run(program, ["-c", self._script], job.to_json(program))
        lines = done.stdout.splitlines()
        try:
            result: dict[str, Any] = json.loads(lines[-1])
        except (IndexError, json.JSONDecodeError):
            raise ValueError(self._crash(program, done)) from None
        return result

    def answer_one_token(self, program: str, folder: Path) -> Row:
        """The times of a process from its start to its exit.

        Raises:
            ValueError: It fails; the message has its last line.
        """
        command = ["-m", MODULES[program], "generate", *ONE_TOKEN, GREEDY[program], "0", "--model", str(folder)]
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = self._run(program, command)
        wall, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise ValueError(self._crash(program, done))
        return {"wall": wall, "cpu": now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime, "runs": 1}

    def _run(self, program: str, arguments: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
        python = self._pythons[program]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OPTIONS)}
        environment |= {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}  # everything is there; nobody waits for a hub
        try:
            return subprocess.run(
                [python, *arguments],
                input=text,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                env=environment,
            )
        except OSError as error:
            raise ValueError(f"--peer: cannot run the Python interpreter {python}: {error.strerror}") from error

    def _crash(self, program: str, done: subprocess.CompletedProcess[str]) -> str:
        ended = f"exit code {done.returncode}" if done.returncode >= 0 else f"signal {-done.returncode}"
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        return f"{program} in {self._pythons[program]} failed with {ended}: {said[-1] if said else 'it said nothing'}"


def compare(programs: Programs, make_job: Callable[[int], Job], turns: int, comparison: Comparison) -> Iterator[str]:
    """Run all turns; what was measured is added to ``comparison``. Yields what is run next.

    Raises:
        ValueError: A program cannot load the checkpoint, or fails; the message says which and why.
    """
    order = (programs.peer, OURS)  # if something is wrong, it is with the peer
    for turn in range(turns):
        job = make_job(turn)
        for program in order if turn % 2 == 0 else reversed(order):
            yield f"turn {turn + 1} of {turns}: {program}"
            result = programs.measure(program, job)
            comparison.versions[program] = result.get("versions", {})
            for name, row in result.get("rows", {}).items():
                comparison.add(program, name, row)
            if "error" in result:
                _note_problem(program, result, job, comparison)
            comparison.add(program, EXIT, programs.answer_one_token(program, job.folder))


def _note_problem(program: str, result: dict[str, Any], job: Job, comparison: Comparison) -> None:
    """A program that can load the checkpoint but not answer about a picture keeps its other rows."""
    error = " ".join(str(result["error"]).split())[:500]
    if "load" in result.get("rows", {}):
        comparison.problems[program] = error
        return
    if not result.get("versions"):
        raise ValueError(error)
    raise ValueError(
        f"{program} cannot load {job.folder} ({error}); if it is a checkpoint for transformers, "
        "mlx_gemma4 convert makes one that MLX programs load"
    )
