"""A conversation in one session: each turn computes what is new, whatever the template does to the turns before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlx_gemma4.generation import GREEDY, MAX_TOKENS, GenerationResponse, stream_generate
from mlx_gemma4.model import Model
from mlx_gemma4.processor import Processor
from mlx_gemma4.prompt import Prompt
from mlx_gemma4.sample import Sampling
from mlx_gemma4.session import Session


class Conversation:
    """Messages, and a session that holds them.

    Each turn renders the whole chat anew and keeps what it has in common with the session: templates drop old
    thoughts, and a rebuilt prefix is exactly what a new session would hold.
    """

    def __init__(
        self, model: Model, processor: Processor, *, system: str | None = None, enable_thinking: bool = False
    ) -> None:
        self._model = model
        self._processor = processor
        self._system = system
        self._enable_thinking = enable_thinking
        self.session = Session(model)
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system message."""
        self.messages: list[Mapping[str, Any]] = []
        if self._system is not None:
            self.messages.append({"role": "system", "content": self._system})
        self.session.reset()
        self._held = Prompt.from_tokens([])

    def ask(
        self,
        content: str | Sequence[Mapping[str, Any]],
        *,
        max_tokens: int = MAX_TOKENS,
        sampling: Sampling = GREEDY,
        show_thoughts: bool = False,
    ) -> Iterator[GenerationResponse]:
        """Add a user message and stream the answer.

        Closing the iterator early keeps what was said so far as the answer. An error leaves the conversation as
        it was.
        """
        question = {"role": "user", "content": content}
        prompt = self._processor.prompt([*self.messages, question], enable_thinking=self._enable_thinking)
        kept = self._keep(prompt)
        responses = stream_generate(
            self._model,
            self._processor,
            prompt[kept:],
            max_tokens=max_tokens,
            sampling=sampling,
            thoughts="show" if show_thoughts else "drop",
            session=self.session,
        )
        tokens: list[int] = []
        said = ""
        try:
            for response in responses:
                tokens += response.tokens
                said += response.text if response.kind != "thought" else ""
                yield response
        finally:
            responses.close()
            if tokens:
                self._remember(prompt + Prompt.from_tokens(tokens), question, said)

    def _remember(self, heard: Prompt, question: Mapping[str, Any], answer: str) -> None:
        length = min(len(heard), self.session.position)
        self.session.rewind(length)
        self._held = heard[:length]
        self.messages += [question, {"role": "assistant", "content": answer}]

    def _keep(self, prompt: Prompt) -> int:
        """Rewind the session to what it has in common with ``prompt``; how much that is."""
        kept = min(self._held.common_prefix(prompt), len(prompt) - 1)
        if kept < self.session.earliest:
            self.session.reset()
            kept = 0
        self.session.rewind(kept)
        self._held = self._held[:kept]
        return kept
