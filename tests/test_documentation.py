"""README, docs and examples: every block of Python runs, every command line parses, every link leads to a file."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from golden import heard, parts, seen
from reference_cases import DESCRIBE, SHORT, media_file

from mlx_gemma4.cli import parser
from mlx_gemma4.measure import quality
from mlx_gemma4.measure.probes import packaged_recordings, text_probes

ROOT = Path(__file__).parent.parent
SPEECH, PICTURE = str(media_file("hibari-03.wav")), str(media_file("picture-01.png"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SPEECH_TEXT = heard("hibari-03.wav", "short").sure


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def with_python() -> list[Path]:
    return [page for page in PAGES if blocks(page, "python")]


def test_the_pages() -> None:
    """The README is short; a page that is missing here would not be tested."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150
    pages = ["agents", "checkpoints", "conversion", "live", "mcp", "memory", "python", "serve", "speed"]
    names = ["README.md", "CONTRIBUTING.md", *(f"{page}.md" for page in pages)]
    assert [page.name for page in PAGES] == names
    assert [page.name for page in with_python()] == ["README.md", "agents.md", "conversion.md", "python.md"]


@pytest.mark.parametrize("page", with_python(), ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path) -> None:
    """All its blocks, in order, in one process."""
    code = "\n".join(blocks(page, "python"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert {
        "README.md": lambda: done.stdout.startswith(SPEECH_TEXT),
        "agents.md": lambda: "Ended(reason=" in done.stdout,
        "conversion.md": lambda: re.fullmatch(r"\d+\.\d MB, \d+\.\d\d bits per weight\n", done.stdout),
        "python.md": lambda: done.stdout.startswith(seen("picture-01.png").sure),
    }[page.name]()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_commands(page: Path) -> None:
    """Every mlx_gemma4 line parses."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    commands = [re.split(r"[|<]", line.split("#")[0].partition("mlx_gemma4 ")[2])[0] for line in lines]
    for command in filter(None, commands):
        words = shlex.split(command)
        assert parser().parse_args(words).command == words[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_to_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"`((?:mlx_gemma4|convert|tests|examples|docs)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path


EXAMPLES = {
    "agent_with_a_server.py": (
        [f"{sys.executable} {ROOT / 'tests' / 'mcp_server.py'}", "What?", "demo"],
        "reason='done'",
    ),
    "ask_about_a_picture.py": ([], f"{DESCRIBE} {seen('picture-01.png').sure}"),
    "live_assistant.py": (["demo", PICTURE, SPEECH], " ms, stop)"),
    "live_camera.py": (["demo", PICTURE], f"0.00 s  {seen('picture-01.png').sure}"),
    "live_transcribe.py": (["demo", str(media_file("pico-04.wav"))], parts("pico-04.wav")[0].sure),
    "picture_to_json.py": ([], '"place": "on the bottom"'),
    "quantize_and_upload.py": ([], "The smallest within 0.05 nats a token is"),
    "spoken_wish.py": ([], "Ended(reason='done', answer='blue'"),
    "stream_recording.py": ([], SPEECH_TEXT),
}
"""Arguments, and a part of what each prints."""


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_the_examples_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the demo, and on public names only."""
    arguments, expected = EXAMPLES[path.name]
    if "server" in path.name:
        pytest.importorskip("mcp")
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60
    assert not re.search(r"(from|import) mlx_gemma4\.(?!convert import)", source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(path), *arguments])
    # quantize_and_upload.py measures a sentence and a word here, not the packaged page, pictures and recordings
    monkeypatch.setattr(quality, "page_probes", lambda processor: text_probes(processor, "Go back seven meters."))
    monkeypatch.setattr(quality, "packaged_recordings", lambda: packaged_recordings()[-1:])
    monkeypatch.setattr(quality, "instruction", lambda language: SHORT)
    monkeypatch.setattr("mlx_gemma4.measure.probes.instruction", lambda language: SHORT)
    monkeypatch.setattr(quality, "image_probes", lambda processor: [])
    runpy.run_path(str(path), run_name="__main__")
    out, err = capsys.readouterr()
    assert (expected in out, err) == (True, "")
