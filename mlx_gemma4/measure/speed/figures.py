"""Figures with their repetitions, and tables of them, for a terminal or a README."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """Something that was measured several times."""

    name: str
    """"prefill", "decode", "first token", …"""
    of: str
    """What distinguishes it from others of its name: "1024 positions", "picture"."""
    unit: str
    values: tuple[float, ...]
    """Each repetition, in order."""
    counts: dict[str, int] = field(default_factory=dict)
    """What was worked on: positions, tokens, bytes."""

    @property
    def median(self) -> float:
        return median(self.values)

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        named = {"name": self.name, "of": self.of, "unit": self.unit, "median": self.median}
        return {**named, "repetitions": len(self.values), "values": list(self.values), **self.counts}


class Figures:
    """Figures in the order in which they were measured."""

    def __init__(self, figures: Iterable[Figure] = ()) -> None:
        self._figures = list(figures)

    def __iter__(self) -> Iterator[Figure]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)

    def add(self, *figures: Figure) -> None:
        self._figures += figures

    def named(self, name: str) -> list[Figure]:
        """All figures of a name."""
        return [figure for figure in self._figures if figure.name == name]

    def find(self, name: str, of: str) -> Figure | None:
        return next((figure for figure in self.named(name) if figure.of == of), None)


@dataclass(frozen=True)
class Repeats:
    """How often a run is repeated."""

    count: int = 5
    patience: float = 20.0
    """Seconds after which no further repetition begins; at least one is kept."""
    warm_up: float = 10.0
    """The first run is a warm-up and not kept, unless it takes longer than this: kernels are compiled in less."""

    def collect(self, run: Callable[[], T], clock: Callable[[], float]) -> list[T]:
        """The results of the runs that are kept."""
        began = clock()
        first = run()
        kept = [first] if clock() - began > self.warm_up else []
        while not kept or (len(kept) < self.count and clock() - began < self.patience):
            kept.append(run())
        return kept


@dataclass(frozen=True)
class Table:
    """A table of text; numbers stand to the right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """With aligned columns, so that it is readable as it is, too."""
        lines = [self.header, *self.rows]
        widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
        first, *others = widths
        rule = ["-" * first, *(f"{'-' * (width - 1)}:" for width in others)]
        cells = [
            [line[0].ljust(first), *(cell.rjust(width) for cell, width in zip(line[1:], others, strict=True))]
            for line in lines
        ]
        text = "\n".join(f"| {' | '.join(line)} |" for line in [cells[0], rule, *cells[1:]])
        return f"**{self.title}**\n\n{text}"


def number(value: float) -> str:
    """Three digits, at least: 0.123, 1.23, 12.3, 123, 1234."""
    for limit, digits in ((1, 3), (10, 2), (100, 1)):
        if abs(value) < limit:
            return f"{value:.{digits}f}"
    return f"{value:.0f}"
