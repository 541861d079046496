"""The checkpoint's own chat template: messages to text. Knows nothing of tokens or media beyond their names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mlx_gemma4.json_file import read_json

if TYPE_CHECKING:
    from jinja2 import Template

Message = Mapping[str, Any]
"""``{"role": …, "content": text or a list of {"type": "text" | "image" | "audio" | "video", …}}``."""


class ChatTemplate:
    """A Jinja template in a sandbox, with the functions that transformers gives to templates."""

    def __init__(self, source: str, variables: Mapping[str, str]) -> None:
        """``variables`` are the special tokens by name (``bos_token``, …)."""
        self.source = source
        self._variables = dict(variables)
        self._compiled: Template | None = None

    @classmethod
    def from_folder(cls, folder: Path) -> ChatTemplate:
        """Read ``chat_template.jinja``, or the template inside ``tokenizer_config.json`` of older conversions."""
        settings = folder / "tokenizer_config.json"
        table = read_json(settings) if settings.is_file() else {}
        path = folder / "chat_template.jinja"
        source = path.read_text(encoding="utf-8") if path.is_file() else table.get("chat_template")
        if not isinstance(source, str):
            raise ValueError(f"Expected a chat template in {folder} (chat_template.jinja), found none")
        tokens = {key: _written(value) for key, value in table.items() if key.endswith("_token")}
        return cls(source, {key: value for key, value in tokens.items() if value is not None})

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        enable_thinking: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Write the chat out, media as their placeholders.

        Raises:
            ValueError: The template refuses the messages; its own words are in the message.
        """
        try:
            if self._compiled is None:
                self._compiled = _environment().from_string(self.source)
            return self._compiled.render(
                messages=_plain(list(messages)),
                tools=_plain(tools),
                add_generation_prompt=add_generation_prompt,
                enable_thinking=enable_thinking,
                **self._variables,
            )
        except Exception as error:  # a template is a program of its own, and raises what it likes
            raise ValueError(f"The checkpoint's chat template cannot render these messages: {error}") from error


def _written(value: Any) -> str | None:
    """A special token: its text, or an object that holds it."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _plain(value: Any) -> Any:
    """What a template may see of a message: images, arrays and paths have methods that write files."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return f"<{type(value).__name__}>"


def _environment() -> Any:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Unlike Jinja's own filter, this one does not escape HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)
