"""Checks the arguments of a tool call against the JSON schema of the tool, and reads them as the declared types.

Supports the part of JSON Schema that tools use: type, nullable, enum, const, properties, required, items,
additionalProperties, anyOf, oneOf, an allOf of one, local $ref, and bounds. Unlike in JSON Schema, keys that are not
declared are an error unless ``additionalProperties`` allows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlx_gemma4.outputs.tools.syntax import MAX_DEPTH, Bare, number, plain, quoted

Schema = Mapping[str, Any]
MAX_STEPS = 100_000
"""Schemas looked at in one check: references may go in circles."""
NULLS, TRUES, FALSES = ("null", "None"), ("true", "True"), ("false", "False")

_BOUNDS: dict[str, tuple[tuple[type, ...], Callable[[Any, Any], bool], str]] = {
    "minimum": ((int, float), lambda value, bound: value >= bound, "must be at least {:g}"),
    "maximum": ((int, float), lambda value, bound: value <= bound, "must be at most {:g}"),
    "exclusiveMinimum": ((int, float), lambda value, bound: value > bound, "must be more than {:g}"),
    "exclusiveMaximum": ((int, float), lambda value, bound: value < bound, "must be less than {:g}"),
    "minLength": ((str,), lambda value, bound: len(value) >= bound, "must have at least {:g} characters"),
    "maxLength": ((str,), lambda value, bound: len(value) <= bound, "must have at most {:g} characters"),
    "minItems": ((list,), lambda value, bound: len(value) >= bound, "must have at least {:g} items"),
    "maxItems": ((list,), lambda value, bound: len(value) <= bound, "must have at most {:g} items"),
}


def fit_arguments(arguments: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """Read a call's arguments (from ``read_block``) as the types that ``schema`` declares.

    Words without quotes become the declared type. Quoted numbers and booleans become numbers and booleans where the
    schema allows no text, and 5.0 becomes an integer. An optional argument that is null, but may not be, is left out.

    Raises:
        ValueError: The arguments do not fit. The message names the argument, for the model to read.
    """
    return _Fit(schema).object(dict(arguments), schema, "", 0)


class _Fit:
    """Checks values against parts of one schema; ``where`` is the path of a value, for messages."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._steps = 0
        self._readers: dict[str, Callable[[Any, Schema, str, int], Any]] = {
            "null": _null,
            "boolean": _boolean,
            "integer": _integer,
            "number": _number,
            "array": self._array,
            "object": self._object_value,
            "string": _string,
        }

    def value(self, value: Any, schema: Any, where: str, depth: int) -> Any:
        schema = self._resolved(schema)
        if depth > MAX_DEPTH:
            raise ValueError(f"{where} is nested too deeply")
        if options := _list(schema, "anyOf") or _list(schema, "oneOf"):
            value = self._any(value, options, where, depth)
        value = self._typed(value, schema, where, depth)
        _check_choices(value, schema, where)
        _check_bounds(value, schema, where)
        return value

    def object(self, value: dict[str, Any], schema: Schema, where: str, depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = _list(schema, "required")
        others = schema.get("additionalProperties", not properties and bool(where))
        fitted: dict[str, Any] = {}
        for key, item in value.items():
            path = f"{where}.{key}" if where else key
            if key not in properties and others is False:
                known = f"only {', '.join(map(str, properties))}" if properties else "none is declared"
                raise ValueError(f"there is no argument {quoted(path)}, {known}")
            declared = properties.get(key, others if isinstance(others, Mapping) else {})
            if _is_null(item) and key in properties and key not in required and not self._takes_null(declared):
                continue
            fitted[key] = self.value(item, declared, path, depth + 1)
        for key in required:
            if key not in fitted:
                raise ValueError(f"the argument {quoted(f'{where}.{key}' if where else str(key))} is missing")
        return fitted

    def _typed(self, value: Any, schema: Schema, where: str, depth: int) -> Any:
        types = declared_types(schema)
        if not types:
            return _among(value, schema) if isinstance(value, Bare) else plain(value)
        wrong: ValueError | None = None
        for name in _in_order(types, value):
            try:
                return self._readers[name](value, schema, where, depth)
            except ValueError as error:
                wrong = wrong or error
        if wrong is None or len(types) > 1:
            raise ValueError(f"{where} must be {' or '.join(types)}, got {_shown(value)}")
        raise wrong

    def _any(self, value: Any, options: Sequence[Any], where: str, depth: int) -> Any:
        wrong: list[str] = []
        ranked = sorted(options, key=lambda option: _rank(declared_types(self._resolved(option)), value))
        for option in ranked:
            try:
                return self.value(value, option, where, depth + 1)
            except ValueError as error:
                wrong.append(str(error))
        raise ValueError("; or ".join(dict.fromkeys(wrong)))

    def _array(self, value: Any, schema: Schema, where: str, depth: int) -> Any:
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        items = schema.get("items", {})
        return [self.value(item, items, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]

    def _object_value(self, value: Any, schema: Schema, where: str, depth: int) -> Any:
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        return self.object(value, schema, where, depth)

    def _takes_null(self, schema: Any) -> bool:
        schema = self._resolved(schema)
        options = _list(schema, "anyOf") or _list(schema, "oneOf")
        return (
            not (declared_types(schema) or options)
            or "null" in declared_types(schema)
            or any(map(self._takes_null, options))
        )

    def _resolved(self, schema: Any) -> Schema:
        """A schema, with local references followed; True and unknown references allow anything."""
        return local_schema(schema, self._root, self._count)

    def _count(self) -> None:
        """End the check of a schema that refers to itself in circles."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise ValueError(f"the declared schema takes more than {MAX_STEPS} steps to check")


def local_schema(schema: Any, root: Schema, count: Callable[[], None] = lambda: None) -> Schema:
    """A schema, with references into ``root`` followed; True and unknown references allow anything.

    Args:
        count: Called with each schema that is looked at.
    """
    for _ in range(MAX_DEPTH):
        count()
        if not isinstance(schema, Mapping):
            break
        if len(only := _list(schema, "allOf")) == 1 and "type" not in schema:
            schema = only[0]
            continue
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            break
        schema = root
        for key in reference.removeprefix("#").split("/")[1:]:
            schema = schema.get(key.replace("~1", "/").replace("~0", "~"), {}) if isinstance(schema, Mapping) else {}
    return schema if isinstance(schema, Mapping) else {}


def declared_types(schema: Schema) -> list[str]:
    """The declared types in lower case, as JSON Schema writes them; some files have STRING and "nullable"."""
    declared = schema.get("type")
    types = [declared] if isinstance(declared, str) else list(declared) if isinstance(declared, (list, tuple)) else []
    known = [name.lower() for name in types if isinstance(name, str) and name.lower() in _NATIVE]
    return [*known, "null"] if known and schema.get("nullable") is True and "null" not in known else known


_NATIVE: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None or value in NULLS,
    "boolean": lambda value: isinstance(value, bool) or value in TRUES + FALSES,
    "integer": lambda value: not isinstance(value, bool) and _is_number(value),
    "number": lambda value: not isinstance(value, bool) and _is_number(value),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str) and not isinstance(value, Bare),
}


def _is_number(value: Any) -> bool:
    if isinstance(value, Bare):
        try:
            number(value)
        except ValueError:
            return False
    return isinstance(value, (int, float, Bare))


def _in_order(types: Sequence[str], value: Any) -> list[str]:
    """The types that a value looks like come first; a bare word is a string only if it fits nothing else."""
    return sorted(types, key=lambda name: (not _looks(name, value), name == "string"))


def _rank(types: Sequence[str], value: Any) -> tuple[bool, bool]:
    return (not any(_looks(name, value) for name in types), "string" in types)


def _looks(name: str, value: Any) -> bool:
    quoted_text = isinstance(value, str) and not isinstance(value, Bare)
    return name == "string" if quoted_text else _NATIVE[name](value)


def _null(value: Any, schema: Schema, where: str, depth: int) -> None:
    if not _is_null(value):
        raise _wrong(where, "null", value)


def _boolean(value: Any, schema: Schema, where: str, depth: int) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in TRUES + FALSES:
        return value in TRUES
    raise _wrong(where, "true or false", value)


def _number(value: Any, schema: Schema, where: str, depth: int) -> int | float:
    if isinstance(value, str):
        try:
            return number(value.strip())
        except ValueError as error:
            raise _wrong(where, "a number", value) from error
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _wrong(where, "a number", value)
    return value


def _integer(value: Any, schema: Schema, where: str, depth: int) -> int:
    try:
        found = _number(value, schema, where, depth)
    except ValueError as error:
        raise _wrong(where, "an integer", value) from error
    if found != int(found):
        raise _wrong(where, "an integer", value)
    return int(found)


def _string(value: Any, schema: Schema, where: str, depth: int) -> str:
    if not isinstance(value, str):
        raise _wrong(where, "a string", value)
    return str(value)


def _check_choices(value: Any, schema: Schema, where: str) -> None:
    choices = _list(schema, "enum") or ([schema["const"]] if "const" in schema else [])
    if choices and value is not None and not any(_is_same(value, choice) for choice in choices):
        raise ValueError(f"{where} must be one of {', '.join(map(repr, choices))}, got {_shown(value)}")


def _check_bounds(value: Any, schema: Schema, where: str) -> None:
    for keyword, (types, holds, words) in _BOUNDS.items():
        bound = schema.get(keyword)
        if isinstance(value, bool) or not isinstance(value, types) or isinstance(bound, bool):
            continue
        if isinstance(bound, (int, float)) and not holds(value, bound):
            raise ValueError(f"{where} {words.format(bound)}, got {_shown(value)}")


def _among(word: Bare, schema: Schema) -> Any:
    """A bare word without a declared type: one of the choices, or what it looks like."""
    choices = [choice for choice in _list(schema, "enum") if str(choice) == word]
    return choices[0] if choices else plain(word)


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, Bare) and value in NULLS)


def _is_same(value: Any, choice: Any) -> bool:
    return value == choice and isinstance(value, bool) == isinstance(choice, bool)


def _list(schema: Schema, key: str) -> list[Any]:
    found = schema.get(key)
    return list(found) if isinstance(found, (list, tuple)) else []


def _wrong(where: str, expected: str, value: Any) -> ValueError:
    return ValueError(f"{where} must be {expected}, got {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else str(value)
