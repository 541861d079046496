"""Files of a chat: their names as people type and terminals paste them, and messages that begin with one."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from reference_cases import media_file

from mlx_gemma4 import Model, Processor
from mlx_gemma4.cli.shared.attachments import attachment, files, leading_file
from mlx_gemma4.inputs.messages import kind_of


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


NAMES = [
    "a.png",
    "my photo.png",
    "it's.png",
    'so "called".png',
    "a (1) & [b] $c #d.png",
    "Größe\u202fAM.png",
    "a\\b.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files(folder: Path, name: str) -> None:
    """As they are, escaped as macOS Terminal pastes them, in quotes, as addresses, and with spaces around them."""
    path = folder / name
    path.touch()
    escaped = "".join(f"\\{each}" if each in " ()&[]$#'\"\\" else each for each in str(path))
    for typed in (str(path), escaped, shlex.quote(str(path)), path.as_uri(), f"  {escaped} ", f"~/{name}", name):
        assert [Path(found).resolve() for found in files(typed)] == [path.resolve()]


def test_several_files(folder: Path) -> None:
    """All that are dropped at once; a missing one is named."""
    for name in ("a.png", "b c.png"):
        (folder / name).touch()
    assert files(r"a.png b\ c.png") == ["a.png", "b c.png"]
    with pytest.raises(ValueError, match=r"^There is no file at 'd\.png'$"):
        files("a.png d.png")


@pytest.mark.parametrize("typed", ["nowhere.png", "~nobody/x.png", "x" * 5000, "a\0b", "file://", ".", "'"])
def test_no_such_file(folder: Path, typed: str) -> None:
    with pytest.raises(ValueError, match=r"^There is no file at "):
        files(typed)


def test_no_name(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^Type the name of a file after the command$"):
        files("  ")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rest", ["", "what is this?", "it's what?", "a 'b"])
def test_a_message_that_begins_with_a_file(folder: Path, name: str, rest: str) -> None:
    path = folder / name
    path.touch()
    escaped = "".join(f"\\{each}" if each in " ()&[]$#'\"\\" else each for each in str(path))
    for typed in (escaped, str(path), shlex.quote(str(path)), path.as_uri()):
        assert leading_file(f"{typed} {rest}".strip()) == (str(path), rest)


@pytest.mark.parametrize(
    "line",
    [
        "hello",
        "/exit",
        "/nowhere.png what",
        "./notes.txt what",
        "~ hello",
        '"quoted" words',
        "'tis a.png",
        "a.png what",
    ],
)
def test_a_message_that_begins_with_none(folder: Path, line: str) -> None:
    """Only what is there, of a known kind, and written like a path."""
    for name in ("a.png", "notes.txt"):
        (folder / name).touch()
    assert leading_file(line) is None


def test_kinds_of_files() -> None:
    names = ["a.PNG", "a.HEIC", "a.m4a", "a.mov", "a.txt", "png"]
    assert [kind_of(name) for name in names] == ["image", "image", "audio", "video", None, None]


def test_what_is_attached_has_been_read(demo: tuple[Model, Processor], tmp_path: Path) -> None:
    """It stays as it was, whatever becomes of the file."""
    picture = tmp_path / "a.png"
    picture.write_bytes(media_file("picture-01.png").read_bytes())
    part = attachment(demo[1], "image", str(picture))
    picture.unlink()
    prompt = demo[1].prompt([{"role": "user", "content": [part]}])
    assert len(prompt.patches) == len(demo[1].patches(media_file("picture-01.png")))


def test_what_cannot_be_attached(demo: tuple[Model, Processor], tmp_path: Path) -> None:
    broken = tmp_path / "a.png"
    broken.write_text("no picture")
    for kind in ("image", "audio", "video"):
        with pytest.raises(ValueError, match=r"a\.png"):
            attachment(demo[1], kind, str(broken))
