"""Results of functions: text and media in order, within bounds; and several sources of functions as one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reference_cases import media_file

from mlx_gemma4.inputs.audio.recording import load_audio
from mlx_gemma4.inputs.vision.image import load_image
from mlx_gemma4.outputs.tools.calls import ToolCall
from mlx_gemma4.outputs.tools.result import ToolResult, result_of, shortened
from mlx_gemma4.outputs.tools.sources import join_tools
from mlx_gemma4.outputs.tools.toolbox import load_tools

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
PICTURE = Image.fromarray(PIXELS)


def kinds(result: ToolResult) -> list[str]:
    return [part["type"] for part in result.parts]


@pytest.mark.parametrize("value", [PIXELS, PICTURE, {"type": "image", "image": PIXELS}])
def test_pictures(value: Any) -> None:
    (part,) = result_of(value).parts
    assert part["type"] == "image" and (part["image"] == PIXELS).all()


def test_transparent_parts_are_white() -> None:
    clear = np.dstack([PIXELS, np.zeros((4, 5, 1), np.uint8)])
    assert (result_of(clear).media[0]["image"] == 255).all()


def test_values_beside_media_are_text() -> None:
    result = result_of([PIXELS, 3, {"a": 1}, None, {"type": "image"}])
    assert result.text == "[image 1]\n3\n{'a': 1}\ndone\n{'type': 'image'}"


def test_files_of_media() -> None:
    """By their suffix; they are read now, since they may change or vanish."""
    picture, sound = (Path(media_file(name)) for name in ("picture-01.png", "hibari-03.wav"))
    result = result_of(("Here:", picture, "and", sound))
    assert kinds(result) == ["text", "image", "text", "audio"]
    assert result.text == "Here:\n[image 1]\nand\n[audio 1]"
    assert (result.media[0]["image"] == load_image(picture)).all()
    assert (result.media[1]["audio"] == load_audio(sound)).all()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "done"),
        (21.5, "21.5"),
        (b"a\xff", "a\ufffd"),
        (["a", "b"], "['a', 'b']"),
        ({"type": "image"}, "{'type': 'image'}"),
        ({"type": "image", "image": "x.png", "note": 1}, "{'type': 'image', 'image': 'x.png', 'note': 1}"),
        ("picture-01.png", "picture-01.png"),
        (Path("notes.txt"), "notes.txt"),
        (np.array([0.25, 0.5]), "[0.25 0.5 ]"),
        ([PIXELS[0, 0].tolist(), 1], "[[0, 1, 2], 1]"),
    ],
)
def test_values_that_are_text(value: Any, text: str) -> None:
    """A name is no file, and numbers are no sound."""
    result = result_of(value)
    assert (kinds(result), result.text, result.left_out, result.is_error) == (["text"], text, 0, False)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (Path("absent.png"), r"^There is no image file at absent\.png$"),
        (Path("film.mp4"), r"^A result cannot hold a video; return pictures of it$"),
        ([PIXELS] * 9, r"^A result may hold at most 8 pictures and sounds; return fewer$"),
        (
            {"type": "audio", "audio": np.zeros(480_001, np.float32)},
            r"^The sound of a result may last at most 30 s; return a part of it$",
        ),
    ],
)
def test_media_that_cannot_be_shown(value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        result_of(value)


def test_a_bad_medium_is_an_error_for_the_model(tmp_path: Path) -> None:
    path = tmp_path / "tools.py"
    path.write_text(
        'from pathlib import Path\ndef look() -> Path:\n    "Look."\n    return Path(__file__).with_suffix(".png")\n'
    )
    result = load_tools(path).call(ToolCall("call_1", "look", {}))
    assert result.is_error and result.text == f"error: ValueError: There is no image file at {tmp_path}/tools.png"


def test_a_long_text_keeps_its_ends() -> None:
    text = "".join(f"{number:05d}" for number in range(4000))
    result = ToolResult.of(text)
    head, note, tail = result.text.split("\n")
    assert (head, tail) == (text[:6000], text[-2000:])
    assert note == "[… 12,000 of 20,000 characters are left out here …]" and result.left_out == 12_000
    assert shortened(text[:8000]) == (text[:8000], 0)


def test_the_texts_of_a_result_share_the_room() -> None:
    result = ToolResult.of("a" * 7000, {"type": "image", "image": PIXELS}, "b" * 3000)
    assert result.left_out == 2000
    assert result.parts[0]["text"] == "a" * 7000
    note = "[… 2,000 of 3,000 characters are left out here …]"
    assert result.parts[2]["text"] == f"{'b' * 750}\n{note}\n{'b' * 250}"


def test_no_text_is_a_control_character_too_many() -> None:
    assert ToolResult.of("\ud83d\ude42 \ud83d").text == "🙂 \ufffd"


def test_results_import_nothing_heavy() -> None:
    code = (
        "import sys; from mlx_gemma4.outputs.tools.result import result_of; result_of('x');"
        "print(sorted({'numpy', 'PIL', 'mlx', 'soundfile'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def source(folder: Path, name: str, *functions: str) -> Path:
    path = folder / name
    path.write_text("".join(f'def {each}() -> str:\n    "x"\n    return "{name}"\n' for each in functions))
    return path


def test_several_sources_are_one(tmp_path: Path) -> None:
    declared = tmp_path / "declared.json"
    declared.write_text('[{"name": "doors"}]')
    paths = [source(tmp_path, "a.py", "lights"), declared, source(tmp_path, "b.py", "heat")]
    tools = join_tools([load_tools(path) for path in paths])
    assert [schema["function"]["name"] for schema in tools.schemas] == ["lights", "doors", "heat"]
    assert [tools.runs(name) for name in ("lights", "doors", "heat", "cellar")] == [True, False, True, False]
    texts = [tools.call(ToolCall("call_1", name, {})).text for name in ("lights", "heat", "doors", "cellar")]
    assert texts[:2] == ["a.py", "b.py"]
    assert texts[2:] == [
        "error: doors is not available: nothing here can run it",
        "error: there is no function cellar, only lights, doors, heat",
    ]
    assert tools.source == ", ".join(map(str, paths))


def test_two_functions_of_the_same_name(tmp_path: Path) -> None:
    paths = [source(tmp_path, "a.py", "lights"), source(tmp_path, "b.py", "heat", "lights")]
    message = r"^.*a\.py and .*b\.py both have a function called lights: rename one, or leave one of them out$"
    with pytest.raises(ValueError, match=message):
        join_tools([load_tools(path) for path in paths])


def test_every_source_is_closed(tmp_path: Path) -> None:
    """Also if one fails to close."""
    closed = []

    class Source:
        def __init__(self, name: str) -> None:
            self.source, self.schemas = name, [{"function": {"name": name}}]

        def runs(self, name: str) -> bool:
            return True

        def call(self, call: ToolCall) -> ToolResult:
            return ToolResult.of("x")

        def close(self) -> None:
            closed.append(self.source)
            if self.source == "b":
                raise OSError("b")

    with pytest.raises(OSError, match=r"^b$"):
        join_tools([Source("a"), Source("b"), Source("c")]).close()
    assert closed == ["c", "b", "a"]


PARALLEL = """
import sys, threading, os
barrier = threading.Barrier(2)

def first() -> str:
    "x"
    barrier.wait(10)
    print("first")
    os.system("echo started")
    barrier.wait(10)
    return "1"

def second() -> str:
    "x"
    barrier.wait(10)
    barrier.wait(10)
    barrier.wait(10)
    print("second")
    return "2"
"""


def test_functions_that_run_at_once_print_to_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Also the one that ends after another has ended."""
    import threading

    path = tmp_path / "tools.py"
    path.write_text(PARALLEL)
    tools = load_tools(path)
    results = []
    threads = [
        threading.Thread(target=lambda name=name: results.append(tools.call(ToolCall(name, name, {})).text))
        for name in ("first", "second")
    ]
    for thread in threads:
        thread.start()
    threads[0].join(10)
    tools._functions["first"].__globals__["barrier"].wait(10)  # type: ignore[attr-defined]
    threads[1].join(10)
    print("after")
    out, err = capfd.readouterr()
    assert (out, sorted(err.split()), sorted(results)) == ("after\n", ["first", "second", "started"], ["1", "2"])
