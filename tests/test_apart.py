"""Checks of the doctor that run in processes of their own: what they find, and what they break."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_gemma4.measure.checks.apart import caught, run_apart
from mlx_gemma4.measure.checks.finding import Finding, Findings, Known

HEAD = """
import os, signal, sys, time
from pathlib import Path
from mlx_gemma4.measure.checks.finding import Finding
def check(known):
    yield Finding("first", "ok", "one")
"""
FIRST = Finding("first", "ok", "one")

Run = Callable[..., list[Finding]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a check of these lines, after a first finding."""
    monkeypatch.syspath_prepend(tmp_path)

    def run(body: str, seconds: float = 60.0, known: Known | None = None) -> list[Finding]:
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        (tmp_path / "some_check.py").write_text(HEAD + lines, encoding="utf-8")
        return list(run_apart("some_check", "subject", seconds, known or {}))

    return run


def test_findings_come_back_as_they_were(run: Run) -> None:
    """With figures and tables; a check sees what is known, and what libraries print is not taken for a finding."""
    body = (
        "print('printed by a library')\n"
        "os.write(1, b'written in C')\n"
        "yield Finding('second', 'warning', 'two – zwei', 'do it', {'seen': known}, [['a', 'b']])"
    )
    known = {"memory": {"budget": 3, "name": "Ä"}}
    second = Finding("second", "warning", "two – zwei", "do it", {"seen": known}, (("a", "b"),))
    assert run(body, known=known) == [FIRST, second]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            "raise RuntimeError('[metal] Command buffer failed:\\n  Insufficient Memory')",
            "The check failed: RuntimeError: [metal] Command buffer failed: Insufficient Memory",
        ),
        ("raise ValueError", "The check failed: ValueError: no message"),
        ("import no_such_module", "The check failed: ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "print('libc++abi: terminating due\\tto an exception', file=sys.stderr, flush=True)\nos.abort()",
            "The check was ended by SIGABRT: libc++abi: terminating due to an exception",
        ),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "The check was ended by SIGSEGV."),
        ("os._exit(3)", "The check ended with exit code 3."),
    ],
)
def test_a_check_that_breaks_costs_only_its_own_lines(run: Run, body: str, text: str) -> None:
    first, problem = run(body)
    assert first == FIRST
    remedy = "Install mlx_gemma4 again, in a new virtual environment." if "NotFound" in text else "Report this line."
    assert (problem.verdict, problem.text, problem.remedy) == ("problem", text, remedy)


def test_a_module_that_cannot_be_imported() -> None:
    [problem] = run_apart("mlx_gemma4.no_such_check", "subject", 60.0, {})
    text = "The check failed: ModuleNotFoundError: No module named 'mlx_gemma4.no_such_check'"
    remedy = "Install mlx_gemma4 again, in a new virtual environment."
    assert problem == Finding("no_such_check", "problem", text, remedy)


def test_a_check_that_hangs_is_ended(run: Run, tmp_path: Path) -> None:
    """With the processes that it started, also if it ignores signals."""
    body = (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "import subprocess\n"
        f"child = subprocess.Popen(['sleep', '600'])\n"
        f"Path({str(tmp_path / 'pids')!r}).write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "while True: time.sleep(60)"
    )
    first, problem = run(body, seconds=3.0)
    assert first == FIRST
    expected = Finding("subject", "problem", "The check did not end within 3 s.", "Run it again, alone.")
    assert problem == expected
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        assert not is_running(pid)


def test_nobody_waits_for_a_check_whose_reader_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after Ctrl-C."""
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "pid"
    body = f"    Path({str(file)!r}).write_text(str(os.getpid()))\n    yield FIRST\n    time.sleep(600)\n"
    (tmp_path / "slow_check.py").write_text(HEAD + body.replace("FIRST", "Finding('second', 'ok', '')"))
    findings = run_apart("slow_check", "subject", 60.0, {})
    assert next(findings) == FIRST and next(findings).subject == "second"
    findings.close()  # type: ignore[attr-defined]
    assert not is_running(int(file.read_text()))


def test_a_check_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    text = "The check cannot be started: No such file or directory."
    expected = Finding("subject", "problem", text, "Close other programs, or install Python again.")
    assert [*run_apart("some_check", "subject", 60.0, {})] == [expected]


def test_an_interruption_is_no_finding() -> None:
    def check(known: Known) -> Findings:
        yield FIRST
        raise KeyboardInterrupt

    findings = caught(check, "subject", {})
    assert next(findings) == FIRST
    with pytest.raises(KeyboardInterrupt):
        next(findings)


def is_running(pid: int) -> bool:
    """A process that was killed may need a moment to go."""
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        if sys.platform == "linux" and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        time.sleep(0.1)
    return True
