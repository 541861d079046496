"""One table of languages: for instructions, for normalizers, and for the options that name one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from reference_cases import media_file

from mlx_gemma4.measure.wer import normalizer
from mlx_gemma4.programs.languages import LANGUAGES, find_language, language_name
from mlx_gemma4.programs.transcribe import instruction

SPEECH = str(media_file("hibari-03.wav"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("en", "English"),
        ("EN", "English"),
        (" english ", "English"),
        ("en-US", "English"),
        ("pt_BR", "Portuguese"),
        ("zh-Hans", "Chinese"),
        ("Mandarin", "Chinese"),
        ("yue", "Cantonese"),
        ("haitian  CREOLE", "Haitian Creole"),
        ("Bokmål", "Bokmal"),
    ],
)
def test_names_and_codes_in_any_case(text: str, name: str) -> None:
    assert language_name(text) == name


def test_the_table_is_whole() -> None:
    """Every code has a name of its own, and every name finds itself."""
    codes = [key for key in LANGUAGES if (len(key) == 2 and key != "jw") or key in ("haw", "yue")]
    assert len({LANGUAGES[code] for code in codes}) == len(codes) > 100
    assert all(LANGUAGES[name.casefold()] == name for name in LANGUAGES.values())


@pytest.mark.parametrize(
    ("text", "meant"),
    [("Germna", "Did you mean German? "), ("Englsh", "Did you mean English? "), ("qq", ""), ("", ""), ("lane-b", "")],
)
def test_an_unknown_language_is_refused_with_the_nearest(text: str, meant: str) -> None:
    assert find_language(text) is None
    with pytest.raises(ValueError) as error:
        language_name(text)
    assert str(error.value) == (
        f"Unknown language {text!r}. {meant}Use an English name or a code, such as German or de; "
        "for other languages, write your own instruction (--prompt)"
    )


def test_a_code_and_a_name_are_the_same_instruction() -> None:
    assert instruction("en") == instruction("English") == instruction()
    assert instruction("de", "FR") == instruction("German", "French")
    with pytest.raises(ValueError, match=r"^Unknown language 'Frnch'\. Did you mean French\?"):
        instruction("de", "Frnch")


def test_a_code_and_a_name_are_the_same_normalizer() -> None:
    """English is Whisper's English one, by any name; what is not in the table is no English."""
    for name in ("en", "English", "EN-gb"):
        assert normalizer("whisper", name)("twenty colours, it's") == "20 colors it is"
    for name in ("de", "Klingon"):
        assert normalizer("whisper", name)("Twenty Colours").strip() == "twenty colours"


@pytest.mark.parametrize("command", ["transcribe", "listen", "eval"])
def test_commands_refuse_unknown_languages_before_the_model_is_read(
    tmp_path: Path, refused: Callable[..., str], command: str
) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(f'{{"audio": "{SPEECH}", "text": "a"}}\n')
    arguments = {
        "transcribe": ["transcribe", SPEECH],
        "listen": ["listen", "--input", SPEECH, "--fast"],
        "eval": ["eval", "wer", str(manifest)],
    }[command]
    message = refused(*arguments, "--language", "Englsh", "--model", "nowhere")
    assert message.startswith("Unknown language 'Englsh'. Did you mean English?")
    message = refused(*arguments, "--language", "Klingon", "--prompt", "Write it down.", "--model", "nowhere")
    assert "Klingon" not in message and "nowhere" in message
