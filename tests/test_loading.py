"""A checkpoint by name: the tokenizer is parsed while the weights are read, and errors come as if one came first."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from small_files import demo_copy

from mlx_gemma4 import Processor, load

BROKEN_TOKENIZER = "The tokenizer in .*tokenizer.json must have the type BPE"


def broken(folder: Path, *, tokenizer: bool = False, tensors: bool = False) -> Path:
    demo_copy(folder)
    if tokenizer:
        (folder / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    if tensors:
        (folder / "model.safetensors").write_bytes(b"\0" * 100)
    return folder


def test_the_first_of_two_errors(tmp_path: Path) -> None:
    """Broken weights are found sooner than a broken tokenizer; which of the two is told does not depend on that."""
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load(broken(tmp_path / "weights", tensors=True))
    for tensors in (False, True):
        with pytest.raises(ValueError, match=BROKEN_TOKENIZER):
            load(broken(tmp_path / f"both {tensors}", tokenizer=True, tensors=tensors))


def test_weights_are_read_beside_the_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither waits for the other to begin; only this thread touches MLX."""
    reading, parsing = threading.Event(), threading.Event()
    from_folder, threads = Processor.from_folder, list[threading.Thread]()

    def parse(*arguments: object) -> Processor:
        parsing.set()
        assert reading.wait(60)
        threads.append(threading.current_thread())
        return from_folder(*arguments)  # type: ignore[arg-type]

    evaluate = mx.eval

    def read(*arrays: object) -> None:
        assert parsing.wait(60)
        reading.set()
        assert threading.current_thread() is threading.main_thread()
        evaluate(*arrays)

    monkeypatch.setattr(Processor, "from_folder", parse)
    monkeypatch.setattr(mx, "eval", read)
    load("demo")
    [thread] = threads
    assert thread is not threading.main_thread() and not thread.is_alive()


def test_a_broken_tokenizer_ends_the_reading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """24 GB take half a minute; the message comes after a layer."""
    folder = broken(tmp_path / "checkpoint", tokenizer=True)
    parsed, read = list[Future[Processor]](), list[object]()

    class Noted(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **options: Any) -> Future[Any]:
            parsed.append(super().submit(*arguments, **options))
            return parsed[-1]

    def slow(*arrays: object) -> None:
        read.append(arrays)
        assert parsed[0].exception(60) is not None

    monkeypatch.setattr("mlx_gemma4.loading.ThreadPoolExecutor", Noted)
    monkeypatch.setattr(mx, "eval", slow)
    with pytest.raises(ValueError, match=BROKEN_TOKENIZER):
        load(folder)
    assert len(read) <= 1


def test_ctrl_c_while_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the load, and no thread is left."""

    def interrupted(*arrays: object) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    monkeypatch.setattr(mx, "eval", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load("demo")
    assert threading.active_count() == before


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_wired_limit(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are wired on a Metal GPU; a CPU chosen beside one has no such limit, and is not asked for it."""
    limits: list[int] = []
    known = {"gpu": {"max_recommended_working_set_size": 11_453_251_584}, "cpu": {}}
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(getattr(mx, device)))
    monkeypatch.setattr(mx, "device_info", lambda: known[device])
    monkeypatch.setattr(mx, "set_wired_limit", limits.append)
    load("demo")
    assert limits == ([11_453_251_584] if device == "gpu" else [])
    monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    load("demo")
    assert len(limits) == (device == "gpu")
