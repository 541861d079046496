"""``mlx_gemma4 convert`` as users run it: what each flag makes, what is said where, and in how much memory."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from demo_sizes import (
    DECODER,
    DEMO,
    FOUR_BITS,
    LAYER_TYPES,
    LAYERS,
    PARAMETERS,
    SLIDING,
    WEIGHTS,
    matrices,
    megabytes,
)
from golden import clearest, said
from hub_server import contents
from make_random_checkpoint import RELEASED, make
from reference_cases import DATA, media_file

from mlx_gemma4.checkpoint.recipes import RECIPES
from mlx_gemma4.cli import main
from mlx_gemma4.convert import convert
from mlx_gemma4.convert import run as conversion_run
from mlx_gemma4.convert.record import Record
from mlx_gemma4.decoder.weights import load_model, model_name, read_weights
from mlx_gemma4.measure import quality as measure

ROOT = Path(__file__).parent.parent
W4A16 = DATA / "formats" / "compressed-tensors"
PREFIX = "language_model.model."
SPEECH, SAID = str(media_file(clearest())), said(clearest())
FOUR, SIX, EIGHT = "4 bits, group 64", "6 bits, group 64", "8 bits, group 64"
ALL = DECODER + 4
"""Modules: those of the layers, the embedding, and three projections of sound and pictures."""
REST = {"bfloat16": 3, SIX: 1}
"""What is stored otherwise than the layers."""
FIRST = matrices(LAYER_TYPES[0])
SENSITIVE = 2 * sum(
    layer < LAYERS // 8 or layer >= LAYERS - LAYERS // 8 or (layer - LAYERS // 8) % 3 == 2 for layer in range(LAYERS)
)
"""Modules of the layers with more bits in ``mixed``: two in the first and last eighth and in every third between."""


def run(*arguments: str | Path, module: str = "mlx_gemma4") -> subprocess.CompletedProcess[str]:
    """A process of its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def made(target: Path, *arguments: str | Path, source: Path | str = "demo") -> Record:
    """Convert in this process; the record."""
    assert main(["convert", "--hf-path", str(source), "--mlx-path", str(target), *map(str, arguments)]) == 0
    return Record.read(target)


def plain(folder: Path) -> dict[str, np.ndarray]:
    """The weights of a checkpoint as numbers, whatever they are stored in."""
    block = json.loads((folder / "config.json").read_text()).get("quantization", {})
    weights = read_weights(folder)
    values = {}
    for name, weight in weights.items():
        module = name.removesuffix(".weight")
        if f"{module}.scales" in weights and name.endswith(".weight"):
            own = {key: block.get(module, block)[key] for key in ("bits", "group_size", "mode")}
            parts = [weights.get(f"{module}.{part}") for part in ("scales", "biases")]
            if own["mode"] == "affine":  # in bfloat16, scale · q would be rounded before the bias is added
                parts = [part.astype(mx.float32) for part in parts if part is not None]
            weight = mx.dequantize(weight, *parts, **own, dtype=mx.float32)
        if not name.endswith((".scales", ".biases")):
            values[name] = np.array(weight.astype(mx.float32))
    return values


# what each flag makes


@pytest.mark.parametrize(
    ("arguments", "recipe", "modules"),
    [
        ([], "bf16", {"bfloat16": ALL}),
        (["-q"], "4bit", {FOUR: DECODER, **REST}),
        (["--quantize", "--q-bits", "4"], "4bit", {FOUR: DECODER, **REST}),
        (["--q-bits", "8"], "8bit", {EIGHT: DECODER + 1, "bfloat16": 3}),
        (["--q-bits", "3", "--q-group-size", "32"], "3bit", {"3 bits, group 32": DECODER, **REST}),
        (["--q-group-size", "32"], "4bit", {"4 bits, group 32": DECODER, **REST}),
        (["--q-mode", "mxfp8"], "mxfp8", {"mxfp8": DECODER, "bfloat16": 3, EIGHT: 1}),
        (["--q-mode", "nvfp4"], "nvfp4", {"nvfp4": DECODER, **REST}),
        (["--recipe", "4bit"], "4bit", {FOUR: DECODER, **REST}),
        (["--recipe", "auto"], "4bit", {FOUR: DECODER, **REST}),
        (["--recipe", "mixed"], "mixed", {FOUR: DECODER - SENSITIVE, SIX: 1 + SENSITIVE, "bfloat16": 3}),
        (["--recipe", "8bit"], "8bit", {EIGHT: DECODER + 1, "bfloat16": 3}),
        (["--recipe", "bf16"], "bf16", {"bfloat16": ALL}),
        (["--recipe", "mxfp4"], "mxfp4", {"mxfp4": DECODER, **REST}),
        (["--recipe", "mxfp8"], "mxfp8", {"mxfp8": DECODER, "bfloat16": 3, EIGHT: 1}),
        (["--recipe", "nvfp4"], "nvfp4", {"nvfp4": DECODER, **REST}),
        (["-q", "--q-module", "*.v_proj=8"], "4bit", {FOUR: DECODER - SLIDING, EIGHT: SLIDING, **REST}),
        (["--q-module", "*.v_proj=8/32"], "bf16", {"bfloat16": ALL - SLIDING, "8 bits, group 32": SLIDING}),
        (
            ["-q", "--q-module", "*.v_proj=mxfp8", "--q-module", "*layers.0.*=none"],
            "4bit",
            {FOUR: DECODER - FIRST - (SLIDING - 1), "bfloat16": 3 + FIRST, "mxfp8": SLIDING - 1, SIX: 1},
        ),
        (["--dtype", "float32"], "bf16", {"float32": ALL}),
        (["-q", "--dtype", "float16"], "4bit", {FOUR: DECODER, "float16": 3, SIX: 1}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], recipe: str, modules: dict[str, int]
) -> None:
    """The recipe, what is stored how, and a line that says so."""
    target = tmp_path / "made"
    record = made(target, *arguments)
    assert (record.recipe, record.modules) == (recipe, modules)
    bits = record.bits_per_weight
    assert capsys.readouterr() == (f"{target}: {recipe}, {record.size}, {bits:.2f} bits per weight\n", "")
    stored = [mx.load(str(path)) for path in target.glob("*.safetensors")]
    assert sum(tensor.nbytes for tensors in stored for tensor in tensors.values()) == record.size_bytes
    assert list(tmp_path.iterdir()) == [target]


LOSSES = {"4bit": 0.042, "mixed": 0.042, "8bit": 0.004, "bf16": 0, "mxfp4": 0.06, "mxfp8": 0.016, "nvfp4": 0.055}
"""Root mean square of a matrix's errors, relative to that of the largest of each 64 weights: at most."""


@pytest.mark.parametrize("recipe", LOSSES)
def test_recipes_keep_the_weights(tmp_path: Path, recipe: str) -> None:
    """As closely as their bits allow; norms, scalars and projections are kept exactly."""
    made(tmp_path / "made", "--recipe", recipe)
    block = json.loads((tmp_path / "made" / "config.json").read_text()).get("quantization", {})
    source, stored = plain(DEMO), plain(tmp_path / "made")
    assert source.keys() == stored.keys()
    for name, weights in source.items():
        if weights.ndim == 2 and (".layers." in name or "embed_tokens" in name) and block:
            largest = np.abs(weights.reshape(-1, 64)).max(axis=1)
            loss = np.sqrt(np.mean((stored[name] - weights) ** 2) / np.mean(largest**2))
            assert 0 < loss < LOSSES[recipe]
        else:
            np.testing.assert_array_equal(stored[name], weights)


def test_every_recipe_is_tried() -> None:
    """``qat`` has its own test."""
    assert {*LOSSES, "qat"} == RECIPES.keys()


def test_the_type_of_what_is_not_quantized(tmp_path: Path) -> None:
    """--dtype is that of scales, too, and of config.json's own word for it."""
    made(tmp_path / "made", "-q", "--dtype", "float16")
    types = {str(tensor.dtype) for tensor in mx.load(str(tmp_path / "made" / "model.safetensors")).values()}
    assert types == {"mlx.core.float16", "mlx.core.uint32"}


def test_weights_that_were_trained_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-q finds out, says so, and keeps them exactly."""
    record = made(tmp_path / "made", "-q", source=W4A16)
    assert record.recipe == "qat"
    assert capsys.readouterr().err == (
        "These weights were trained for 4 bits: recipe qat is used, which keeps them exactly\n"
        "Not part of a checkpoint, left out: 'expected.npz'\n"
    )
    stored = plain(tmp_path / "made")
    with np.load(W4A16 / "expected.npz") as expected:
        assert len(expected.files) == 20
        for name in expected.files:
            rounded = mx.array(stored[f"{model_name(name)}.weight"]).astype(mx.bfloat16)  # as it was trained
            np.testing.assert_array_equal(np.array(rounded.astype(mx.float32)), expected[name])


def test_dequantized(tmp_path: Path) -> None:
    """-d writes the very numbers that the quantized weights stand for."""
    made(tmp_path / "quantized", "--recipe", "8bit")
    record = made(tmp_path / "plain", "-d", source=tmp_path / "quantized")
    assert (record.recipe, record.modules) == ("bf16", {"bfloat16": ALL})
    assert "quantization" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    stored, meant = plain(tmp_path / "plain"), plain(tmp_path / "quantized")
    for name, weights in meant.items():
        np.testing.assert_allclose(stored[name], weights, rtol=2**-8, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "There is nothing to convert: name a Hugging Face repo or a folder with --hf-path"),
        (["-q", "-d"], "-d cannot be combined with -q"),
        (["-d", "--recipe", "8bit"], "-d cannot be combined with --recipe"),
        (["-d", "--q-bits", "4"], "-d cannot be combined with --q-bits"),
        (
            ["--recipe", "8bit", "--q-bits", "4", "--q-mode", "affine"],
            "--recipe cannot be combined with --q-bits, --q-mode; --q-module changes single modules of a recipe",
        ),
        (["--private"], "--private needs --upload-repo: name the repo to upload to"),
        (
            ["--upload-repo", "nobody"],
            "Expected a repo as owner/name, of letters, digits, '-', '_' and '.', got 'nobody'; "
            "name one such as alice/gemma-4-12B-it-4bit",
        ),
        (
            ["-q", "--q-module", "*.nonsense=8"],
            "No module matches '*.nonsense'; modules are ",
        ),
        (["-q", "--q-module", "*.v_proj=7"], "Expected bits of 2, 3, 4, 5, 6, 8 for mode affine, got 7"),
        (
            ["-q", "--q-module", "*.v_proj=int8"],
            "Expected a format of BITS, BITS/GROUP, mxfp4, mxfp8, nvfp4 or none, got 'int8'",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_contradictions(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """What does not go together, or is not complete, is told before anything is written."""
    source = ["--hf-path", "demo"] if arguments else []
    assert main(["convert", *source, "--mlx-path", str(tmp_path / "made"), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"mlx_gemma4: error: {message}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--q-bits", "four"], "argument --q-bits: invalid int value: 'four'"),
        (["--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    """argparse names the argument, and exits with 2."""
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["convert", "--hf-path", "demo", *arguments])
    assert message in capsys.readouterr().err


def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what would be made, even where a checkpoint is in the way, and writes nothing."""
    target = tmp_path / "made"
    command = ["convert", "--hf-path", "demo", "--mlx-path", str(target), "-q", "--dry-run"]
    said = (
        "demo to 4bit: attention and MLP at 4 bits, embedding at 6, sound and picture projections as they are\n"
        f"{FOUR_BITS.replace(',', ' in 1 file(s),')}\n"
        f"{DECODER:6} modules: 4 bits, group 64\n"
        "     3 modules: bfloat16\n"
        "     1 modules: 6 bits, group 64\n"
        "Copied as they are: chat_template.jinja, generation_config.json, preprocessor_config.json, "
        "processor_config.json, tokenizer.json, tokenizer_config.json\n"
    )
    assert main([*command, "--upload-repo", "owner/name"]) == 0
    assert capsys.readouterr() == (said, "")
    assert list(tmp_path.iterdir()) == []
    made(target, "--recipe", "8bit")
    before = contents(target)
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr() == (said, "")
    assert contents(target) == before


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """With sizes for the 12B, and without a source."""
    assert main(["convert", "--list-recipes"]) == 0
    out, err = capsys.readouterr()
    head, *rows, empty, tail = out.splitlines()
    assert head.split(maxsplit=3) == ["recipe", "GB", "bits", "what is stored how"]
    assert [row.split()[0] for row in rows] == list(RECIPES)
    sizes = {name: (float(size), float(bits)) for name, size, bits, *_ in map(str.split, rows)}
    assert sizes["bf16"] == (23.92, 16.0)
    assert sizes["4bit"] == (7.06, 4.72)
    assert (empty, err) == ("", "")
    assert tail == "Sizes are those of Gemma 4 12B. auto takes qat where weights were trained for it, or 4bit."


EXTRA = "Word error rates are left out: they need two packages (pip install jiwer whisper-normalizer)"
MEMORY = f"Word error rates are left out: {megabytes(WEIGHTS.stat().st_size)} of {DEMO} do not fit in memory"


@pytest.mark.parametrize("silent", [None, EXTRA, MEMORY], ids=["heard", "no extra", "no memory"])
def test_verify(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, silent: str | None
) -> None:
    """What was lost, measured on the finished weights, is in the record, in the card and in the summary."""
    hears = silent is None
    rates = {"wer": 0.25, "reference_wer": 0.125} if hears else {"wer": None, "reference_wer": None}
    quality = measure.Quality(10, 0.123456, 0.4, 0.9, 0.5, 5.0, 4.0, {}, [], [], **rates)

    def measured(source: Path, folder: Path, *, hear: bool, progress: Callable[[str], None]) -> measure.Quality:
        assert (source, hear) == (DEMO, hears)
        load_model(folder)
        progress("layer 1 of 5")
        return quality

    if silent == EXTRA:
        monkeypatch.setattr(conversion_run, "find_spec", lambda name: None)
    if silent == MEMORY:
        monkeypatch.setattr(conversion_run.os, "sysconf", lambda name: 4096)  # bytes a page, and pages
    monkeypatch.setattr(measure, "measure", measured)
    target = tmp_path / "made"
    loss = {"tokens": 10, "kl": 0.123456, "top1": 0.9, "perplexity": 5.0, "reference_perplexity": 4.0}
    assert made(target, "-q", "--verify").quantization_error == loss | (rates if hears else {})
    card = (target / "README.md").read_text()
    assert "| perplexity | 4.000 | 5.000 |" in card
    assert ("| word error rate | 12.5% | 25.0% |" in card) == hears
    assert "| KL divergence from the source, nats | | 0.1235 |" in card
    assert "| same likeliest token | | 90.0% |" in card
    line = f"{target}: 4bit, {FOUR_BITS}; KL 0.1235, same likeliest token 90.0%\n"
    assert capsys.readouterr() == (line, "layer 1 of 5\n" if hears else f"{silent}\nlayer 1 of 5\n")


def test_a_quantized_source_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether it is to be dequantized or quantized anew is not guessed."""
    source, target = tmp_path / "source", tmp_path / "made"
    made(source, "-q")
    capsys.readouterr()
    assert main(["convert", "--hf-path", str(source), "--mlx-path", str(target)]) == 2
    assert capsys.readouterr().err == (
        f"mlx_gemma4: error: Pass -d, -q or --recipe for {source}: it is quantized already\n"
    )
    assert not target.exists()
    made(target, "--recipe", "bf16", source=source)


def test_verify_of_a_drafter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A drafter foresees nothing alone, which is told before it is converted."""
    source = DATA / "formats" / "assistant-plain"
    assert main(["convert", "--hf-path", str(source), "--mlx-path", str(tmp_path / "made"), "--verify"]) == 2
    assert capsys.readouterr().err == (
        "Not part of a checkpoint, left out: 'expected.npz'\n"
        f"mlx_gemma4: error: --verify cannot measure a drafter by itself: {source} is a drafter; leave out --verify\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", ["4bit", "8bit"])
def test_converted_it_still_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    """Converted and loaded by name, the demo hears what was said."""
    made(tmp_path / "made", "--recipe", recipe)
    capsys.readouterr()
    assert main(["transcribe", SPEECH, "--model", str(tmp_path / "made"), "--dtype", "float32"]) == 0
    assert capsys.readouterr().out == f"{SAID}\n"


# how it is started, and what it says where


def test_in_the_checkout(tmp_path: Path) -> None:
    """``python -m convert`` is the same command, by the same name."""
    done = run("--help", module="convert")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: mlx_gemma4 convert [OPTIONS]")
    done = run("--hf-path", "demo", "--mlx-path", tmp_path / "made", "-q", module="convert")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'made'}: 4bit, {FOUR_BITS}\n"
    assert Record.read(tmp_path / "made").recipe == "4bit"
    done = run("--hf-path", "demo", "--mlx-path", tmp_path / "made", module="convert")
    message = f"{tmp_path / 'made'} exists already; pass --overwrite to replace it"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"mlx_gemma4: error: {message}\n")


@pytest.mark.parametrize("command", [["--help"], ["convert", "--help"], ["upload", "--help"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    """Start-up is a feature."""
    code = (
        f"from mlx_gemma4.cli import main\ntry: main({command})\nexcept SystemExit: pass\n"
        "import sys; print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    modules = set(done.stderr.splitlines())
    assert "mlx_gemma4.convert.command" in modules
    assert not modules & {"numpy", "mlx", "mlx.core", "rich", "huggingface_hub", "tokenizers", "PIL", "soundfile"}


def test_a_bar_in_a_terminal(tmp_path: Path) -> None:
    """With bytes and the tensor at hand, on stderr; it goes when it is done."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-m", "mlx_gemma4", "convert", "--hf-path", "demo", "--mlx-path", str(tmp_path / "made")]
    with subprocess.Popen([*command, "-q"], stdout=subprocess.PIPE, stderr=slave, env=environment) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                piece = os.read(master, 4096)
            except OSError:  # the other end is closed
                piece = b""
            if not piece:
                break
            shown += piece
        out, _ = process.communicate()
    os.close(master)
    assert process.returncode == 0
    assert out.decode() == f"{tmp_path / 'made'}: 4bit, {FOUR_BITS}\n"
    size = re.escape(f"{2 * PARAMETERS / 1e6:.1f}")  # in bfloat16
    assert re.search(rf"converting to 4bit .*{size}/{size} MB", shown.decode())
    assert shown.endswith(b"\x1b[2K")  # the line is erased


PEAK = """
import resource, sys
from pathlib import Path

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # elsewhere, ru_maxrss does not begin with that of the parent
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

from mlx_gemma4.convert.run import convert
before = peak()
convert(sys.argv[1], sys.argv[2], recipe="4bit")
print(before, peak())
"""


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A checkpoint of 600 MB: no more than 150 MB are needed above what the program itself takes."""
    layers = 8
    config = json.loads((RELEASED / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": 1536,
        "intermediate_size": 6144,
        "num_hidden_layers": layers,
        "layer_types": [*["sliding_attention"] * (layers - 1), "full_attention"],
        "num_attention_heads": 8,
        "head_dim": 128,
        "num_key_value_heads": 4,
        "vocab_size": 32768,
    }
    make(tmp_path / "source", config)
    size = sum(path.stat().st_size for path in (tmp_path / "source").glob("*.safetensors"))
    assert size > 580_000_000
    command = [sys.executable, "-c", PEAK, str(tmp_path / "source"), str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    before, after = map(int, done.stdout.split())
    assert 0 < after - before < 150_000_000


def test_the_python_call(tmp_path: Path) -> None:
    """The same as the command."""
    record = convert("demo", tmp_path / "called", recipe="mixed", modules=["*.o_proj=8"], dtype="float16")
    made(tmp_path / "typed", "--recipe", "mixed", "--q-module", "*.o_proj=8", "--dtype", "float16")
    assert contents(tmp_path / "called") == contents(tmp_path / "typed")
    assert record == Record.read(tmp_path / "called")
