"""Long videos in words: each stretch is what asking about it alone gives; written as it comes, in every format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import loaded
from reference_cases import REFERENCE, media_file
from video_writer import write_video

from mlx_gemma4 import Drafter, Model, PrefixStore, Processor, describe_video, generate
from mlx_gemma4.cli import main
from mlx_gemma4.inputs.vision.image import load_image
from mlx_gemma4.inputs.vision.video import Film, Selection
from mlx_gemma4.programs.describe import DESCRIBE, Describing

RELEASED = ["--model", str(REFERENCE / "released" / "checkpoint"), "--dtype", "float32", "--temp", "0"]
SCENES = [load_image(media_file(name)) for name in ("picture-01.png", "picture-02.png")]
SHOWN = "Describe the image."


def two_scenes(folder: Path, *, sound: bool = False, name: str = "a.mkv", codec: str = "ffv1") -> Path:
    """Three seconds of one picture and two of another, at two frames a second."""
    samples = np.random.default_rng(0).integers(-9999, 9999, (80_000, 1)).astype(np.int16) if sound else None
    return write_video(folder / name, [SCENES[0]] * 6 + [SCENES[1]] * 4, sound=samples, codec=codec)


def asked(model: Model, processor: Processor, *content: dict[str, Any], max_tokens: int = 4) -> str:
    prompt = processor.prompt([{"role": "user", "content": content}])
    return generate(model, processor, prompt, max_tokens=max_tokens).strip()


def film(processor: Processor, *scenes: tuple[int, float]) -> dict[str, Any]:
    """A part of a message: scenes by their numbers, and when each is shown."""
    frames = tuple(processor.patches(SCENES[number], image_tokens=70) for number, _ in scenes)
    return {"type": "video", "video": Film(frames, tuple(seconds for _, seconds in scenes))}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_every_scene_is_described_alone(tmp_path: Path, released: tuple[Model, Processor]) -> None:
    """By its frames, with their times in the file; nothing is known of the stretches before."""
    model, processor = released
    described = list(describe_video(*released, two_scenes(tmp_path), Describing(text=SHOWN, segment=3, max_tokens=4)))
    assert [(each.start, each.end) for each in described] == [(0, 3), (3, 5)]
    assert [each.text for each in described] == [
        asked(model, processor, film(processor, (0, 0.0), (0, 1.0), (0, 2.0)), text(SHOWN)),
        asked(model, processor, film(processor, (1, 3.0), (1, 4.0)), text(SHOWN)),
    ]
    assert described[0].text != described[1].text
    assert [(each.tokens, each.complete) for each in described] == [(4, False)] * 2


def test_another_question_about_a_video_computes_only_the_question(
    tmp_path: Path, released: tuple[Model, Processor]
) -> None:
    """With a store. The texts are those without."""
    path, store = two_scenes(tmp_path), PrefixStore(released[0])
    counts = []
    for question in (SHOWN, "What colour is it?"):
        settings = Describing(text=question, segment=3, max_tokens=4)
        before = sum(entry.session.computed for entry in store._entries)
        with_store = list(describe_video(*released, path, settings, store=store))
        counts.append(sum(entry.session.computed for entry in store._entries) - before)
        assert with_store == list(describe_video(*released, path, settings))
    assert len(store) == 2
    assert counts[0] > 300 and counts[1] < 2 * (len(released[1].text(question)) + 16)


def test_a_selection_is_described(tmp_path: Path, released: tuple[Model, Processor]) -> None:
    """From a moment to another, at a rate, in frames of another budget, with the default question."""
    model, processor = released
    selection = Selection(fps=2, start=2.5, end=3.5)
    (each,) = describe_video(
        *released, two_scenes(tmp_path), Describing(selection=selection, image_tokens=140, max_tokens=4)
    )
    frames = tuple(processor.patches(scene, image_tokens=140) for scene in SCENES)
    content = {"type": "video", "video": Film(frames, (2.5, 3.0))}
    assert (each.start, each.end) == (2.5, 3.5)
    assert each.text == asked(model, processor, content, text(DESCRIBE))


def test_sound_is_heard_behind_the_question(tmp_path: Path, released: tuple[Model, Processor]) -> None:
    """In the order that the model was trained on."""
    model, processor = released
    path = two_scenes(tmp_path, sound=True)
    described = list(
        describe_video(*released, path, Describing(segment=3, selection=Selection(fps=0.5), sound=True, max_tokens=4))
    )
    (whole,) = processor.stretches(path, 30)
    heard = [{"type": "audio", "audio": each} for each in (whole.samples[:48_000], whole.samples[48_000:])]
    assert [each.text for each in described] == [
        asked(model, processor, film(processor, (0, 0.0), (0, 2.0)), text(DESCRIBE), heard[0]),
        asked(model, processor, film(processor, (1, 3.0)), text(DESCRIBE), heard[1]),
    ]


def test_a_picture_that_still_stands_is_seen_again(tmp_path: Path, released: tuple[Model, Processor]) -> None:
    """Where only sound is new; where nothing is, nothing is said."""
    model, processor = released
    path = write_video(tmp_path / "a.mkv", SCENES, times=[0, 2.5], sound=np.full((32_000, 1), 999, np.int16))
    described = list(describe_video(*released, path, Describing(segment=1, sound=True, max_tokens=4)))
    assert [each.start for each in described] == [0, 1, 2]
    heard = {"type": "audio", "audio": np.full(16_000, 999 / 32768, np.float32)}
    assert described[1].text == asked(model, processor, film(processor, (0, 1.0)), text(DESCRIBE), heard)
    assert [each.start for each in describe_video(*released, path, Describing(segment=1, max_tokens=1))] == [0, 2]


def test_an_answer_that_ends_is_complete(
    tmp_path: Path, released: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever token comes first ends it here: nothing is said, and nothing was cut."""
    monkeypatch.setattr(released[1], "stop_ids", frozenset(range(371)))
    described = list(describe_video(*released, two_scenes(tmp_path), Describing(max_tokens=4)))
    assert [(each.text, each.tokens, each.complete) for each in described] == [("", 1, True)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segment": 60}, "Expected at most 32 frames in 60 s, got 60 at 1 a second"),
        ({"segment": 2, "selection": Selection(3, fps=1.6)}, "Expected at most 3 frames in 2 s, got 4 at 1.6 a second"),
    ],
)
def test_more_frames_than_a_stretch_may_have(
    tmp_path: Path, released: tuple[Model, Processor], options: dict[str, Any], message: str
) -> None:
    """Told before anything is decoded."""
    message += "; raise --max-frames, lower --fps or shorten --segment"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        describe_video(*released, two_scenes(tmp_path), Describing(**options))


def test_stretches_that_are_none(tmp_path: Path, released: tuple[Model, Processor]) -> None:
    path = two_scenes(tmp_path, sound=True)
    with pytest.raises(ValueError, match=r"^Expected segments of 0\.1 s or more, got nan$"):
        describe_video(*released, path, Describing(segment=float("nan")))
    with pytest.raises(ValueError, match=r"^Expected segments of at most 30 s, the longest sound, got 31$"):
        describe_video(*released, path, Describing(segment=31, sound=True))
    message = "The selection has no fps: name a number of video frames per second"
    with pytest.raises(ValueError, match=f"^{message}$"):
        describe_video(*released, path, Describing(selection=Selection()))


# on the command line


def command(path: Path, *options: str) -> list[str]:
    return ["describe", str(path), *RELEASED, "--segment", "3", "--fps", "0.3", "-m", "3", *options]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """What is said about the two scenes, from a frame of each."""
    path = two_scenes(tmp_path_factory.mktemp("video"))
    first, second = describe_video(
        *loaded("released"), path, Describing(segment=3, selection=Selection(fps=0.3), max_tokens=3)
    )
    return first.text, second.text


def test_describe_writes_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str], texts: tuple[str, str]) -> None:
    """Text on stdout, how far it is on stderr."""
    assert main(command(two_scenes(tmp_path))) == 0
    out, err = capsys.readouterr()
    first, second = (" ".join(text.split()) for text in texts)
    assert out == f"00:00–00:03 {first}\n00:03–00:05 {second}\n"
    assert err == (
        "00:03 of 00:05 described, in an answer cut at 3 tokens\n"
        "00:05 of 00:05 described, in an answer cut at 3 tokens\n"
    )


def test_describe_in_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str], texts: tuple[str, str]) -> None:
    """Into files; nothing on stdout."""
    path, (first, second) = two_scenes(tmp_path), texts
    for layout in ("jsonl", "srt", "vtt"):
        assert main(command(path, "--format", layout, "--output", str(tmp_path / f"a.{layout}"))) == 0
    assert capsys.readouterr().out == ""
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [
        {"start": 0.0, "end": 3.0, "text": first, "tokens": 3, "complete": False},
        {"start": 3.0, "end": 5.0, "text": second, "tokens": 3, "complete": False},
    ]
    assert (tmp_path / "a.srt").read_text() == (
        f"1\n00:00:00,000 --> 00:00:03,000\n{first}\n\n2\n00:00:03,000 --> 00:00:05,000\n{second}\n\n"
    )
    assert (tmp_path / "a.vtt").read_text() == (
        f"WEBVTT\n\n00:00:00.000 --> 00:00:03.000\n{first}\n\n00:00:03.000 --> 00:00:05.000\n{second}\n\n"
    )


def test_describe_takes_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them arrive."""
    given: dict[str, Any] = {}

    def record(
        model: Model, processor: Processor, file: Any, settings: Describing, *, drafter: Drafter | None
    ) -> Iterator[Any]:
        given.update(vars(settings), path=file.path, drafter=drafter)
        return iter(())

    monkeypatch.setattr("mlx_gemma4.programs.describe.describe_video", record)
    path = two_scenes(tmp_path, sound=True)
    options = ["--fps", "2", "--max-frames", "9", "--start", "0:01", "--end", "0:04.5", "--with-audio", "-p", "Who?"]
    assert main(command(path, *options, "--image-tokens", "140", "--draft", "none")) == 0
    sampling = given.pop("sampling")
    assert sampling.temperature == 0
    assert given == {
        "path": path,
        "text": "Who?",
        "segment": 3.0,
        "selection": Selection(9, 2.0, 1.0, 4.5),
        "sound": True,
        "image_tokens": 140,
        "max_tokens": 3,
        "drafter": None,
    }
    assert main(["describe", str(path), *RELEASED]) == 0
    assert (given["text"], given["segment"], given["selection"]) == (DESCRIBE, 30.0, Selection(32, 1.0))
    assert (given["sound"], given["image_tokens"], given["max_tokens"]) == (False, None, 256)


def test_what_was_passed_over_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Broken packets, counted; by ``generate``, too."""
    path = two_scenes(tmp_path, name="a.mov", codec="png")
    data = bytearray(path.read_bytes())
    starts = [found.start() for found in re.finditer(b"IHDR", data)]
    for start in starts[2:4]:
        data[start : start + 4] = b"NONE"
    path.write_bytes(data)
    told = f"{path}: 2 packets could not be decoded and were skipped\n"
    assert main(command(path)) == 0
    assert capsys.readouterr().err.endswith(f"\n{told}")
    assert main(["generate", "-p", "?", *RELEASED, "-m", "1", "--video", str(path), "--max-frames", "1"]) == 0
    assert capsys.readouterr().err.startswith(told)


Refused = Callable[..., str]


def test_files_that_cannot_be_described(tmp_path: Path, refused: Refused) -> None:
    """Told before a model is loaded."""
    nowhere = ["--model", "nowhere"]
    path = tmp_path / "absent.mp4"
    assert refused("describe", path, *nowhere) == f"There is no video file at {path}"
    path = two_scenes(tmp_path)
    expected = f"There is no sound in {path}: it has no audio track; leave out --with-audio"
    assert refused("describe", path, *nowhere, "--with-audio") == expected
    expected = f"--output would replace the input {path}; name another file"
    assert refused("describe", path, *nowhere, "--output", path) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--start", "1:00"], "Expected a start of at most 4.5 s, where {path} shows its last frame, got 60 s"),
        (["--start", "4", "--end", "0:03"], "Expected a start before the end, got 4 s and 3 s"),
        (["--fps", "11"], "Expected at most 32 frames in 3 s, got 33 at 11 a second; "
         "raise --max-frames, lower --fps or shorten --segment"),
        (["--image-tokens", "100"], "Expected an image budget of 70, 140, 280, 560, 1120 tokens, got 100"),
        (["--max-tokens", "0"], "Expected max_tokens of 1 or more, got 0"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_met(tmp_path: Path, refused: Refused, options: list[str], message: str) -> None:
    path = two_scenes(tmp_path)
    assert refused(*command(path, *options)) == message.format(path=path)
