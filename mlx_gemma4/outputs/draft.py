"""Greedy decoding with a guess: a draft is read in one forward, and kept as far as greedy decoding agrees.

The tokens are those of decoding one by one; only the number of forwards differs. (A forward over several positions
rounds differently from one over a single position: where two tokens are equally likely to the last bit of the
precision, either may come.)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import mlx.core as mx

from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.channels import Channels
from mlx_gemma4.outputs.guards import loop_start
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.session import Session


def answer(
    session: Session,
    question: Prompt,
    sampler: Sampler,
    *,
    stop_ids: Collection[int],
    max_tokens: int,
    draft: Sequence[int] = (),
) -> list[int]:
    """Tokens after ``question``: up to the one that ends the answer or closes a loop, at most ``max_tokens``.

    Forwards: one for the question and the draft, then one for each token that the draft did not hold. The session
    ends somewhere behind the question: rewind it.
    """
    draft = list(draft[: max_tokens - 1])
    start = session.position + len(question)
    piece = question + Prompt.from_tokens(draft) if draft else question
    logits = session.extend(piece, all_logits=True)[len(question) - 1 :]
    choices = sampler.greedy(logits)
    agreed = next((i for i, (choice, token) in enumerate(zip(choices, draft, strict=False)) if choice != token), None)
    if agreed is not None:
        session.rewind(start + agreed)
        choices = choices[: agreed + 1]
    tokens: list[int] = []
    while True:
        for token in choices:
            tokens.append(token)
            if token in stop_ids or len(tokens) == max_tokens or loop_start(tokens) is not None:
                return tokens
        choices = sampler.greedy(session.step(mx.array(tokens[-1]))[None])


def text_of(tokens: Sequence[int], processor: Processor, question: Prompt) -> str:
    """What an answer says: no thoughts and calls, nothing of the token that ended it, a loop's first round only.

    ``question`` is the end of the prompt, which may open a thought.
    """
    channels = Channels(processor.tokenizer, prompt=question.token_ids.tolist())
    said = [token for token in tokens[: loop_start(tokens)] if token not in processor.stop_ids]
    pieces = [piece for token in said for piece in channels.push(token)]
    return "".join(text for kind, text in [*pieces, *channels.flush()] if kind == "text").strip()
