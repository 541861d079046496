"""``POST /v1/chat/completions``: what a client asks for. Field by field as OpenAI documents it, and vLLM's additions.

Fields that are unknown are ignored. Fields that are known and would change the answer, but cannot be honoured, are
refused: a client that asks for JSON must not get prose.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from mlx_gemma4.serve.protocols.failure import unsupported, wrong
from mlx_gemma4.serve.protocols.wire import read

Count = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

MOST_STOPS, LONGEST_STOP = 16, 1000
"""Stop sequences of a request, and characters of each."""
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Of reasoning; the first two turn thoughts off."""
OFF = ("none", "minimal")
CHOICES = ("auto", "none", "required")
ANY_OBJECT = {"type": "object"}
"""The schema of ``json_object``."""


class Text(msgspec.Struct, tag="text", tag_field="type"):
    text: str


class Refusal(msgspec.Struct, tag="refusal", tag_field="type"):
    refusal: str


class Address(msgspec.Struct):
    url: str
    detail: str | None = None


class Sound(msgspec.Struct):
    data: str
    format: str | None = None


class ImageUrl(msgspec.Struct, tag="image_url", tag_field="type"):
    image_url: Address | str


class VideoUrl(msgspec.Struct, tag="video_url", tag_field="type"):
    video_url: Address | str


class AudioUrl(msgspec.Struct, tag="audio_url", tag_field="type"):
    audio_url: Address | str


class InputAudio(msgspec.Struct, tag="input_audio", tag_field="type"):
    input_audio: Sound


Part = Text | Refusal | ImageUrl | VideoUrl | AudioUrl | InputAudio


class Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] | None = None


class Call(msgspec.Struct):
    function: Function
    id: str | None = None


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class TemplateOptions(msgspec.Struct):
    enable_thinking: bool | None = None


class JsonSchema(msgspec.Struct):
    schema: dict[str, Any] | bool | None = None


class ResponseFormat(msgspec.Struct):
    type: str
    json_schema: JsonSchema | None = None


class ChatRequest(msgspec.Struct):
    """The body of a request."""

    messages: list[Message]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    top_k: int | None = None
    min_p: Share | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    enable_thinking: bool | None = None
    chat_template_kwargs: TemplateOptions | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    functions: list[Any] | None = None

    @property
    def limit(self) -> int | None:
        """The most tokens of the answer, thoughts included; None where the client does not say."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        if self.stop is None:
            return ()
        return tuple(filter(None, [self.stop] if isinstance(self.stop, str) else self.stop))

    @property
    def schema(self) -> dict[str, Any] | bool | None:
        """The JSON schema of the answer; None: it is text."""
        form = self.response_format
        if form is None or form.type == "text":
            return None
        return ANY_OBJECT if form.json_schema is None else form.json_schema.schema

    @property
    def choice(self) -> str | None:
        """One of CHOICES, or the name of a function that must be called; None if it has another form."""
        choice = self.tool_choice
        if choice is None:
            return "auto"
        if isinstance(choice, str):
            return choice if choice in CHOICES else None
        function = choice.get("function", choice)
        name = function.get("name") if isinstance(function, Mapping) else None
        return name if isinstance(name, str) and choice.get("type") == "function" else None

    @property
    def offers_tools(self) -> bool:
        """Whether the model may call functions."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def one_call(self) -> bool:
        """Whether the answer ends behind the first call of a function."""
        return self.parallel_tool_calls is False

    @property
    def thinks(self) -> bool:
        """Whether the model thinks before it answers."""
        if self.enable_thinking is not None:
            return self.enable_thinking
        if self.chat_template_kwargs is not None and self.chat_template_kwargs.enable_thinking is not None:
            return self.chat_template_kwargs.enable_thinking
        return self.reasoning_effort is not None and self.reasoning_effort not in OFF

    @property
    def alternatives(self) -> int | None:
        """How many likely tokens to list beside each token; None: no probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


def read_chat(body: bytes) -> ChatRequest:
    """Read and check a request.

    Raises:
        Failure: A field is wrong, or asks for what is not supported; the message names it.
    """
    request = read(body, ChatRequest)
    check_chat(request)
    return request


def check_chat(request: ChatRequest) -> None:
    """Raise a Failure if a field is wrong, or asks for what is not supported; the message names it."""
    if not request.messages:
        raise wrong("messages", "messages is empty; send at least one message")
    if len(request.stops) > MOST_STOPS or any(len(stop) > LONGEST_STOP for stop in request.stops):
        raise wrong("stop", f"stop takes at most {MOST_STOPS} texts of at most {LONGEST_STOP} characters")
    if request.seed is not None and not 0 <= request.seed < 2**64:
        raise wrong("seed", f"seed must be from 0 to {2**64 - 1}, got {request.seed}")
    if request.top_k is not None and request.top_k < -1:
        raise wrong("top_k", f"top_k must be 0 or more, got {request.top_k}")
    if request.top_logprobs is not None and not request.logprobs:
        raise wrong("top_logprobs", "top_logprobs needs logprobs: true")
    if request.reasoning_effort is not None and request.reasoning_effort not in EFFORTS:
        raise wrong("reasoning_effort", f"reasoning_effort must be one of {', '.join(EFFORTS)}")
    _check_supported(request)


def _check_supported(request: ChatRequest) -> None:
    if request.n not in (None, 1):
        raise unsupported("n", f"n must be 1, got {request.n}: send several requests for several answers")
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(request, name):
            raise unsupported(name, f"{name} is not supported; leave it out, or use repetition_penalty")
    if request.logit_bias:
        raise unsupported("logit_bias", "logit_bias is not supported; leave it out")
    if request.functions:
        raise unsupported("functions", "functions is the old name of tools; send tools")
    _check_format(request)
    check_choice(request)


def _check_format(request: ChatRequest) -> None:
    form = request.response_format
    if form is None or form.type == "text":
        return
    if form.type not in ("json_object", "json_schema"):
        raise unsupported("response_format", "response_format must be text, json_object or json_schema")
    if form.type == "json_schema" and (form.json_schema is None or form.json_schema.schema is None):
        raise wrong("response_format.json_schema", "response_format.json_schema has no schema")


def check_choice(request: ChatRequest) -> None:
    """Raise a Failure if ``tool_choice`` is wrong."""
    if request.choice is None:
        names = ", ".join(CHOICES)
        raise wrong("tool_choice", f"tool_choice must be {names}, or an object with the name of a function")
    if request.choice in ("auto", "none"):
        return
    if not request.tools:
        raise wrong("tool_choice", "tool_choice asks for a call, but there are no tools; send tools")
