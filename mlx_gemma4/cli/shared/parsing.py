"""Options of the command line and of the environment. One rule for every command.

``--guess-every 1`` can be set as ``MLX_GEMMA4_GUESS_EVERY=1``. Typed options win, also over a variable of an option
that they exclude: ``--input`` over ``MLX_GEMMA4_DEVICE``. An empty variable counts as not set.

``--help`` shows the options that most people need and an example, on one screen; ``--help-all`` shows all options.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

from mlx_gemma4.cli.shared.errors import one_line

PREFIX = "MLX_GEMMA4_"
OTHERS = ("TRACEBACK",)
"""Variables that belong to no option."""
EXCLUDES = (
    ("input", "device"),
    ("no_sound", "input"),
    ("no_sound", "device"),
    ("no_sound", "fast"),
    ("no_camera", "camera"),
    ("every", "heartbeat"),
    ("random", "model"),
)
"""Pairs of options of which only one can have an effect."""
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
ENVIRONMENT = (
    f"Every option can be set in the environment: --max-tokens as {PREFIX}MAX_TOKENS, and so on. Typed options win."
)


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations, and defaults from the environment.

    Args:
        common: The options that ``--help`` shows; None: all.
        examples: Command lines.
    """

    def __init__(
        self, *args: Any, common: Collection[str] | None = None, examples: Sequence[str] = (), **options: Any
    ) -> None:
        defaults = {"allow_abbrev": False, "epilog": ENVIRONMENT, "formatter_class": _Formatter}
        super().__init__(*args, **{**defaults, **options})
        self._common = None if common is None else frozenset(common)
        self.examples = examples
        if common is not None:
            self.add_argument("--help-all", action=_HelpAll, help="show all options and exit")

    def format_usage(self) -> str:
        places = [action for action in self._actions if not action.option_strings]
        return " ".join(["usage:", self.prog, "[OPTIONS]", *map(_place, places)]) + "\n"

    def format_help(self) -> str:
        """The common options and examples."""
        if self._common is None:
            return self.format_help_all()
        formatter = self._get_formatter()
        formatter.add_text(self.description)
        for title, is_option_section in (("arguments", False), ("options", True)):
            formatter.start_section(title)
            formatter.add_arguments(
                action
                for action in self._actions
                if bool(action.option_strings) == is_option_section and self._is_common(action)
            )
            formatter.end_section()
        is_complete = all(self._is_common(action) for action in self._actions)
        closing = "" if is_complete else f"{self.prog} --help-all shows all options."
        return self._join(formatter, closing)

    def format_help_all(self) -> str:
        """All options in their groups, and examples."""
        formatter = self._get_formatter()
        formatter.add_text(self.description)
        for group in self._action_groups:
            formatter.start_section("arguments" if group is self._positionals else group.title)
            formatter.add_text(group.description)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
        formatter.add_text(self.epilog)
        return self._join(formatter)

    def _join(self, formatter: argparse.HelpFormatter, closing: str = "") -> str:
        help_text = f"{self.format_usage()}\n{formatter.format_help()}\n{self._format_examples()}{closing}"
        return help_text.rstrip("\n") + "\n"

    def _is_common(self, action: argparse.Action) -> bool:
        assert self._common is not None
        return not action.option_strings or any(name in self._common for name in action.option_strings)

    def _format_examples(self) -> str:
        if not self.examples:
            return ""
        title = "example" if len(self.examples) == 1 else "examples"
        return "\n".join([f"{title}:", *(f"  {example}" for example in self.examples)]) + "\n\n"

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        actions = self._from_environment()
        before = {action.dest: (action.default, action.required) for action in actions}
        for action in actions:
            action.default, action.required = _value(self, action, os.environ[variable(action)]), False
        try:
            parsed, rest = super().parse_known_args(args, namespace)
            typed = self._typed(actions, args) if actions else set()
        finally:
            for action in actions:
                action.default, action.required = before[action.dest]
        unused = {action.dest for action in actions} - typed
        for name in _excluded(parsed, unused, {action.dest: action.default for action in self._actions}):
            setattr(parsed, name, before[name][0])
        return parsed, rest

    def _from_environment(self) -> list[argparse.Action]:
        return [action for action in self._actions if is_option(action) and os.environ.get(variable(action))]

    def _typed(self, actions: Sequence[argparse.Action], args: Sequence[str] | None) -> set[str]:
        """Which of these options stand in ``args``."""
        for action in actions:
            action.default = argparse.SUPPRESS
        return set(vars(super().parse_known_args(args, None)[0]))


class _Formatter(argparse.HelpFormatter):
    """Breaks lines at spaces only, so that a repo id or a file name with hyphens can be copied."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        import textwrap  # only for help texts

        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class _HelpAll(argparse.Action):
    """``--help-all``."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        assert isinstance(parser, Parser)
        print(parser.format_help_all(), end="")
        parser.exit()


def _place(action: argparse.Action) -> str:
    """An argument as a usage line shows it."""
    name = str(action.metavar or action.dest.upper())
    if action.nargs == "?":
        return f"[{name}]"
    if action.nargs == "+":
        return f"{name}..."
    return f"{name} ..." if isinstance(action, argparse._SubParsersAction) else name


def variable(action: argparse.Action) -> str:
    """The environment variable of an option."""
    return f"{PREFIX}{action.dest.upper()}"


def is_option(action: argparse.Action) -> bool:
    """Whether it can be set; not --help and the like."""
    return bool(action.option_strings) and action.dest not in ("help", "version", argparse.SUPPRESS)


def unknown_variables(parser: argparse.ArgumentParser) -> list[str]:
    """Variables with our prefix that belong to no option of any command."""
    known = {variable(action) for action in _all_actions(parser)}
    known |= {f"{PREFIX}{name}" for name in OTHERS}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def _all_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    actions: list[argparse.Action] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                actions += _all_actions(command)
        elif is_option(action):
            actions.append(action)
    return actions


def _excluded(parsed: argparse.Namespace, unused: set[str], defaults: Mapping[str, Any]) -> set[str]:
    """Options set in the environment that a typed option excludes."""
    pairs = [*EXCLUDES, *((second, first) for first, second in EXCLUDES)]
    return {
        second
        for first, second in pairs
        if second in unused and first not in unused and getattr(parsed, first, None) != defaults.get(first)
    }


def _value(parser: Parser, action: argparse.Action, text: str) -> Any:
    """The value of a variable, as the option takes it.

    Raises:
        ValueError: The value has the wrong type, or is not one of the choices.
    """
    name = variable(action)
    if action.nargs == 0:
        return _switch(name, text)
    try:
        value = parser._get_value(action, text)
    except argparse.ArgumentError as error:
        raise ValueError(f"The environment variable {name} is wrong: {error.message}") from error
    if action.choices is not None and value not in action.choices:
        choices = ", ".join(map(str, action.choices))
        raise ValueError(f"The environment variable {name} is {text!r}, but must be one of {choices}")
    return [value] if isinstance(action, argparse._AppendAction) or action.nargs in ("+", "*") else value


def _switch(name: str, text: str) -> bool:
    if text.lower() not in YES + NO:
        raise ValueError(f"The environment variable {name} is {text!r}, but must be one of {', '.join(YES + NO)}")
    return text.lower() in YES
