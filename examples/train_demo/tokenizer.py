"""The demo's tokenizer: byte-level BPE of the texts, with Gemma 4's markers, and a chat template."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from . import texts

SPECIAL = (
    *("<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|image>", "<|image|>", "<image|>"),
    *("<|audio>", "<|audio|>", "<audio|>", "<|video|>"),
)
VOCABULARY = 640
TEMPLATE = """\
{{ bos_token }}\
{% for message in messages %}\
{{ '<|turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}\
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for part in message['content'] %}\
{% if part['type'] == 'text' %}{{ part['text'] }}\
{% elif part['type'] == 'audio' %}{{ '<|audio|>' }}\
{% elif part['type'] == 'image' %}{{ '<|image|>' }}\
{% elif part['type'] == 'video' %}{{ '<|video|>' }}{% endif %}\
{% endfor %}{% endif %}\
{{ '<turn|>\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|turn>model\\n' }}{% endif %}"""


def make_tokenizer(folder: Path) -> None:
    """Train the tokenizer and save it; the same every time."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={
            "image_token": "<|image|>",
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "audio_token": "<|audio|>",
            "boa_token": "<|audio>",
            "eoa_token": "<audio|>",
            "sot_token": "<|turn>",
            "eot_token": "<turn|>",
        },
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)


def load_tokenizer(folder: Path) -> Any:
    return PreTrainedTokenizerFast.from_pretrained(folder)


def _corpus() -> Iterator[str]:
    random = Random(0)
    prompts = (*texts.TRANSCRIBE, *texts.DESCRIBE, *texts.CHANGED, *texts.ASK, *sum(texts.TYPED.values(), ()))
    for _ in range(3000):
        yield texts.random_text(random)
        yield random.choice(prompts)
        yield from ("user\n", "model\n", "system\n")
        colour, shape, place = (random.choice(each) for each in (texts.COLOURS, texts.SHAPES, texts.PLACES))
        yield texts.named(colour, shape, place)
        yield f"{colour} {shape}"
        yield f"it turned {colour}"
        yield f"it became a {shape}"
        yield "it moved to the " + place
        yield "nothing changed"
        for word in (*texts.WORDS, *texts.COLOURS, *texts.SHAPES, *texts.PLACES):
            yield from (word, f"a {word}")
