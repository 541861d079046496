"""``mlx_gemma4 bench``: how fast a model is on this machine."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from mlx_gemma4.cli import peers
from mlx_gemma4.cli.shared.drafts import add_drafts, check_drafts, open_drafter
from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.cli.shared.options import add_model, load_model
from mlx_gemma4.cli.shared.report import add_report, report_file, save
from mlx_gemma4.cli.shared.signals import Session, starting

if TYPE_CHECKING:
    from mlx_gemma4.decoder.budget import Budget
    from mlx_gemma4.decoder.model import Model
    from mlx_gemma4.inputs.processor import Processor
    from mlx_gemma4.measure.speed.bench import Bench, Settings
    from mlx_gemma4.measure.speed.figures import Table
    from mlx_gemma4.measure.speed.random_model import RandomCheckpoint
    from mlx_gemma4.outputs.drafter import Drafter

RECIPES = {"12b": "4bit", "small": "bf16"}
"""The sizes of ``--random``, and the recipe of each: quantized products are slow on a CPU, for which small is."""

NOTED_BYTES = 1_000_000_000

COMMON = (
    "--help",
    "--help-all",
    "--model",
    "--random",
    "--recipe",
    "--quick",
    "--long",
    "--draft-model",
    "--against",
    "--peer",
    "--json",
)
"""The options that ``--help`` shows."""
EXAMPLES = (
    "mlx_gemma4 bench --model mlx-community/gemma-4-12B-it-4bit --json bench.json",
    "mlx_gemma4 bench --random 12b --quick",
    "mlx_gemma4 bench --random 12b --against mlx-lm",
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
        "--repeat", type=int, metavar="N", help="repeat each run N times, however long it takes (default: 5, in 20 s)"
    )
    add_drafts(parser)
    peers.add_arguments(parser)
    add_report(parser, "with the machine, the versions, the date, and each repetition")


def run(arguments: argparse.Namespace) -> int:
    check(arguments)
    report = report_file(arguments)
    random = None if arguments.random is None else random_checkpoint(arguments)
    if random is not None:
        random_budget(random, arguments)  # before anything is made, also for another program
    made = peers.Comparing(arguments, random) if arguments.against else Measuring(arguments, random)

    def show(*, is_complete: bool) -> None:
        """Also called while the model computes, from another thread: a forward of a 12B on a CPU takes minutes."""
        show_tables(made.tables())
        save(report, {**heading(arguments, random), "complete": is_complete, **made.figures()})
        if not is_complete:
            note("Stopped: the figures are those measured until then.")
        sys.stdout.flush()

    try:
        with Session(last_words=lambda: show(is_complete=False), patience=0) as session, session.working():
            made.run()
    except Exception:
        if any(made.tables()):
            show(is_complete=False)
        raise
    show(is_complete=session.number is None)
    return session.code


class Measuring:
    """The bench that the options describe: what it measured so far, as tables and figures."""

    def __init__(self, arguments: argparse.Namespace, random: RandomCheckpoint | None) -> None:
        settings = bench_settings(arguments)
        model, processor, load_seconds = load(arguments) if random is None else (*make_random(random, arguments), None)
        from mlx_gemma4.measure.speed.bench import Bench

        drafters, scripted = open_drafters(arguments), random is not None
        self.bench = Bench(model, processor, settings, drafters=drafters, scripted=scripted, progress=note)
        if load_seconds is not None:
            self.bench.loaded(load_seconds)

    def run(self) -> None:
        note_duration(self.bench)
        self.bench.run()

    def tables(self) -> Iterator[Table]:
        from mlx_gemma4.measure.speed.bench_tables import tables

        return tables(self.bench.figures)

    def figures(self) -> dict[str, Any]:
        """For the JSON file."""
        figures = [figure.to_dict() for figure in self.bench.figures]
        return {"settings": self.bench.settings.to_dict(), "figures": figures}


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
    check_drafts(arguments)
    peers.check(arguments)


def bench_settings(arguments: argparse.Namespace) -> Settings:
    """The Settings that the options describe."""
    import math

    from mlx_gemma4.measure.speed.bench import LONGEST, QUICK, Settings

    settings = QUICK if arguments.quick else Settings()
    if arguments.long:
        settings = replace(settings, positions=(*settings.positions, LONGEST))
    if arguments.repeat is not None:
        settings = replace(settings, repeats=replace(settings.repeats, count=arguments.repeat, patience=math.inf))
    return settings


def load(arguments: argparse.Namespace) -> tuple[Model, Processor, float]:
    """Load the checkpoint, and say how many seconds that took; without imports and downloads."""
    import mlx_gemma4.loading  # noqa: F401
    from mlx_gemma4.checkpoint.hub import checkpoint_folder, default_model

    with starting():
        folder = checkpoint_folder(arguments.model or default_model(), revision=arguments.revision)
    began = time.perf_counter()
    model, processor = load_model(argparse.Namespace(**{**vars(arguments), "model": str(folder), "revision": None}))
    return model, processor, time.perf_counter() - began


def make_random(checkpoint: RandomCheckpoint, arguments: argparse.Namespace) -> tuple[Model, Processor]:
    """Make a random checkpoint in memory, if it fits."""
    from mlx_gemma4.loading import memory_limit, set_limits
    from mlx_gemma4.measure.speed.random_files import random_processor

    budget = random_budget(checkpoint, arguments)
    note(f"Making {checkpoint.nbytes / 1e9:.2f} GB of random weights")
    with starting():
        set_limits(memory_limit(arguments.memory))
        processor = random_processor(checkpoint)
        model = checkpoint.model(Making(checkpoint.nbytes))
        model.budget, model.kv_bits = budget, arguments.kv_bits
        return model, processor


def open_drafters(arguments: argparse.Namespace) -> dict[str, Drafter]:
    """What decoding is compared with. Random text has no n-grams that come again."""
    from mlx_gemma4.outputs.drafter import Drafter

    drafter = open_drafter(arguments)
    if drafter is None:
        return {}
    if drafter.model is None:
        return {} if arguments.random else {"n-grams": drafter}
    return {"n-grams": Drafter(), "drafter": drafter}


def random_budget(checkpoint: RandomCheckpoint, arguments: argparse.Namespace) -> Budget:
    """The budget of a random checkpoint that fits.

    Raises:
        DoesNotFit: It does not fit.
    """
    import mlx.core as mx

    from mlx_gemma4.checkpoint.recipes import RECIPES as STORED
    from mlx_gemma4.decoder.fit import Asked, fit
    from mlx_gemma4.decoder.memory import Needs, Use
    from mlx_gemma4.decoder.stored import check_kv_bits
    from mlx_gemma4.loading import memory_limit

    def needs(each: RandomCheckpoint) -> Needs:
        is_ahead = mx.default_device().type == mx.gpu
        return Needs(each.config.text_config, each.nbytes, kv_bits=arguments.kv_bits, is_ahead=is_ahead)

    def others() -> dict[str, Needs]:
        found = {f"--recipe {name}": needs(replace(checkpoint, recipe=name)) for name in STORED}
        smaller = {way: each for way, each in found.items() if each.weights < checkpoint.nbytes}
        return dict(sorted(smaller.items(), key=lambda pair: -pair[1].weights))

    check_kv_bits(checkpoint.config.text_config, arguments.kv_bits)
    name = f"--random {checkpoint.size} with the recipe {checkpoint.recipe}"
    return fit(Asked(name, memory_limit(arguments.memory), Use(), arguments.context), needs(checkpoint), others)


class Making:
    """Notes how much was made, every few GB."""

    def __init__(self, total: int) -> None:
        self._total, self._noted = total, 0

    def __call__(self, done: int) -> None:
        if done - self._noted >= NOTED_BYTES:
            self._noted = done
            note(f"{done / 1e9:.1f} of {self._total / 1e9:.1f} GB")


def random_checkpoint(arguments: argparse.Namespace) -> RandomCheckpoint:
    """The checkpoint of ``--random``."""
    from mlx_gemma4.measure.speed.random_model import RandomCheckpoint

    return RandomCheckpoint(arguments.random, arguments.recipe or RECIPES[arguments.random])


def note_duration(bench: Bench) -> None:
    """Say how long it will take, if that is long."""
    from mlx_gemma4.measure.speed.bandwidth import bytes_read_per_token
    from mlx_gemma4.measure.speed.estimate import announcement, bench_seconds, measure_costs

    costs = measure_costs(bench.model.config, bytes_read_per_token(bench.model))
    if (text := announcement(costs, bench_seconds(costs, bench.settings))) is not None:
        note(text)


def show_tables(tables: Iterable[Table]) -> None:
    """Print the tables and the machine: drawn on a terminal, as Markdown to pipes and files."""
    from mlx_gemma4.measure.machine import machine

    for table in tables:
        print(drawn(table) if sys.stdout.isatty() else f"{table.markdown()}\n")
    print(machine().summary())


def drawn(table: Table) -> str:
    """A table for a terminal."""
    import io

    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawing

    drawing = Drawing(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(table.header):
        drawing.add_column(name, justify="right" if index else "left", no_wrap=index == 0)
    for row in table.rows:
        drawing.add_row(*row)
    console = Console(file=io.StringIO(), force_terminal=True)
    console.print(drawing)
    return console.file.getvalue()  # type: ignore[attr-defined]


def heading(arguments: argparse.Namespace, random: RandomCheckpoint | None) -> dict[str, Any]:
    """When, where and on what."""
    from mlx_gemma4.checkpoint.hub import default_model
    from mlx_gemma4.measure.machine import machine

    model: dict[str, Any]
    if random is None:
        name = arguments.model or default_model()
        model = {"name": name, "revision": arguments.revision, "dtype": arguments.dtype}
    else:
        model = {"random": random.size, "recipe": random.recipe, "bytes": random.nbytes}
    model["kv_bits"] = arguments.kv_bits
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"date": date, "machine": machine().to_dict(), "model": model}
