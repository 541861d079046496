"""Videos on the command line: which frames and what sound a prompt holds, and what is refused."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from reference_cases import REFERENCE
from test_prompt import assert_same_prompt
from video_writer import write_video

from mlx_gemma4 import Model, Processor, generate
from mlx_gemma4.cli import main
from mlx_gemma4.cli.shared.options import moment
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.inputs.vision.video import Selection

RELEASED = ["--model", str(REFERENCE / "released" / "checkpoint"), "--dtype", "float32"]
TEXT = {"type": "text", "text": "What?"}


def clip(folder: Path, seconds: int = 12, *, sound: bool = False) -> Path:
    """Two frames and, where asked for, 16,000 samples of sound a second."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (2 * seconds, 16, 16, 3), dtype=np.uint8)
    samples = random.integers(-9999, 9999, (16_000 * seconds, 1)).astype(np.int16) if sound else None
    return write_video(folder / "a.mkv", frames, sound=samples)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("7.25", 7.25),
        ("1:30", 90),
        ("90:05.5", 5405.5),
        ("1:00:00", 3600),
        ("01:02:03.5", 3723.5),
        ("-3", -3),
    ],
)
def test_moments(text: str, seconds: float) -> None:
    """Seconds, minutes and hours."""
    assert moment(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1:", ":30", "1:60", "1:-1", "1:60:00", "1:00:00:00", "1.5:00", "1:nan"])
def test_moments_that_are_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says what a time looks like."""
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["generate", "-p", "?", "--start", text])
    assert f"argument --start: expected seconds, mm:ss or hh:mm:ss, got {text!r}" in capsys.readouterr().err


# generate


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Prompt]:
    """Run ``generate`` up to the model; return what that would have been given."""
    prompts: list[Prompt] = []

    def stream_generate(model: Model, processor: Processor, prompt: Prompt, **_: Any) -> list[Any]:
        prompts.append(prompt)
        return []

    monkeypatch.setattr("mlx_gemma4.outputs.generate.stream_generate", stream_generate)

    def run(*arguments: str | Path) -> Prompt:
        assert main(["generate", "-p", TEXT["text"], *RELEASED, *map(str, arguments)]) == 0
        return prompts.pop()

    return run


def prompt_of(processor: Processor, *content: dict[str, Any]) -> Prompt:
    return processor.prompt([{"role": "user", "content": content}])


@pytest.mark.parametrize(
    ("options", "selection"),
    [
        ([], {}),
        (["--max-frames", "3"], {"max_video_frames": 3}),
        (["--fps", "0.5", "--start", "0:02", "--end", "0:00:11"], {"fps": 0.5, "start": 2, "end": 11}),
    ],
)
def test_generate_takes_the_selected_frames(
    tmp_path: Path, released: tuple[Model, Processor], asked: Callable[..., Prompt], options: list[str], selection: Any
) -> None:
    """Of every video; the prompt is the one that the same selection makes in Python."""
    _, processor = released
    path = clip(tmp_path, 3 if not options else 12)
    video = {"type": "video", "video": processor.film(path, Selection(**selection))}
    assert_same_prompt(asked("--video", path, "--video", path, *options), prompt_of(processor, video, video, TEXT))


def test_generate_hears_a_video(
    tmp_path: Path, released: tuple[Model, Processor], asked: Callable[..., Prompt]
) -> None:
    """Ten seconds seen, then heard, and the next; then the text, and behind it a recording of its own."""
    _, processor = released
    path = clip(tmp_path, sound=True)
    with_audio = [*processor.stretches(path, 10, Selection(fps=0.25))]
    assert [(each.start, each.end, len(each.samples)) for each in with_audio] == [(0, 10, 160_000), (10, 12, 32_000)]
    assert [each.film and each.film.seconds for each in with_audio] == [(0, 4, 8), (10,)]
    content = [
        part
        for each in with_audio
        for part in ({"type": "video", "video": each.film}, {"type": "audio", "audio": each.samples})
    ]
    recording = {"type": "audio", "audio": np.full(700, 0.1, np.float32)}
    soundfile.write(tmp_path / "a.wav", recording["audio"], 16_000, subtype="FLOAT")
    prompt = asked("--video", path, "--with-audio", "--fps", "0.25", "--audio", tmp_path / "a.wav")
    assert_same_prompt(prompt, prompt_of(processor, *content, TEXT, recording))


def test_frames_of_a_video_that_is_heard_are_those_of_one_that_is_not(
    tmp_path: Path, asked: Callable[..., Prompt]
) -> None:
    """Evenly over the whole, whatever stretches they fall into; one without a frame is only heard."""
    path = clip(tmp_path, 31, sound=True)
    prompt, silent = (asked("--video", path, "--max-frames", "3", *option) for option in (["--with-audio"], []))
    np.testing.assert_array_equal(prompt.patches, silent.patches)
    kinds = [int(run.token_types[0]) for run in prompt.spans() if run.token_types[0]]
    assert kinds == [2, 3, 2, 3, 2, 3, 3]


def test_too_many_frames_are_refused_with_sound_too(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = clip(tmp_path, sound=True)
    for option in ([], ["--with-audio"]):
        assert refused(
            "generate", "-p", "?", *RELEASED, "--video", path, "--fps", "2", "--max-frames", "9", *option
        ) == (
            "Expected at most 9 frames, got 24 at 2 a second; "
            "raise --max-frames, lower --fps, or use mlx_gemma4 describe"
        )


def test_a_video_without_sound_cannot_be_heard(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = clip(tmp_path)
    expected = f"There is no sound in {path}: it has no audio track; leave out --with-audio"
    assert refused("generate", "-p", "?", *RELEASED, "--video", path, "--with-audio") == expected


@pytest.mark.parametrize(
    "option", [["--fps", "1"], ["--max-frames", "4"], ["--start", "0"], ["--end", "5"], ["--with-audio"]]
)
def test_options_of_a_video_without_one(refused: Callable[..., str], option: list[str]) -> None:
    """They would change nothing: told before a model is loaded."""
    expected = "--fps, --max-frames, --start, --end and --with-audio need a --video"
    assert refused("generate", "-p", "?", "--model", "nowhere", *option) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--start", "0:09", "--end", "7"], "Expected a start before the end, got 9 s and 7 s"),
        (["--start", "-1"], "Expected times of 0 s or more, got -1"),
        (["--end", "nan"], "Expected times of 0 s or more, got nan"),
        (["--fps", "0"], "Expected a positive number of frames per second, got 0"),
        (["--max-frames", "0"], "Expected a maximum of 1 frame or more, got 0"),
        (["--start", "1:00"], "Expected a start of at most 11.5 s, where {path} shows its last frame, got 60 s"),
    ],
)
@pytest.mark.parametrize("sound", [[], ["--with-audio"]])
def test_times_that_are_none(
    tmp_path: Path, refused: Callable[..., str], options: list[str], message: str, sound: list[str]
) -> None:
    path = clip(tmp_path, sound=True)
    assert refused("generate", "-p", "?", *RELEASED, "--video", path, *options, *sound) == message.format(path=path)


def test_the_released_checkpoint_answers_about_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From end to end, with its sound."""
    path = clip(tmp_path, 2, sound=True)
    command = [
        "generate",
        "-p",
        "?",
        *RELEASED,
        "--video",
        str(path),
        "--with-audio",
        "--fps",
        "1",
        "-m",
        "3",
        "--stats",
    ]
    assert main(command) == 0
    assert re.search(r"^prompt \d+ tokens, .* answer [1-3] tokens, ", capsys.readouterr().err, re.MULTILINE)


def test_a_chat_shows_a_video(
    tmp_path: Path,
    released: tuple[Model, Processor],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By command, before the text of the next message."""
    path = clip(tmp_path, 1)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"/video {path}\n{TEXT['text']}\n"))
    assert main(["chat", *RELEASED, "--temp", "0", "-m", "4"]) == 0
    prompt = prompt_of(released[1], {"type": "video", "video": path}, TEXT)
    assert capsys.readouterr().out == f"{generate(*released, prompt, max_tokens=4)}\n"
