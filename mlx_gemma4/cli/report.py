"""What measurements share: tables, and files of figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_report(parser: argparse.ArgumentParser, more: str) -> None:
    parser.add_argument("--json", metavar="FILE", help=f"write the figures to FILE as well, with {more}")


def check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise ValueError(f"Expected a --limit of 1 or more, got {limit}")


def report_file(name: str | None) -> Path | None:
    """The file of ``--json``; its folder is there when this returns."""
    if name is None:
        return None
    report = Path(name)
    if report.is_dir():
        raise ValueError(f"Expected a file for --json, got the folder {report}")
    report.parent.mkdir(parents=True, exist_ok=True)
    return report


def save(report: Path | None, told: dict[str, Any]) -> None:
    """Write figures, where a file was asked for."""
    if report is not None:
        report.write_text(f"{json.dumps(told, ensure_ascii=False, indent=2)}\n", encoding="utf-8")


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a table: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
