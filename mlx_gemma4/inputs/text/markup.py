"""Keeps text from becoming a control token. This is the only place that decides what is text and what is markup.

A control token such as ``<turn|>`` ends a turn. A user who types those seven characters must not end one. So a prompt
is built from two kinds of strings:

- **Text** comes from outside: messages of every role, tools and their results, transcripts, names of files. It never
  becomes a control token, whatever it contains.
- **Markup** is written by the checkpoint's chat template and by this package. A control token in it becomes its id.

Text is *quoted* before it goes into markup: the first character of every control token (here ``<``) is replaced by a
stand-in, a private-use character that no language writes with (here ``▯``)::

    text                 say <turn|>                            typed by a user
    quote                say ▯turn|>                            no control token can be found in it
    template             <|turn>user\nsay ▯turn|><turn|>        only the template's own markers have a <
    split                ("<|turn>", True)                      control token: one id
                         ("user\nsay <turn|>", False)           text, unquoted again: encoded as characters
                         ("<turn|>", True)                      control token: one id

Quoting each character, and not whole tokens, keeps the promise when a template trims, cuts or joins texts: two
harmless pieces cannot join into a token. A template may also search the text of an earlier answer, for example to cut a
thought out of it; the sandbox quotes what it searches for. Text on both sides of a stand-in is encoded in one piece, so
quoting does not change the ids of ordinary text.

A token is a control token if

- ``tokenizer.json`` marks it as special, or ``tokenizer.model`` as control;
- it has the form of Gemma's markers (``MARKER``), however the file marks it;
- the config or the tokenizer's settings name it: begin and end of text, turns, channels, tools and media.

All other added tokens, such as ``<table>``, are text. So are runs of spaces and newlines, even where a file marks them
as special.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

MARKER = re.compile(r"<(\||start_of_|end_of_)[^<>]+>|<[^<>]+\|>")
"""The form of Gemma's markers: ``<|turn>``, ``<turn|>``, ``<start_of_turn>``. ``<table>`` has another form."""

STAND_INS = range(0xF0000, 0xFFFFE)
"""Private-use characters (plane 15). A text that contains one keeps it: it is escaped by ``_escape`` and a numeral."""
NUMERALS = 0x100000
"""The first numeral (plane 16). After an escape, it gives the index of the reserved character that the text had."""

MOST_DEPTH = 100
"""The deepest nesting of lists and objects in messages and tools; deeper ones could exhaust Python's stack."""

_ESCAPED = re.compile(r"(?<!\\)((?:\\\\)*)\\U(000f[0-9a-f]{4}|0010[0-9a-f]{4})")
"""A stand-in or numeral as Python's repr writes it; after an odd number of backslashes it is text."""

Value = TypeVar("Value")


def is_blank(token: str) -> bool:
    """Whether a token is nothing but spaces or newlines."""
    return not token.strip("\u2581\t\n\r ")


class Quoted(str):
    """Text that was quoted; quoting it again leaves it as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        """The repr of a string, but with stand-ins as they are: templates write whole lists this way."""
        return _ESCAPED.sub(lambda match: match[1] + chr(int(match[2], 16)), super().__repr__())


class Markup:
    """Quotes text for markup, and splits markup into text and control tokens.

    Args:
        control: The control tokens, such as ``<turn|>``.
    """

    def __init__(self, control: Collection[str]) -> None:
        self.control = frozenset(control)
        used = {character for token in self.control for character in token}
        free = (character for character in map(chr, STAND_INS) if character not in used)
        first = sorted({token[0] for token in self.control})
        self._escape, *stand_ins = (next(free) for _ in range(len(first) + 2))
        self.slot = Quoted(stand_ins.pop())
        """A place to fill with text later: neither quoted text nor a control token contains this character."""
        reserved = [self._escape, self.slot, *stand_ins]
        self._numerals = {chr(NUMERALS + index): character for index, character in enumerate(reserved)}
        self._quotes = {
            **{ord(character): self._escape + numeral for numeral, character in self._numerals.items()},
            **{ord(character): stand_in for character, stand_in in zip(first, stand_ins, strict=True)},
        }
        self._stands_for = dict(zip(stand_ins, first, strict=True))

    def quote(self, value: Value) -> Value:
        """Quote a text, or every text in lists and objects (keys included), so that it stays text inside markup.

        Raises:
            ValueError: Lists or objects are more than ``MOST_DEPTH`` deep, or contain themselves.
        """
        return self._quote(value, 0)

    def unquote(self, text: str) -> str:
        """Undo ``quote``."""
        return self._quoted.sub(self._original, text)

    def split(self, markup: str) -> Iterator[tuple[str, bool]]:
        """Yield the parts of markup in order: control tokens (True), and the text between them, unquoted (False)."""
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
            return {self._quote(key, depth + 1): self._quote(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._quote(item, depth + 1) for item in value]
        return value

    def _original(self, match: re.Match[str]) -> str:
        quoted = match[0]
        if quoted[0] != self._escape:
            return self._stands_for[quoted]
        return self._numerals.get(quoted[1:], quoted[1:])

    @cached_property
    def _quoted(self) -> re.Pattern[str]:
        return re.compile(f"{self._escape}.?|[{''.join(self._stands_for) or self._escape}]", re.DOTALL)

    @cached_property
    def _tokens(self) -> re.Pattern[str]:
        longest_first = sorted(self.control, key=lambda token: (-len(token), token))
        return re.compile("(" + ("|".join(map(re.escape, longest_first)) or "(?!)") + ")")
