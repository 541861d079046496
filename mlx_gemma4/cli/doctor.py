"""``mlx_gemma4 doctor``: will it run live on this machine? Nothing is downloaded, and no network is touched."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, TextIO, TypeAlias

from mlx_gemma4.cli.shared.outputs import STDOUT, add_overwrite, text_output
from mlx_gemma4.cli.shared.report import aligned
from mlx_gemma4.cli.shared.signals import PROBLEM, Terminated
from mlx_gemma4.cli.shared.streams import ClosedStream
from mlx_gemma4.printable import printable

if TYPE_CHECKING:
    from mlx_gemma4.measure.checks.finding import Finding

COMMON = ("--help", "--help-all", "--no-devices", "--device", "--camera", "--json", "--overwrite")
"""The options that ``--help`` shows."""
EXAMPLES = ("mlx_gemma4 doctor", "mlx_gemma4 doctor --no-devices --json doctor.json")

Write: TypeAlias = Callable[[list[str]], None]
Begin: TypeAlias = Callable[[str], None]

WIDTH = 79
VERDICT, SUBJECT = 12, 12
"""Columns of the verdict and of the subject, with the space behind them."""
STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red", "not tested": "dim"}
ANSWERS = {
    "ok": "Everything that was tested works.",
    "warning": "It works, within the limits that are marked as warnings.",
    "problem": "Something would not work",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-devices",
        action="store_true",
        help="leave out the microphone and the camera",
    )
    parser.add_argument("--device", help="microphone, by number or part of its name (default: the system's)")
    parser.add_argument("--camera", help="camera, by number or part of its name (default: the first one)")
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="also write the findings and figures to FILE; - is stdout, instead of text",
    )
    add_overwrite(parser)


def run(arguments: argparse.Namespace) -> int:
    from mlx_gemma4.measure.doctor import examine, worst

    found: list[Finding] = []
    options = {"device": arguments.device, "camera": arguments.camera}
    with open_report(arguments) as report, paper(arguments) as (write, begin):
        try:
            for finding in examine(options, devices=not arguments.no_devices, begin=begin):
                found.append(finding)
                write(lines(finding))
            write(["", *conclusion(found)])
        except (KeyboardInterrupt, Terminated):
            write(["", "Interrupted. The other checks did not run."])
            raise
        finally:
            if report is not None:
                report.write(as_json(found))
                report.flush()
    return PROBLEM if worst(found) == "problem" else 0


@contextmanager
def open_report(arguments: argparse.Namespace) -> Iterator[TextIO | None]:
    """Open the file of ``--json``, before anything is measured; None without one."""
    if arguments.json is None:
        yield None
        return
    with text_output(arguments.json, "--json", overwrite=arguments.overwrite) as stream:
        yield stream


@contextmanager
def paper(arguments: argparse.Namespace) -> Iterator[tuple[Write, Begin]]:
    """Where lines go: to stdout, unless JSON goes there; a terminal has colours, and shows which check is running."""
    if arguments.json == STDOUT or (arguments.json is not None and isinstance(sys.stdout, ClosedStream)):
        yield lambda lines: None, lambda name: None
    elif isinstance(sys.stdout, ClosedStream):
        raise ValueError("Standard output is closed; write to a file with --json FILE")
    elif not sys.stdout.isatty():
        yield lambda lines: print(*map(encodable, lines), sep="\n", flush=True), lambda name: None
    else:
        with screen() as functions:
            yield functions


@contextmanager
def screen() -> Iterator[tuple[Write, Begin]]:
    """A terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)

    def write(lines: list[str]) -> None:
        for line in lines:
            text = Text(printable(encodable(line)))
            text.stylize(STYLES.get(line[:VERDICT].strip(), ""), 0, VERDICT)
            console.print(text)

    with console.status("", spinner="line") as status:
        yield write, lambda name: status.update(f"checking: {name}")


def encodable(text: str) -> str:
    """The text in what stdout can encode: a device may have any name."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def lines(finding: Finding) -> list[str]:
    """A finding in lines: what was found, then what to do about it, then its table."""
    subject = f"{finding.verdict:<{VERDICT}}{finding.subject:<{SUBJECT}}"
    indent = " " * len(subject)
    written = _wrapped(finding.text, subject, indent)
    if finding.remedy:
        written += _wrapped(finding.remedy, f"{indent}> ", f"{indent}  ")
    if finding.table:
        written += [f"{indent}{row}".rstrip() for row in aligned(finding.table).splitlines()]
    return written


def _wrapped(text: str, first: str, indent: str) -> list[str]:
    """A name of a device or a file stays in one piece, so that it can be copied."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [first.rstrip()]


def conclusion(found: list[Finding]) -> list[str]:
    """The answer, in a line or two."""
    from mlx_gemma4.measure.doctor import worst

    problems = [finding.subject for finding in found if finding.verdict == "problem"]
    names = f": {', '.join(dict.fromkeys(problems))}." if problems else ""
    return _wrapped(f"{ANSWERS[worst(found)]}{names}", "", "")


def as_json(found: list[Finding]) -> str:
    """All findings with their figures."""
    from mlx_gemma4 import __version__
    from mlx_gemma4.measure.doctor import worst

    report = {
        "mlx_gemma4": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "verdict": worst(found),
        "findings": [finding.to_dict() for finding in found],
    }
    return json.dumps(report, ensure_ascii=False, indent=2) + "\n"
