"""What measurements share: tables, and files of figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlx_gemma4.cli.shared.outputs import add_overwrite, check_output, output_file


def add_report(parser: argparse.ArgumentParser, more: str) -> None:
    parser.add_argument("--json", metavar="FILE", help=f"also write the figures to FILE, {more}")
    add_overwrite(parser)


def check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"--limit must be 1 or more, got {limit}")


def report_file(arguments: argparse.Namespace) -> Path | None:
    """The file of ``--json``. Raises before anything is measured if it cannot be written."""
    if arguments.json is None:
        return None
    report = Path(arguments.json)
    check_output(report, "--json", overwrite=arguments.overwrite)
    return report


def save(report: Path | None, figures: dict[str, Any]) -> None:
    """Write figures, if a file was asked for."""
    if report is not None:
        with output_file(report, "--json", overwrite=True) as file:
            file.append(f"{json.dumps(figures, ensure_ascii=False, indent=2)}\n".encode())


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
