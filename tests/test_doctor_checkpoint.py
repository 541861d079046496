"""The doctor's look at the checkpoint that commands use: there, missing, without room, misnamed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from mlx_gemma4 import demo_folder
from mlx_gemma4.checkpoint.hub import DEFAULT_MODEL, DEFAULT_REVISION
from mlx_gemma4.measure.checks import checkpoint
from mlx_gemma4.measure.checks.finding import Finding


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[tuple[str, str | None], Path]:
    """What is in the cache, whose disk has 50 GB free. Nobody may ask the Hub."""
    cached: dict[tuple[str, str | None], Path] = {}

    def find(repo: str, *, revision: str | None, local_files_only: bool, **options: Any) -> str:
        assert local_files_only
        if (repo, revision) not in cached:
            raise LocalEntryNotFoundError("it is not there")
        return str(cached[repo, revision])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", find)
    monkeypatch.delenv("MLX_GEMMA4_MODEL", raising=False)
    set_free(monkeypatch, 50 * 10**9)
    return cached


def set_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = shutil.disk_usage("/")._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def found() -> Finding:
    [finding] = checkpoint.check({})
    assert finding.subject == "checkpoint"
    return finding


Cache = dict[tuple[str, str | None], Path]


def test_the_default_is_not_there_yet(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{DEFAULT_MODEL} (6.7 GB) is not downloaded yet; the disk of the Hugging Face cache has 50.0 GB free."
    assert found() == Finding("checkpoint", "ok", text, figures={"cached": False, "free": 50 * 10**9})
    set_free(monkeypatch, 5 * 10**9)
    full = found()
    assert (full.verdict, full.text) == ("problem", text.replace("50.0", "5.0"))
    assert full.remedy == "Free some space, or set HF_HOME to a folder on another disk."


def test_the_default_is_there(cache: Cache, tmp_path: Path) -> None:
    """Its pinned revision, complete; a broken download does not count."""
    cache[DEFAULT_MODEL, DEFAULT_REVISION] = demo_folder() / "checkpoint"
    expected = Finding("checkpoint", "ok", f"{DEFAULT_MODEL} is in the Hugging Face cache.", figures={"cached": True})
    assert found() == expected
    cache[DEFAULT_MODEL, DEFAULT_REVISION] = tmp_path
    assert "is not downloaded yet" in found().text


def test_another_repo(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_GEMMA4_MODEL", "me/mine")
    text = "me/mine is not downloaded yet; the disk of the Hugging Face cache has 50.0 GB free."
    assert (found().verdict, found().text) == ("ok", text)
    cache["me/mine", None] = demo_folder() / "checkpoint"
    assert found().text == "me/mine is in the Hugging Face cache."


def test_a_folder(cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLX_GEMMA4_MODEL", str(demo_folder() / "checkpoint"))
    assert (found().verdict, found().text) == ("ok", "$MLX_GEMMA4_MODEL is a folder with a whole checkpoint.")
    monkeypatch.setenv("MLX_GEMMA4_MODEL", str(tmp_path))
    text = f"$MLX_GEMMA4_MODEL is a folder, but not one with a whole checkpoint: {tmp_path}"
    assert found() == Finding("checkpoint", "problem", text, "Name another, or download it again.")


def test_the_demo(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_GEMMA4_MODEL", "demo")
    text = "$MLX_GEMMA4_MODEL names the demo, which is part of the package."
    assert found() == Finding("checkpoint", "ok", text)


def test_no_name_of_a_repo(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a folder that was moved away."""
    monkeypatch.setenv("MLX_GEMMA4_MODEL", "/models/moved/away")
    text = "$MLX_GEMMA4_MODEL is '/models/moved/away', which is neither a folder nor a Hugging Face repo id."
    assert found() == Finding("checkpoint", "problem", text, "Correct or unset it.")
