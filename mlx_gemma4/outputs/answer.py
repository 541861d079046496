"""Greedy decoding with a draft: a guess of the answer is checked in one forward, and kept as far as it is right.

    forward over     question   the   cat   sat   down       one forward; the session now holds all of it
    model's choice              the   cat   sits  on    …    after each position: the greedy next token
    agrees                       ✓     ✓     ✗
    kept                        the   cat   sits             "sits" is right: everything before it was as decoded
    rewind to                              ^                 "sat" and "down" leave the cache
    then                                          on   the   one forward for each further token

The tokens are those of decoding one by one, in fewer forwards. The exception is a tie: a forward over several
positions rounds differently from one over a single position, so where two tokens are equally likely to the last bit of
the precision, either may be chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.outputs.channels import Channels
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.outputs.guards import loop_start
from mlx_gemma4.outputs.sample import Sampler
from mlx_gemma4.outputs.steps import generate_step
from mlx_gemma4.session import Session

PATIENCE = 12
"""Tokens that are waited for before the next one is queued. Queuing hides what the host does, which is about a tenth
of a token, and computes one token too many in each answer; most answers to a draft lack only a few tokens."""


def answer(
    session: Session,
    question: Prompt,
    sampler: Sampler,
    *,
    stop_ids: Collection[int],
    max_tokens: int,
    draft: Sequence[int] = (),
    drafter: Drafter | None = None,
) -> list[int]:
    """Decode the answer to ``question``, up to a stop token (included), a loop, or ``max_tokens``.

    Takes one forward for the question and the draft, then at most one for each token after the first that the draft
    got wrong. The caller rewinds the session, which ends somewhere after the question.

    Args:
        draft: A guess of the answer's tokens; it changes the speed, not the answer.
        drafter: Guesses the tokens that ``draft`` got wrong.
    """
    most = max_tokens - 1
    if session.context is not None:
        most = min(most, session.context - session.position - len(question))
    draft = list(draft[: max(most, 0)])
    prompt = question + Prompt.from_tokens(draft) if draft else question
    history = [*draft, *question.token_ids.tolist()]
    drafts = None if drafter is None else drafter.begin(session, history, sampler.suppressed)
    logits = session.extend(prompt, logits_from=len(question) - 1)
    steps = generate_step(
        session,
        session.row_logits(1 + len(draft)) if draft else logits[0],
        sampler,
        max_tokens=max_tokens,
        draft=draft,
        drafts=drafts,
        patience=PATIENCE,
    )
    tokens: list[int] = []
    for token in steps:
        tokens.append(token)
        if token in stop_ids or loop_start(tokens) is not None:
            break
    steps.close()
    return tokens


def text_of(tokens: Sequence[int], processor: Processor, question: Prompt) -> str:
    """The text of an answer, without thoughts, tool calls and stop tokens; of a loop, the first round only.

    Args:
        question: The end of the prompt. A thought may be open in it.
    """
    channels = Channels(processor.tokenizer, prompt=question.token_ids.tolist())
    spoken = [token for token in tokens[: loop_start(tokens)] if token not in processor.stop_ids]
    pieces = [piece for token in spoken for piece in channels.push(token)]
    return "".join(text for kind, text in [*pieces, *channels.flush()] if kind == "text").strip()
