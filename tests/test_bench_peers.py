"""``bench --against``: what programs are told, what is made of their answers, and what goes wrong with them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_gemma4 import Model, demo_folder, load
from mlx_gemma4.cli import main
from mlx_gemma4.cli.peers import make_jobs, temporary_folder
from mlx_gemma4.measure.speed import random_files
from mlx_gemma4.measure.speed.bench_tables import comparison_table
from mlx_gemma4.measure.speed.peers import EXIT, OURS, Comparison, Job, Programs, Row, compare
from mlx_gemma4.measure.speed.random_files import write_checkpoint
from mlx_gemma4.measure.speed.random_model import RandomCheckpoint

Refused = Callable[..., str]

DEMO = demo_folder() / "checkpoint"
JOB = Job(DEMO, {8: [100] * 8, 20: [101] * 20}, 3, Path("a.png"), Path("b.wav"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one layer of a small random model."""
    folder = tmp_path_factory.mktemp("tiny")
    write_checkpoint(RandomCheckpoint("small", "bf16", layers=1), folder)
    return folder


def interpreter(tmp_path: Path, script: str) -> str:
    """A program that takes the place of a peer's Python."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def weights(model: Model) -> dict[str, np.ndarray]:
    return {name: np.array(tensor.astype(mx.float32)) for name, tensor in tree_flatten(model.parameters())}


@pytest.mark.parametrize("recipe", ["bf16", "mixed"])
def test_a_written_checkpoint_is_the_model_in_memory(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several files, which an index names."""
    monkeypatch.setattr(random_files, "SHARD_BYTES", 2_000_000)
    checkpoint, seen = RandomCheckpoint("small", recipe, layers=2, seed=3), list[int]()
    write_checkpoint(checkpoint, tmp_path, seen.append)
    assert seen[-1] == checkpoint.nbytes
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    model, processor = load(tmp_path)
    written, made = weights(model), weights(checkpoint.model())
    assert written.keys() == made.keys()
    assert all(np.array_equal(written[name], made[name]) for name in made)
    assert processor.limits.image_tokens == 280


def test_a_full_disk_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_files.shutil, "disk_usage", lambda folder: type("", (), {"free": 3_000_000_000})())
    with pytest.raises(ValueError) as raised:
        write_checkpoint(RandomCheckpoint("12b", "4bit"), tmp_path)
    assert str(raised.value) == (
        f"A checkpoint of 7.1 GB does not fit on the disk of {tmp_path}, which has 3.0 GB left; "
        "set TMPDIR to a folder on another disk"
    )
    assert list(tmp_path.iterdir()) == []


def test_programs_do_the_same(tiny: Path, tmp_path: Path) -> None:
    """The real ones; mlx-lm is installed here. It takes text alone."""
    job = make_jobs(tiny, tmp_path, (8, 20))(0)
    programs = Programs("mlx-lm", sys.executable)
    ours, theirs = (programs.measure(program, job) for program in (OURS, "mlx-lm"))
    assert "error" not in ours and "error" not in theirs
    assert list(theirs["rows"]) == ["load", "prefill 8", "prefill 20", "decode 64"]
    assert list(ours["rows"]) == [*theirs["rows"], "picture", "sound"]
    assert (ours["rows"]["picture"]["positions"], ours["rows"]["sound"]["positions"]) == (280, 266)
    assert ours["rows"]["prefill 8"]["runs"] == 3
    assert ours["versions"]["mlx"] == theirs["versions"]["mlx"]
    one = programs.answer_one_token(OURS, tiny)
    assert one["wall"] > 0 and one["cpu"] > 0


def test_jobs_differ_by_turn_and_hold_plain_tokens(tiny: Path, tmp_path: Path) -> None:
    jobs = make_jobs(tiny, tmp_path, (8, 500))
    one, same, other = jobs(1), jobs(1), jobs(2)
    assert one == same and one.prompts != other.prompts
    assert [len(ids) for ids in one.prompts.values()] == [8, 500]
    assert min(one.prompts[500]) >= 128 and max(one.prompts[500]) < 1024  # of 2048
    told = json.loads(one.to_json("mlx-lm"))
    assert told["program"] == "mlx-lm" and told["prompts"]["8"] == one.prompts[8] and told["tokens"] == 64
    assert (tmp_path / "sound.wav").stat().st_size == 44 + 2 * 160_000


PROBLEMS: dict[str, tuple[str, str]] = {
    "exit code": ("echo boom >&2; exit 3", "mlx-lm in {python} failed with exit code 3: boom"),
    "last line": ("echo one >&2; echo 'Error: two' >&2; exit 1", "failed with exit code 1: Error: two"),
    "signal": ("kill -9 $$", "mlx-lm in {python} failed with signal 9: it said nothing"),
    "no result": ("echo not json", "mlx-lm in {python} failed with exit code 0: not json"),
}


@pytest.mark.parametrize(("script", "text"), PROBLEMS.values(), ids=PROBLEMS)
def test_a_peer_that_crashes(script: str, text: str, tmp_path: Path) -> None:
    python = interpreter(tmp_path, script)
    with pytest.raises(ValueError) as raised:
        Programs("mlx-lm", python).measure("mlx-lm", JOB)
    assert text.format(python=python) in str(raised.value)


def test_a_peer_whose_command_fails(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "echo no such model >&2; exit 1")
    with pytest.raises(ValueError, match=r"^mlx-lm in .* failed with exit code 1: no such model$"):
        Programs("mlx-lm", python).answer_one_token("mlx-lm", DEMO)


def test_an_interpreter_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as raised:
        Programs("mlx-lm", str(tmp_path / "nothing")).measure("mlx-lm", JOB)
    assert str(raised.value) == (
        f"--peer: cannot run the Python interpreter {tmp_path / 'nothing'}: No such file or directory"
    )


def test_options_in_the_environment_stay_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX_GEMMA4_MAX_TOKENS and the like would change what our own command does."""
    monkeypatch.setenv("MLX_GEMMA4_SYSTEM", "Be kind.")
    python = interpreter(
        tmp_path, """echo "{\\"rows\\": {}, \\"system\\": \\"$MLX_GEMMA4_SYSTEM$HF_HUB_OFFLINE\\"}" """
    )
    assert Programs("mlx-lm", python).measure("mlx-lm", JOB) == {"rows": {}, "system": "1"}


class Canned(Programs):
    """Answers of programs, and the order in which they are asked."""

    def __init__(self, **results: dict[str, Any]) -> None:
        super().__init__("mlx-vlm", sys.executable)
        self.asked: list[tuple[str, Any]] = []
        self._results = results

    def check(self) -> None:
        """Nothing is missing."""

    def measure(self, program: str, job: Job) -> dict[str, Any]:
        self.asked.append((program, job))
        return self._results["ours" if program == OURS else "theirs"]

    def answer_one_token(self, program: str, folder: Path) -> Row:
        self.asked.append((program, folder))
        return {"wall": 1.0 if program == OURS else 3.0, "cpu": 1.0, "runs": 1}


def result(wall: float, **more: Any) -> dict[str, Any]:
    row = {"wall": wall, "cpu": 2 * wall, "runs": 3, **more}
    return {"versions": {"mlx-vlm": "0.7.10"}, "rows": {"load": {**row, "runs": 1}, "prefill 64": row}}


def test_turns_change_their_order() -> None:
    programs = Canned(ours=result(1.0), theirs=result(2.0))
    comparison = Comparison("mlx-vlm")
    lines = list(compare(programs, lambda turn: JOB, 3, comparison))
    order = ["mlx-vlm", OURS, OURS, "mlx-vlm", "mlx-vlm", OURS]
    assert lines == [f"turn {1 + index // 2} of 3: {program}" for index, program in enumerate(order)]
    assert programs.asked == [pair for program in order for pair in ((program, JOB), (program, DEMO))]
    assert [len(rows) for rows in comparison.rows[OURS].values()] == [3, 3, 3]


def comparison() -> Comparison:
    made = Comparison("mlx-vlm", versions={"mlx-vlm": {"mlx-vlm": "0.7.10"}})
    for wall in (3.0, 1.0, 2.0):
        made.add(OURS, "load", {"wall": wall, "cpu": wall})
        made.add("mlx-vlm", "load", {"wall": 2 * wall, "cpu": wall / 2})
    made.add(OURS, "prefill 64", {"wall": 0.1, "cpu": 0.1, "peak_bytes": 7e9})
    made.add("mlx-vlm", "prefill 64", {"wall": 0.2, "cpu": 0.1, "peak_bytes": 14e9})
    made.add(OURS, "picture", {"wall": 0.5, "cpu": 0.5, "positions": 88})
    made.add("mlx-vlm", "picture", {"wall": 0.5, "cpu": 0.5, "positions": 280})
    made.add(OURS, "sound", {"wall": 0.5, "cpu": 0.5, "positions": 266})
    return made


def test_ratios_are_of_medians() -> None:
    made = comparison()
    assert (made.median(OURS, "load", "wall"), made.ratio("load", "wall"), made.ratio("load", "cpu")) == (2.0, 2.0, 0.5)
    assert made.ratio("sound", "wall") is None
    assert made.to_dict()["ratios"]["picture"] == {"wall": 1.0, "cpu": 1.0}
    assert comparison_table(made).markdown() == (
        "**Against mlx-vlm 0.7.10, medians of 3 turns**\n\n"
        "|                                    | mlx_gemma4 | mlx-vlm 0.7.10 | times as fast | by CPU time |\n"
        "| ---------------------------------- | ---------: | -------------: | ------------: | ----------: |\n"
        "| load                               |     2.00 s |         4.00 s |          2.00 |        0.50 |\n"
        "| prefill 64                         |     100 ms |         200 ms |          2.00 |        1.00 |\n"
        "| picture (88 against 280 positions) |     500 ms |         500 ms |          1.00 |        1.00 |\n"
        "| sound (266 positions)              |     500 ms |              – |             – |           – |\n"
        "| memory, prefill 64                 |    7.00 GB |        14.0 GB |          2.00 |             |"
    )


def test_a_peer_that_cannot_load_the_checkpoint() -> None:
    theirs = {"versions": {"mlx-vlm": "0.7.10"}, "rows": {}, "error": "while it loaded: ValueError: Missing\n 3 keys"}
    with pytest.raises(ValueError) as raised:
        list(compare(Canned(ours=result(1.0), theirs=theirs), lambda turn: JOB, 1, Comparison("mlx-vlm")))
    assert str(raised.value) == (
        f"mlx-vlm cannot load {DEMO} (while it loaded: ValueError: Missing 3 keys); if it is a checkpoint for "
        "transformers, mlx_gemma4 convert makes one that MLX programs load"
    )


def test_a_peer_that_cannot_do_a_row_keeps_the_others() -> None:
    theirs = {**result(1.0), "error": "after prefill 64: KeyError: 'image'"}
    made = Comparison("mlx-vlm")
    list(compare(Canned(ours=result(1.0), theirs=theirs), lambda turn: JOB, 2, made))
    assert made.problems == {"mlx-vlm": "after prefill 64: KeyError: 'image'"}
    assert len(made.rows["mlx-vlm"]["prefill 64"]) == len(made.rows["mlx-vlm"][EXIT]) == 2


@pytest.fixture
def canned(monkeypatch: pytest.MonkeyPatch) -> Canned:
    """The command asks these instead of starting programs."""
    programs = Canned(ours=result(1.0), theirs=result(2.0))
    monkeypatch.setattr("mlx_gemma4.measure.speed.peers.Programs", lambda peer, python: programs)
    return programs


def test_the_command(canned: Canned, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "c.json"
    options = ["--against", "mlx-vlm", "--peer", "python", "--repeat", "2", "--json", str(report)]
    assert main(["bench", "--random", "small", *options]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("**Against mlx-vlm 0.7.10, medians of 2 turns**\n")
    assert "| load          |     1.00 s |         2.00 s |          2.00 |        2.00 |" in out
    assert err.splitlines()[-1] == "turn 2 of 2: mlx-vlm"
    written = json.loads(report.read_text())
    assert written["complete"] is True
    assert written["model"]["random"] == "small"
    assert written["settings"] == {"positions": [64, 1024, 4096], "tokens": 64, "turns": 2}
    assert written["against"]["ratios"]["prefill 64"] == {"wall": 2.0, "cpu": 2.0}
    assert len(written["against"]["rows"]["mlx-vlm"]["load"]) == 2
    job = canned.asked[0][1]
    assert [len(ids) for ids in job.prompts.values()] == [64, 1024, 4096]
    assert not job.folder.exists() and "mlx_gemma4-bench-" in job.folder.name


def test_the_quick_command_measures_less(canned: Canned, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--model", "demo", "--against", "mlx-vlm", "--quick"]) == 0
    job = canned.asked[0][1]
    assert (job.folder, [*job.prompts]) == (DEMO, [64, 1024])
    assert len(canned.asked) == 12
    assert "3 turns" in capsys.readouterr().out


REFUSALS: dict[str, tuple[list[str], str]] = {
    "peer alone": (["--peer", "python"], "--peer needs --against and a program: mlx-lm or mlx-vlm"),
    "long": (
        ["--against", "mlx-lm", "--long"],
        "--against measures what both programs do by themselves: leave out --long",
    ),
    "draft model": (
        ["--against", "mlx-lm", "--draft-model", "x"],
        "--against measures what both programs do by themselves: leave out --draft-model",
    ),
    "dtype": (
        ["--against", "mlx-lm", "--dtype", "float32"],
        "--against measures what both programs do by themselves: leave out --dtype",
    ),
}


@pytest.mark.parametrize(("options", "text"), REFUSALS.values(), ids=REFUSALS)
def test_what_it_refuses(options: list[str], text: str, refused: Refused) -> None:
    assert refused("bench", "--model", "demo", *options) == text


def test_a_package_that_the_peer_lacks(refused: Refused, tmp_path: Path) -> None:
    """Before anything is written or measured. mlx-vlm is not installed here."""
    assert refused("bench", "--random", "small", "--against", "mlx-vlm") == (
        f"There is no mlx-vlm in the environment of {sys.executable}; "
        "name the Python interpreter of one that has it with --peer"
    )
    python = tmp_path / "nothing"
    assert refused("bench", "--random", "small", "--against", "mlx-lm", "--peer", python) == (
        f"--peer: cannot run the Python interpreter {python}: No such file or directory"
    )
    assert refused("bench", "--random", "small", "--against", "mlx-lm", "--peer", "/bin/ls").startswith(
        "mlx-lm in /bin/ls failed with exit code"
    )


def test_a_package_that_cannot_be_imported() -> None:
    theirs = {"error": "mlx-vlm cannot be imported: No module named 'transformers'"}
    with pytest.raises(ValueError, match=r"^mlx-vlm cannot be imported: No module named 'transformers'$"):
        list(compare(Canned(ours=result(1.0), theirs=theirs), lambda turn: JOB, 1, Comparison("mlx-vlm")))


def test_a_text_only_checkpoint_is_shown_nothing(tiny: Path, tmp_path: Path) -> None:
    config = json.loads((tiny / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vision_config": None, "audio_config": None}))
    job = make_jobs(tmp_path, tmp_path, (8,))(0)
    assert (job.picture, job.sound) == (None, None)
    assert json.loads(job.to_json(OURS))["picture"] is None


def test_a_temporary_folder_is_removed() -> None:
    with pytest.raises(KeyboardInterrupt), temporary_folder() as folder:
        (folder / "file").write_text("")
        raise KeyboardInterrupt
    assert not os.path.exists(folder)


def test_there_is_no_other_peer() -> None:
    with pytest.raises(ValueError, match=r"^Expected a peer of mlx-lm, mlx-vlm, got 'llama'$"):
        Programs("llama", sys.executable)
