"""How the answers of a Realtime conversation are made: settings of the session, which one answer may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from mlx_gemma4.outputs.tools.declarations import check_declarations
from mlx_gemma4.serve.protocols.chat_request import EFFORTS, ChatRequest, Message, check_choice
from mlx_gemma4.serve.protocols.failure import unsupported, wrong

MODALITIES = ["text"]
"""Of answers, whatever a client asks for: the model does not speak. Sessions and responses say so."""
NO_LIMIT: Literal["inf"] = "inf"
RETENTION = 0.5
"""The part of the context that is kept when the oldest turns leave."""

Maybe = msgspec.UnsetType


class Reasoning(msgspec.Struct):
    effort: str | None = None


class AnswerFields(msgspec.Struct):
    """What a client may say of answers. ``output_modalities`` may be ["audio"], which some clients always send."""

    instructions: str | Maybe | None = msgspec.UNSET
    tools: list[dict[str, Any]] | Maybe | None = msgspec.UNSET
    tool_choice: str | dict[str, Any] | Maybe | None = msgspec.UNSET
    max_output_tokens: int | str | Maybe | None = msgspec.UNSET
    output_modalities: list[str] | Maybe | None = msgspec.UNSET
    parallel_tool_calls: bool | Maybe | None = msgspec.UNSET
    reasoning: Reasoning | Maybe | None = msgspec.UNSET
    truncation: str | dict[str, Any] | Maybe | None = msgspec.UNSET


@dataclass(frozen=True)
class Truncation:
    """What happens when the context is full."""

    retention: float | None = RETENTION
    """The part of it that is kept when the oldest turns leave; None: nothing leaves, and the answer fails."""
    limit: int | None = None
    """Tokens of the conversation, instead of the whole context."""


@dataclass(frozen=True)
class Answers:
    """The settings."""

    instructions: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    """As the client sent them."""
    tool_choice: str | Mapping[str, Any] = "auto"
    max_output_tokens: int | Literal["inf"] = NO_LIMIT
    parallel_tool_calls: bool = True
    effort: str | None = None
    truncation: str | Mapping[str, Any] = "auto"

    def updated(self, fields: AnswerFields, where: str) -> Answers:
        """These settings with the changes of a client; null sets a default.

        Args:
            where: What the fields belong to, for messages.

        Raises:
            Failure: A setting is wrong; none is changed.
        """
        default = Answers()
        changed = self
        for name in ("instructions", "tool_choice", "max_output_tokens", "parallel_tool_calls", "truncation"):
            value = getattr(fields, name)
            if not isinstance(value, Maybe):
                changed = replace(changed, **{name: getattr(default, name) if value is None else value})
        if not isinstance(fields.tools, Maybe):
            changed = replace(changed, tools=tuple(fields.tools or ()))
        if not isinstance(fields.reasoning, Maybe):
            changed = replace(changed, effort=None if fields.reasoning is None else fields.reasoning.effort)
        changed._check(fields, where)
        return changed

    def record(self) -> dict[str, Any]:
        """The settings, as events tell them."""
        told = {
            "output_modalities": MODALITIES,
            "instructions": self.instructions,
            "tools": [dict(tool) for tool in self.tools],
            "tool_choice": self.tool_choice,
            "max_output_tokens": self.max_output_tokens,
            "truncation": self.truncation,
        }
        return told if self.effort is None else {**told, "reasoning": {"effort": self.effort}}

    def request(self, messages: Sequence[Message]) -> ChatRequest:
        """What asks for an answer to these messages."""
        return ChatRequest(
            messages=list(messages),
            max_tokens=None if isinstance(self.max_output_tokens, str) else self.max_output_tokens,
            tools=[_function(tool) for tool in self.tools] or None,
            tool_choice=self.tool_choice if isinstance(self.tool_choice, str) else dict(self.tool_choice),
            parallel_tool_calls=self.parallel_tool_calls,
            reasoning_effort=self.effort,
        )

    @property
    def room(self) -> Truncation:
        """What happens when the context is full.

        Raises:
            Failure: The setting is wrong.
        """
        return _truncation(self.truncation)

    def _check(self, fields: AnswerFields, where: str) -> None:
        for modality in fields.output_modalities or () if not isinstance(fields.output_modalities, Maybe) else ():
            if modality not in ("text", "audio"):
                raise wrong(f"{where}.output_modalities", f"{where}.output_modalities must be text or audio")
        limit = self.max_output_tokens
        if limit != NO_LIMIT and (isinstance(limit, str) or limit < 1):
            raise wrong(f"{where}.max_output_tokens", f'{where}.max_output_tokens must be 1 or more, or "inf"')
        if self.effort is not None and self.effort not in EFFORTS:
            raise wrong(f"{where}.reasoning.effort", f"reasoning.effort must be one of {', '.join(EFFORTS)}")
        for index, tool in enumerate(self.tools):
            if tool.get("type", "function") != "function":
                raise unsupported(
                    f"{where}.tools[{index}].type", f"{where}.tools[{index}].type must be function: others run nowhere"
                )
        try:
            check_declarations([_function(tool) for tool in self.tools], f"{where}.tools")
        except ValueError as error:
            raise wrong(f"{where}.tools", str(error)) from error
        check_choice(self.request(()))
        _truncation(self.truncation)


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A function as Chat Completions declare it."""
    if isinstance(tool.get("function"), Mapping):
        return dict(tool)
    return {"type": "function", "function": {key: tool[key] for key in tool if key not in ("type", "strict")}}


def _truncation(setting: str | Mapping[str, Any]) -> Truncation:
    where = "session.truncation"
    if setting == "auto":
        return Truncation()
    if setting == "disabled":
        return Truncation(retention=None)
    if isinstance(setting, str) or setting.get("type") != "retention_ratio":
        raise wrong(where, f"{where} must be auto, disabled, or an object of the type retention_ratio")
    ratio = setting.get("retention_ratio")
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio <= 1:
        raise wrong(f"{where}.retention_ratio", f"{where}.retention_ratio must be from 0 to 1")
    limits = setting.get("token_limits") or {}
    limit = limits.get("post_instructions") if isinstance(limits, Mapping) else 0
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise wrong(f"{where}.token_limits", f"{where}.token_limits.post_instructions must be 1 or more")
    return Truncation(float(ratio), limit)
