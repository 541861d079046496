"""What may lie in a stranger's checkpoint folder: links, pipes, files of any size, JSON of any form."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from mlx_gemma4.checkpoint.files import check_file, has_file, is_plain_name
from mlx_gemma4.checkpoint.json_file import MOST_BYTES, read_json, shown


def complaint(path: Path) -> str:
    with pytest.raises(ValueError) as raised:
        read_json(path)
    return str(raised.value)


def test_files_and_links_within_the_folder(tmp_path: Path) -> None:
    """A file is there, through a link to a neighbour too; what is not there is not."""
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").symlink_to("a.json")
    assert has_file(tmp_path / "a.json") and has_file(tmp_path / "b.json")
    assert not has_file(tmp_path / "c.json")
    assert read_json(tmp_path / "b.json") == {}


def test_links_out_of_the_folder(tmp_path: Path) -> None:
    """They are refused, however they lead out."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.json").write_text("{}")
    (folder / "near.json").symlink_to("../secret.json")
    (folder / "far.json").symlink_to("/etc/passwd")
    for name in ("near.json", "far.json"):
        path = folder / name
        assert complaint(path) == f"{path} is a link to a file outside its folder; copy the file into the folder"


def test_the_cache_of_the_hub(tmp_path: Path) -> None:
    """A snapshot's files are links to the blobs of its repo: these are read, those of other repos are not."""
    for repo in ("models--a", "models--b"):
        (tmp_path / repo / "blobs").mkdir(parents=True)
        (tmp_path / repo / "blobs" / "0123").write_text("{}")
    snapshot = tmp_path / "models--a" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/0123")
    (snapshot / "other.json").symlink_to("../../../models--b/blobs/0123")
    (tmp_path / "elsewhere").symlink_to(snapshot)
    assert read_json(snapshot / "config.json") == {}
    assert read_json(tmp_path / "elsewhere" / "config.json") == {}
    assert "outside its folder" in complaint(snapshot / "other.json")


def test_folders_inside_the_folder(tmp_path: Path) -> None:
    """What lies in them is the checkpoint's too, in the cache and elsewhere; a folder that is a link is not."""
    (tmp_path / "repo" / "blobs").mkdir(parents=True)
    (tmp_path / "repo" / "blobs" / "0123").write_text("{}")
    snapshot = tmp_path / "repo" / "snapshots" / "abc"
    (snapshot / "more").mkdir(parents=True)
    (snapshot / "more" / "a.json").symlink_to("../../../blobs/0123")
    (snapshot / "more" / "b.json").write_text("{}")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.json").write_text("{}")
    (snapshot / "linked").symlink_to(tmp_path / "outside")
    assert has_file(snapshot / "more" / "a.json", snapshot) and has_file(snapshot / "more" / "b.json", snapshot)
    with pytest.raises(ValueError, match="is a link to a file outside its folder"):
        has_file(snapshot / "linked" / "a.json", snapshot)


def test_blobs_that_are_a_link(tmp_path: Path) -> None:
    """A folder that only looks like a cache opens no door."""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("{}")
    snapshot = tmp_path / "repo" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "repo" / "blobs").symlink_to(tmp_path / "secrets")
    (snapshot / "config.json").symlink_to("../../blobs/key")
    assert "outside its folder" in complaint(snapshot / "config.json")


def test_no_regular_file(tmp_path: Path) -> None:
    """A pipe would never end, a device neither; they are not opened."""
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    for name in ("pipe.json", "folder.json"):
        path = tmp_path / name
        assert complaint(path) == f"{path} is not a regular file; replace it with one"
        with pytest.raises(ValueError, match="is not a regular file"):
            has_file(path)


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    """A link to nothing, and one to itself."""
    (tmp_path / "nothing").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ValueError, match=f"Cannot read {tmp_path}/nothing: No such file or directory"):
        check_file(tmp_path / "nothing")
    with pytest.raises(ValueError, match=f"Cannot read {tmp_path}/loop: "):
        check_file(tmp_path / "loop")


def test_a_large_file(tmp_path: Path) -> None:
    """A file of terabytes is refused by its size; a sparse one costs a stranger nothing."""
    path = tmp_path / "config.json"
    path.touch()
    os.truncate(path, 2**40)
    assert complaint(path) == f"{path} is too large: {2**40:,} bytes, at most {MOST_BYTES:,} are read"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "{path} is not valid JSON: objects nested too deeply"),
        ('{"a":' * 100_000, "{path} is not valid JSON: objects nested too deeply"),
        ('{"a": 1, "b": 2, "a": 3}', "{path} is not valid JSON: the key 'a' twice in one object"),
        ('{"a": ' + "9" * 5000 + "}", "{path} is not valid JSON: Exceeds the limit"),
        ("[" + "[]," * 3_000_000, "{path} holds too many values: at most 4,000,000 are read"),
        ("[1]", "Expected a JSON object in {path}, got list"),
    ],
    ids=["lists", "objects", "twice", "digits", "values", "list"],
)
def test_json_of_another_form(tmp_path: Path, content: str, message: str) -> None:
    """JSON that is deep, long, or means two things."""
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(message.format(path=path))):
        read_json(path, most=2**30)


def test_values_in_messages_are_short() -> None:
    """What a stranger wrote appears cut, and in one line."""
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    wide = [{f"{key}" * 40: ["value" * 20] * 8 for key in range(8)}] * 8
    for value in ("a\n" * 10_000, list(range(10_000)), deep, wide, json.loads("9" * 4000)):
        assert len(shown(value)) < 200 and "\n" not in shown(value)


def test_plain_names() -> None:
    """Names that lead elsewhere are none."""
    assert is_plain_name("model-00001-of-00002.safetensors")
    assert not any(map(is_plain_name, ("", ".", "..", "/etc/passwd", "../a", "a/b", "a\\b", "a\0b")))
