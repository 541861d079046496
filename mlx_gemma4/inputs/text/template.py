"""Renders messages with the checkpoint's chat template. Of tokens and media it knows only the names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_gemma4.checkpoint.template_files import DEFAULT, TOOL_USE, read_templates
from mlx_gemma4.inputs.messages import Message
from mlx_gemma4.inputs.text.markup import Markup
from mlx_gemma4.inputs.text.special_tokens import named_tokens

MOST_REASON = 300
"""Characters of a template's own error message."""

NO_TEMPLATE = (
    "This checkpoint has no default chat template (chat_template.jinja), and a chat needs one. Copy the file from the "
    "instruction-tuned model, or let the model continue plain text with generate --ignore-chat-template"
)


class ChatTemplate:
    """A Jinja template in a sandbox, with the functions that transformers offers to templates."""

    def __init__(
        self, source: str | None, variables: Mapping[str, str], *, tool_source: str | None = None, begin: str = ""
    ) -> None:
        """
        Args:
            source: The template, or None if there is none: then ``render`` raises.
            variables: The special tokens by name (``bos_token``, …).
            tool_source: Another template for chats with tools, if there is one.
            begin: The token at the beginning of every chat (BOS). It is added if the template does not write it.
        """
        self.source = source
        self._tool_source = tool_source
        self._variables = dict(variables)
        self._begin = begin
        self._renderers: dict[str, Callable[[Mapping[str, Any], Markup | None], str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_renderers": {}}  # compiled templates cannot be pickled

    @classmethod
    def from_folder(cls, folder: Path, variables: Mapping[str, str] | None = None, *, begin: str = "") -> ChatTemplate:
        """Read a checkpoint's templates (``template_files``), and its special tokens unless ``variables`` has them.

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
        markup: Markup | None = None,
    ) -> str:
        """Render a chat, with a placeholder for each medium. ``Processor.render`` quotes the texts first.

        Args:
            markup: The Markup that quoted the texts. The template then finds in them what it would find unquoted.

        Raises:
            ValueError: There is no template, or it refuses the messages; the error has the template's own words.
        """
        from mlx_gemma4.inputs.text.template_sandbox import Environment

        source = self._tool_source if tools and self._tool_source is not None else self.source
        if source is None:
            raise ValueError(NO_TEMPLATE)
        variables = {
            "messages": _plain(list(messages)),
            "tools": _plain(tools),
            "add_generation_prompt": add_generation_prompt,
            "enable_thinking": enable_thinking,
            **self._variables,
        }
        try:
            if source not in self._renderers:
                self._renderers[source] = Environment().renderer(source)
            text = self._renderers[source](variables, markup)
        except Exception as error:  # a template is a program and may raise anything
            message = str(error) if markup is None else markup.unquote(str(error))
            reason = " ".join(message.split())[:MOST_REASON]
            raise ValueError(f"The checkpoint's chat template cannot render these messages: {reason}") from error
        return text if text.lstrip().startswith(self._begin) else self._begin + text


def _plain(value: Any) -> Any:
    """Replace images, arrays and paths by their type's name: they have methods that write files."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return f"<{type(value).__name__}>"
