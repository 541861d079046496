"""``eval quality``: what it prints and writes, and what it refuses before any work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from demo_sizes import LAYER_TYPES, LAYERS
from golden import clearest, said
from reference_cases import media_file

from mlx_gemma4.cli import main
from mlx_gemma4.cli.quality import layers, scores, worst
from mlx_gemma4.measure.quality import Module, Quality
from mlx_gemma4.measure.tokens import Scores

Refused = Callable[..., str]

TEXT = Scores(
    tokens=900, kl=0.01234, kl_p99=0.2, top1=0.987, logit_error=0.25, perplexity=5.5, reference_perplexity=5.25
)
AUDIO = Scores(tokens=9, kl=0.5, kl_p99=1.5, top1=1.0, logit_error=0.5, perplexity=1.25, reference_perplexity=1.125)
PREFIX = "language_model.model."


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run ``eval quality`` on the demo so that it must fail; return its message."""

    def run(*arguments: str | Path) -> str:
        assert main(["eval", "quality", "--reference", "demo", "--model", "demo", *map(str, arguments)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("mlx_gemma4: error: ") and err.count("\n") == 1
        return err.removeprefix("mlx_gemma4: error: ").removesuffix("\n")

    return run


def quality(parts: dict[str, Scores], wer: float | None = None) -> Quality:
    modules = [Module(f"{PREFIX}layers.1.mlp.down_proj", 0.25), Module("embed_audio.embedding_projection", 0.125)]
    modules += [Module(f"{PREFIX}layers.{index}.self_attn.q_proj", 0.0) for index in range(2)]
    modules += [Module(f"{PREFIX}embed_tokens", 0.0)] * 9
    return Quality(**vars(TEXT), parts=parts, modules=modules, layers=[0.0, 0.0625], wer=wer, reference_wer=wer)


def test_the_scores() -> None:
    """A row for each kind, one for all if there are several, and error rates if recordings were transcribed."""
    assert scores(quality({"text": TEXT, "audio": AUDIO}, wer=1 / 6)).splitlines() == [
        "KL(reference ‖ model) in nats a token, and the error of logits (root mean square)",
        "       tokens      KL  KL p99    top-1  logits  perplexity  reference's",
        "text      900  0.0123  0.2000   98.70%  0.2500       5.500        5.250",
        "audio       9  0.5000  1.5000  100.00%  0.5000       1.250        1.125",
        "all       900  0.0123  0.2000   98.70%  0.2500       5.500        5.250",
        "WER 16.67%, the reference's 16.67%",
    ]
    assert [line.split()[0] for line in scores(quality({"text": TEXT})).splitlines()[1:]] == ["tokens", "text"]


def test_the_worst_modules() -> None:
    """Ten of them, without the common prefix of their names."""
    lines = worst(quality({"text": TEXT})).splitlines()
    assert len(lines) == 11
    assert lines[1:3] == ["layers.1.mlp.down_proj            0.2500", "embed_audio.embedding_projection  0.1250"]


def test_the_layers() -> None:
    """A line for each layer: its drift and the errors of its modules."""
    assert [line.split() for line in layers(quality({"text": TEXT})).splitlines()[1:]] == [
        ["layer", "drift", "q", "k", "v", "o", "gate", "up", "down"],
        ["0", "0.0000", "0.0000", "–", "–", "–", "–", "–", "–"],
        ["1", "0.0625", "0.0000", "–", "–", "–", "–", "–", "0.2500"],
    ]


def test_the_demo_against_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report on stdout, progress on stderr, all figures in the file."""
    (tmp_path / "text.txt").write_text("\ufeffGo back seven meters.\n", encoding="utf-8")
    line = {"audio": str(media_file(clearest())), "text": said(clearest())}
    (tmp_path / "manifest.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps({**line, 'audio': 'absent.wav'})}\n")
    inputs = ["--text", str(tmp_path / "text.txt"), "--audio", str(tmp_path / "manifest.jsonl"), "--limit", "1"]
    report = tmp_path / "report.json"
    options = ["--reference", "demo", "--model", "demo", *inputs, "--json", str(report)]
    assert main(["eval", "quality", *options]) == 0
    out, err = capsys.readouterr()
    rows = [text.split() for text in out.splitlines()]
    assert [row[0] for row in rows[2:6]] == ["text", "audio", "image", "all"]
    assert [row[2:5] for row in rows[2:6]] == [["0.0000", "0.0000", "100.00%"]] * 4
    assert rows[6] == ["WER", "0.00%,", "the", "reference's", "0.00%"]
    values = "–" if LAYER_TYPES[-1] == "full_attention" else "0.0000"
    assert rows[-1] == [str(LAYERS - 1), "0.0000", "0.0000", "0.0000", values, *["0.0000"] * 4]
    assert err.splitlines()[:-2] == [f"layer {index} of {LAYERS}" for index in range(1, LAYERS + 1)]
    figures = json.loads(report.read_text())
    assert (figures["kl"], figures["top1"], figures["wer"], figures["layers"]) == (0, 1, 0, [0] * LAYERS)
    assert figures["parts"]["audio"]["tokens"] < figures["tokens"]
    assert {"name": f"{PREFIX}layers.3.mlp.down_proj", "error": 0} in figures["modules"]
    assert figures["reference"] == figures["model"]


# before any work


def test_texts_that_cannot_be_scored(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "text.txt"
    assert refused("--text", path) == f"There is no file for --text at {path}"
    path.write_bytes(b"\xff\xfe\x00")
    assert refused("--text", path).startswith(f"{path} is not plain text: 'utf-8' codec can't decode")
    path.write_text(" \n")
    assert refused("--text", path) == f"There is no text to score in {path}: it is empty"


def test_missing_recordings(tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / "manifest.jsonl"
    assert refused("--audio", path) == f"There is no manifest of JSON lines at {path}"
    path.write_text('{"audio": "a.wav", "text": "a"}\n')
    assert refused("--audio", path) == f"There is no audio file at {tmp_path / 'a.wav'}"


def test_bad_options(tmp_path: Path, refused: Refused) -> None:
    assert refused("--limit", "0") == "--limit must be 1 or more, got 0"
    assert refused("--json", tmp_path) == f"--json needs a file, but {tmp_path} is a folder"
    assert refused("--reference", "nowhere").startswith("Expected a checkpoint folder, a Hugging Face repo id")


def test_a_missing_extra_is_named(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the recordings are not transcribed."""
    for name in [name for name in sys.modules if name.split(".")[0] == "jiwer"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jiwer", None)
    assert refused() == "Error rates need two packages: pip install jiwer whisper-normalizer"
    assert refused("--no-wer", "--model", "nowhere").startswith("Expected a checkpoint folder")
