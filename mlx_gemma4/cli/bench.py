"""``mlx_gemma4 bench``: how fast a model is on this machine."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.cli.shared.options import add_model, load_model
from mlx_gemma4.cli.shared.report import add_report, report_file, save
from mlx_gemma4.cli.shared.signals import Terminated

if TYPE_CHECKING:
    from mlx_gemma4.decoder.model import Model
    from mlx_gemma4.inputs.processor import Processor
    from mlx_gemma4.measure.bench import Bench, Settings
    from mlx_gemma4.measure.figures import Table
    from mlx_gemma4.measure.random_model import RandomCheckpoint

RECIPES = {"12b": "4bit", "small": "bf16"}
"""The sizes of ``--random``, and the recipe of each: quantized products are slow on a CPU, for which small is."""

COMMON = ("--help", "--help-all", "--model", "--random", "--recipe", "--quick", "--long", "--json")
"""The options that ``--help`` shows."""
EXAMPLES = (
    "mlx_gemma4 bench --model mlx-community/gemma-4-12B-it-4bit --json bench.json",
    "mlx_gemma4 bench --random 12b --quick",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--random",
        choices=tuple(RECIPES),
        help="measure random weights in the shapes of the 12B, or of a small model for CPUs; downloads nothing",
    )
    parser.add_argument(
        "--recipe",
        help="with --random: how weights are stored; convert --list-recipes has the names (default: 4bit for 12b, "
        "bf16 for small)",
    )
    parser.add_argument("--quick", action="store_true", help="measure less, in under a minute")
    parser.add_argument("--long", action="store_true", help="also measure after 32,768 positions")
    parser.add_argument(
        "--repeat", type=int, metavar="N", help="repeat each run N times, however long it takes (default: 5, in 30 s)"
    )
    add_report(parser, "with the machine, the versions, the date, and each repetition")


def run(arguments: argparse.Namespace) -> None:
    check(arguments)
    report = report_file(arguments)
    settings = bench_settings(arguments)
    made = open_model(arguments)
    from mlx_gemma4.measure.bench import Bench

    bench = Bench(*made, settings, progress=note)
    stopped: BaseException | None = None
    try:
        bench.run()
    except (KeyboardInterrupt, Terminated) as interruption:
        stopped = interruption
    show_tables(bench)
    save(report, document(arguments, bench, is_complete=stopped is None))
    if stopped is not None:
        note("Stopped: the figures are those measured until then.")
        raise stopped


def check(arguments: argparse.Namespace) -> None:
    """Raise a ValueError if options do not go together."""
    if arguments.random is not None and arguments.model is not None:
        raise ValueError("--random measures random weights: leave out --model")
    if arguments.recipe is not None and arguments.random is None:
        raise ValueError("--recipe says how --random weights are stored; a checkpoint has its own: leave it out")
    if arguments.quick and arguments.long:
        raise ValueError("--quick measures less, --long measures more: leave one out")
    if arguments.repeat is not None and arguments.repeat < 1:
        raise ValueError(f"--repeat must be 1 or more, got {arguments.repeat}")


def bench_settings(arguments: argparse.Namespace) -> Settings:
    """The Settings that the options describe."""
    import math

    from mlx_gemma4.measure.bench import LONGEST, QUICK, Settings

    settings = QUICK if arguments.quick else Settings()
    if arguments.long:
        settings = replace(settings, positions=(*settings.positions, LONGEST))
    if arguments.repeat is not None:
        settings = replace(settings, repeats=replace(settings.repeats, count=arguments.repeat, patience=math.inf))
    return settings


def open_model(arguments: argparse.Namespace) -> tuple[Model, Processor]:
    """Load the checkpoint, or make the random one."""
    if arguments.random is None:
        return load_model(arguments)
    from mlx_gemma4.measure.random_files import random_processor

    checkpoint = random_checkpoint(arguments)
    note(f"Making {checkpoint.nbytes / 1e9:.2f} GB of random weights")
    return checkpoint.model(), random_processor(checkpoint)


def random_checkpoint(arguments: argparse.Namespace) -> RandomCheckpoint:
    """The checkpoint of ``--random``."""
    from mlx_gemma4.measure.random_model import RandomCheckpoint

    return RandomCheckpoint(arguments.random, arguments.recipe or RECIPES[arguments.random])


def show_tables(bench: Bench) -> None:
    """Print the tables and the machine: drawn on a terminal, as Markdown to pipes and files."""
    from mlx_gemma4.measure.bench_tables import tables
    from mlx_gemma4.measure.machine import machine

    for table in tables(bench.figures):
        print(drawn(table) if sys.stdout.isatty() else f"{table.markdown()}\n")
    print(machine().summary())


def drawn(table: Table) -> str:
    """A table for a terminal."""
    import io

    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawing

    drawing = Drawing(title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
    for index, name in enumerate(table.header):
        drawing.add_column(name, justify="right" if index else "left")
    for row in table.rows:
        drawing.add_row(*row)
    console = Console(file=io.StringIO(), force_terminal=True)
    console.print(drawing)
    return console.file.getvalue()  # type: ignore[attr-defined]


def document(arguments: argparse.Namespace, bench: Bench, *, is_complete: bool) -> dict[str, Any]:
    """Everything that was measured, and on what."""
    from mlx_gemma4.measure.machine import machine

    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine().to_dict(),
        "model": model_of(arguments),
        "settings": bench.settings.to_dict(),
        "complete": is_complete,
        "figures": [figure.to_dict() for figure in bench.figures],
    }


def model_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was measured."""
    from mlx_gemma4.checkpoint.hub import default_model

    if arguments.random is not None:
        checkpoint = random_checkpoint(arguments)
        return {"random": checkpoint.size, "recipe": checkpoint.recipe, "bytes": checkpoint.nbytes}
    return {"name": arguments.model or default_model(), "revision": arguments.revision, "dtype": arguments.dtype}
