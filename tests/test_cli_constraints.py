"""``generate --json-schema``, ``--regex``, ``--grammar`` and ``--choice``."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from reference_cases import REFERENCE, media_file

from mlx_gemma4.cli import main

GENERATE = ("generate", "-p", "Describe the image.", "--image", str(media_file("picture-01.png")), "--temp", "0")
DEMO = ("--model", "demo", "--dtype", "float32")
COLOUR = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}

Refused = Callable[..., str]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "colour.json").write_text(json.dumps(COLOUR))
    (tmp_path / "colour.lark").write_text('start: "red" | "blue"')
    (tmp_path / "broken.json").write_text('{"type": ')
    (tmp_path / "latin.json").write_bytes(b'{"const": "\xe9"}')
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main([*GENERATE, *DEMO, *options]) == 0
    return capsys.readouterr().out.removesuffix("\n")


def test_answers_have_the_form(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture of a circle is described as its colour, in the form that is asked for."""
    assert json.loads(said(capsys, "--json-schema", str(files / "colour.json"))) in (
        {"colour": "red"},
        {"colour": "blue"},
    )
    assert said(capsys, "--grammar", str(files / "colour.lark")) in ("red", "blue")
    assert said(capsys, "--choice", "red, blue") in ("red", "blue")
    assert said(capsys, "--regex", "[xyz]{3}").strip("xyz") == ""


def test_a_schema_from_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"const": [1, 2]}'))
    assert said(capsys, "--json-schema", "-") == "[1, 2]"


def test_an_answer_that_is_cut(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, and that it is not what was asked for."""
    assert main([*GENERATE, *DEMO, "--json-schema", str(files / "colour.json"), "-m", "3"]) == 0
    out, err = capsys.readouterr()
    assert '{"colour": "red"}'.startswith(out.strip())
    assert err == "The answer was stopped at 3 tokens (--max-tokens) before it was what the JSON schema asks for.\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--json-schema", "nowhere.json"), "There is no JSON schema at nowhere.json"),
        (("--json-schema", "{files}"), "The JSON schema in {files} cannot be read: Is a directory"),
        (
            ("--json-schema", "{files}/broken.json"),
            "The JSON schema in {files}/broken.json is not valid JSON: Expecting",
        ),
        (
            ("--json-schema", "{files}/latin.json"),
            "The JSON schema in {files}/latin.json is not UTF-8: save it as UTF-8",
        ),
        (("--grammar", "nowhere.lark"), "There is no grammar at nowhere.lark"),
        (("--grammar", "{files}/broken.json"), "Cannot compile the grammar: "),
        (
            ("--regex", "(?<=a)"),
            "Cannot compile the regular expression: look-around, including look-ahead and look-beh",
        ),
        (("--choice", "a,"), "Expected one or more strings to choose from, none of them empty, got ['a', '']"),
        (("--choice", "a", "--tools", "x.json"), "--choice allows no calls of functions: leave out --tools"),
        (
            ("--json-schema", "-", "-p", "-"),
            "--prompt and --json-schema cannot both read stdin: give a file to one of t",
        ),
    ],
)
def test_refused_before_the_model_is_loaded(
    options: tuple[str, ...], message: str, files: Path, refused: Refused
) -> None:
    given = [option.format(files=files) for option in options]
    assert refused(*GENERATE, "--model", "nowhere", *given).startswith(message.format(files=files))


def test_options_that_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*GENERATE, "--model", "nowhere", "--regex", "a", "--choice", "b"])
    assert ended.value.code == 2
    assert "argument --choice: not allowed with argument --regex" in capsys.readouterr().err


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, "llguidance", None)
    assert refused(*GENERATE, "--model", "nowhere", "--regex", "a") == (
        "Answers that follow a grammar need the package llguidance: pip install llguidance "
        "(or the extra: pip install '.[grammar]' in a checkout)"
    )


def test_calls_that_are_not_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the extra, functions can be called as before, and it is said."""
    path = tmp_path / "tools.json"
    path.write_text('{"name": "stop", "description": "Stop."}')
    released = str(REFERENCE / "released" / "checkpoint")
    options = ("generate", "-p", "Hi", "--model", released, "--tools", str(path), "-m", "2", "--temp", "0")
    assert main(list(options)) == 0
    assert "not held" not in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "llguidance", None)
    assert main(list(options)) == 0
    assert "Calls are not held to the declared functions. Answers that follow a grammar need the package llguid" in (
        capsys.readouterr().err
    )
