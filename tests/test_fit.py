"""Whether a checkpoint fits, before anything of it is loaded; and what a refusal proposes really fits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from reference_cases import REFERENCE, media_file
from small_files import demo_copy

from mlx_gemma4 import Model, PrefixStore, demo_folder, load
from mlx_gemma4.cli import main
from mlx_gemma4.decoder.budget import Budget
from mlx_gemma4.decoder.config import Config
from mlx_gemma4.decoder.fit import Asked, DoesNotFit, fit, gigabytes
from mlx_gemma4.decoder.memory import KEPT_BUFFERS, LONGEST, PROGRAM, Needs, Use, plan_memory
from mlx_gemma4.decoder.twelve_b import TWELVE_B
from mlx_gemma4.decoder.weight_sizes import recipe_sizes, weight_sizes
from mlx_gemma4.decoder.weights import drafter_name, load_drafter, load_model
from mlx_gemma4.loading import memory_limit, plan_checkpoint, set_limits
from mlx_gemma4.measure.speed.random_model import RandomCheckpoint

DEMO = demo_folder() / "checkpoint"
TEXT = Config.from_dict(TWELVE_B).text_config
SIZES = {recipe: RandomCheckpoint("12b", recipe).nbytes for recipe in ("bf16", "8bit", "mixed", "4bit", "mxfp4")}
MAC = 11_453_251_584
"""MLX's recommended working set on a Mac of 16 GB."""

Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def unlimited() -> Iterator[None]:
    """Budgets of these tests do not slow down those of other files: MLX's memory limit is the process's."""
    before = mx.set_memory_limit(2**40)
    mx.set_memory_limit(before)
    yield
    mx.set_memory_limit(before)


def nbytes(model: Any) -> int:
    return sum(array.nbytes for _, array in tree_flatten(model.parameters()))


@pytest.mark.parametrize("dtype", [None, mx.float32, mx.float16])
@pytest.mark.parametrize("folder", [DEMO, *(REFERENCE / name / "checkpoint" for name in ("released", "resaved"))])
def test_sizes_from_headers_are_those_of_the_model(folder: Path, dtype: mx.Dtype | None) -> None:
    sizes = weight_sizes(folder, dtype)
    model = load_model(folder, dtype=dtype)
    assert (sizes.held, sizes.dtype) == (nbytes(model), model.dtype)
    assert (sizes.loading > 0) == (dtype is not None)


def test_sizes_of_a_drafter_and_of_quantized_weights(tmp_path: Path) -> None:
    folder = REFERENCE / "drafter" / "checkpoint"
    assert weight_sizes(folder, None, drafter_name).held == nbytes(load_drafter(folder))
    from mlx_gemma4.measure.speed.random_files import write_checkpoint

    checkpoint = RandomCheckpoint("small", "4bit", layers=1)
    write_checkpoint(checkpoint, tmp_path)
    for dtype in (None, mx.float32):
        assert weight_sizes(tmp_path, dtype).held == nbytes(load_model(tmp_path, dtype=dtype))
    assert weight_sizes(tmp_path).held == checkpoint.nbytes


def test_what_loading_takes_beside_the_weights() -> None:
    """Layer by layer, then all others: the largest group of tensors in another type stands beside what is held."""
    folder = REFERENCE / "released" / "checkpoint"
    model = load_model(folder)
    others = sum(array.nbytes for name, array in tree_flatten(model.parameters()) if ".layers." not in name)
    assert weight_sizes(folder, mx.float32).loading == others


def test_sizes_of_recipes_are_those_of_their_checkpoints() -> None:
    sizes = recipe_sizes(Config.from_dict(TWELVE_B))
    assert {recipe: sizes[recipe] for recipe in SIZES} == SIZES


def asked(budget: int, context: int | None = None, use: Use = Use()) -> Asked:  # noqa: B008 (frozen)
    return Asked("gemma", budget, use, context)


def others() -> dict[str, Needs]:
    return {f"a conversion with --recipe {recipe}": Needs(TEXT, size) for recipe, size in SIZES.items()}


def test_what_fits_has_the_longest_context_by_default() -> None:
    def unasked() -> dict[str, Needs]:
        raise AssertionError("others are asked for only where the checkpoint does not fit")

    needs = Needs(TEXT, SIZES["4bit"])
    budget = fit(asked(MAC), needs, unasked)
    assert budget.context == budget.longest == LONGEST and budget.memory == MAC
    assert budget.plan == plan_memory(needs, Use(), LONGEST) and budget.plan.total <= MAC
    assert fit(asked(MAC, 5000), needs, unasked).context == 5000
    tight = fit(asked(9_000_000_000), needs, unasked)
    assert tight.context is not None and 1024 < tight.context < LONGEST


def test_snapshots_have_what_is_left() -> None:
    """They make a context shorter that is not asked for, and nothing else."""
    needs, use = Needs(TEXT, SIZES["4bit"]), Use(snapshots=400_000_000)
    for budget, context, snapshots in (
        (MAC, None, 400_000_000),
        (10_600_000_000, LONGEST, 123),
        (8_700_000_000, None, 0),
    ):
        found = fit(asked(budget, context, use), needs, dict)
        assert found.plan is not None and found.context is not None and found.plan.total <= budget
        if snapshots == 400_000_000:
            assert found.plan.snapshots == snapshots
        else:
            assert 0 <= found.plan.snapshots < 400_000_000
    assert found.context == 1024 and found.longest is not None and found.longest > 1024
    assert found.sessions == 8_700_000_000 - needs.weights - found.plan.forward - found.plan.snapshots - 500_000_000


def test_a_recipe_is_proposed() -> None:
    """The 12B in bf16 on a Mac of 16 GB: each part, and the recipes that fit, the best first."""
    with pytest.raises(DoesNotFit) as refused:
        fit(asked(MAC), Needs(TEXT, SIZES["bf16"]), others)
    assert str(refused.value) == (
        "gemma needs 25.4 GB for a context of 1024 positions (weights 23.9, keys and values 0.35, a forward 0.68, the "
        "program 0.50), and it may use 11.5; what fits is a conversion with --recipe mixed (7.4 GB of weights) or a "
        "conversion with --recipe 4bit (7.1 GB of weights) or a conversion with --recipe mxfp4 (6.7 GB of weights)"
    )


def test_a_smaller_context_is_proposed() -> None:
    needs = Needs(TEXT, SIZES["4bit"])
    with pytest.raises(DoesNotFit, match="for a context of 100000 positions") as refused:
        fit(asked(9_500_000_000, 100_000), needs, dict)
    proposed = int(re.findall(r"what fits is --context (\d+)$", str(refused.value))[0])
    assert fit(asked(9_500_000_000, proposed), needs, dict).context == proposed
    with pytest.raises(DoesNotFit):
        fit(asked(9_500_000_000, proposed + 1), needs, dict)


def test_nothing_fits() -> None:
    with pytest.raises(DoesNotFit, match=r"nothing smaller fits, the least is 8\.\d GB; allow more"):
        fit(asked(5_726_633_984), Needs(TEXT, SIZES["4bit"]), others)


def test_a_context_that_the_checkpoint_was_not_made_for() -> None:
    for context in (0, -1, LONGEST + 1):
        with pytest.raises(ValueError, match=rf"of 1 to 131072 positions for gemma, got {context}"):
            fit(asked(10**12, context), Needs(TEXT, SIZES["4bit"]), dict)


def test_units() -> None:
    assert [gigabytes(each) for each in (23_920_000_000, 999_000_000, 0)] == ["23.9", "1.00", "0.00"]


# loading


def test_a_refusal_allocates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor is read, and MLX's limits stay."""

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("something was loaded")

    before, limit = mx.get_active_memory(), mx.set_memory_limit(10**10)
    try:
        monkeypatch.setattr(mx, "load", never)
        monkeypatch.setattr("mlx_gemma4.loading.load_model", never)
        with pytest.raises(DoesNotFit, match=r"demo needs 0\.5\d GB for a context of 1024 positions"):
            load("demo", memory=0.2)
        assert mx.get_active_memory() <= before
    finally:
        assert mx.set_memory_limit(limit) == 10**10


def test_what_is_loaded_has_a_budget() -> None:
    model, _ = load("demo", context=2000, memory=1.5)
    assert model.budget.context == 2000 and model.budget.memory == 1_500_000_000
    assert model.budget.longest == 4096  # as its config.json says
    assert model.budget.plan is not None and model.snapshots.memory == model.budget.plan.snapshots == 400_000_000
    assert PrefixStore(model).limit == model.budget.sessions
    assert model.budget.needs is not None and model.budget.needs.weights == nbytes(model)
    assert mx.set_memory_limit(1) == 1_500_000_000 - PROGRAM
    assert load("demo", memory=1.0)[0].budget.context == 4096
    assert load("demo", context=100, memory=0.6)[0].snapshots.memory < 100_000_000
    with pytest.raises(ValueError, match=r"Expected a context \(--context\) of 1 to 4096 positions for demo, got 5000"):
        load("demo", context=5000)


@pytest.mark.parametrize("memory", [0, -1, 10**6, float("nan"), float("inf")])
def test_memory_that_cannot_be(memory: float) -> None:
    with pytest.raises(ValueError, match=r"Expected memory \(--memory\) of more than 0 and at most \d+\.\d GB, got"):
        memory_limit(memory)


def test_limits_of_mlx() -> None:
    """The cache keeps no more than before."""
    kept = mx.set_cache_limit(10**9)
    try:
        set_limits(10**10)
        assert mx.set_memory_limit(10**10) == 10**10 - PROGRAM
        assert mx.set_cache_limit(5_000_000) == KEPT_BUFFERS
        set_limits(10**10)
        assert mx.set_cache_limit(kept) == 5_000_000
    finally:
        mx.set_cache_limit(kept)


def test_another_type_is_proposed(tmp_path: Path) -> None:
    """float32 twice the size; bf16 is the checkpoint's own."""
    folder = DEMO
    config = Config.from_file(folder / "config.json")
    own = plan_checkpoint(folder, config, None, asked(10**9, 1024)).plan
    wide = plan_checkpoint(folder, config, mx.float32, asked(10**9, 1024)).plan
    assert own is not None and wide is not None and wide.weights == pytest.approx(2 * own.weights, rel=0.01)
    with pytest.raises(DoesNotFit, match="what fits is leaving out --dtype"):
        plan_checkpoint(folder, config, mx.float32, asked((own.total + wide.total) // 2, 1024))


def test_a_drafter_is_planned_for() -> None:
    config = Config.from_file(DEMO / "config.json")
    drafter = REFERENCE / "drafter" / "checkpoint"
    alone, beside = (plan_checkpoint(DEMO, config, None, asked(10**9), each).plan for each in (None, drafter))
    assert alone is not None and beside is not None
    assert beside.weights - alone.weights == nbytes(load_drafter(drafter))


# commands


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "-p", "Hi"],
        ["chat"],
        ["transcribe", str(media_file("hibari-03.wav"))],
        ["listen", "--input", str(media_file("hibari-03.wav"))],
        ["live", "--input", str(media_file("hibari-03.wav")), "--no-camera", "--fast"],
        ["watch", str(media_file("picture-01.png"))],
        ["describe", str(media_file("picture-01.png"))],
        ["bench", "--quick"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_refuses_what_does_not_fit(
    command: list[str], refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mx, "load", lambda *arguments: pytest.fail("something was loaded"))
    message = refused(*command, "--model", "demo", "--memory", "0.1")
    assert re.fullmatch(
        r"\S+ needs 0\.5\d GB for a context of \d+ positions \(.*\), and it may use 0\.10; nothing smaller fits, .*",
        message,
    )


def test_a_context_of_the_command_line(refused: Refused) -> None:
    message = refused("generate", "-p", "Hi " * 400, "--model", "demo", "--context", "100")
    assert re.fullmatch(
        r"The context is 100 positions, of which 0 are used, and this needs (\d+) more; shorten it, or start with a "
        r"context of \1 or more \(--context\)",
        message,
    )


def test_an_answer_that_fills_the_context(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "demo", "--dtype", "float32", "--draft", "none"]
    prompt = ["-p", "Describe the image.", "--image", str(media_file("picture-01.png"))]
    assert main(["generate", *options, *prompt, "--context", "1", "--max-tokens", "50"]) == 2
    needed = int(re.findall(r"this needs (\d+) more", capsys.readouterr().err)[0])
    assert main(["generate", *options, *prompt, "--context", str(needed + 2), "--max-tokens", "50"]) == 0
    assert capsys.readouterr().err == "The answer was stopped at the end of the context (--context).\n"
    assert main(["generate", *options, *prompt, "--max-tokens", "3"]) == 0
    assert capsys.readouterr().err == "The answer was stopped at 3 tokens (--max-tokens).\n"


def test_max_position_embeddings(tmp_path: Path) -> None:
    """A checkpoint that does not say gets what is planned for at most."""
    demo_copy(tmp_path / "checkpoint", weights=True)
    file = tmp_path / "checkpoint" / "config.json"
    raw = json.loads(file.read_text())
    assert raw["text_config"].pop("max_position_embeddings") == 4096
    file.write_text(json.dumps(raw))
    config = Config.from_file(file)
    assert config.text_config.max_position_embeddings is None
    assert plan_checkpoint(file.parent, config, None, asked(10**10)).context == LONGEST
    raw["text_config"]["max_position_embeddings"] = -3
    file.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="'max_position_embeddings' in text_config"):
        Config.from_file(file)


def test_models_have_no_limits_of_their_own() -> None:
    assert Model(Config.from_file(DEMO / "config.json")).budget == Budget()
