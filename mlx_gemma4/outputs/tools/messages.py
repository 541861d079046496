"""Results of calls as messages of a chat, where the checkpoint's template takes them.

Google's templates have written them in two ways, in the turn of the model::

    apart    <|tool_call>…<tool_call|><|tool_response>…<tool_response|><|image|>Done.<turn|>
             messages of the role "tool", whose content is text and media; media stand behind their response
    joined   <|tool_call>…<tool_call|><|tool_response>…<tool_response|>⏎⏎<|image|>⏎⏎<turn|>⏎<|turn>model⏎Done.<turn|>
             ``tool_responses`` of the message that calls; media are its content, behind all responses

Where a template takes media in neither place, they follow in a message of the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_gemma4.inputs.messages import Message
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.outputs.tools.result import ToolResult

SHOWS_RESULTS = "shows_results"
"""The key that marks a message of the user as media of results: it begins no turn."""

_ASKED = {"role": "user", "content": "x"}
_CALL = {"type": "function", "id": "a", "function": {"name": "f", "arguments": {}}}
_CALLS = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
_RESPONSES = {**_CALLS, "tool_responses": [{"name": "f", "response": "y"}]}

_ANSWER = {"role": "assistant", "content": "z"}


@dataclass(frozen=True)
class ResultForm:
    """Where a template takes results.

    Attributes:
        joined: In the message that calls, rather than in messages of their own.
        shows_media: Media may stand there, too.
    """

    joined: bool
    shows_media: bool

    @property
    def stands_apart(self) -> bool:
        """Each result with its media has a message of its own."""
        return self.shows_media and not self.joined


def result_form(processor: Processor) -> ResultForm:
    """Find out where the checkpoint's template takes results, by rendering short chats."""

    def rendered(*messages: Message, generates: bool = True) -> str | None:
        try:
            return processor.template.render([_ASKED, *messages], add_generation_prompt=generates)
        except ValueError:  # the template refuses such a chat
            return None

    def shows(*messages: Message) -> bool:
        text = rendered(*messages) or ""
        return bool(tokens) and all(text.count(token) == 1 for token in tokens.values())

    tokens = _placeholders(processor)
    media = [{"type": kind, kind: None} for kind in tokens]
    apart = shows(_CALLS, _tool([{"type": "text", "text": "y"}, *media]))
    if rendered(_RESPONSES) == rendered(_CALLS):
        return ResultForm(joined=False, shows_media=apart)
    answered = rendered({**_RESPONSES, "content": "z"})
    if apart and rendered(_CALLS, _tool("y"), _ANSWER) == answered:
        return ResultForm(joined=False, shows_media=True)
    shown = {**_RESPONSES, "content": media}

    def begins(*messages: Message) -> tuple[str | None, str | None]:
        """What the template writes behind messages where an answer begins: to be given, and given."""
        before, given = rendered(*messages, generates=False), rendered(*messages, _ANSWER, generates=False)
        asked = rendered(*messages)
        if before is None or given is None or asked is None:
            return None, None
        return asked.removeprefix(before), given.removeprefix(before)

    # some templates do not begin the answer behind results, although media have closed their turn
    return ResultForm(joined=True, shows_media=shows(shown) and begins(shown) == begins())


def with_results(
    messages: Sequence[Message], results: Sequence[tuple[str, str, ToolResult]], form: ResultForm
) -> list[Message]:
    """The messages, of which the last one calls, and the results of its calls.

    Args:
        results: (id of the call, name of the function, result), in the order of the calls.
    """
    if form.stands_apart:
        return [*messages, *(_tool(_content(result), call, name) for call, name, result in results)]
    counts: dict[str, int] = {}
    texts = [(call, name, result.numbered(counts)) for call, name, result in results]
    media = [part for *_, result in results for part in result.media]
    if form.joined:
        *before, last = messages
        responses = [{"name": name, "response": text} for _, name, text in texts]
        shown = {"content": media} if media and form.shows_media else {}
        written = [*before, {**last, "tool_responses": responses, **shown}]
    else:
        written = [*messages, *(_tool(text, call, name) for call, name, text in texts)]
    if media and not form.shows_media:
        written.append({"role": "user", "content": media, SHOWS_RESULTS: True})
    return written


def _tool(content: Any, call: str = "a", name: str = "f") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call, "name": name, "content": content}


def _content(result: ToolResult) -> str | list[Mapping[str, Any]]:
    return [{"type": "text", "text": result.text}, *result.media] if result.media else result.text


def _placeholders(processor: Processor) -> dict[str, str]:
    """The media that the checkpoint takes, and the tokens that stand for them in a rendered prompt."""
    ids = processor.config.token_ids
    tokens = {
        kind: None if token_id is None else processor.tokenizer.token(token_id)
        for kind, token_id in (("image", ids.image), ("audio", ids.audio))
    }
    return {kind: token for kind, token in tokens.items() if token is not None}
