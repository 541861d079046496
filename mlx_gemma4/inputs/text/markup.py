"""What is markup in a prompt, and what is text. This is the only place that decides it.

**Text** comes from outside: messages of every role, tools, results of tools, terms, questions, typed lines, names of
files. It never becomes a control token, whatever it says. **Markup** is written by the checkpoint's chat template and
by this package: in it, a control token written out becomes its id.

A control token is

- what ``tokenizer.json`` marks as special, or ``tokenizer.model`` as control;
- what is written as Gemma writes markers (``MARKER``), however the file marks it;
- what the config and the tokenizer's settings name: beginnings and ends, turns, channels, tools and media.

All other tokens that are looked for in text, such as ``<table>``, are text; so are runs of spaces and newlines, even
where a file marks them as special.

Where text goes into markup it is quoted first: each character with which a control token begins becomes another
character, a stand-in, so that no control token can be found in it or put together from parts. A template may trim,
split and join quoted text, and what it looks for is quoted, too: it can cut thoughts out of an earlier answer. The
stand-ins are read back when the markup is encoded, between the control tokens that are
left; text on both sides of a stand-in is encoded in one piece.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

MARKER = re.compile(r"<(\||start_of_|end_of_)[^<>]+>|<[^<>]+\|>")
"""How special tokens are written; <table> and the like, which vocabularies hold too, are text."""

STAND_INS = range(0xF0000, 0xFFFFE)
"""Private use: no language writes with these. Where a text holds one, it is quoted as well."""
NUMERALS = 0x100000
"""Where the characters begin that say which stand-in was meant; only those behind an escape count."""

MOST_DEPTH = 100
"""Lists and objects inside each other, in messages and tools."""

_ESCAPED = re.compile(r"(?<!\\)((?:\\\\)*)\\U(000f[0-9a-f]{4}|0010[0-9a-f]{4})")
"""How Python writes a stand-in or a numeral; an even number of backslashes before it is text."""

Value = TypeVar("Value")


def is_blank(token: str) -> bool:
    """Whether a token is nothing but spaces or newlines."""
    return not token.strip("\u2581\t\n\r ")


class Quoted(str):
    """Text that is quoted already."""

    __slots__ = ()

    def __repr__(self) -> str:
        """As of other text, with the stand-ins as they are: templates write whole lists so."""
        return _ESCAPED.sub(lambda match: match[1] + chr(int(match[2], 16)), super().__repr__())


class Markup:
    """Quotes text for markup, and takes markup apart.

    Args:
        control: The control tokens, written out.
    """

    def __init__(self, control: Collection[str]) -> None:
        self.control = frozenset(control)
        used = {character for token in self.control for character in token}
        free = (character for character in map(chr, STAND_INS) if character not in used)
        first = sorted({token[0] for token in self.control})
        self._escape, *stand_ins = (next(free) for _ in range(len(first) + 2))
        self.slot = Quoted(stand_ins.pop())
        """A place for text that comes later: no quoted text and no control token holds it."""
        reserved = [self._escape, self.slot, *stand_ins]
        self._numerals = {chr(NUMERALS + index): character for index, character in enumerate(reserved)}
        self._quotes = {
            **{ord(character): self._escape + numeral for numeral, character in self._numerals.items()},
            **{ord(character): stand_in for character, stand_in in zip(first, stand_ins, strict=True)},
        }
        self._stands_for = dict(zip(stand_ins, first, strict=True))

    def quote(self, value: Value) -> Value:
        """Text, or the texts in lists and objects (their keys too), so that it stays text inside markup.

        Raises:
            ValueError: Lists or objects are more than ``MOST_DEPTH`` deep, or contain themselves.
        """
        return self._quote(value, 0)

    def unquote(self, text: str) -> str:
        """Quoted text as it was."""
        return self._quoted.sub(self._read, text)

    def split(self, markup: str) -> Iterator[tuple[str, bool]]:
        """The parts of markup: text as it was, and control tokens (True)."""
        for index, part in enumerate(self._tokens.split(markup)):
            if index % 2:
                yield part, True
            elif part:
                yield self.unquote(part), False

    def _quote(self, value: Any, depth: int) -> Any:
        if depth > MOST_DEPTH:
            raise ValueError(f"Messages and tools must be at most {MOST_DEPTH} lists or objects deep")
        if isinstance(value, Quoted):
            return value
        if isinstance(value, str):
            return Quoted(value.translate(self._quotes))
        if isinstance(value, Mapping):
            return {self._quote(key, depth + 1): self._quote(each, depth + 1) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._quote(each, depth + 1) for each in value]
        return value

    def _read(self, match: re.Match[str]) -> str:
        found = match[0]
        if found[0] != self._escape:
            return self._stands_for[found]
        return self._numerals.get(found[1:], found[1:])

    @cached_property
    def _quoted(self) -> re.Pattern[str]:
        return re.compile(f"{self._escape}.?|[{''.join(self._stands_for) or self._escape}]", re.DOTALL)

    @cached_property
    def _tokens(self) -> re.Pattern[str]:
        longest_first = sorted(self.control, key=lambda token: (-len(token), token))
        return re.compile("(" + ("|".join(map(re.escape, longest_first)) or "(?!)") + ")")
