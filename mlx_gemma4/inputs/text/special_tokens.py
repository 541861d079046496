"""Finds the tokens that begin a prompt, end an answer, and stand for media.

Several files name them: ``tokenizer_config.json``, ``special_tokens_map.json``, ``generation_config.json`` and
``config.json``. Conversions keep different ones of these, so all are read, and the vocabulary is searched by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mlx_gemma4.checkpoint.files import has_file
from mlx_gemma4.checkpoint.json_file import read_json
from mlx_gemma4.decoder.config import Config, GenerationConfig
from mlx_gemma4.inputs.text.tokenizer import Tokenizer

BOS, EOS = "<bos>", "<eos>"

STOPS = (EOS, "<turn|>", "<end_of_turn>", "<|tool_response>")
"""Tokens that end an answer. ``<|tool_response>`` does, since the caller writes the response and not the model."""
STOP_NAMES = ("eos_token", "eot_token", "str_token")
"""Their keys in ``tokenizer_config.json``: end of text, end of turn, start of a tool's response."""

MEDIA = (
    *("<|image>", "<|image|>", "<image|>", "<|audio>", "<|audio|>", "<audio|>", "<|video>", "<|video|>", "<video|>"),
    *("<start_of_image>", "<image_soft_token>", "<end_of_image>", "<start_of_audio>", "<audio_soft_token>"),
    "<end_of_audio>",
)
"""Placeholders of media, and the markers around them."""
MEDIA_NAMES = (
    *("image_token", "boi_token", "eoi_token", "audio_token", "boa_token", "eoa_token"),
    *("video_token", "bov_token", "eov_token"),
)


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens of a checkpoint that have a function."""

    written: Mapping[str, str]
    """Tokens by their names in templates (``bos_token``, …)."""
    bos_id: int | None
    """The first token of every prompt; None where the checkpoint has no such token."""
    stop_ids: frozenset[int]
    """The tokens that end an answer."""
    media_ids: frozenset[int]
    """The placeholders of media and the markers around them."""

    @property
    def bos(self) -> str:
        """The first token of every prompt as text; empty if there is none."""
        return "" if self.bos_id is None else self.written["bos_token"]

    def control(self, tokenizer: Tokenizer) -> list[str]:
        """All tokens with a function in chats and media, as text."""
        ids = (tokenizer.token(token_id) for token_id in self.stop_ids | self.media_ids)
        return [*self.written.values(), *(token for token in ids if token is not None)]

    @classmethod
    def of(
        cls,
        config: Config,
        tokenizer: Tokenizer,
        *,
        generation: GenerationConfig | None = None,
        named: Mapping[str, str] | None = None,
    ) -> SpecialTokens:
        """Collect the tokens of the config, the tokenizer, ``generation_config.json`` and ``named_tokens``."""
        generation, named = generation or GenerationConfig(), named or {}
        known = (token_id for token_id in _bos_ids(config, tokenizer, generation, named) if token_id is not None)
        bos = next((token_id for token_id in known if tokenizer.token(token_id) is not None), None)
        stops = _ids(tokenizer, [*STOPS, *_values(named, STOP_NAMES)])
        eos = next(iter((*_ids(tokenizer, [named.get("eos_token", EOS), EOS]), *config.eos_token_ids)), None)
        resolved = {
            name: token
            for name, token_id in (("bos_token", bos), ("eos_token", eos))
            if token_id is not None and (token := tokenizer.token(token_id)) is not None
        }
        stop_ids = frozenset((*stops, *config.eos_token_ids, *generation.eos_token_ids))
        media_ids = frozenset((*_config_media(config), *_ids(tokenizer, [*MEDIA, *_values(named, MEDIA_NAMES)])))
        return cls(
            written={**named, **resolved},
            bos_id=bos,
            stop_ids=stop_ids,
            media_ids=media_ids - stop_ids,  # if a config confuses the two, answers must still end
        )


def named_tokens(folder: Path) -> dict[str, str]:
    """Special tokens by name, from ``tokenizer_config.json`` first, then from ``special_tokens_map.json``."""
    named: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        raw = read_json(folder / name) if has_file(folder / name) else {}
        for table in (raw, raw.get("model_specific_special_tokens"), raw.get("extra_special_tokens")):
            if isinstance(table, dict):
                named = {**_written(table), **named}
    return named


def _written(table: Mapping[str, Any]) -> dict[str, str]:
    """The tokens in a table. A token is a text, or an object with the text in "content"."""
    tokens = {}
    for key, value in table.items():
        text = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(text, str):
            tokens[key] = text
    return tokens


def _bos_ids(
    config: Config, tokenizer: Tokenizer, generation: GenerationConfig, named: Mapping[str, str]
) -> Iterator[int | None]:
    """The BOS id of each source, the most explicit source first."""
    if "bos_token" in named:
        yield tokenizer.token_id(named["bos_token"])
    yield config.bos_token_id
    yield generation.bos_token_id
    yield tokenizer.first_id()
    yield tokenizer.token_id(BOS)


def _config_media(config: Config) -> Iterator[int]:
    for field in fields(config.token_ids):
        token_id = getattr(config.token_ids, field.name)
        if token_id is not None:
            yield token_id


def _values(named: Mapping[str, str], names: Iterable[str]) -> list[str]:
    return [named[name] for name in names if name in named]


def _ids(tokenizer: Tokenizer, tokens: Iterable[str]) -> list[int]:
    found = (tokenizer.token_id(token) for token in tokens)
    return [token_id for token_id in found if token_id is not None]
