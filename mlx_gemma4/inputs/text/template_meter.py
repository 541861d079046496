"""Limits what a chat template may use. A template is somebody else's program: it may loop, recurse and build long text.

Everything that takes time or memory is paid for before it happens, from a budget. A unit is about one character of text
or a quarter of an expression. The budget grows with the messages, so that long chats can be rendered.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from itertools import chain
from typing import Any

BASE, PER_INPUT = 10_000_000, 50
"""The budget: this many units, and this many for each unit of the messages. 10 million last about a second."""
ITEM = 16
"""Units of an element of a list, without its content."""
CALL = 150
"""Units of a call of a function, a filter or a test."""
MOST_DEPTH = 100
"""Lists and objects inside each other."""
MOST_BITS = 4096
"""Bits of a whole number."""

_LISTS = (list, tuple, set, frozenset, KeysView, ItemsView, ValuesView)


class Meter:
    """The budget of one rendering. Nothing exceeds it, since everything is charged before it is done."""

    def __init__(self, inputs: object) -> None:
        self.left = BASE + PER_INPUT * weigh(inputs)

    def spend(self, units: int) -> None:
        """Take units from the budget.

        Raises:
            ValueError: The budget does not suffice.
        """
        self.left -= units
        if self.left < 0:
            raise ValueError("it takes too long, or makes too much text")

    def pay_for(self, *values: object) -> None:
        """Pay for handling values once: their text, and their elements at all depths."""
        for value in values:
            self.spend(len(value) if isinstance(value, str) else weigh(value, self.left))

    def items(self, values: Any, units: int = ITEM) -> Iterator[Any]:
        """Yield the elements of an iterable, paying for each."""
        for value in values:
            self.spend(units)
            yield value

    def taken(self, value: Any) -> Any:
        """Pay for a result and return it. An iterator becomes a list, so that all of it is paid for."""
        if isinstance(value, Iterator):
            value = list(self.items(value))
        self.pay_for(value)
        return value


def weigh(value: object, most: int | None = None) -> int:
    """Units of a value, about its length when written as text. A list that occurs twice in it counts twice.

    Raises:
        ValueError: It is deeper than MOST_DEPTH, has a number beyond MOST_BITS, or weighs more than ``most``.
    """
    total, depth, level = 0, 0, [value]
    while level:
        if depth > MOST_DEPTH:
            raise ValueError(f"it makes lists or objects more than {MOST_DEPTH} deep")
        inner: list[object] = []
        for part in level:
            total += 1
            if isinstance(part, str):
                total += len(part)
            elif isinstance(part, int):
                total += check_number(part).bit_length() // 8
            elif isinstance(part, range):
                total += ITEM * len(part)
            elif isinstance(part, Mapping):
                total += 2 * ITEM * len(part)
                _check_weight(total, most)
                inner.extend(chain.from_iterable(part.items()))
            elif isinstance(part, _LISTS):
                total += ITEM * len(part)
                _check_weight(total, most)
                inner.extend(part)
        _check_weight(total, most)
        depth, level = depth + 1, inner
    return total


def _check_weight(total: int, most: int | None) -> None:
    if most is not None and total > most:
        raise ValueError("it takes too long, or makes too much text")


def check_number(value: int) -> int:
    """Return a whole number if it is small enough to compute with quickly.

    Raises:
        ValueError: It has more than MOST_BITS bits.
    """
    if value.bit_length() > MOST_BITS:
        raise ValueError(f"it makes numbers of more than {MOST_BITS} bits")
    return value
