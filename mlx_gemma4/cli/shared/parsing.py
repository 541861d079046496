"""Options of the command line and of the environment. One rule for every command.

``--guess-every 1`` may be set as ``MLX_GEMMA4_GUESS_EVERY=1``. What is typed wins, also over a variable of an option
that excludes it: ``--input`` over ``MLX_GEMMA4_DEVICE``. An empty variable is none.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from mlx_gemma4.cli.shared.messages import one_line

PREFIX = "MLX_GEMMA4_"
OTHERS = ("TRACEBACK",)
"""Variables that are no options."""
EXCLUDES = (
    ("input", "device"),
    ("no_sound", "input"),
    ("no_sound", "device"),
    ("no_sound", "fast"),
    ("no_camera", "camera"),
    ("every", "heartbeat"),
)
"""Options that mean nothing beside each other."""
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
ENVIRONMENT = (
    f"Every option can be set in the environment: --max-tokens as {PREFIX}MAX_TOKENS, and so on. Typed options win."
)


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations, and defaults from the environment."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, "epilog": ENVIRONMENT, **options})

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


def variable(action: argparse.Action) -> str:
    """The environment variable of an option."""
    return f"{PREFIX}{action.dest.upper()}"


def is_option(action: argparse.Action) -> bool:
    """Something that can be set; not --help and the like."""
    return bool(action.option_strings) and action.dest not in ("help", "version")


def unknown_variables(parser: argparse.ArgumentParser) -> list[str]:
    """Variables with our prefix that set no option of any command."""
    known = {variable(action) for action in _all_actions(parser)}
    known |= {f"{PREFIX}{name}" for name in OTHERS}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def _all_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    found: list[argparse.Action] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                found += _all_actions(below)
        elif is_option(action):
            found.append(action)
    return found


def _excluded(parsed: argparse.Namespace, unused: set[str], defaults: Mapping[str, Any]) -> set[str]:
    """Options of the environment that a typed option excludes."""
    pairs = [*EXCLUDES, *((second, first) for first, second in EXCLUDES)]
    return {
        second
        for first, second in pairs
        if second in unused and first not in unused and getattr(parsed, first, None) != defaults.get(first)
    }


def _value(parser: Parser, action: argparse.Action, text: str) -> Any:
    """What a variable means for an option.

    Raises:
        ValueError: It is not of the option's type, or none of its choices.
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
