"""A short run of the fuzzer, and what it would tell of readers that fail."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import fuzz
import fuzz_mutate
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")


def test_a_short_run(tmp_path: Path) -> None:
    """Files of each kind are read or refused, some of each."""
    findings, counts = fuzz.run(40, 0, keep=tmp_path)
    assert findings == []
    assert counts["read"] > 5 and counts["refused"] > 20


def fails(path: Path) -> None:
    raise KeyError("a")


def talks(path: Path) -> None:
    raise ValueError("two\nlines")


def test_what_is_a_finding() -> None:
    """Another error than a ValueError, and a message of two lines."""
    assert fuzz.outcome(fails, Path()).startswith("fails: KeyError at test_fuzz.py:")
    assert fuzz.outcome(talks, Path()) == "talks: a message that is not one line: 'two\\nlines'"
    assert fuzz.outcome(lambda path: None, Path()) == "read"


def test_an_input_can_be_made_again(tmp_path: Path) -> None:
    """It depends on the seed and its number alone."""
    data = b'{"a": [1, 2, {"b": "c"}], "d": null}'
    first, second = ([fuzz_mutate.mutate_json(data, Random(n)) for n in range(50)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 40
