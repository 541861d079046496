"""Which tokens begin a prompt, end an answer, and stand for media: told by several files, any of which may be missing.

Conversions and exports keep different ones of ``tokenizer_config.json``, ``special_tokens_map.json``,
``generation_config.json`` and the ids in ``config.json``. All of them are asked, and the vocabulary itself.
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
"""What ends an answer, by its name. A tool's response is for the caller to write, never for the model."""
STOP_NAMES = ("eos_token", "eot_token", "str_token")
"""What tokenizer_config.json calls them."""

MEDIA = (
    *("<|image>", "<|image|>", "<image|>", "<|audio>", "<|audio|>", "<audio|>", "<|video>", "<|video|>", "<video|>"),
    *("<start_of_image>", "<image_soft_token>", "<end_of_image>", "<start_of_audio>", "<audio_soft_token>"),
    "<end_of_audio>",
)
"""What stands for media and around them, by its name."""
MEDIA_NAMES = (
    *("image_token", "boi_token", "eoi_token", "audio_token", "boa_token", "eoa_token"),
    *("video_token", "bov_token", "eov_token"),
)


@dataclass(frozen=True)
class SpecialTokens:
    """What a checkpoint's tokens are for."""

    written: Mapping[str, str]
    """Tokens by the names that templates use (``bos_token``, …)."""
    bos_id: int | None
    """What every prompt begins with; None where the checkpoint has no such token."""
    stop_ids: frozenset[int]
    """Every token that ends an answer."""
    media_ids: frozenset[int]
    """Every token that stands for a medium, or before or behind one."""

    @property
    def bos(self) -> str:
        """What every prompt begins with, written; empty where there is none."""
        return "" if self.bos_id is None else self.written["bos_token"]

    def control(self, tokenizer: Tokenizer) -> list[str]:
        """All tokens that have a part in the format of chats and media, written out."""
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
        """Ask the config, the tokenizer, ``generation_config.json``, and tokens by name (``named_tokens``)."""
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
            media_ids=media_ids - stop_ids,  # a config that takes one for the other must not make answers endless
        )


def named_tokens(folder: Path) -> dict[str, str]:
    """Special tokens by name, of ``tokenizer_config.json``, and what only ``special_tokens_map.json`` names."""
    named: dict[str, str] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        raw = read_json(folder / name) if has_file(folder / name) else {}
        for table in (raw, raw.get("model_specific_special_tokens"), raw.get("extra_special_tokens")):
            if isinstance(table, dict):
                named = {**_written(table), **named}
    return named


def _written(table: Mapping[str, Any]) -> dict[str, str]:
    """The tokens in a table: their text, or an object that holds it."""
    tokens = {}
    for key, value in table.items():
        text = value.get("content") if isinstance(value, dict) else value
        if key.endswith("_token") and isinstance(text, str):
            tokens[key] = text
    return tokens


def _bos_ids(
    config: Config, tokenizer: Tokenizer, generation: GenerationConfig, named: Mapping[str, str]
) -> Iterator[int | None]:
    """What each source takes for the first token, the most explicit source first."""
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
