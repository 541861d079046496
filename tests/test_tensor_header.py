"""The headers of safetensors files: read as safetensors' own library reads them, and refused where it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_gemma4.checkpoint.tensor_header import MOST_HEADER, StoredTensor, read_header


def write(path: Path, header: object, values: int = 12) -> Path:
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(data).to_bytes(8, "little") + data + bytes(values))
    return path


def entry(start: Any, stop: Any, shape: Any = (2,), dtype: Any = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def test_what_it_says(tmp_path: Path) -> None:
    """Types, shapes and bytes, in the order of the file, scalars and empty tensors too."""
    header = {"b": entry(4, 8, (1, 2)), "__metadata__": {"format": "pt"}, "a": entry(0, 4), "c": entry(8, 8, (0,))}
    header["d"] = entry(8, 12, (), "F32")
    path = write(tmp_path / "a.safetensors", header)
    begin = path.stat().st_size - 12
    assert read_header(path) == {
        "a": StoredTensor("F16", (2,), begin, begin + 4),
        "b": StoredTensor("F16", (1, 2), begin + 4, begin + 8),
        "c": StoredTensor("F16", (0,), begin + 8, begin + 8),
        "d": StoredTensor("F32", (), begin + 8, begin + 12),
    }
    assert list(read_header(path)) == ["a", "b", "c", "d"]


def test_null_metadata(tmp_path: Path) -> None:
    """MLX writes it."""
    assert list(read_header(write(tmp_path / "a.safetensors", {"__metadata__": None, "a": entry(0, 4)}))) == ["a"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry(0, 4), "b": entry(2, 6)}, "the bytes of 'a' and 'b' overlap"),
        ({"a": entry(0, 4), "b": entry(0, 4)}, "the bytes of 'a' and 'b' overlap"),
        ({"a": entry(0, 4), "b": entry(6, 10)}, "the bytes of 'a' and 'b' leave a gap"),
        ({"a": entry(2, 6)}, "the bytes of 'a' do not begin behind it"),
        ({"a": entry(4, 0)}, "'a' is F16 of [2], 4 bytes, its data_offsets hold -4"),
        ({"a": entry(0, 5)}, "'a' is F16 of [2], 4 bytes, its data_offsets hold 5"),
        ({"a": entry(-4, 0)}, "for the data_offsets of 'a', got -4"),
        ({"a": entry(0.0, 4.0)}, "for the data_offsets of 'a', got 0.0"),
        ({"a": entry(False, 4)}, "for the data_offsets of 'a', got False"),
        ({"a": {**entry(0, 4), "data_offsets": [0, 4, 8]}}, "Expected two data_offsets of 'a', got [0, 4, 8]"),
        ({"a": {**entry(0, 4), "data_offsets": {"0": 4}}}, "Expected a list for the data_offsets of 'a', got {'0': 4}"),
        ({"a": entry(0, 4, (-2, -1))}, "for the shape of 'a', got -2"),
        ({"a": entry(0, 4, (2**31,))}, "at most 2147483647 for the shape of 'a', got 2147483648"),
        ({"a": entry(0, 4, ([2],))}, "for the shape of 'a', got [2]"),
        ({"a": entry(0, 4, (1,) * 9)}, "'a' has 9 dimensions, at most 8 are read"),
        ({"a": entry(0, 4, (2**31 - 1,) * 8)}, "'a' is F16 of"),
        ({"a": entry(0, 4, dtype="Q4")}, "unknown type 'Q4' of 'a'"),
        ({"a": entry(0, 4, dtype=["F16"])}, "unknown type ['F16'] of 'a'"),
        ({"a" * 257: entry(0, 4)}, "The tensor name 'aaa"),
        (
            {"a\nb": entry(0, 4)},
            "The tensor name 'a\\nb' is too long or has unprintable characters: at most 256 are read",
        ),
        ({"a": 5}, "Expected an object for 'a', got 5"),
        ({"__metadata__": [1], "a": entry(0, 4)}, "Expected an object for __metadata__, got [1]"),
        (b'{"a": {}, "a": {}}', "the key 'a' twice in one object"),
        (b'{"a":' * 50_000, "objects nested too deeply"),
        (b"\xff\xfe", "is not valid JSON: 'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_headers_of_another_form(tmp_path: Path, header: object, message: str) -> None:
    """Whatever does not fit is named, in one line."""
    path = write(tmp_path / "a.safetensors", header)
    expected = f"{path} is not a safetensors file: its header cannot be read: "
    with pytest.raises(ValueError, match=f"{re.escape(expected)}.*{re.escape(message)}") as raised:
        read_header(path)
    assert "\n" not in str(raised.value)


def test_a_long_header(tmp_path: Path) -> None:
    """A length of gigabytes is refused before anything is read, in a file that is that long."""
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write((2**32).to_bytes(8, "little"))
        file.truncate(2**33)
    message = f"its header has {2**32:,} bytes, at most {MOST_HEADER:,} are read"
    with pytest.raises(ValueError, match=message):
        read_header(path)


def test_as_the_format_says(tmp_path: Path) -> None:
    """Random headers: ours are the tensors that lie one behind the other, whatever the order of their names."""
    random = np.random.default_rng(0)
    for count in range(1, 20):
        sizes = random.integers(0, 5, count)
        stops = np.cumsum(sizes)
        entries = {
            f"t{n}": entry(int(stop - size), int(stop), (int(size),), "U8")
            for n, (size, stop) in enumerate(zip(sizes, stops, strict=True))
        }
        names = random.permutation(list(entries)).tolist()
        path = write(tmp_path / "a.safetensors", {name: entries[name] for name in names}, int(stops[-1]))
        read = read_header(path)
        begin = path.stat().st_size - int(stops[-1])
        assert {name: (tensor.start - begin, tensor.stop - begin) for name, tensor in read.items()} == {
            name: tuple(told["data_offsets"]) for name, told in entries.items()
        }
