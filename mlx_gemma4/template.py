"""The checkpoint's own chat template: messages to text. Knows nothing of tokens or media beyond their names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mlx_gemma4.special_tokens import named_tokens
from mlx_gemma4.template_files import DEFAULT, TOOL_USE, read_templates

if TYPE_CHECKING:
    from jinja2 import Template

Message = Mapping[str, Any]
"""``{"role": …, "content": text or a list of {"type": "text" | "image" | "audio" | "video", …}}``."""


NO_TEMPLATE = (
    "This checkpoint has no default chat template (chat_template.jinja), and a chat needs one. Copy the file from the "
    "instruction-tuned model, or let the model continue plain text with generate --ignore-chat-template"
)


class ChatTemplate:
    """A Jinja template in a sandbox, with the functions that transformers gives to templates."""

    def __init__(
        self, source: str | None, variables: Mapping[str, str], *, tool_source: str | None = None, begin: str = ""
    ) -> None:
        """
        Args:
            source: None where there is no template: then ``render`` says so.
            variables: The special tokens by name (``bos_token``, …).
            tool_source: Another template, for chats with tools.
            begin: What every chat begins with (BOS), whether the template writes it or not.
        """
        self.source = source
        self._tool_source = tool_source
        self._variables = dict(variables)
        self._begin = begin
        self._compiled: dict[str, Template] = {}

    @classmethod
    def from_folder(cls, folder: Path, variables: Mapping[str, str] | None = None, *, begin: str = "") -> ChatTemplate:
        """Read a checkpoint's templates (``template_files``), and its special tokens unless they are given.

        Raises:
            ValueError: A file is broken; the message names it.
        """
        templates = read_templates(folder)
        named = named_tokens(folder) if variables is None else variables
        return cls(templates.get(DEFAULT), named, tool_source=templates.get(TOOL_USE), begin=begin)

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
            ValueError: There is no template, or it refuses the messages; its own words are in the message.
        """
        source = self._tool_source if tools and self._tool_source is not None else self.source
        if source is None:
            raise ValueError(NO_TEMPLATE)
        try:
            if source not in self._compiled:
                self._compiled[source] = _environment().from_string(source)
            text: str = self._compiled[source].render(
                messages=_plain(list(messages)),
                tools=_plain(tools),
                add_generation_prompt=add_generation_prompt,
                enable_thinking=enable_thinking,
                **self._variables,
            )
        except Exception as error:  # a template is a program of its own, and raises what it likes
            raise ValueError(f"The checkpoint's chat template cannot render these messages: {error}") from error
        return text if text.lstrip().startswith(self._begin) else self._begin + text


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
