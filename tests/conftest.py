"""Fixtures: checkpoints of the architecture that are small enough to compute with, and the reference's numbers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

os.environ["MLX_ENABLE_TF32"] = "0"  # before mlx is imported: float32 is to be float32

import pytest
from reference_cases import CASES, CHECKPOINTS, REFERENCE, Case, reference_case

from mlx_gemma4 import Model, Processor, load
from mlx_gemma4.cli import main

if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup: commands inherit that, but their tests send SIGHUP
    signal.signal(signal.SIGHUP, lambda number, frame: None)

_LOADED: dict[str, tuple[Model, Processor]] = {}


def loaded(name: str) -> tuple[Model, Processor]:
    """A checkpoint in float32 ("demo", "released" or "resaved"), loaded once."""
    if name not in _LOADED:
        folder = name if name == "demo" else REFERENCE / name / "checkpoint"
        _LOADED[name] = load(folder, dtype="float32")
    return _LOADED[name]


@pytest.fixture(params=[f"{checkpoint}-{name}" for checkpoint in CHECKPOINTS for name in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    """Every reference case."""
    return reference_case(*request.param.split("-", 1))


@pytest.fixture
def demo() -> tuple[Model, Processor]:
    return loaded("demo")


@pytest.fixture
def released() -> tuple[Model, Processor]:
    return loaded("released")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail; return its message."""

    def run(*arguments: str | Path) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("mlx_gemma4: error: ") and err.count("\n") == 1 and err.endswith("\n")
        return err.removeprefix("mlx_gemma4: error: ").removesuffix("\n")

    return run
