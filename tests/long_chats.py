"""Long conversations with scripted answers, and what each turn computes.

    python tests/long_chats.py --turns 20 --answer 600

Prints, for each checkpoint and template, the positions that every turn computed: its own new ones (message and answer),
those of the answer before it that the template writes otherwise the second time, and all others.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

if __name__ == "__main__":
    os.environ["MLX_ENABLE_TF32"] = "0"

import mlx.core as mx
import numpy as np
from conftest import loaded
from reference_cases import media_file

from mlx_gemma4 import Conversation, Model, Processor, Session
from mlx_gemma4.decoder.budget import Budget
from mlx_gemma4.inputs.text.template import ChatTemplate
from mlx_gemma4.outputs.sample import Sampler

LIKE_12B = """{{ bos_token }}{% for message in messages %}<|turn>{{ 'model' if message.role == 'assistant' else message.role }}
{% if message.content is string %}{{ message.content | trim }}{% else %}{% for part in message.content %}
{%- if part.type == 'text' %}{{ part.text | trim }}{% elif part.type == 'audio' %}<|audio|>{% else %}

<|{{ part.type }}|>

{% endif %}{% endfor %}{% endif %}<turn|>
{% endfor %}{% if add_generation_prompt %}<|turn>model
<|channel>thought
<channel|>{% endif %}"""  # noqa: E501
"""Writes what the 12B's template writes: texts are trimmed, and an answer begins with an empty thought, which its
history does not have."""

WORDS = ("seven", "red", "circles", "go", "back", "three", "blue", "squares")


def two_layers() -> tuple[Model, Processor]:
    """A sliding layer with a window of 16 and a full one, of random weights: a token takes a tenth of the time."""
    released, processor = loaded("released")
    text = released.config.text_config
    mx.random.seed(3)
    model = Model(replace(released.config, text_config=replace(text, layers=text.layers[4:6])))
    mx.eval(model.parameters())
    return model, processor


def like_12b(checkpoint: tuple[Model, Processor]) -> tuple[Model, Processor]:
    """A checkpoint with that template."""
    model, processor = checkpoint
    return model, Processor(processor.config, processor.tokenizer, ChatTemplate(LIKE_12B, {"bos_token": "<bos>"}))


def answer_tokens(processor: Processor, length: int, turn: int) -> list[int]:
    """An answer of ``length`` tokens, other words in each turn, and the token that ends it."""
    words = WORDS[turn % len(WORDS) :] + WORDS[: turn % len(WORDS)]
    ids = processor.tokenizer.encode(" ".join(words[index % len(words)] for index in range(length)))[:length]
    return [*ids, processor.tokenizer.token_id("<turn|>") or 0]


@contextmanager
def scripted(tokens: Sequence[int]) -> Iterator[None]:
    """The model chooses these tokens, whatever its logits are."""
    left = iter(tokens)
    choose = Sampler.__call__
    Sampler.__call__ = lambda self, logits: mx.array(next(left, tokens[-1]))  # type: ignore[method-assign]
    try:
        yield
    finally:
        Sampler.__call__ = choose  # type: ignore[method-assign]


@dataclass
class Turn:
    """Positions that a turn computed."""

    own: int
    """Its message, what the template writes around it, and its answer."""
    read_again: int
    """The answer before it, if the template writes it otherwise in the history."""
    other: int


def take_turn(conversation: Conversation, responses: Any, length: int, number: int) -> Turn:
    """Run a turn with a scripted answer of ``length`` tokens."""
    session, processor = conversation.session, conversation._processor
    computed = session.computed - conversation._settled
    with scripted(answer_tokens(processor, length, number)):
        for _ in responses:
            pass
    messages = conversation.messages
    user = max(index for index, message in enumerate(messages) if message["role"] == "user")
    asked = processor.prompt(messages[: user + 1])
    before = processor.prompt(messages[:user], add_generation_prompt=False) if user else asked[:0]
    own = len(asked) - len(before) + length
    other = session.computed - computed - own
    answered = processor.prompt(messages[: user - 1]) if user > 1 else asked[:0]
    is_written_otherwise = answered.common_prefix(before) < len(answered)
    read_again = length if is_written_otherwise and other >= length else 0
    return Turn(own, read_again, other - read_again)


def distance(conversation: Conversation) -> float:
    """The largest difference between the logits of the conversation, from here on, and those of a fresh session."""
    for _ in conversation.settle():
        pass
    session, fresh = conversation.session, Session(conversation.session.model)
    fresh.extend(conversation._processor.prompt(conversation.messages, add_generation_prompt=False))
    assert session.position == fresh.position
    mark = session.mark()
    after = [np.array(each.extend([20, 21, 22], logits_from=0).astype(mx.float32)) for each in (session, fresh)]
    session.rewind(mark)
    return float(np.abs(after[0] - after[1]).max())


def content(number: int) -> Any:
    """A picture in the first turn, sound in the second, then text."""
    if number == 0:
        return [{"type": "image", "image": media_file("picture-01.png")}, {"type": "text", "text": "what is this"}]
    if number == 1:
        return [{"type": "text", "text": "write"}, {"type": "audio", "audio": media_file("pico-04.wav")}]
    return f"go back {WORDS[number % len(WORDS)]}"


def main() -> None:
    parser = argparse.ArgumentParser(description="What the turns of a long conversation compute.")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--answer", type=int, default=600, help="tokens of each answer (default: 600)")
    options = parser.parse_args()
    for name, checkpoint in (("demo", loaded("demo")), ("window 16", loaded("released"))):
        checkpoint[0].budget = Budget()  # the demo's own context has 4,096 positions
        for template, each in (("its template", checkpoint), ("like the 12B's", like_12b(checkpoint))):
            conversation = Conversation(*each)
            report(f"{name}, {template}", conversation, options.turns, options.answer)


def report(title: str, conversation: Conversation, turns: int, length: int) -> None:
    def show(what: str, turn: Turn) -> None:
        print(f"{what:>14}: own {turn.own:4}, answer read again {turn.read_again:4}, others {turn.other:4}", flush=True)

    print(f"{title} (window {conversation.session.model.config.text_config.sliding_window})")
    for number in range(turns):
        show(
            f"turn {number + 1}",
            take_turn(conversation, conversation.ask(content(number), max_tokens=length + 9), length, number),
        )
    print(f"  logits differ by {distance(conversation):.1e} from a fresh session; {conversation.session.position} held")
    show("regenerated", take_turn(conversation, conversation.regenerate(max_tokens=length + 9), length, turns))
    print(f"  logits differ by {distance(conversation):.1e}")
    show("next turn", take_turn(conversation, conversation.ask(content(turns), max_tokens=length + 9), length, turns))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "chat"
        conversation.save(file)
        size = file.stat().st_size
        other = Conversation.load(conversation.session.model, conversation._processor, file)
    show("restarted", take_turn(other, other.ask(content(turns + 1), max_tokens=length + 9), length, turns + 1))
    print(f"  logits differ by {distance(other):.1e}; the file has {size / 1e6:.1f} MB")
    show(
        f"turn {turns // 2} edited",
        take_turn(other, other.edit(turns // 2 - 1, "three blue squares", max_tokens=length + 9), length, 5),
    )
    print(f"  logits differ by {distance(other):.1e}")
    show("next turn", take_turn(other, other.ask(content(2), max_tokens=length + 9), length, 6))


if __name__ == "__main__":
    main()
