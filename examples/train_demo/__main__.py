"""``python -m examples.train_demo STEP --work FOLDER``: make the demo's checkpoint, step by step."""

from __future__ import annotations

import argparse
from pathlib import Path

from .settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.train_demo", description=__doc__)
    steps = {
        "recordings": _recordings,
        "tokenizer": _tokenizer,
        "train": _train,
        "export": _export,
        "tests": _tests,
        "evaluate": _evaluate,
        "report": _report,
        "pack": _pack,
    }
    parser.add_argument("step", choices=(*steps, "all"))
    parser.add_argument("--work", type=Path, default=Path("work"), help="folder for all files (default: work)")
    parser.add_argument("--seed", type=int, default=Settings.seed, help="seed of the training (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=Settings.steps, help="steps of the training (default: %(default)s)"
    )
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name, run in steps.items():
        if arguments.step in (name, "all"):
            print(f"== {name}", flush=True)
            run(arguments)


def _recordings(arguments: argparse.Namespace) -> None:
    from .recordings import make_all

    make_all(arguments.work / "recordings")


def _tokenizer(arguments: argparse.Namespace) -> None:
    from .tokenizer import make_tokenizer

    make_tokenizer(arguments.work / "tokenizer")


def _train(arguments: argparse.Namespace) -> None:
    from .train import train

    train(arguments.work, Settings(steps=arguments.steps, seed=arguments.seed))


def _export(arguments: argparse.Namespace) -> None:
    from .export import export

    export(arguments.work)


def _tests(arguments: argparse.Namespace) -> None:
    from .tests import make_tests

    make_tests(arguments.work)


def _evaluate(arguments: argparse.Namespace) -> None:
    from .evaluate import evaluate

    evaluate(arguments.work)


def _report(arguments: argparse.Namespace) -> None:
    from .report import report

    report(arguments.work)


def _pack(arguments: argparse.Namespace) -> None:
    from .pack import pack

    pack(arguments.work)


if __name__ == "__main__":
    main()
