"""Turns with sound and pictures or two video frames: the reference's answers, from Python, files and ``live``."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden import answered
from reference_cases import TURNS, media_file, turn_content, utterances
from video_writer import write_video

from mlx_gemma4 import Model, Processor, Session, generate, load_audio
from mlx_gemma4.cli import main
from mlx_gemma4.inputs.vision.image import load_image
from mlx_gemma4.live.see.views import Asking, Memory
from mlx_gemma4.outputs.sample import Sampler, Sampling
from mlx_gemma4.outputs.steps import generate_step

CHANGES = [name for name in TURNS if name.startswith("change")]
DEMO = ["--model", "demo", "--dtype", "float32", "--temp", "0"]


@pytest.mark.parametrize("name", TURNS)
def test_answers_are_those_of_the_reference(demo: tuple[Model, Processor], name: str) -> None:
    """Also if sound arrives frame by frame."""
    model, processor = demo
    prompt = processor.prompt([{"role": "user", "content": turn_content(name)}])
    session = Session(model)
    for span in prompt.spans():
        size = 1 if len(span.frames) else len(span)
        for start in range(0, len(span), size):
            logits = session.extend(span[start : start + size])
    sampler = Sampler(Sampling(), model.config.text_config.vocab_size)
    steps = generate_step(session, logits, sampler, max_tokens=len(answered(name).tokens))
    assert list(steps) == answered(name).tokens


@pytest.mark.parametrize("name", CHANGES)
def test_a_memory_says_what_changed(demo: tuple[Model, Processor], name: str) -> None:
    """Pictures of a camera that are remembered one by one give the same answer as the frames of a video."""
    video, question = TURNS[name]
    memory = Memory(Asking(*demo, question=question["text"], system=None, max_tokens=100), size=4)
    for second, frame in enumerate(video["video"]):
        memory.take(load_image(media_file(frame)), float(second))
    assert memory.ask() == answered(name).tokens


@pytest.mark.parametrize("name", CHANGES[:2])
def test_a_file_of_two_scenes(
    demo: tuple[Model, Processor], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The frames of a video file, one a second, give the reference's answer."""
    video, question = TURNS[name]
    path = write_video(tmp_path / "a.mkv", [load_image(media_file(frame)) for frame in video["video"]], rate=1)
    assert main(["generate", *DEMO, "--video", str(path), "-p", question["text"]]) == 0
    assert capsys.readouterr().out.strip() == answered(name).text


@pytest.mark.parametrize("name", ["question", "question-000"])
def test_a_recording_and_a_picture_together(
    demo: tuple[Model, Processor], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """``live`` answers a spoken question about a picture like the offline prompt."""
    picture, recording = str(media_file(f"{name}.png")), str(media_file(f"{name}.wav"))
    assert main(["live", *DEMO, "--camera", picture, "--input", recording, "--fast"]) == 0
    samples = load_audio(recording)
    ((start, end),) = utterances(samples)
    parts = [{"type": "image", "image": picture}, {"type": "audio", "audio": samples[start * 640 : end * 640]}]
    offline = generate(*demo, demo[1].prompt([{"role": "user", "content": parts}]))
    assert capsys.readouterr().out == f"{offline}\n"
