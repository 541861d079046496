"""Upload a converted checkpoint to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

COMMON = (
    "--help",
    "--help-all",
    "--private",
)
"""The options that ``--help`` shows."""
EXAMPLES = ("mlx_gemma4 upload out me/gemma-4-12B-it-4bit",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder written by mlx_gemma4 convert")
    parser.add_argument("repo", metavar="REPO", help="Hugging Face repo id (owner/name), created if it does not exist")
    parser.add_argument("--private", action="store_true", help="make the repo private")


def run(arguments: argparse.Namespace) -> None:
    from .publish import upload

    print(upload(arguments.folder, arguments.repo, private=arguments.private, note=_note))


def _note(text: str) -> None:
    print(text, file=sys.stderr)
