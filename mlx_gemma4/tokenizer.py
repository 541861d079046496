"""Text to token ids and back, for both kinds of files that checkpoints ship. Knows nothing of chats or media."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from mlx_gemma4.checkpoint_file import has_file
from mlx_gemma4.tokenizer_file import read_sentencepiece, read_tokenizer_json

REPLACEMENT = "\ufffd"
"""What decoding shows for bytes that are not (yet) a character."""

MARKER = re.compile(r"<(\||start_of_|end_of_)[^<>]+>|<[^<>]+\|>")
"""How special tokens are written; <table> and the like, which vocabularies hold too, are text."""


class Tokenizer(Protocol):
    """The little that this package asks of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``; special tokens written out in it become their ids, none are added."""

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ``token_ids``, without special tokens unless asked for."""

    def token_id(self, token: str) -> int | None:
        """Id of one token written out, or None."""

    def token(self, token_id: int) -> str | None:
        """A token written out, or None where there is no such id."""

    def first_id(self) -> int | None:
        """The token that the tokenizer's own settings put before every text, or None."""


class JsonTokenizer:
    """A ``tokenizer.json``, by the ``tokenizers`` library."""

    def __init__(self, path: Path) -> None:
        import tokenizers

        data = read_tokenizer_json(path)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(data)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"Expected a tokenizer in {path}, got: {_line(error)}") from error
        # fine-tuning tools leave these on, and texts would be cut or filled up
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, text: str) -> list[int]:
        try:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError as error:  # half a surrogate pair, as from arguments that are not UTF-8
            raise ValueError(f"Expected text that can be written as UTF-8, got {text!r}") from error

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=skip_special)

    def token_id(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    def token(self, token_id: int) -> str | None:
        return self._tokenizer.id_to_token(token_id)

    def first_id(self) -> int | None:
        alone, whole = (self._tokenizer.encode("a", add_special_tokens=added).ids for added in (False, True))
        return None if whole[: len(alone)] == alone else whole[0]


class SentencePieceTokenizer:
    """A ``tokenizer.model``, by the ``sentencepiece`` library, with special tokens found in the text."""

    def __init__(self, path: Path) -> None:
        import sentencepiece

        self._pieces = sentencepiece.SentencePieceProcessor()
        data = read_sentencepiece(path)
        try:
            self._pieces.LoadFromSerializedProto(data)
            written = [self._pieces.IdToPiece(index) for index in range(self._pieces.GetPieceSize())]
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            raise ValueError(f"Expected a SentencePiece model in {path}, got: {_line(error)}") from error
        # SentencePiece finds user-defined pieces in text by itself, but not these
        self._control = {
            piece: index
            for index, piece in enumerate(written)
            if self._pieces.IsControl(index) or self._pieces.IsUnknown(index)
        }
        self._special = set(self._control.values())
        self._special |= {index for index, piece in enumerate(written) if MARKER.fullmatch(piece)}
        longest_first = sorted(self._control, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in self._split.split(text):
            if part in self._control:
                ids.append(self._control[part])
            elif part:
                ids.extend(self._pieces.EncodeAsIds(part))
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        text, plain = "", list[int]()
        for token_id in token_ids:
            if token_id >= self._pieces.GetPieceSize():
                continue  # models have more rows than there are pieces
            if token_id not in self._special:
                plain.append(token_id)
            elif not skip_special:
                text += self._pieces.DecodeIds(plain) + self._pieces.IdToPiece(token_id)
                plain = []
        text += self._pieces.DecodeIds(plain)
        return text

    def token_id(self, token: str) -> int | None:
        found: int = self._pieces.PieceToId(token)
        return None if found == self._pieces.unk_id() and token != self._pieces.IdToPiece(found) else found

    def token(self, token_id: int) -> str | None:
        if not 0 <= token_id < self._pieces.GetPieceSize():
            return None
        return self._pieces.IdToPiece(token_id)

    def first_id(self) -> int | None:
        found: int = self._pieces.bos_id()
        return None if found < 0 else found


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder: its ``tokenizer.json``, or else its ``tokenizer.model``."""
    if has_file(folder / "tokenizer.json"):
        return JsonTokenizer(folder / "tokenizer.json")
    if has_file(folder / "tokenizer.model"):
        return SentencePieceTokenizer(folder / "tokenizer.model")
    raise ValueError(f"Expected a tokenizer.json or tokenizer.model in {folder}, found neither")


def _line(error: Exception) -> str:
    """A library's error in one line."""
    text = "".join(each if each.isprintable() else " " for each in str(error))
    return " ".join(text.split())[:300]


class Detokenizer:
    """Token ids in, text out as soon as its characters are whole; the pieces joined are the text of all ids."""

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        # ids [context:shown] are already shown and give those after them their spacing
        self._ids: list[int] = []
        self._shown = 0

    def push(self, token_id: int) -> str:
        """Take a token, return the text that is complete with it, possibly empty."""
        self._ids.append(token_id)
        text = self._new_text()
        if text.endswith(REPLACEMENT):
            return ""
        return self._show(text)

    def flush(self) -> str:
        """Return what is left: bytes that never became a character show as U+FFFD."""
        return self._show(self._new_text())

    def _new_text(self) -> str:
        shown, text = self._decode(self._ids[: self._shown]), self._decode(self._ids)
        if text.startswith(shown):
            return text[len(shown) :]
        # byte-fallback decoders give up a whole run of bytes where its last character is cut short
        return self._decode(self._ids[self._shown :])

    def _show(self, text: str) -> str:
        if text:
            self._ids, self._shown = self._ids[self._shown :], len(self._ids) - self._shown
        return text

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special=self._skip_special)
