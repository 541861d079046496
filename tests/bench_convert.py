"""Time and memory of 4-bit conversions by this package and by mlx-vlm, alternating, each in its own process:

    python tests/make_random_checkpoint.py CHECKPOINT --layers 24
    python tests/bench_convert.py CHECKPOINT --ours PYTHON --peer PYTHON [--out FOLDER] [--rounds 3]

Needs GNU time (``apt-get install time``). The checkpoint is read once beforehand, so that the disk does not slow down
only the first conversion. Outputs are measured and removed. ``--ours`` or ``--peer`` may be left out.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

GNU_TIME = "/usr/bin/time"


@dataclass(frozen=True)
class Run:
    """Time, memory and output of one conversion."""

    seconds: float
    peak_bytes: int
    output_bytes: int


def convert(python: str, package: str, checkpoint: Path, output: Path) -> Run:
    """Run one conversion under GNU time, measure its output and remove it."""
    command = [python, "-m", package, "convert", "--hf-path", str(checkpoint), "--mlx-path", str(output), "-q"]
    try:
        done = subprocess.run([GNU_TIME, "-v", *command], capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"{' '.join(command)} failed with exit code {done.returncode}:\n{done.stderr}")
        seconds, peak_bytes = read_report(done.stderr)
        return Run(seconds, peak_bytes, sum(path.stat().st_size for path in output.rglob("*") if path.is_file()))
    finally:
        shutil.rmtree(output, ignore_errors=True)


def read_report(report: str) -> tuple[float, int]:
    """Wall seconds and the largest resident set in bytes, from the report of GNU time at the end of stderr."""
    wall = re.findall(r"Elapsed \(wall clock\) time .*: ([\d:.]+)$", report, re.MULTILINE)[-1]
    kilobytes = re.findall(r"Maximum resident set size \(kbytes\): (\d+)$", report, re.MULTILINE)[-1]
    seconds = 0.0
    for part in wall.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds, int(kilobytes) * 1024


def read_once(checkpoint: Path) -> None:
    """Bring the weights into the system's file cache, as far as they fit."""
    block = bytearray(1 << 24)
    for path in sorted(checkpoint.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass


def row(label: str, run: Run) -> str:
    return f"{label:<18}{run.seconds:>9.1f}{run.peak_bytes / 1e9:>12.2f}{run.output_bytes / 1e9:>12.2f}"


def middle(runs: list[Run]) -> Run:
    return Run(
        seconds=median(run.seconds for run in runs),
        peak_bytes=int(median(run.peak_bytes for run in runs)),
        output_bytes=int(median(run.output_bytes for run in runs)),
    )


def ratio(ours: Run, peer: Run) -> str:
    seconds, peak = ours.seconds / peer.seconds, ours.peak_bytes / peer.peak_bytes
    return f"{'ours / peer':<18}{seconds:>9.2f}{peak:>12.2f}{ours.output_bytes / peer.output_bytes:>12.2f}"


def measure(checkpoint: Path, pythons: dict[str, str], folder: Path, rounds: int) -> None:
    """Print one row for each conversion, then the ratio of the medians."""
    runs: dict[str, list[Run]] = {package: [] for package in pythons}
    read_once(checkpoint)
    print(f"{'':<18}{'seconds':>9}{'peak RSS GB':>12}{'output GB':>12}", flush=True)
    for _ in range(rounds):
        for package, python in pythons.items():
            run = convert(python, package, checkpoint, folder / package)
            runs[package].append(run)
            print(row(package, run), flush=True)
    if len(runs) == 2:
        print(ratio(*(middle(of_package) for of_package in runs.values())))


def gnu_time_found() -> bool:
    try:
        version = subprocess.run([GNU_TIME, "--version"], capture_output=True, text=True)
    except OSError:
        return False
    return "GNU" in version.stdout + version.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of a 4-bit conversion.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--ours", metavar="PYTHON", help="interpreter that has mlx_gemma4")
    parser.add_argument("--peer", metavar="PYTHON", help="interpreter that has mlx-vlm")
    parser.add_argument("--out", type=Path, help="where the conversions are written; default: the temporary folder")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    pythons = {"mlx_gemma4": args.ours, "mlx_vlm": args.peer}
    if not gnu_time_found():
        sys.exit(f"There is no GNU time at {GNU_TIME}; install it: apt-get install time")
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        chosen = {package: python for package, python in pythons.items() if python}
        try:
            measure(args.checkpoint, chosen, Path(folder), args.rounds)
        except ValueError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
