"""What a user can mend is one line on stderr and exit code 2, with nothing on stdout and no traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from PIL import Image
from reference_cases import REFERENCE, media_file

from mlx_gemma4.cli import main

SPEECH = str(media_file("hibari-03.wav"))

Refused = Callable[..., str]


def speech_file(path: Path, samples: np.ndarray | None = None, **options: str) -> Path:
    soundfile.write(path, np.full(16_000, 0.1) if samples is None else samples, 16_000, **options)
    return path


def cut_in_half(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def checkpoint(folder: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(REFERENCE / "released" / "checkpoint", folder / "checkpoint"))


# sound


def test_no_such_recording(tmp_path: Path, refused: Refused) -> None:
    """Told before a model is loaded."""
    path = tmp_path / "absent.wav"
    message = f"There is no audio file {path}"
    assert refused("transcribe", path, "--model", "nowhere") == message
    assert refused("listen", "--input", path, "--model", "nowhere") == message
    assert refused("generate", "-p", "Listen.", "--audio", path, "--model", "demo") == message


def test_empty_recording(tmp_path: Path, refused: Refused) -> None:
    """0 bytes."""
    path = tmp_path / "empty.wav"
    path.touch()
    assert refused("transcribe", path, "--model", "demo") == f"{path} is empty, not a recording"


def test_recording_cut_short(tmp_path: Path, refused: Refused) -> None:
    """The message says by how much."""
    path = cut_in_half(speech_file(tmp_path / "cut.wav"))
    expected = (
        f"{path} holds 15978 of the 32000 bytes of sound that its header says: "
        "the file is cut short; record or fetch it again"
    )
    assert refused("transcribe", path, "--model", "demo") == expected
    assert refused("listen", "--fast", "--input", path, "--model", "demo") == expected


def test_text_as_a_recording(tmp_path: Path, refused: Refused) -> None:
    """The name does not make it one."""
    path = tmp_path / "text.wav"
    path.write_text("This is no recording.\n")
    assert refused("transcribe", path, "--model", "demo") == f"{path} is not a recording; it looks like text"


def test_options_of_raw_samples(tmp_path: Path, refused: Refused) -> None:
    """They belong together, to a recording, and name what there is."""
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(64_000))
    assert refused("listen", "--input", path, "--raw-rate", "8000", "--model", "demo") == (
        "--raw-rate and --raw-channels need --raw and an encoding, for example --raw s16le"
    )
    assert refused("listen", "--raw", "s16le", "--model", "demo") == (
        "--raw s16le is for a recording: name one with --input, or - for stdin"
    )
    assert refused("transcribe", path, "--raw", "s17", "--model", "demo").endswith(", got 's17'")
    assert refused("transcribe", path, "--model", "demo").startswith(
        f"{path} begins with zeros: raw samples need --raw"
    )
    expected = f"{path} has 1 channel: there is no channel 2"
    assert refused("transcribe", path, "--raw", "s16le", "--channel", "right", "--model", "demo") == expected


@pytest.mark.parametrize("name", ["0", "-1", "middle", "1.5", ""])
def test_channel_of_no_such_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What there is is named."""
    with pytest.raises(SystemExit, match="2"):
        main(["transcribe", SPEECH, "--channel", name])
    assert f"expected a number from 1 on, left, right or mix, got {name!r}" in capsys.readouterr().err


def test_recording_without_samples(tmp_path: Path, refused: Refused) -> None:
    """A header alone."""
    path = speech_file(tmp_path / "zero.wav", np.zeros(0))
    assert refused("transcribe", path, "--model", "demo") == f"{path} holds no sound: 0 samples"


def test_recording_with_numbers_that_are_none(tmp_path: Path, refused: Refused) -> None:
    """One NaN would make all of the model's numbers NaN."""
    samples = np.zeros(1000, np.float32)
    samples[500] = np.nan
    path = speech_file(tmp_path / "nan.wav", samples, subtype="FLOAT")
    expected = f"Expected finite samples in {path}, got nan at sample 500"
    assert refused("transcribe", path, "--model", "demo") == expected


def test_recording_too_long_for_one_prompt(tmp_path: Path, refused: Refused) -> None:
    """The message says what to do with it."""
    path = speech_file(tmp_path / "long.wav", np.full(31 * 16_000, 0.1))
    assert refused("generate", "-p", "Listen.", "--audio", path, "--model", "demo") == (
        "A prompt takes at most 30 s of sound; "
        "cut it with mlx_gemma4.split_audio, or use mlx_gemma4 transcribe, which does"
    )


@pytest.mark.parametrize("seconds", ["0", "-1", "0.01", "30.1", "1e9"])
def test_segment_of_no_length(refused: Refused, seconds: str) -> None:
    """At least a frame, at most what the model takes."""
    expected = f"--max-segment must be from 0.04 to 30 seconds, got {float(seconds):g}"
    assert refused("transcribe", SPEECH, "--model", "demo", "--max-segment", seconds) == expected


@pytest.mark.parametrize("layout", ["json", "srt", "vtt"])
def test_several_files_in_one(refused: Refused, layout: str) -> None:
    """Two subtitle files in a row are none."""
    expected = f"--format {layout} writes one recording to stdout, but there are 2; name an --output-dir"
    assert refused("transcribe", SPEECH, SPEECH, "--format", layout, "--model", "demo") == expected


def test_output_folder_that_is_a_file(tmp_path: Path, refused: Refused) -> None:
    """The system's own words name it."""
    path = tmp_path / "file"
    path.touch()
    assert str(path) in refused("transcribe", SPEECH, "--output-dir", path, "--model", "demo")


def test_microphone_without_the_extra(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    message = refused("listen", "--model", "demo")
    assert message.startswith("Microphone input needs the package sounddevice: pip install sounddevice ")


# pictures and video


def ask(refused: Refused, kind: str, path: Path) -> str:
    return refused("generate", "-p", "What is it?", f"--{kind}", path, "--model", "demo")


def test_empty_picture(tmp_path: Path, refused: Refused) -> None:
    """0 bytes."""
    path = tmp_path / "empty.png"
    path.touch()
    assert ask(refused, "image", path) == (
        "Expected an image as AVIF, BMP, GIF, ICO, JPEG, JPEG 2000, PNG, PPM, QOI, TGA, TIFF or WebP in "
        f"{path}, got something else, or one that is damaged; export it as JPEG or PNG"
    )


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_picture_cut_short(tmp_path: Path, refused: Refused, name: str) -> None:
    """Pillow's own words say what is wrong."""
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    message = ask(refused, "image", cut_in_half(path))
    assert re.match(rf"Pillow cannot read the image {re.escape(str(path))}: .*truncated", message)


def test_picture_that_is_a_bomb(tmp_path: Path, refused: Refused) -> None:
    """A hundred megapixels in a few kilobytes."""
    path = tmp_path / "bomb.png"
    Image.new("1", (10_000, 10_000)).save(path)
    message = ask(refused, "image", path)
    assert message == f"There are more than 89478485 pixels in {path}; scale it down first"


def with_room_for_a_row(folder: Path) -> Path:
    """A checkpoint whose position table has an entry for each of a budget's patches, as the 12B's has."""
    folder = checkpoint(folder)
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    name = "model.vision_embedder.pos_embedding"
    weights[name] = mx.pad(weights[name], ((0, 70 - 64), (0, 0), (0, 0)))
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["mm_posemb_size"] = 70
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("size", "patches"), [((1, 1), 8 * 8), ((20_000, 1), 70), ((1, 20_000), 70)])
def test_smallest_and_longest_pictures_are_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: tuple[int, int], patches: int
) -> None:
    """They are scaled to whole patches and answered."""
    picture, folder = tmp_path / "a.png", with_room_for_a_row(tmp_path)
    Image.new("RGB", size, (255, 0, 0)).save(picture)
    command = ["generate", "-p", "What is it?", "--image", str(picture), "--model", str(folder), "-m", "4", "--stats"]
    assert main(command) == 0
    expected = rf"^prompt {17 + patches} tokens, .* answer [1-4] tokens, "
    assert re.search(expected, capsys.readouterr().err, re.MULTILINE)


def test_image_budget_that_is_none(refused: Refused) -> None:
    """The message names all there are."""
    picture = str(media_file("picture-01.png"))
    expected = "Expected an image budget of 70, 140, 280, 560, 1120 tokens, got 100"
    assert refused("generate", "-p", "?", "--image", picture, "--image-tokens", "100", "--model", "demo") == expected


def test_text_as_a_video(tmp_path: Path, refused: Refused) -> None:
    """FFmpeg's own words say what is wrong."""
    path = tmp_path / "a.mp4"
    path.write_text("This is no video.\n")
    expected = f"FFmpeg cannot read the video {path}: Invalid data found when processing input"
    assert ask(refused, "video", path) == expected


# checkpoints


def test_folder_that_is_no_checkpoint(tmp_path: Path, refused: Refused) -> None:
    """The message says what could be named."""
    assert refused("generate", "-p", "Hi", "--model", tmp_path) == (
        f"There is no config.json of a checkpoint at {tmp_path / 'config.json'}; "
        "name a folder that holds one, a Hugging Face repo id, or 'demo'"
    )


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("text_config", "hidden_size"),
        ("text_config", "global_head_dim"),
        ("text_config", "num_global_key_value_heads"),
        ("text_config", "sliding_window"),
        ("vision_config", "mm_embed_dim"),
    ],
)
def test_config_without_a_size(tmp_path: Path, refused: Refused, part: str, key: str) -> None:
    """No size is made up: the missing one is named, and where it is missing."""
    folder = checkpoint(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config[part][key]
    (folder / "config.json").write_text(json.dumps(config))
    message = refused("generate", "-p", "Hi", "--model", folder)
    assert message == f"{part} has no {key!r}: the checkpoint's config.json is incomplete"


def test_config_that_is_no_json(tmp_path: Path, refused: Refused) -> None:
    """A broken download, for example."""
    folder = checkpoint(tmp_path)
    cut_in_half(folder / "config.json")
    message = refused("generate", "-p", "Hi", "--model", folder)
    assert message.startswith(f"{folder / 'config.json'} is not valid JSON: ")


def test_weights_cut_short(tmp_path: Path, refused: Refused) -> None:
    """The message says how much there should be."""
    folder = checkpoint(tmp_path)
    path = folder / "model.safetensors"
    size = path.stat().st_size
    cut_in_half(path)
    expected = f"Expected {size} bytes in {path}, got {size // 2}: the file is cut short; download it again"
    assert refused("generate", "-p", "Hi", "--model", folder) == expected


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_checkpoint_without_a_file(tmp_path: Path, refused: Refused, name: str) -> None:
    """The message names what is missing, and where."""
    folder = checkpoint(tmp_path)
    (folder / name).unlink()
    message = refused("generate", "-p", "Hi", "--model", folder)
    assert str(folder) in message and message.startswith(("There is no", "There are no"))
    assert ("*.safetensors" if name.startswith("model") else name) in message


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{"])
def test_checkpoint_with_a_broken_file(tmp_path: Path, refused: Refused, name: str, content: bytes) -> None:
    """Empty, of another kind, no text, cut short: the file is named."""
    folder = checkpoint(tmp_path)
    (folder / name).write_bytes(content)
    assert str(folder / name) in refused("generate", "-p", "Hi", "--model", folder)


def test_model_that_is_nowhere(refused: Refused) -> None:
    """Neither a folder nor the name of a repo."""
    assert refused("generate", "-p", "Hi", "--model", "./nowhere") == (
        "Expected a checkpoint folder, a Hugging Face repo id (owner/name) or 'demo', got './nowhere': "
        "there is no such folder"
    )


# the Hub, in processes of their own: its client reads the address when it is imported


class NoSuchRepo(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def empty_hub() -> Iterator[str]:
    """The address of a Hub that has no repos."""
    with ThreadingHTTPServer(("127.0.0.1", 0), NoSuchRepo) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def from_hub(address: str, home: Path) -> tuple[int, str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment.update(HF_ENDPOINT=address, HF_HOME=str(home), no_proxy="127.0.0.1", NO_PROXY="127.0.0.1")
    done = subprocess.run(
        [sys.executable, "-m", "mlx_gemma4", "generate", "-p", "Hi", "--model", "owner/name"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parent.parent,
    )
    return done.returncode, done.stdout, done.stderr


def test_repo_that_does_not_exist(tmp_path: Path, empty_hub: str) -> None:
    """The message names it, and what else could be the reason."""
    assert from_hub(empty_hub, tmp_path) == (
        2,
        "",
        "mlx_gemma4: error: There is no Hugging Face repo called 'owner/name' (or it is private: hf auth login)\n",
    )


def test_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    """The message says what runs without a network."""
    code, out, err = from_hub("http://127.0.0.1:9", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("mlx_gemma4: error: The Hugging Face Hub cannot be reached for owner/name, ")
    assert err.endswith("Without a network, --model demo runs the embedded checkpoint, --model FOLDER one on disk\n")
    assert err.count("\n") == 1


# usage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["transcribe"], "the following arguments are required: FILE"),
        (["generate"], "the following arguments are required: --prompt"),
        (["transcribe", "a.wav", "--format", "ass"], "argument --format: invalid choice: 'ass'"),
        (["transcribe", "a.wav", "--max-segment", "long"], "argument --max-segment: invalid float value: 'long'"),
        (["generate", "-p", "Hi", "--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (["generate", "-p", "Hi", "--max-tokens", "1.5"], "argument --max-tokens/-m: invalid int value: '1.5'"),
        (["demo", "--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """argparse names the argument, and exits with 2."""
    with pytest.raises(SystemExit, match=r"^2$"):
        main(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """For those who want to know where an error came from."""
    monkeypatch.setenv("MLX_GEMMA4_TRACEBACK", "1")
    with pytest.raises(ValueError, match=r"^There is no audio file absent\.wav$"):
        main(["transcribe", "absent.wav", "--model", "demo"])


def test_two_files_do_not_overwrite_each_other(tmp_path: Path, refused: Callable[..., str]) -> None:
    """Of the same name in different folders, for one --output-dir."""
    copies = [tmp_path / folder / "talk.wav" for folder in "ab"]
    for copy in copies:
        copy.parent.mkdir()
        copy.write_bytes(Path(SPEECH).read_bytes())
    message = "Two recordings would have the same name 'talk' in --output-dir; rename one of them"
    assert message in refused("transcribe", *copies, "--output-dir", tmp_path, "--model", "demo")
