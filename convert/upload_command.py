"""Upload a converted checkpoint to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what mlx_gemma4 convert has made")
    parser.add_argument("repo", metavar="REPO", help="Hugging Face repo id (owner/name), made if there is none")
    parser.add_argument("--private", action="store_true", help="make the repo a private one")


def run(arguments: argparse.Namespace) -> None:
    from .publish import upload

    print(upload(arguments.folder, arguments.repo, private=arguments.private, note=_note))


def _note(text: str) -> None:
    print(text, file=sys.stderr)
