"""``mlx_gemma4 bench --against``: another program on the same checkpoint, in turns."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.cli.shared.signals import on_exit, starting

if TYPE_CHECKING:
    from mlx_gemma4.measure.speed.figures import Table
    from mlx_gemma4.measure.speed.peers import Job
    from mlx_gemma4.measure.speed.random_model import RandomCheckpoint

NAMES = ("mlx-lm", "mlx-vlm")
POSITIONS, QUICK_POSITIONS = (64, 1024, 4096), (64, 1024)
TURNS, QUICK_TURNS = 5, 3
TOKENS = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("peers", "Another program on the same checkpoint, in turns with this one.")
    group.add_argument("--against", choices=NAMES, help="compare with this program, and print ratios")
    group.add_argument(
        "--peer", metavar="PYTHON", help="Python interpreter of an environment that has it (default: this one)"
    )


def check(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if options do not go together."""
    if arguments.peer is not None and arguments.against is None:
        raise ValueError(f"--peer needs --against and a program: {' or '.join(NAMES)}")
    if arguments.against is None:
        return
    options = {"long": False, "draft_model": None, "draft": "auto", "dtype": None, "kv_bits": None}
    for name, usual in options.items():
        if getattr(arguments, name) != usual:
            raise ValueError(
                f"--against measures what both programs do by themselves: leave out --{name.replace('_', '-')}"
            )


class Comparing:
    """The comparison that the options describe: what it measured so far, as tables and figures."""

    def __init__(self, arguments: argparse.Namespace, random: RandomCheckpoint | None) -> None:
        from mlx_gemma4.measure.speed.peers import Comparison, Programs

        self._arguments, self._random = arguments, random
        self._programs = Programs(arguments.against, arguments.peer or sys.executable)
        self._turns = arguments.repeat or (QUICK_TURNS if arguments.quick else TURNS)
        self._positions = QUICK_POSITIONS if arguments.quick else POSITIONS
        self.comparison = Comparison(arguments.against)

    def run(self) -> None:
        """Run all turns."""
        from mlx_gemma4.measure.speed.peers import compare

        self._programs.check()
        with self._folders() as (checkpoint, media):
            self._note_duration(checkpoint)
            jobs = make_jobs(checkpoint, media, self._positions)
            for line in compare(self._programs, jobs, self._turns, self.comparison):
                note(line)
        for program, problem in self.comparison.problems.items():
            note(f"{program} stopped {problem}")

    def tables(self) -> Iterator[Table]:
        from mlx_gemma4.measure.speed.bench_tables import comparison_table

        if self.comparison.rows:
            yield comparison_table(self.comparison)

    def figures(self) -> dict[str, Any]:
        """For the JSON file."""
        settings = {"positions": list(self._positions), "tokens": TOKENS, "turns": self._turns}
        return {"settings": settings, "against": self.comparison.to_dict()}

    def _note_duration(self, checkpoint: Path) -> None:
        """Say how long it will take, if that is long."""
        from mlx_gemma4.checkpoint.weight_files import weight_files
        from mlx_gemma4.decoder.config import Config
        from mlx_gemma4.measure.speed.estimate import announcement, comparison_seconds, measure_costs

        nbytes = sum(path.stat().st_size for path in weight_files(checkpoint))
        costs = measure_costs(Config.from_file(checkpoint / "config.json"), nbytes)
        seconds = comparison_seconds(costs, self._positions, TOKENS, self._turns)
        if (text := announcement(costs, seconds)) is not None:
            note(text)

    @contextmanager
    def _folders(self) -> Iterator[tuple[Path, Path]]:
        """The checkpoint, and a folder for media."""
        from mlx_gemma4.checkpoint.hub import checkpoint_folder, default_model

        arguments = self._arguments
        with temporary_folder() as folder:
            if self._random is not None:
                write_random(self._random, folder)
                yield folder, folder
            else:
                yield checkpoint_folder(arguments.model or default_model(), revision=arguments.revision), folder


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is removed at the end, also by a signal."""
    folder = Path(tempfile.mkdtemp(prefix="mlx_gemma4-bench-"))

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    with on_exit(remove):
        try:
            yield folder
        finally:
            remove()


def write_random(checkpoint: RandomCheckpoint, folder: Path) -> None:
    """Write a random checkpoint, so that both programs load it."""
    from mlx_gemma4.measure.speed.random_files import write_checkpoint

    note(f"Writing {checkpoint.nbytes / 1e9:.2f} GB of random weights to {folder}")
    with starting():
        write_checkpoint(checkpoint, folder)


def make_jobs(checkpoint: Path, media: Path, positions: tuple[int, ...]) -> Callable[[int], Job]:
    """What both programs do in a turn, by its number: the same, with other tokens in each turn."""
    import numpy as np
    import soundfile

    from mlx_gemma4.decoder.config import Config
    from mlx_gemma4.inputs.audio.recording import SAMPLE_RATE
    from mlx_gemma4.measure.speed.bench_media import PICTURE, sound
    from mlx_gemma4.measure.speed.peers import Job

    config = Config.from_file(checkpoint / "config.json")
    size = config.text_config.vocab_size
    recording = media / "sound.wav"
    soundfile.write(recording, sound(), SAMPLE_RATE, subtype="PCM_16")

    def job(turn: int) -> Job:
        # control tokens and placeholders of media lie at both ends of a vocabulary
        draw = np.random.default_rng(turn)
        prompts = {count: draw.integers(size // 16, size // 2, count).tolist() for count in positions}
        return Job(
            checkpoint,
            prompts,
            TOKENS,
            picture=None if config.vision_config is None else PICTURE,
            sound=None if config.audio_config is None else recording,
        )

    return job
