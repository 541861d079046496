"""``mlx_gemma4 doctor``: the report on paper and in JSON, exit codes, interruptions, and that it stays at home."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma4.cli import main
from mlx_gemma4.cli.doctor import lines
from mlx_gemma4.measure import doctor
from mlx_gemma4.measure.checks.finding import Finding
from mlx_gemma4.measure.doctor import CHECKS, CheckPlan, examine, worst

ROOT = Path(__file__).parent.parent
OK = Finding("memory", "ok", "16 GiB.", figures={"budget": 3})
WARNING = Finding("camera", "warning", "There is no camera.", "Connect one.")
PROBLEM = Finding("microphone", "problem", "It hears zeros.", "Allow it.")
SKIPPED = Finding("speed", "not tested", "It needs a GPU.")

Refused = Callable[..., str]


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the checks find this."""

    def finds(*findings: Finding) -> None:
        monkeypatch.setattr(doctor, "examine", lambda options, devices, begin: iter(findings))

    return finds


def test_a_finding_on_paper() -> None:
    text = "A sentence that is so long that it does not fit into one line of a terminal of 80 columns."
    finding = Finding("microphone", "not tested", text, f"Do this. {text}", table=[("recipe", "GB"), ("4bit", "7.1")])
    assert "\n".join(lines(finding)) == (
        "not tested  microphone  A sentence that is so long that it does not fit into\n"
        "                        one line of a terminal of 80 columns.\n"
        "                        > Do this. A sentence that is so long that it does not\n"
        "                          fit into one line of a terminal of 80 columns.\n"
        "                        recipe   GB\n"
        "                        4bit    7.1"
    )
    assert lines(OK) == ["ok          memory      16 GiB."]


def test_names_can_be_copied() -> None:
    """They are not broken, however long they are."""
    name = "/a-folder/" + 30 * "with-a-name-"
    assert any(name in line for line in lines(Finding("golden", "ok", f"It lies at {name} there.")))


@pytest.mark.parametrize(
    ("findings", "code", "answer"),
    [
        ([OK, SKIPPED], 0, "Everything that was tested works."),
        ([OK, WARNING], 0, "It works, within the limits that are marked as warnings."),
        ([WARNING, PROBLEM, OK], 1, "Something would not work: microphone."),
    ],
)
def test_the_answer_and_the_exit_code(
    finds: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    findings: list[Finding],
    code: int,
    answer: str,
) -> None:
    finds(*findings)
    assert main(["doctor"]) == code
    out, err = capsys.readouterr()
    assert err == "" and "\x1b" not in out
    assert out.splitlines() == [*(line for finding in findings for line in lines(finding)), "", answer]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("colours", [True, False])
def test_on_a_terminal(finds: Callable[..., None], monkeypatch: pytest.MonkeyPatch, colours: bool) -> None:
    """The verdict is in colour, unless NO_COLOR is set; names of devices do nothing to the terminal."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "" if colours else "1")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    finds(OK, Finding("camera", "problem", "'\x1b[2JEye' is black."))
    assert main(["doctor"]) == 1
    written = terminal.getvalue()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written)
    assert "ok          memory      16 GiB.\n" in plain
    assert "problem     camera      '\\x1b[2JEye' is black.\n" in plain
    assert ("\x1b[32mok          \x1b[0m" in written) == colours


def test_names_that_stdout_cannot_encode(finds: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    finds(Finding("camera", "ok", "'Kamera für Zoë' shows pictures."))
    assert main(["doctor"]) == 0
    sys.stdout.flush()
    assert written.getvalue().startswith(rb"ok          camera      'Kamera f\xfcr Zo\xeb' shows pictures.")


def test_json_in_a_file(finds: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Beside the text."""
    finds(OK, PROBLEM)
    file = tmp_path / "doctor.json"
    assert main(["doctor", "--json", str(file)]) == 1
    assert capsys.readouterr().out.endswith("\nSomething would not work: microphone.\n")
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["verdict"] == "problem"
    assert [Finding.from_dict(each) for each in report["findings"]] == [OK, PROBLEM]


def test_json_on_stdout(finds: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    """Instead of the text."""
    finds(OK, WARNING)
    assert main(["doctor", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert err == "" and report["verdict"] == "warning"
    assert report["findings"][0] == {
        "subject": "memory",
        "verdict": "ok",
        "text": "16 GiB.",
        "remedy": "",
        "figures": {"budget": 3},
        "table": [],
    }


def test_a_file_is_refused_before_anything_is_checked(
    monkeypatch: pytest.MonkeyPatch, refused: Refused, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "examine", None)
    file = tmp_path / "doctor.json"
    file.write_text("{}")
    expected = f"--json: {file} exists; name another file, or replace it with --overwrite"
    assert refused("doctor", "--json", file) == expected
    assert refused("doctor", "--json", tmp_path) == f"--json needs a file, but {tmp_path} is a folder"


# the checks


def test_checks_hand_on_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order; a check whose figures are missing is not tested."""
    calls: list[tuple[str, str, float, Any]] = []

    def run(module: str, subject: str, seconds: float, known: Any) -> Iterable[Finding]:
        calls.append((module.rpartition(".")[2], subject, seconds, dict(known)))
        yield from {"system": [OK], "golden": [SKIPPED], "fit": [WARNING]}[subject]

    monkeypatch.setattr(doctor, "run_apart", run)
    checks = [
        CheckPlan("system", 1.0),
        CheckPlan("golden", 2.0, ("memory",)),
        CheckPlan("costs", 3.0, ("memory", "device", "speed")),
        CheckPlan("fit", 4.0, ("memory",)),
    ]
    options = {"device": None, "camera": "1"}
    begun: list[str] = []
    found = [*examine(options, checks=checks, begin=begun.append)]
    missing = "It needs the result of another check: device, speed."
    assert found == [OK, SKIPPED, Finding("costs", "not tested", missing), WARNING]
    assert begun == ["system", "golden", "fit"]
    assert calls == [
        ("system", "system", 1.0, {"options": options}),
        ("golden", "golden", 2.0, {"options": options, "memory": {"budget": 3}}),
        ("fit", "fit", 4.0, {"options": options, "memory": {"budget": 3}}),
    ]


def test_devices_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then they are not touched."""
    monkeypatch.setattr(doctor, "run_apart", None)
    devices = [check for check in CHECKS if check.is_device]
    text = "Left out by --no-devices."
    assert [*examine({}, devices=False, checks=devices)] == [
        Finding("microphone", "not tested", text),
        Finding("camera", "not tested", text),
    ]


def test_the_worst_verdict() -> None:
    assert [worst(each) for each in ([], [SKIPPED, OK], [OK, WARNING], [WARNING, PROBLEM, OK])] == [
        "ok",
        "ok",
        "warning",
        "problem",
    ]


# whole runs

AT_HOME = """
import socket, sys
def refuse(*_): raise OSError("the network was touched")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def start(*arguments: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    """In a process that cannot reach a network."""
    (folder / "sitecustomize.py").write_text(AT_HOME)
    surroundings = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.Popen(
        [sys.executable, "-m", "mlx_gemma4", "doctor", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=surroundings,
        **options,
    )


def test_a_whole_run(tmp_path: Path) -> None:
    """In 80 columns, without colours, a network or a download, on a folder that it leaves as it was."""
    process = start("--no-devices", "--json", "-", folder=tmp_path)
    out, err = process.communicate(timeout=300)
    report = json.loads(out)
    assert err == "" and process.returncode == (1 if report["verdict"] == "problem" else 0)
    found = {each["subject"]: Finding.from_dict(each) for each in report["findings"]}
    assert not any("failed" in finding.text or "network" in finding.text for finding in found.values())
    assert {found[name].verdict for name in ("system", "versions", "golden", "bfloat16", "kernels")} == {"ok"}
    assert found["microphone"].verdict == found["camera"].verdict == "not tested"
    text = "\n".join(line for finding in found.values() for line in lines(finding))
    assert max(map(len, text.splitlines())) < 80
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"sitecustomize.py"}


def test_an_interrupted_run(tmp_path: Path) -> None:
    """Ctrl-C: what was found is there, in both forms."""
    process = start("--no-devices", "--json", "d.json", folder=tmp_path)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first.startswith("ok          system ")
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert (first + out).endswith("\n\nInterrupted. The other checks did not run.\n")
    report = json.loads((tmp_path / "d.json").read_text(encoding="utf-8"))
    assert report["findings"][0]["subject"] == "system"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals(tmp_path: Path, number: signal.Signals) -> None:
    process = start("--no-devices", folder=tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, "")
    assert out.endswith("\nInterrupted. The other checks did not run.\n")


def test_closed_streams(tmp_path: Path) -> None:
    """With a file nothing is missing; without one there is nowhere to write."""
    run = f"{sys.executable} -m mlx_gemma4 doctor --no-devices"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLX_GEMMA4_JSON": ""}
    done = subprocess.run(["bash", "-c", f"{run} >&-"], capture_output=True, text=True, cwd=tmp_path, env=environment)
    message = "mlx_gemma4: error: Standard output is closed; write to a file with --json FILE\n"
    assert (done.returncode, done.stderr) == (2, message)
