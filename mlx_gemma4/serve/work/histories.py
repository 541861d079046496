"""Conversations to prompts: the oldest turns leave when the context is full, and what is known is rendered ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import AUDIO, Prompt
from mlx_gemma4.programs.chat import LEAST_ANSWER
from mlx_gemma4.programs.history import turn_starts, without_oldest
from mlx_gemma4.serve.protocols.chat_request import ChatRequest
from mlx_gemma4.serve.protocols.realtime_answers import Truncation
from mlx_gemma4.serve.work.chat import Question
from mlx_gemma4.serve.work.questions import Questions, Tools


@dataclass(frozen=True)
class Fitted:
    """A question, and how many turns have left to make room for its answer."""

    question: Question
    left: int


@dataclass(frozen=True)
class FittedHistory:
    """What the next prompt begins with, and how many turns have left to make room for its answer."""

    prompt: Prompt
    left: int


class Histories:
    """Makes prompts of conversations, in any thread.

    Args:
        answer_tokens: Of an answer without a limit of its own.
    """

    def __init__(self, questions: Questions, processor: Processor, answer_tokens: int) -> None:
        self._questions, self._processor, self._answer_tokens = questions, processor, answer_tokens

    def fit(self, request: ChatRequest, truncation: Truncation) -> Fitted:
        """Prepare an answer.

        Raises:
            Failure: The request cannot be answered.
        """
        tools = self._questions.tools(request)
        prompt, left = self._fitted(request, self._questions.messages(request), tools, truncation, generates=True)
        return Fitted(self._questions.question(request, prompt, tools), left)

    def history(self, request: ChatRequest, truncation: Truncation, *, listens: bool) -> FittedHistory:
        """What the next prompt begins with, as far as it is known.

        Args:
            listens: Sound of the user follows: the prompt ends where its first frame will be.

        Raises:
            Failure: The template refuses the messages, as some do a system message alone.
        """
        tools, messages = self._questions.tools(request), self._questions.messages(request)
        if listens:
            sound = {"type": "audio", "audio": np.zeros(self._processor.frame_samples, np.float32)}
            if messages and messages[-1]["role"] == "user":
                messages[-1] = {**messages[-1], "content": [*messages[-1]["content"], sound]}
            else:
                messages.append({"role": "user", "content": [sound]})
        prompt, left = self._fitted(request, messages, tools, truncation, generates=False)
        if listens:
            prompt = prompt[: int(np.flatnonzero(prompt.token_types == AUDIO)[-1])]
        return FittedHistory(prompt, left)

    def _fitted(
        self,
        request: ChatRequest,
        messages: Sequence[dict[str, Any]],
        tools: Tools | None,
        truncation: Truncation,
        *,
        generates: bool,
    ) -> tuple[Prompt, int]:
        """The prompt without the turns that have to leave, and how many those are. The last turn always stays."""

        def prompt_without(count: int) -> Prompt:
            return self._questions.render(request, without_oldest(messages, count), tools, generates=generates)

        prompt, context = prompt_without(0), self._questions.context
        most = context if truncation.limit is None else min(truncation.limit, context)
        reserve = min(request.limit or self._answer_tokens, most // LEAST_ANSWER)
        turns = len(turn_starts(messages))
        if truncation.retention is None or len(prompt) + reserve <= most or turns < 2:
            return prompt, 0
        left = _fewest(lambda count: len(prompt_without(count)), int(truncation.retention * most), turns - 1)
        return prompt_without(left), left


def _fewest(length: Callable[[int], int], limit: int, most: int) -> int:
    """The fewest turns, 1 to ``most``, without which the rest is within a limit; ``most`` if that is not enough."""
    fewest = 1
    while fewest < most:  # the rest becomes shorter with each turn that leaves
        count = (fewest + most) // 2
        if length(count) <= limit:
            most = count
        else:
            fewest = count + 1
    return fewest
