"""Sessions on disk: what is loaded goes on as if it had never left, and what is not ours is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from reference_cases import REFERENCE, Case

from mlx_gemma4 import Model, Session, load
from mlx_gemma4.checkpoint import replace
from mlx_gemma4.decoder.budget import Budget, ContextFull
from mlx_gemma4.decoder.identity import checksums, identity

AFTER = [20, 21, 22, 23]
"""Tokens that are said after a session was loaded."""


def bits(logits: mx.array) -> np.ndarray:
    return np.array(logits.astype(mx.float32))


def saved(model: Model, path: Path, *pieces: object, room: int = 20) -> Session:
    session = Session(model, room=room)
    for piece in pieces:
        session.extend(piece)  # type: ignore[arg-type]
    session.save(path)
    return session


@pytest.fixture
def model() -> Model:
    """Its window is 16."""
    return loaded("released")[0]


@pytest.fixture
def file(model: Model, tmp_path: Path) -> Path:
    """A session of 60 tokens."""
    path = tmp_path / "kept.session"
    saved(model, path, list(range(20, 80)))
    return path


def test_a_loaded_session_goes_on_to_the_bit(case: Case, tmp_path: Path) -> None:
    """Text, pictures, sound and video, longer and shorter than the window; it can be rewound as far, too."""
    model = loaded(case.checkpoint)[0]
    session = saved(model, tmp_path / "x", case.prompt)
    other = Session.load(model, tmp_path / "x")
    assert other.content.common_prefix(case.prompt) == len(case.prompt) == other.position
    assert (other.earliest, other.room) == (session.earliest, session.room)
    np.testing.assert_array_equal(bits(other.extend(AFTER)), bits(session.extend(AFTER)))
    back = session.reachable(session.earliest)
    for each in (session, other):
        each.rewind(back)
    np.testing.assert_array_equal(bits(other.extend(AFTER)), bits(session.extend(AFTER)))


@pytest.mark.parametrize("length", [1, 15, 16, 17, 35, 36, 300])
def test_any_length(model: Model, length: int, tmp_path: Path) -> None:
    """Around the window and the room; decoded tokens, too, and saved again after it was loaded."""
    session = Session(model, room=20)
    session.extend(np.arange(length) % 300)
    session.step(mx.array(7))
    for _ in range(2):
        session.save(tmp_path / "x")
        other = Session.load(model, tmp_path / "x")
        assert other.content.rows[:, 0].tolist() == [*(np.arange(length) % 300).tolist(), 7]
        mark = session.mark()
        np.testing.assert_array_equal(bits(other.extend(AFTER)), bits(session.extend(AFTER)))
        session.rewind(mark)
        other.rewind(len(other.content) - len(AFTER))
        session = other


def test_bfloat16_keeps_its_bits(tmp_path: Path) -> None:
    model = load(REFERENCE / "released" / "checkpoint", dtype="bfloat16")[0]
    session = saved(model, tmp_path / "x", list(range(80)))
    other = Session.load(model, tmp_path / "x")
    np.testing.assert_array_equal(bits(other.extend(AFTER)), bits(session.extend(AFTER)))


def test_an_empty_session(model: Model, tmp_path: Path) -> None:
    saved(model, tmp_path / "x")
    other = Session.load(model, tmp_path / "x")
    assert (other.position, len(other.content)) == (0, 0)
    np.testing.assert_array_equal(bits(other.extend(AFTER)), bits(Session(model).extend(AFTER)))


def test_snapshots_are_kept(model: Model, tmp_path: Path) -> None:
    """Those that fit; the latest ones. Each leads back to where it was taken, to the bit."""
    session, ids = Session(model, room=4), np.arange(200) % 300
    session.extend(ids, snapshots=[10, 50, 100, 190, 198])
    session.save(tmp_path / "x")
    for place in (198, 190, 100, 50, 10):
        other, fresh = Session.load(model, tmp_path / "x"), Session(model)
        assert other.reachable(place) == place
        other.rewind(place)
        fresh.extend(ids[:place])
        np.testing.assert_allclose(bits(other.extend(AFTER)), bits(fresh.extend(AFTER)), atol=1e-5)
        assert other.content.rows[:, 0].tolist() == [*ids[:place].tolist(), *AFTER]


def test_only_some_snapshots_fit(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(model, room=4)
    session.extend(np.arange(200) % 300, snapshots=[50, 100, 150, 198])
    size = next(iter(session._points.kept(10**9).values()))
    monkeypatch.setattr("mlx_gemma4.saved_session.SNAPSHOTS", 2 * sum(array.nbytes for array in size))
    session.save(tmp_path / "x")
    other = Session.load(model, tmp_path / "x")
    assert [other.reachable(place) for place in (199, 170, 120, 60)] == [199, 150, 100, 0]


def test_what_was_rewound_is_not_in_the_file(model: Model, tmp_path: Path) -> None:
    session = saved(model, tmp_path / "x", list(range(40)))
    session.rewind(30)
    session.save(tmp_path / "x")
    other = Session.load(model, tmp_path / "x")
    assert (other.position, len(other.content)) == (30, 30)
    np.testing.assert_array_equal(bits(other.extend(AFTER)), bits(session.extend(AFTER)))


def test_a_file_holds_no_spare_room(model: Model, tmp_path: Path) -> None:
    """Keys and values, 24 bytes of content for each of 200 positions, and a header."""
    session = saved(model, tmp_path / "x", np.arange(200) % 300)
    held = sum(array.nbytes for state in session._cache.state() for array in state.values())
    assert held < (tmp_path / "x").stat().st_size < held + 200 * 24 + 12_000


# identity


def test_a_checkpoint_is_known_by_its_content(model: Model, tmp_path: Path) -> None:
    """A copy elsewhere is the same; a change of one value of any weight is not."""
    folder = tmp_path / "copy"
    shutil.copytree(REFERENCE / "released" / "checkpoint", folder)
    copy = load(folder, dtype="float32")[0]
    assert identity(copy) == identity(model)
    norm = copy.language_model.model.layers[1].mlp.down_proj
    for row, column in ((0, 0), (5, 3), (-1, -1)):
        before = norm.weight
        changed = np.array(before)
        changed[row, column] = np.nextafter(changed[row, column], 9, dtype=np.float32)
        norm.weight = mx.array(changed)
        assert identity(copy).weights != identity(model).weights
        norm.weight = before
    norm.weight = norm.weight[::-1]
    assert identity(copy).weights != identity(model).weights


def test_checksums_of_every_type() -> None:
    """Parts of larger arrays have the checksums of their copies."""
    whole = mx.random.normal((3, 5, 7))
    for dtype in (mx.float32, mx.bfloat16, mx.float16):
        part = whole.astype(dtype)[:, 1:4]
        copy = mx.array(part)
        sums = checksums({"part": part, "copy": copy, "none": part[:, :0]})
        assert sums["part"] == sums["copy"] and sums["none"] == 0
    ids = mx.array([[1, 2], [3, 4]], dtype=mx.uint32)
    assert checksums({"ids": ids})["ids"] == 3 * 1 + 7 * 3


def test_another_model_is_refused(file: Path) -> None:
    """By its sizes, its type or its weights; the message says what to do."""
    demo, released = loaded("demo")[0], loaded("released")[0]
    with pytest.raises(ValueError) as refused:
        Session.load(demo, file)
    assert str(refused.value) == (
        f"{file} was written with a checkpoint of other sizes or settings; load that one, or name another file"
    )
    half = load(REFERENCE / "released" / "checkpoint", dtype="bfloat16")[0]
    with pytest.raises(ValueError) as refused:
        Session.load(half, file)
    assert str(refused.value) == (
        f"{file} was computed in float32, and the model computes in bfloat16: load the model with that dtype, "
        "or name another file"
    )
    norm = released.language_model.model.norm
    before = norm.weight
    try:
        norm.weight = before * 1.5
        with pytest.raises(ValueError) as refused:
            Session.load(released, file)
    finally:
        norm.weight = before
    assert str(refused.value) == (
        f"{file} was written with other weights of the same sizes; load that one, or name another file"
    )


# what is no file of ours


def damaged(path: Path) -> str:
    return f"{path} is cut short or damaged; remove it, or name another file"


def test_what_is_cut_short_is_refused(model: Model, file: Path) -> None:
    """At any place."""
    data = file.read_bytes()
    for length in (0, 7, 8, 100, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:length])
        with pytest.raises(ValueError) as refused:
            Session.load(model, file)
        short = f"{file} is not a session that mlx_gemma4 saved; name another file"
        assert str(refused.value) in (damaged(file), short)


def test_a_changed_byte_is_noticed(model: Model, file: Path) -> None:
    """In every region of the file, and never with anything but a ValueError."""
    data = bytearray(file.read_bytes())
    for place in [*range(0, 4000, 97), *range(4000, len(data), 1009), len(data) - 1]:
        changed = bytearray(data)
        changed[place] ^= 0x10
        file.write_bytes(changed)
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            Session.load(model, file)


@pytest.mark.parametrize("kind", ["text", "weights", "folder", "nothing", "device"])
def test_what_is_something_else_is_neither_read_nor_replaced(model: Model, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    is_no_session = f"{path} is not a session that mlx_gemma4 saved; name another file"
    is_no_file = f"{path} is not a file that mlx_gemma4 saved; name another file"
    expected = {"text": (is_no_session, is_no_file), "weights": (is_no_session, is_no_file)}
    if kind == "text":
        path.write_text("my diary")
    elif kind == "weights":
        mx.save_safetensors(str(tmp_path / "y.safetensors"), {"a": mx.zeros(3)}, {"format": "mlx"})
        (tmp_path / "y.safetensors").rename(path)
    elif kind == "folder":
        path.mkdir()
        expected["folder"] = (f"{path} is not a regular file; name another one", f"{path} is a folder; name a file")
    elif kind == "device":
        path.symlink_to("/dev/null")
        expected["device"] = (f"{path} is not a regular file; name another one",) * 2
    else:
        path = tmp_path / "nowhere" / "x"
        expected["nothing"] = (
            f"There is no session at {path}; save one first, or name another file",
            f"There is no folder {path.parent} for x; create it first",
        )
    before = path.read_bytes() if path.is_file() else b""
    for run, message in zip((Session.load, lambda model, path: Session(model).save(path)), expected[kind], strict=True):
        with pytest.raises(ValueError) as refused:
            run(model, path)
        assert str(refused.value) == message
    assert not path.is_file() or path.read_bytes() == before


def rewritten(path: Path, change: Callable[[dict[str, str]], None]) -> None:
    """Change the metadata of a file, as another version would have written it."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header["__metadata__"])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def test_another_version_is_refused(model: Model, file: Path) -> None:
    rewritten(file, lambda metadata: metadata.update(format="2"))
    with pytest.raises(ValueError) as refused:
        Session.load(model, file)
    assert str(refused.value) == (
        f"{file} has format 2, and this version of mlx_gemma4 reads format 1: use the version that wrote it, "
        "or name another file"
    )


def test_another_kind_is_refused(model: Model, file: Path) -> None:
    rewritten(file, lambda metadata: metadata.update(kind="mlx_gemma4 conversation"))
    with pytest.raises(ValueError) as refused:
        Session.load(model, file)
    assert str(refused.value) == f"{file} is a conversation that mlx_gemma4 saved, not a session; name another file"


@pytest.mark.parametrize(
    ("name", "value"),
    [("position", 61), ("position", 59), ("position", -1), ("position", "60"), ("room", 0), ("snapshots", [61])],
)
def test_a_header_that_does_not_fit_is_refused(model: Model, file: Path, name: str, value: object) -> None:
    """Written with a valid digest; nothing of that size is allocated."""
    from mlx_gemma4.decoder.saved_file import _digest

    def change(metadata: dict[str, str]) -> None:
        metadata["header"] = json.dumps({**json.loads(metadata["header"]), name: value})
        metadata["digest"] = _digest(metadata["header"])

    rewritten(file, change)
    with pytest.raises(ValueError, match=r"is damaged: .+; remove it, or name another file$"):
        Session.load(model, file)


def test_a_session_longer_than_the_context_is_refused(
    model: Model, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "budget", Budget(context=59))
    with pytest.raises(ContextFull, match="The context is 59 positions, of which 0 are used, and this needs 60"):
        Session.load(model, file)


# writing


def test_a_failed_write_leaves_the_old_file(model: Model, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(replace.os, "fsync", full)
    with pytest.raises(ValueError) as refused:
        saved(model, file, list(range(90)))
    assert str(refused.value) == f"Cannot write {file}: No space left on device"
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]


def test_an_interrupted_write_leaves_the_old_file(model: Model, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def interrupted(array: mx.array) -> memoryview:
        raise KeyboardInterrupt

    monkeypatch.setattr("mlx_gemma4.decoder.saved_file.raw_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        saved(model, file, list(range(90)))
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]


def test_a_link_is_followed(model: Model, file: Path, tmp_path: Path) -> None:
    """It stays a link, and its target is replaced."""
    link = tmp_path / "link"
    link.symlink_to(file)
    saved(model, link, list(range(30)))
    assert link.is_symlink() and Session.load(model, file).position == Session.load(model, link).position == 30


def test_a_file_that_must_not_be_written(
    model: Model, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor its folder. It can still be read."""
    for closed in (file, tmp_path):
        monkeypatch.setattr(os, "access", lambda path, mode, closed=closed: path != closed)
        with pytest.raises(ValueError) as refused:
            Session(model).save(file)
        assert str(refused.value) == f"Cannot write {file}: Permission denied"
    assert Session.load(model, file).position == 60


def test_a_file_of_ours_is_replaced(model: Model, file: Path) -> None:
    saved(model, file, list(range(30)))
    assert Session.load(model, file).position == 30 and os.listdir(file.parent) == [file.name]
