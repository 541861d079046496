"""``python -m examples.train_demo STEP --work FOLDER``."""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.train_demo", description=__doc__)
    parser.add_argument("step", choices=("recordings", "tokenizer", "train"))
    parser.add_argument("--work", type=Path, default=Path("work"), help="where all is made (default: work)")
    parser.add_argument("--steps", type=int, default=9000)
    arguments = parser.parse_args()
    if arguments.step == "recordings":
        from .recordings import make_all

        make_all(arguments.work / "recordings")
    elif arguments.step == "tokenizer":
        from .tokenizer import make_tokenizer

        make_tokenizer(arguments.work / "tokenizer")
    else:
        from .train import Settings, train

        train(arguments.work, Settings(steps=arguments.steps))


if __name__ == "__main__":
    main()
