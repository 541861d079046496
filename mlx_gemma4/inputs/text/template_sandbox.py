"""Runs chat templates in Jinja's sandbox, with a list of what they may call and a budget for what they do.

Jinja's sandbox keeps a template from Python's internals, but does not stop ``'a' * 10**10``, nested loops or
``|center(10**9)``. The texts in the variables are quoted (``markup``), but a template compares and searches them as if
they were not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from functools import update_wrapper
from typing import Any, NoReturn

import jinja2
from jinja2 import pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from mlx_gemma4.inputs.text.markup import STAND_INS, Markup
from mlx_gemma4.inputs.text.template_meter import CALL, ITEM, Meter, check_number
from mlx_gemma4.inputs.text.template_tree import metered

MOST_SOURCE = 64 * 1024
"""Characters of a template; Gemma's has 12,000."""

FILTERS = (
    "abs capitalize count d default dictsort e escape first float format groupby indent int items join last length "
    "list lower map max min reject rejectattr replace reverse round safe select selectattr sort string sum title "
    "tojson trim truncate unique upper wordcount"
)
METHODS: Mapping[type, str] = {
    str: "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric "
    "isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition "
    "rsplit rstrip split splitlines startswith strip swapcase title upper",
    dict: "get items keys values copy",
    list: "count index copy",
    tuple: "count index",
    float: "is_integer",
    int: "",
    bytes: "",
    range: "",
    type: "",
}
"""The methods that a template may call, by the type of the value."""
_PERCENT = re.compile(r"%(?!(\.?\d{1,2})?[sdf%])")
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")
_LAYOUT = re.compile(r"[^%]|%[A-Za-z%]|%-[A-Za-z]")

SEARCHES = frozenset(
    (
        *("startswith", "endswith", "find", "rfind", "index", "rindex", "count", "replace"),
        *("split", "rsplit", "partition", "rpartition", "removeprefix", "removesuffix"),
    )
)
"""Methods of a string that search it for another one, which must then be quoted, too."""

_METER: ContextVar[Meter] = ContextVar("meter")
_MARKUP: ContextVar[Markup] = ContextVar("markup")
_NONE = Markup(())


class Environment(ImmutableSandboxedEnvironment):
    """Compiles templates. Threads may render at the same time, since each rendering has its own meter."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols], optimized=False, finalize=_written
        )
        filters: dict[str, Any] = {**self.filters}
        tests: dict[str, Any] = {**self.tests}
        self.filters = {name: _paid_for(filters[name], _GROWTH.get(name)) for name in FILTERS.split()}
        self.filters["replace"] = _paid_for(_replace, _replace_growth)
        self.filters["tojson"] = _paid_for(_tojson, _tojson_growth)
        self.tests = {name: _paid_for(tests[name]) for name in tests}
        kept = ("range", "dict", "cycler", "joiner")
        self.globals = {name: self.globals[name] for name in kept} | {
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    def renderer(self, source: str) -> Callable[[Mapping[str, Any], Markup | None], str]:
        """Compile a template into a function of its variables and of the Markup that quoted the texts in them.

        Raises:
            ValueError: The template is too long, or has a recursive loop.
        """
        if len(source) > MOST_SOURCE:
            raise ValueError(f"it has {len(source):,} characters, more than {MOST_SOURCE:,}")
        tree, units = metered(self.parse(source))
        template = jinja2.Template.from_code(self, self.compile(tree), self.make_globals(None))

        def render(variables: Mapping[str, Any], markup: Markup | None = None) -> str:
            meter = Meter(variables)
            token, quoting = _METER.set(meter), _MARKUP.set(markup or _NONE)
            try:
                meter.spend(units)
                return template.render(variables)
            finally:
                _METER.reset(token)
                _MARKUP.reset(quoting)

        return render

    # called by the metered tree

    def spent(self, units: int) -> None:
        """Pay for the body of a macro or a block."""
        _METER.get().spend(units)

    def looped(self, values: Any, units: int) -> _Looped:
        """The values of a loop, which pays for its body with each."""
        return _Looped(values, CALL + units)

    def joined(self, *values: Any) -> str:
        """``a ~ b``."""
        return "".join(map(str, map(self.paid, values)))

    def paid(self, value: Any) -> Any:
        """Pay for a new list, and return it."""
        return _METER.get().taken(value)

    def compared(self, value: Any) -> Any:
        """Pay for a value that is compared, and return it unquoted."""
        return _unquoted(self.paid(value))

    def contains(self, whole: Any, part: Any) -> bool:
        """``part in whole``."""
        whole, part = self.paid(whole), self.paid(part)
        if isinstance(whole, str):
            return _unquoted(part) in _unquoted(whole)
        if not isinstance(part, str):
            return part in whole
        return part in whole or _unquoted(part) in whole or _MARKUP.get().quote(part) in whole

    def sliced(self, value: Any, *ends: Any) -> Any:
        """``value[start:stop:step]``."""
        if hasattr(value, "__len__"):
            _METER.get().spend(len(value) * (1 if isinstance(value, str) else ITEM))
        return value[slice(*ends)]

    # called by Jinja

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        meter = _METER.get()
        meter.pay_for(left, right)
        if operator == "*":
            _pay_for_copies(left, right)
            _pay_for_copies(right, left)
        elif operator == "%" and isinstance(left, str):
            _check_percent(left)
        elif operator == "**":
            _check_power(left, right)
        result = super().call_binop(context, operator, left, right)
        return check_number(result) if isinstance(result, int) else result

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(__obj, "__self__", None)
        if owner is __self:
            return __obj(*args)
        meter = _METER.get()
        meter.spend(CALL)
        args = tuple(map(_held, args))
        meter.pay_for(args, *(value for key, value in kwargs.items() if key not in ("_loop_vars", "_block_vars")))
        kind = next((kind for kind in METHODS if isinstance(owner, kind)), None)
        if kind is not None:
            if __obj.__name__ not in METHODS[kind].split():
                raise SecurityError(f"{kind.__name__}.{__obj.__name__} is not available to chat templates")
            meter.pay_for(owner)
            if isinstance(owner, str) and __obj.__name__ in SEARCHES:
                args = tuple(_sought(owner, each) if place == 0 else each for place, each in enumerate(args))
                kwargs = {key: _sought(owner, each) if key == "sep" else each for key, each in kwargs.items()}
            growth = _METHOD_GROWTH.get(__obj.__name__) if kind is str else None
            if growth is not None:
                growth(owner, *args, **{key: value for key, value in kwargs.items() if not key.startswith("_")})
        return meter.taken(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        layout = value.__self__
        if re.search("[!:]", layout):
            raise SecurityError("str.format with widths is not available to chat templates")

        def paid(*args: Any, **kwargs: Any) -> str:
            for _ in range(layout.count("{")):
                _METER.get().pay_for(args, kwargs)
            return wrapped(*args, **kwargs)

        return paid


class _Looped:
    """An iterable that pays for the loop's body with each value."""

    def __init__(self, values: Any, units: int) -> None:
        self._values = values
        self._units = units

    def __iter__(self) -> Iterator[Any]:
        return _METER.get().items(self._values, self._units)

    def __len__(self) -> int:
        return len(self._values)


class _Namespace(Namespace):
    """An object whose attributes a template may set. Its repr does not show them."""

    def __repr__(self) -> str:
        return "<namespace>"


def _unquoted(value: Any) -> Any:
    return _MARKUP.get().unquote(value) if isinstance(value, str) else value


def _sought(text: str, part: Any) -> Any:
    """A string that a template searches a text for: as it is if the text contains it so, else quoted."""
    if isinstance(part, tuple):
        return tuple(_sought(text, each) for each in part)
    return part if not isinstance(part, str) or part in text else _MARKUP.get().quote(part)


def _replace(text: Any, old: Any, new: Any, count: int = -1) -> str:
    text = str(text)
    return text.replace(_sought(text, str(old)), str(new), count)


def _held(value: Any) -> Any:
    return list(_METER.get().items(value)) if isinstance(value, Iterator) else value


@pass_context
def _written(context: Any, value: Any) -> Any:
    """Pay for a value that the template writes."""
    _METER.get().pay_for(value)
    return value


def _paid_for(function: Callable[..., Any], growth: Callable[..., None] | None = None) -> Callable[..., Any]:
    """Wrap a filter or test so that it pays for arguments and result; ``growth`` pays in advance for what it adds."""

    def paid(*args: Any, **kwargs: Any) -> Any:
        meter = _METER.get()
        meter.spend(CALL)
        args = tuple(map(_held, args))
        # some filters take the context before the value
        values = args if not hasattr(function, "jinja_pass_arg") else args[1:]
        meter.pay_for(*values, *kwargs.values())
        if growth is not None:
            growth(*values, **kwargs)
        return meter.taken(function(*args, **kwargs))

    return update_wrapper(paid, function)


def _pay_for_copies(value: Any, times: Any) -> None:
    if isinstance(times, int) and isinstance(value, (str, list, tuple, bytes)):
        meter = _METER.get()
        meter.spend(max(times, 0) * (ITEM + len(value) * (1 if isinstance(value, (str, bytes)) else ITEM)))


def _check_power(base: Any, exponent: Any) -> None:
    """Check that the result of ``**`` is small enough to compute quickly."""
    if isinstance(base, int) and isinstance(exponent, int) and exponent > 0:
        check_number(1 << min(base.bit_length() * exponent, 2**20))


def _check_percent(layout: str, *_: Any, **__: Any) -> None:
    """Check the layout of ``'%s' % value``: a width could fill memory."""
    if _PERCENT.search(layout):
        raise SecurityError("formats other than %s, %d and %.2f are not available to chat templates")
    _METER.get().spend(100 * layout.count("%"))


def _replace_growth(text: Any, old: Any, new: Any, *_: Any, **__: Any) -> None:
    text, old, new = str(text), str(old), str(new)
    _METER.get().spend((text.count(old) if old else len(text) + 1) * len(new))


def _join_growth(values: Any, separator: Any = "", *_: Any, **__: Any) -> None:
    if hasattr(values, "__len__"):
        _METER.get().spend(len(values) * len(str(separator)))


def _split_growth(text: str, separator: Any = None, *_: Any, **named: Any) -> None:
    separator = named.get("sep", separator)
    parts = text.count(separator) if isinstance(separator, str) and separator else len(text) // 2
    _METER.get().spend(3 * ITEM * parts)


def _lines_growth(text: str, *_: Any, **__: Any) -> None:
    _METER.get().spend(3 * ITEM * len(text) // 2)


def _method_join_growth(separator: str, values: Any = (), *_: Any, **__: Any) -> None:
    _join_growth(values, separator)


def _indent_growth(text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    size = len(width) if isinstance(width, str) else int(width)
    _METER.get().spend(max(size, 0) * (str(text).count("\n") + 1))


def _list_growth(value: Any, *_: Any, **__: Any) -> None:
    if isinstance(value, str):
        _METER.get().spend(3 * ITEM * len(value))


def _sum_growth(values: Any, *_: Any, **__: Any) -> None:
    if not all(isinstance(value, (int, float, Mapping)) for value in values):
        raise SecurityError("the sum of anything but numbers is not available to chat templates")


def _round_growth(value: Any, precision: Any = 0, *_: Any, **__: Any) -> None:
    if not isinstance(precision, int) or abs(precision) > 20:
        raise SecurityError("rounding to more than 20 digits is not available to chat templates")


def _sort_growth(values: Any, *_: Any, **__: Any) -> None:
    for _again in range(4):
        _METER.get().pay_for(values)


def _tojson_growth(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, *_: Any, **__: Any
) -> None:
    width = len(indent) if isinstance(indent, str) else int(indent or 0)
    if not 0 <= width <= 16 or (separators is not None and max(map(len, separators)) > 16):
        raise SecurityError("tojson with an indent of more than 16 is not available to chat templates")
    for _again in range(4 * width):
        _METER.get().pay_for(value)


_GROWTH: Mapping[str, Callable[..., None]] = {
    "replace": _replace_growth,
    "join": _join_growth,
    "format": _check_percent,
    "indent": _indent_growth,
    "list": _list_growth,
    "sum": _sum_growth,
    "round": _round_growth,
    **dict.fromkeys(("sort", "dictsort", "groupby", "unique"), _sort_growth),
}
"""What filters pay for in addition to their arguments, by name."""
_METHOD_GROWTH: Mapping[str, Callable[..., None]] = {
    "replace": _replace_growth,
    "join": _method_join_growth,
    "split": _split_growth,
    "rsplit": _split_growth,
    "splitlines": _lines_growth,
}
"""The same for the methods of a string."""


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers' ``tojson``: unlike Jinja's, it does not escape HTML."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    return _NOT_ASCII.sub(_escaped, text) if ensure_ascii else text


def _escaped(match: re.Match[str]) -> str:
    """A character as JSON escapes it. Stand-ins stay as they are: what they stand for is never escaped."""
    return match[0] if ord(match[0]) >= STAND_INS.start else json.dumps(match[0])[1:-1]


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    """The current time. Widths are refused: they could fill memory."""
    if not re.fullmatch(f"({_LAYOUT.pattern})*", layout, re.DOTALL):
        raise SecurityError("strftime_now takes %Y, %-d and the like, without widths")
    return datetime.now().strftime(layout)
