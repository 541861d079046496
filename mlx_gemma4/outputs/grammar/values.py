"""Values of JSON schemas in the syntax of Gemma's calls, as rules of a Lark grammar.

    {"type": "object", "properties": {"room": {"type": "string"}, "on": {"type": "boolean"}}, "required": ["room"]}

    {room:<|"|>hall<|"|>}    {on:true,room:<|"|>hall<|"|>}    …

Values come as chat templates write them: without spaces, strings between ``<|"|>``, keys without quotes where that can
be read. Keys come in any order, each once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlx_gemma4.outputs.grammar.constraint import library, literal
from mlx_gemma4.outputs.tools.schema import Schema, declared_types, local_schema
from mlx_gemma4.outputs.tools.syntax import QUOTE

MOST_IN_ANY_ORDER = 63
"""Keys of an object that may come in any order: a rule's parameter has 64 bits. More come in the order of templates."""
MOST_KEYS = 900
"""Keys of an object: llguidance looks at no more than 2,000 rules at once."""
MOST_KEYS_IN_ALL = 10_000
"""Keys of all objects: more take seconds to compile."""
LARGEST = 10**15
"""Numbers without a bound are at most this large: what reads them must not overflow."""

BASE = r"""
TEXT: /(?s:.*)/
QUOTED: /(?s:.*)<\|"\|>(?s:.*)/
STRING: TEXT & ~QUOTED
WHOLE: /-?(0|[1-9][0-9]{0,14})/
NUMBER: /-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?([eE][-+]?[0-9]{1,2})?/
KEY: /[\p{L}_][\p{L}\p{N}_.\-]*/
string: <|"|> STRING <|"|>
null: "null" | "None"
any: string | NUMBER | "true" | "false" | null | list | map
list: "[" "]" | "[" any ("," any)* "]"
map: "{" "}" | "{" KEY ":" any ("," KEY ":" any)* "}"
"""
"""Text, and values of any type. Templates write Python's None."""
_KEYWORDS = {
    "object": {"properties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
"""The keywords of each type, for schemas that name none."""
_DATE = "[0-9]{4}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31|02-29)"
_TIME = "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "email": f"[A-Za-z0-9_+-]+(\\.[A-Za-z0-9_+-]+)*@{_LABEL}(\\.{_LABEL})+",
    "hostname": f"{_LABEL}(\\.{_LABEL})*",
    "ipv4": f"{_BYTE}(\\.{_BYTE}){{3}}",
    "uuid": "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
}
"""Formats of strings that are held, as regular expressions. Years without a 29th of February are not known."""
_BARE_KEY = re.compile(r"[^\s\"'{}\[\],:<>|]+")
_PARTS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[()|^$]", re.DOTALL)
"""What has a meaning in a regex, outside of which anchors and alternatives stand: escapes, classes, and these marks."""


class Rules:
    """Rules for the values of schemas. Each method returns an expression that may stand in a rule."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._root: Schema = {}
        self._names: dict[str, str] = {}
        self._references: dict[str, str] = {}
        self._keys = 0

    def arguments(self, schema: Schema) -> str:
        """The arguments of a function in braces."""
        self._root, self._references = schema, {}
        return self._object(schema, is_nested=False)

    def _value(self, schema: Any) -> str:
        parts = schema.get("allOf") if isinstance(schema, Mapping) and "type" not in schema else None
        if isinstance(parts, (list, tuple)) and len(parts) == 1:
            return self._value(parts[0])
        reference = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(reference, str):
            return self._inner(schema)
        if reference not in self._references:
            name = self._references[reference] = f"r{len(self.lines)}"
            place = len(self.lines)
            self.lines.append("")
            self.lines[place] = f"{name}: {self._inner(schema)}"
        return self._references[reference]

    def _inner(self, schema: Any) -> str:
        schema = local_schema(schema, self._root)
        for key in ("anyOf", "oneOf"):
            options = schema.get(key)
            if isinstance(options, (list, tuple)) and options:
                others = {name: value for name, value in schema.items() if name not in ("anyOf", "oneOf")}
                return self._either(self._value(_merged(others, option)) for option in options)
        types = declared_types(schema)
        choices = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
        if isinstance(choices, (list, tuple)):
            return self._either(self._choice(choice) for choice in choices if _fits(choice, types))
        if not types:
            types = [name for name, words in _KEYWORDS.items() if not words.isdisjoint(schema)][:1]
        return self._either(self._typed(name, schema) for name in types) if types else "any"

    def _either(self, options: Iterable[str]) -> str:
        listed = list(dict.fromkeys(options))
        return listed[0] if len(listed) == 1 else self._rule(" | ".join(listed) or "null")

    def _typed(self, name: str, schema: Schema) -> str:
        if name == "object":
            return self._object(schema, is_nested=True)
        if name == "array":
            return self._array(schema)
        if name == "string":
            return self._string(schema)
        if name in ("integer", "number"):
            return self._number(name, schema)
        return "null" if name == "null" else '("true" | "false")'

    def _choice(self, choice: Any) -> str:
        if isinstance(choice, str):
            return f'<|"|> {literal(choice)} <|"|>' if choice else '<|"|> <|"|>'
        if isinstance(choice, (list, tuple)):
            return " ".join(['"["', ' "," '.join(map(self._choice, choice)), '"]"'])
        if isinstance(choice, Mapping):
            pairs = (f"{_key(str(key))} {self._choice(item)}" for key, item in sorted(choice.items()))
            return " ".join(['"{"', ' "," '.join(pairs), '"}"'])
        return "null" if choice is None else literal(json.dumps(choice))

    def _string(self, schema: Schema) -> str:
        least, most, pattern = _count(schema.get("minLength")), _count(schema.get("maxLength")), schema.get("pattern")
        parts = ["STRING"]
        if least or most is not None:
            parts.append(f"/(?s:.{{{least or 0},{'' if most is None else most}}})/")
        if isinstance(pattern, str) and (regex := read_pattern(pattern)):
            parts.append(regex)
        if schema.get("format") in FORMATS:
            parts.append(f"/{FORMATS[schema['format']]}/")
        return "string" if parts == ["STRING"] else f'<|"|> {self._rule(" & ".join(parts), "T")} <|"|>'

    def _number(self, name: str, schema: Schema) -> str:
        keys = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
        bounds = {key: schema[key] for key in keys if _is_number(schema.get(key))}
        if not bounds:
            return "WHOLE" if name == "integer" else "NUMBER"
        if not bounds.keys() & {"minimum", "exclusiveMinimum"}:
            bounds["minimum"] = -LARGEST
        if not bounds.keys() & {"maximum", "exclusiveMaximum"}:
            bounds["maximum"] = LARGEST
        whole = json.dumps({"type": name, **bounds, "x-guidance": {"whitespace_flexible": False}})
        return self._rule(f"%json {whole}")

    def _array(self, schema: Schema) -> str:
        least, most = _count(schema.get("minItems")) or 0, _count(schema.get("maxItems"))
        if most == 0:
            return '"[" "]"'
        item = self._value(schema.get("items", {}))
        more = f'("," {item}){{{max(least - 1, 0)},{"" if most is None else most - 1}}}' if most != 1 else ""
        return self._rule(f'"[" {item} {more} "]"' + (' | "[" "]"' if least == 0 else ""))

    def _object(self, schema: Schema, *, is_nested: bool) -> str:
        """An object. Without declared properties a nested one takes any, as in ``fit_arguments``."""
        properties = schema.get("properties")
        properties = dict(properties) if isinstance(properties, Mapping) else {}
        self._keys += len(properties)
        if len(properties) > MOST_KEYS or self._keys > MOST_KEYS_IN_ALL:
            raise ValueError(
                f"Cannot compile the tools: of the {len(properties):,} properties of an object, at most {MOST_KEYS} can"
                f" be held, and {MOST_KEYS_IN_ALL:,} of all objects"
            )
        needed = schema.get("required")
        required = [key for key in properties if isinstance(needed, (list, tuple)) and key in needed]
        others = schema.get("additionalProperties", not properties and is_nested)
        # required ones first: their bits are asked for together
        keys = [*required, *(key for key in properties if key not in required)]
        pairs = {key: f"{_key(key)} {self._value(properties[key])}" for key in keys}
        other = ""
        if others is not False:
            other = f'{self._other_key(keys)} ":" {self._value(others if isinstance(others, Mapping) else {})}'
        if len(keys) > MOST_IN_ANY_ORDER:
            return self._in_order({key: pairs[key] for key in sorted(keys, key=str.lower)}, required)
        return self._in_any_order(list(pairs.values()), len(required), other)

    def _in_any_order(self, pairs: list[str], required: int, other: str) -> str:
        """Each pair once at most, the first ``required`` of them exactly once, and any number of others."""
        if not pairs and not other:
            return '"{" "}"'
        name, count = f"o{len(self.lines)}", len(pairs)
        options = [f"{pair} {name}n::set_bit({bit}) %if bit_clear({bit})" for bit, pair in enumerate(pairs)]
        options += [f"{other} {name}n::_"] if other else []
        comma = f'"," {name}q::_' + ("" if other else f" %if bit_count_lt([0:{count}], {count})")
        close = '"}"' + (f" %if is_ones([0:{required}])" if required else "")
        self.lines.append(
            f'{name}: "{{" {name}q::0x0'
            + ("" if required else ' | "{" "}"')
            + f"\n{name}q::_: {' | '.join(options)}\n{name}n::_: {close} | {comma}"
        )
        return name

    def _in_order(self, pairs: Mapping[str, str], required: Sequence[str]) -> str:
        """The pairs in order. The rules f0, f1, … stand before the first pair, and m0, m1, … behind one."""
        name = f"o{len(self.lines)}"
        lines = [f'{name}: "{{" {name}f0']
        for place, (key, pair) in enumerate(pairs.items()):
            for state, comma in (("f", ""), ("m", '"," ')):
                skip = "" if key in required else f" | {name}{state}{place + 1}"
                lines.append(f"{name}{state}{place}: {comma}{pair} {name}m{place + 1}{skip}")
        lines += [f'{name}{state}{len(pairs)}: "}}"' for state in ("f", "m")]
        self.lines.append("\n".join(lines))
        return name

    def _other_key(self, keys: Sequence[str]) -> str:
        if not keys:
            return "KEY"
        return self._rule(f"KEY & ~({' | '.join(map(literal, keys))})", "K")

    def _rule(self, body: str, kind: str = "v") -> str:
        """The name of a rule, or of a terminal (T and K), with this body."""
        if body not in self._names:
            self._names[body] = f"{kind}{len(self.lines)}"
            self.lines.append(f"{self._names[body]}: {body}")
        return self._names[body]


def _key(key: str) -> str:
    """A key and its colon: bare, as templates write it, or in quotes where it could not be read otherwise."""
    return literal(f"{key}:") if _BARE_KEY.fullmatch(key) else f'<|"|> {literal(key)} <|"|> ":"'


def _merged(schema: Schema, option: Any) -> Any:
    """A schema with one of its alternatives."""
    if not schema or not isinstance(option, Mapping):
        return option
    result = {**schema, **option}
    if isinstance(schema.get("properties"), Mapping) and isinstance(option.get("properties"), Mapping):
        result["properties"] = {**schema["properties"], **option["properties"]}
    if isinstance(schema.get("required"), list) and isinstance(option.get("required"), list):
        result["required"] = [*schema["required"], *option["required"]]
    return result


def _fits(choice: Any, types: Sequence[str]) -> bool:
    """Whether a choice has one of the types, and can be written."""
    if isinstance(choice, str):
        return QUOTE not in choice and (not types or "string" in types)
    return True


def read_pattern(pattern: str) -> str | None:
    """A JSON schema's pattern as a Lark regex for the whole text; None if it cannot be one."""
    depth, anchors, has_alternatives = 0, list[int](), False
    for match in _PARTS.finditer(pattern):
        depth += (match[0] == "(") - (match[0] == ")")
        has_alternatives |= match[0] == "|" and depth == 0
        if match[0] in "^$":
            anchors.append(match.start())
    begins, ends = pattern.startswith("^"), pattern.endswith("$") and len(pattern) - 1 in anchors
    if len(anchors) > begins + ends or (anchors and has_alternatives):
        return None
    inner = pattern[begins : len(pattern) - ends]
    regex = f"{'' if begins else '(?s:.*)'}({inner}){'' if ends else '(?s:.*)'}"
    regex = library().regex_to_lark(regex, "dw")
    problem = library().LLMatcher.validate_grammar(library().LLMatcher.grammar_from_lark(f"start: /{regex}/"))
    return None if problem else f"/{regex}/"


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
