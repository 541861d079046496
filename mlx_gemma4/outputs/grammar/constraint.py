"""What an answer may be: a JSON schema, a regular expression, a Lark grammar, or a choice of strings.

    constraint = Constraint.json_schema({"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}})
    stream_generate(model, processor, prompt, constraint=constraint)

A constraint knows nothing of a vocabulary; ``Matcher`` follows it token by token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_gemma4.outputs.grammar.closed import closed
from mlx_gemma4.outputs.grammar.recursion import MOST_LEVELS, levels, with_stack

JSON_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""JSON comes on one line, as ``json.dumps`` writes it. A free layout could go on with spaces forever, and of what must
follow nothing would be known. ``x-guidance`` in a schema changes this."""
CALLS = "tools"
"""The kind of a constraint that holds calls, and leaves text free or forbids it."""
SHOWN = 300
"""Characters of a reason in an error message."""

THINKING = "start: (<|channel> THOUGHT <channel|>)? @answer\nTHOUGHT: /(?s:.*)/"
"""A thought may come first, which is free; the markers are those of ``outputs.channels``."""
IN_THOUGHT = "start: THOUGHT <channel|> @answer\nTHOUGHT: /(?s:.*)/"
"""The prompt ends inside a thought."""


def library() -> Any:
    """The llguidance library.

    Raises:
        ImportError: It is not installed; the message says how to install it.
    """
    try:
        import llguidance
    except ImportError as error:
        raise ImportError(
            "Answers that follow a grammar need the package llguidance: pip install llguidance "
            "(or the extra: pip install '.[grammar]' in a checkout)"
        ) from error
    return llguidance


@dataclass(frozen=True)
class Constraint:
    """What an answer may be. Make one with ``json_schema``, ``regex``, ``lark`` or ``choice``."""

    grammar: Mapping[str, Any]
    """In llguidance's form."""
    kind: str
    """What it was made of, for messages."""
    has_thoughts: bool = False
    """Whether the grammar says itself where thoughts may be. Otherwise they may come first, where thinking is on."""

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool) -> Constraint:
        """JSON that a schema (draft 2020-12) allows, on one line; ``{}`` allows any JSON.

        Properties come in the order of the schema. Others may follow where ``additionalProperties`` says so, or where
        the schema merges objects (``closed``).

        Raises:
            ValueError: The schema cannot be compiled: it is wrong, nothing satisfies it, or it uses what a grammar
                cannot express, such as ``not`` and ``uniqueItems``.
            ImportError: llguidance is not installed.
        """
        if not isinstance(schema, (Mapping, bool)):
            raise ValueError(f"Expected a JSON schema as an object or a boolean, got {schema!r:.{SHOWN}}")
        if schema is False:
            raise ValueError("Cannot compile the JSON schema: it is false, which no answer satisfies")
        layout = {} if schema is True else schema.get("x-guidance", {})
        if not isinstance(layout, Mapping):
            raise ValueError(f'Expected "x-guidance" of a JSON schema as an object, got {layout!r:.{SHOWN}}')
        try:
            whole = {} if schema is True else json.loads(json.dumps(closed(schema)))
        except RecursionError as error:
            raise ValueError("Cannot compile the JSON schema: it is nested too deeply") from error
        except TypeError as error:
            raise ValueError(f"Cannot compile the JSON schema: {error}") from error
        if (depth := levels(whole)) > MOST_LEVELS:
            raise ValueError(
                f"Cannot compile the JSON schema: its definitions have {depth:,} levels, more than {MOST_LEVELS:,}"
            )
        return cls._checked({"json_schema": {**whole, "x-guidance": {**JSON_LAYOUT, **layout}}}, "JSON schema")

    @classmethod
    def regex(cls, pattern: str) -> Constraint:
        """Text that a regular expression matches as a whole. The syntax is that of Rust's regex: no look-around.

        Raises:
            ValueError: The pattern cannot be compiled.
            ImportError: llguidance is not installed.
        """
        grammar = json.loads(library().LLMatcher.grammar_from_regex(pattern))
        return cls._checked({"lark_grammar": grammar["grammars"][0]["lark_grammar"]}, "regular expression")

    @classmethod
    def lark(cls, grammar: str) -> Constraint:
        """Text of a context-free grammar in llguidance's variant of Lark; ``start`` is its first rule.

        Raises:
            ValueError: The grammar cannot be compiled.
            ImportError: llguidance is not installed.
        """
        return cls._checked({"lark_grammar": grammar}, "grammar")

    @classmethod
    def choice(cls, options: Sequence[str]) -> Constraint:
        """One of these strings.

        Raises:
            ValueError: There are none, or one is empty.
            ImportError: llguidance is not installed.
        """
        if isinstance(options, str) or not options or not all(options):
            raise ValueError(f"Expected one or more strings to choose from, none of them empty, got {options!r}")
        literals = " | ".join(map(literal, options))
        return cls._checked({"lark_grammar": f"start: {literals}"}, "choice")

    @classmethod
    def _checked(cls, grammar: Mapping[str, Any], kind: str) -> Constraint:
        constraint = cls(grammar, kind)
        constraint.check()
        return constraint

    def check(self) -> None:
        """Raise a ValueError if the grammar cannot be compiled, whatever the vocabulary is."""
        try:
            problem = with_stack(lambda: library().LLMatcher.validate_grammar(self.written()))
        except (ValueError, UnicodeError) as error:
            problem = str(error)
        if problem:
            raise self.error(problem)

    def error(self, problem: str) -> ValueError:
        """The error of a grammar that cannot be compiled, with llguidance's report."""
        return ValueError(f"Cannot compile the {self.kind}: {_reason(problem)}")

    def written(self, before: str | None = None) -> str:
        """The grammar as llguidance reads it.

        Args:
            before: A Lark grammar that refers to this one as ``@answer``: THINKING or IN_THOUGHT.
        """
        grammars = [dict(self.grammar)]
        if before is not None:
            grammars = [{"name": "whole", "lark_grammar": before}, {"name": "answer", **self.grammar}]
        return json.dumps({"grammars": grammars})


def literal(text: str) -> str:
    """A string in a Lark grammar."""
    escaped = (
        f"\\u{ord(mark):04x}" if "\x7f" <= mark <= "\x9f" else mark for mark in json.dumps(text, ensure_ascii=False)
    )
    return "".join(escaped)


def _reason(problem: str) -> str:
    """The line of a report that says what is wrong, without the picture of where."""
    lines = [line.strip() for line in problem.strip().splitlines()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return " ".join(errors[:1] or lines[:1])[:SHOWN]
