"""A model that computes NaN ends in an error that names the cause, in every program; never in an empty answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from reference_cases import media_file
from small_files import DEMO, demo_copy
from video_writer import write_video

from mlx_gemma4 import Model, Processor, Transcriber, generate, load, load_audio
from mlx_gemma4.cli import main
from mlx_gemma4.live.see.views import Asking, Glance
from mlx_gemma4.outputs.sample import check_finite, finite_sum

OVERFLOW = r"The model computed NaN in float16, whose range is too small for it: use --dtype bfloat16; if that computes"
DAMAGED = r"The model computed NaN in bfloat16: the checkpoint's weights are damaged; download or convert it again"
LAYER = "model.language_model.layers.1.mlp.down_proj.weight"
SPEECH = media_file("pico-04.wav")


def changed(folder: Path, change: Callable[[mx.array], mx.array]) -> Path:
    """The demo with one matrix changed."""
    demo_copy(folder)
    weights = mx.load(str(DEMO / "model.safetensors"))
    assert isinstance(weights, dict)
    weights[LAYER] = change(weights[LAYER])
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Numbers that bfloat16 holds and float16 does not."""
    return changed(tmp_path_factory.mktemp("large") / "checkpoint", lambda weight: weight * 3e5)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One NaN, as from a bit that fell over."""

    def damage(weight: mx.array) -> mx.array:
        weight[3, 3] = mx.nan
        return weight

    return changed(tmp_path_factory.mktemp("damaged") / "checkpoint", damage)


def answer(model: Model, processor: Processor) -> None:
    generate(model, processor, "hello", max_tokens=3)


def transcribe(model: Model, processor: Processor) -> None:
    Transcriber(model, processor).transcribe(load_audio(SPEECH))


def transcribe_batch(model: Model, processor: Processor) -> None:
    frames = processor.frames(load_audio(SPEECH))
    list(Transcriber(model, processor).transcribe_batch([(0, frames), (0, frames)]))


def watch(model: Model, processor: Processor) -> None:
    view = Glance(Asking(model, processor, question="What?", system=None, max_tokens=3))
    view.take(np.zeros((48, 48, 3), np.uint8), 0.0)
    view.ask()


@pytest.mark.parametrize("program", [answer, transcribe, transcribe_batch, watch])
def test_every_program_ends(large: Path, damaged: Path, program: Callable[[Model, Processor], None]) -> None:
    """The way out depends on the type: in float16 it is another type, elsewhere other weights."""
    with pytest.raises(ValueError, match=OVERFLOW):
        program(*load(large, dtype="float16"))
    program(*load(large, dtype="bfloat16"))
    with pytest.raises(ValueError, match=DAMAGED):
        program(*load(damaged))


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "-p", "hello"],
        ["transcribe", str(SPEECH)],
        ["listen", "--fast", "--input", str(SPEECH)],
    ],
    ids=lambda command: command[0],
)
def test_on_the_command_line(large: Path, refused: Callable[..., str], command: list[str]) -> None:
    """One line and exit 2."""
    assert refused(*command, "--model", large, "--dtype", "float16").startswith(OVERFLOW)


def test_a_video(large: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    video = write_video(tmp_path / "a.mkv", [np.zeros((48, 48, 3), np.uint8)] * 2)
    assert refused("describe", video, "--model", large, "--dtype", "float16").startswith(OVERFLOW)


def test_a_conversation(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer that failed did not end by itself."""
    command = ["live", "--fast", "--input", str(SPEECH), "--no-camera", "--model", str(large), "--dtype", "float16"]
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == " [interrupted]\n" and err.splitlines()[-1].removeprefix("mlx_gemma4: error: ").startswith(OVERFLOW)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_number_of_many(dtype: mx.Dtype, value: float) -> None:
    """Wherever it is; the largest logits that a cap of 30 lets through are no overflow."""
    logits = mx.full((2, 262144), 30.0, dtype)
    check_finite(finite_sum(logits), dtype)
    logits[1, 4711] = value
    with pytest.raises(ValueError, match=f"The model computed NaN in {str(dtype).rpartition('.')[2]}"):
        check_finite(finite_sum(logits), dtype)
