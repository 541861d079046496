"""``mlx_gemma4 bench``: what is counted, the tables, the file, and what it refuses. Times are never asserted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_gemma4 import Model, Processor
from mlx_gemma4.cli import bench as command
from mlx_gemma4.cli import main, parse
from mlx_gemma4.measure import bench as measured
from mlx_gemma4.measure.bandwidth import bytes_read_per_token
from mlx_gemma4.measure.bench import Bench, Settings
from mlx_gemma4.measure.bench_tables import tables
from mlx_gemma4.measure.figures import Figure, Figures, Repeats, Table, number
from mlx_gemma4.measure.random_files import random_processor
from mlx_gemma4.measure.random_model import RandomCheckpoint

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
    """One layer of a small random model."""
    checkpoint = RandomCheckpoint("small", "bf16", layers=1)
    return checkpoint.model(), random_processor(checkpoint)


@pytest.fixture
def quick(tiny: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, on the tiny model and with the tiny settings."""
    monkeypatch.setattr(command, "open_model", lambda arguments: tiny)
    monkeypatch.setattr(command, "bench_settings", lambda arguments: TINY)
    monkeypatch.setattr(measured, "copy_bandwidth", lambda clock: 2e9)


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
            Figure("bandwidth", "copy", "bytes/s", (100e9,)),
            Figure("prefill", "1024 positions", "tokens/s", (200.0, 300.0, 250.0), {"positions": 1024}),
            Figure("prefill", "1024 positions, first token", "s", (4.0,)),
            Figure("decode", "1024 positions", "tokens/s", (12.5,)),
            Figure("decode", "1024 positions, read", "bytes/s", (80e9,)),
            Figure("memory", "1024 positions, peak", "bytes", (7.5e9,)),
            Figure("first token", "picture", "s", (0.9, 1.1, 1.0), {"positions": 280}),
            Figure("forward", "1 rows", "s", (0.04,), {"rows": 1}),
            Figure("forward", "8 rows", "s", (0.14,), {"rows": 8}),
        ]
    )


def test_tables_are_markdown() -> None:
    assert "\n\n".join(table.markdown() for table in tables(figures())) == (
        "**Text; a copy runs at 100 GB/s**\n\n"
        "| positions | prefill tok/s | first token | decode tok/s | read GB/s | of copy | peak GB | runs |\n"
        "| --------- | ------------: | ----------: | -----------: | --------: | ------: | ------: | ---: |\n"
        "| 1,024     |           250 |      4.00 s |         12.5 |      80.0 |     80% |    7.50 |    3 |\n\n"
        "**First token**\n\n"
        "| for     | positions | median |           range |\n"
        "| ------- | --------: | -----: | --------------: |\n"
        "| picture |       280 | 1.00 s | 900 ms – 1.10 s |\n\n"
        "**Forwards, as a draft is checked**\n\n"
        "| rows in one forward |       1 |      8 |\n"
        "| ------------------- | ------: | -----: |\n"
        "| time                | 40.0 ms | 140 ms |\n"
        "| in units of one row |    1.00 |   3.50 |"
    )


def test_a_terminal_gets_drawn_tables() -> None:
    text = command.drawn(Table("Title", ("a", "b"), [("x", "12")]))
    assert "Title" in text and "12" in text and "|" not in text


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
        "**Text; a copy runs at 2.00 GB/s**",
        "**First token**",
        "**Forwards, as a draft is checked**",
    ]
    assert "prefill of 300 positions, 3 tokens" in err.splitlines()
    written = json.loads(report.read_text())
    assert written["complete"] is True
    assert written["model"] == {"random": "small", "recipe": "bf16", "bytes": 12233612}
    assert written["settings"]["positions"] == [8, 300]
    assert written["settings"]["tokens"] == 3
    assert written["machine"]["mlx_gemma4"] and written["date"].endswith("+00:00")
    named = {(figure["name"], figure["of"]): figure for figure in written["figures"]}
    assert named["bandwidth", "copy"]["median"] == 2e9
    prefill = named["prefill", "300 positions"]
    assert (prefill["unit"], prefill["positions"], prefill["repetitions"]) == ("tokens/s", 300, 2)
    assert len(prefill["values"]) == 2
    assert named["forward", "32 rows"]["rows"] == 32
    assert len(named) == len(written["figures"])


def test_an_interrupted_run_prints_and_saves_what_there_is(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Bench) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Bench, "first_tokens", interrupted)
    report = tmp_path / "b.json"
    assert main(["bench", "--random", "small", "--json", str(report)]) == 130
    out, err = capsys.readouterr()
    assert "| 300       |" in out and "First token" not in out
    assert err.splitlines()[-1] == "Stopped: the figures are those measured until then."
    written = json.loads(report.read_text())
    assert written["complete"] is False
    assert {figure["name"] for figure in written["figures"]} == {"bandwidth", "prefill", "decode", "memory"}


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
        ([], (64, 1024, 8192), 5, 30.0),
        (["--long"], (64, 1024, 8192, 32768), 5, 30.0),
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
