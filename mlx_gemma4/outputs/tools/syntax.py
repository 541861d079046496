"""Reads the syntax of Gemma 4's tool calls, ``call:name{key:value,…}``, into Python values. Knows no schemas.

Templates write ``<|"|>text<|"|>``, ``true``, numbers, ``{key:value}`` and ``[value,value]``, with keys bare or quoted.
Models also write JSON, Python's ``'text'`` and ``None``, and words without quotes. All of it is read here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

QUOTE = '<|"|>'
MAX_DEPTH = 64
"""Maps and lists inside each other."""
SHOWN = 200
"""Characters of a call that an error message quotes."""
CUT = "it is cut short"

_SPACE = re.compile(r"\s*")
_CALL = re.compile(r"\s*call:\s*([^\s{}<>|]+)\s*\{")
_STOP = re.compile(r'[{}\[\],]|<\|"\|>')
"""Ends a bare word."""
_LONG_KEY = re.compile(r"""[^\s"']+:\s*""")
# a quotation mark is the closing one only before what may follow a value or a key
_QUOTED = {
    mark: re.compile(rf"{mark}((?:[^{mark}\\]|\\.|{mark}(?!\s*[,}}\]:]))*){mark}(?=\s*[,}}\]:])", re.DOTALL)
    for mark in "\"'"
}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"} | {mark: mark for mark in "\\/\"'"}
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}


class Bare(str):
    """A value written without quotes. ``plain`` or a schema gives it a type."""


@dataclass(frozen=True)
class WrittenCall:
    """A call as it was written; arguments are strings, Bare, and dicts and lists of them."""

    name: str
    arguments: dict[str, Any]


def read_block(text: str) -> list[WrittenCall]:
    """Read the text between the markers of a call: one call or several.

    Raises:
        ValueError: The text is not a call, is cut short, or breaks the syntax. The message says where.
    """
    reader = _Reader(text)
    calls = [reader.call()]
    while not reader.is_at_end():
        calls.append(reader.call())
    return calls


def named(text: str) -> str:
    """The name in a call that cannot be read, or "unknown"."""
    match = re.match(r"\s*call:\s*([^\s{}<>|]{1,64})", text)
    return match[1] if match else "unknown"


def plain(value: Any) -> Any:
    """Give bare words the type that they look like: null, boolean, number, or else text.

    Raises:
        ValueError: A number is out of range.
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, Bare):
        return value
    return _WORDS[value] if value in _WORDS else number(value) if _NUMBER.fullmatch(value) else str(value)


def number(text: str) -> int | float:
    """Read a number.

    Raises:
        ValueError: The text is not a number, or is out of range.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not a number")
    value = float(text)
    if abs(value) == float("inf"):
        raise ValueError(f"the number {quoted(text)} is out of range")
    return value if "." in text or "e" in text.lower() else int(text)


def quoted(text: str) -> str:
    """Text for an error message: escaped, and cut after SHOWN characters."""
    return repr(str(text)) if len(text) <= SHOWN else f"{str(text[:SHOWN])!r}…"


class _Reader:
    """Reads from left to right; ``_at`` is the index of the next character."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def is_at_end(self) -> bool:
        return _SPACE.fullmatch(self._text, self._at) is not None

    def call(self) -> WrittenCall:
        match = _CALL.match(self._text, self._at)
        if match is None:
            raise self._error("there is no call:name{…}")
        self._at = match.end()
        return WrittenCall(match[1], self._map(1))

    def _map(self, depth: int) -> dict[str, Any]:
        """Read a map after its ``{``."""
        pairs: dict[str, Any] = {}
        if self._takes("}"):
            return pairs
        while True:
            key = self._key()
            if key in pairs:
                raise self._error(f"the key {quoted(key)} is given twice")
            pairs[key] = self._value(depth)
            if self._ends("}"):
                return pairs

    def _list(self, depth: int) -> list[Any]:
        """Read a list after its ``[``."""
        items: list[Any] = []
        if self._takes("]"):
            return items
        while True:
            item = self._value(depth)
            if item == "" and isinstance(item, Bare):
                raise self._error("a value is missing")
            items.append(item)
            if self._ends("]"):
                return items

    def _value(self, depth: int) -> Any:
        for begin, read in (("{", self._map), ("[", self._list)):
            if self._takes(begin):
                if depth == MAX_DEPTH:
                    raise self._error(f"more than {MAX_DEPTH} maps and lists are nested")
                return read(depth + 1)
        string = self._string()
        return self._bare() if string is None else string

    def _key(self) -> str:
        key = self._string()
        if key is None:
            return self._bare_key()
        if not self._takes(":"):
            raise self._error(f"there is no ':' after the key {quoted(key)}")
        return key

    def _bare_key(self) -> str:
        """Read up to the first colon, or the last one where a quoted value, a map or a list follows."""
        stop = self._stop()
        head = self._text[self._at : stop]
        longer = self._text[stop] in "{[<" and _LONG_KEY.fullmatch(head.lstrip())
        key, colon, _ = head.rpartition(":") if longer else head.partition(":")
        if not colon or not key.strip():
            raise self._error("a key is missing")
        self._at += len(key) + 1
        return key.strip()

    def _string(self) -> str | None:
        """Read a string in quotes; None if none comes next."""
        if self._takes(QUOTE):
            end = self._text.find(QUOTE, self._at)
            if end < 0:
                raise self._error("a string does not end")
            string, self._at = self._text[self._at : end], end + len(QUOTE)
            return string
        mark = self._text[self._at : self._at + 1]
        if mark not in _QUOTED:
            return None
        match = _QUOTED[mark].match(self._text, self._at)
        if match is None:
            raise self._error("a string does not end")
        self._at = match.end()
        return _unescaped(match[1])

    def _bare(self) -> Bare:
        stop = self._stop()
        if self._text[stop] in "{[<":
            raise self._error(f"a value has {self._text[stop : stop + 1]!r} in it and no quotes around it")
        word = Bare(self._text[self._at : stop].strip())
        self._at = stop
        return word

    def _stop(self) -> int:
        match = _STOP.search(self._text, self._at)
        if match is None:
            raise ValueError(CUT)
        return match.start()

    def _ends(self, end: str) -> bool:
        """Read what follows an item: ``end`` (True), or a comma before another item (False)."""
        if self._takes(end):
            return True
        if self._takes(","):
            return False
        if self.is_at_end():
            raise ValueError(CUT)
        raise self._error(f"there is no ',' or {end!r} after a value")

    def _takes(self, expected: str) -> bool:
        if space := _SPACE.match(self._text, self._at):
            self._at = space.end()
        found = self._text.startswith(expected, self._at)
        self._at += len(expected) * found
        return found

    def _error(self, problem: str) -> ValueError:
        return ValueError(f"{problem}, at character {self._at}")


def _unescaped(text: str) -> str:
    """Replace the backslash escapes of JSON and Python; others stay as they are."""
    if "\\" not in text:
        return text

    def character(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if len(code) == 5 else _ESCAPES.get(code, match[0])

    return valid(_ESCAPE.sub(character, text))


def valid(text: str) -> str:
    """Text with the halves of surrogate pairs joined, and single ones replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
