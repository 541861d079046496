"""Gives llguidance a large stack: it follows references by recursion, and a stack that overflows ends the process.

{"$ref": "#/$defs/a"}, a: {…{"$ref": "#/$defs/b"}…}, b: …    a few KB of stack for each level of each definition
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

STACK = 128 * 2**20
"""Bytes. Only what is used takes memory."""
MOST_LEVELS = 6_000
"""Levels of all definitions together: with a level a definition, 2,000 of them took 16 MB."""

T = TypeVar("T")
_MAKING = threading.Lock()


def with_stack(function: Callable[[], T]) -> T:
    """Run a function in a thread with a large stack."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # raised where the function was asked for
            errors.append(error)

    with _MAKING:  # the size is that of all threads that begin
        before = threading.stack_size(STACK)
        try:
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def levels(schema: Mapping[str, Any]) -> int:
    """Levels of objects and lists inside each other: those of the schema, and of each place that it refers to."""
    own = _depth(schema)
    places = {reference for inner in _objects(schema) if isinstance(reference := inner.get("$ref"), str)}
    return own + sum(min(_depth(_at(schema, place)), own) for place in places)


def _at(root: Any, reference: str) -> Any:
    found = root
    for key in reference.partition("#")[2].split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        found = found.get(key, root) if isinstance(found, Mapping) else root
    return found


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [inner for outer in level for inner in _inside(outer)]
    return depth


def _inside(value: Any) -> list[Any]:
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [inner for inner in values if isinstance(inner, (Mapping, list, tuple))]


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [value]
    while waiting:
        outer = waiting.pop()
        if isinstance(outer, Mapping):
            yield outer
        waiting += _inside(outer)
