"""Text to token ids and back, from ``tokenizer.json`` or ``tokenizer.model``. Knows nothing of chats or media."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mlx_gemma4.checkpoint.files import has_file
from mlx_gemma4.inputs.text.markup import MARKER, Markup, is_blank
from mlx_gemma4.inputs.text.spelling import spelled, speller
from mlx_gemma4.inputs.text.tokenizer_file import as_control, read_sentencepiece, read_tokenizer_json

REPLACEMENT = "\ufffd"
"""Decoders write this for bytes that are not, or not yet, a character."""

MOST_BYTES = 4
"""Bytes of a UTF-8 character, at most. If this many tokens wait, the first of them cannot be part of the last one's."""


class Tokenizer(Protocol):
    """What this package needs from a tokenizer."""

    @property
    def markup(self) -> Markup:
        """Quotes and splits with the control tokens of this tokenizer."""

    def reserve(self, tokens: Iterable[str]) -> None:
        """Add control tokens. Those that the vocabulary does not have are ignored."""

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, which never becomes a control token: ``<eos>`` is encoded as five characters.

        Raises:
            ValueError: The text has half a surrogate pair, which UTF-8 cannot write.
        """

    def encode_markup(self, markup: str) -> list[int]:
        """Ids of ``markup``: control tokens become their ids, quoted text stays text. Nothing (no BOS) is added."""

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ``token_ids``; ``skip_special=False`` keeps the control tokens in it."""

    def token_id(self, token: str) -> int | None:
        """The id of a token, or None where the vocabulary does not have it."""

    def token(self, token_id: int) -> str | None:
        """The token of an id, or None where there is no such id."""

    def first_id(self) -> int | None:
        """The id that the tokenizer's own settings put before every text, or None."""

    def spellings(self, count: int) -> list[bytes | None]:
        """The bytes that the tokens 0 to ``count - 1`` write; None for control tokens and ids without a token.

        Raises:
            ValueError: What a token writes depends on its neighbours.
        """


class JsonTokenizer:
    """A ``tokenizer.json``, by the ``tokenizers`` library."""

    def __init__(self, path: Path) -> None:
        import tokenizers

        data = read_tokenizer_json(path)
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(data)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"Cannot read the tokenizer in {path}: {_line(error)}") from error
        # fine-tuning tools save these settings; they would cut or pad every text
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._free_blanks()
        self._reserve(self._own_control())

    def __getstate__(self) -> dict[str, Any]:
        return {"tokenizer": self._tokenizer, "control": list(self._control)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._tokenizer = state["tokenizer"]
        self._reserve(state["control"])

    @property
    def markup(self) -> Markup:
        return self._markup

    def reserve(self, tokens: Iterable[str]) -> None:
        tokens = {token for token in tokens if not is_blank(token)}
        added = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        new = {
            token
            for token in tokens
            if token in added or (MARKER.fullmatch(token) and self.token_id(token) is not None)
        }
        if not new <= self._control.keys():
            self._reserve([*self._control, *new])

    def encode(self, text: str) -> list[int]:
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError as error:  # half a surrogate pair, as from arguments that are not UTF-8
            raise ValueError(f"Expected text that can be written as UTF-8, got {_surrogate(text)!r}") from error
        if self._never_text.isdisjoint(ids):
            return ids
        return [part for token_id in ids for part in self._spelled(token_id)]

    def encode_markup(self, markup: str) -> list[int]:
        return _encode_markup(self, self._control, markup)

    def _free_blanks(self) -> None:
        """Make runs of spaces and newlines text: some files mark all their added tokens as special."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        if any(token.special and is_blank(token.content) for token in added):
            raw = json.loads(self._tokenizer.to_str())
            for token in raw["added_tokens"]:
                token["special"] = token["special"] and not is_blank(token["content"])
            self._tokenizer = self._tokenizer.from_str(json.dumps(raw))

    def _own_control(self) -> list[str]:
        added = self._tokenizer.get_added_tokens_decoder().values()
        return [token.content for token in added if token.special or MARKER.fullmatch(token.content)]

    def _reserve(self, control: Iterable[str]) -> None:
        found = {token: self.token_id(token) for token in control}
        self._control = {token: token_id for token, token_id in found.items() if token_id is not None}
        self._markup = Markup(self._control)
        added = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        self._tokenizer.add_special_tokens([token for token in self._control if token in added])
        self._tokenizer.encode_special_tokens = True  # in text: encode them as characters
        # text may contain single-character control tokens, and the unknown token for characters out of the vocabulary
        self._never_text = {token_id for token, token_id in self._control.items() if len(token) > 1}
        self._never_text.discard(self._tokenizer.token_to_id(self._tokenizer.model.unk_token or ""))

    def _spelled(self, token_id: int) -> list[int]:
        """One id, but a control token as its characters: BPE merges of plain text may end in one."""
        if token_id not in self._never_text:
            return [token_id]
        characters = self._tokenizer.id_to_token(token_id) or ""
        return [
            part for character in characters for part in self._tokenizer.encode(character, add_special_tokens=False).ids
        ]

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=skip_special)

    def token_id(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    def token(self, token_id: int) -> str | None:
        return self._tokenizer.id_to_token(token_id)

    def first_id(self) -> int | None:
        alone, whole = (self._tokenizer.encode("a", add_special_tokens=added).ids for added in (False, True))
        return None if whole[: len(alone)] == alone else whole[0]

    def spellings(self, count: int) -> list[bytes | None]:
        spell = speller(json.loads(self._tokenizer.decoder.__getstate__()) if self._tokenizer.decoder else None)
        control = set(self._control.values())
        tokens = ((token_id, self._tokenizer.id_to_token(token_id)) for token_id in range(count))
        return [None if token is None or token_id in control else spell(token) for token_id, token in tokens]


class SentencePieceTokenizer:
    """A ``tokenizer.model``, by the ``sentencepiece`` library.

    SentencePiece finds user-defined pieces in any text, but never control pieces. So every marker is made a control
    piece when the file is loaded; ``encode_markup`` alone puts their ids in.
    """

    def __init__(self, path: Path) -> None:
        import sentencepiece

        self._pieces = sentencepiece.SentencePieceProcessor()
        self._data = read_sentencepiece(path)
        try:
            self._load()
            self.reserve(piece for piece in self._written if MARKER.fullmatch(piece))
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            raise ValueError(f"Cannot read the SentencePiece model in {path}: {_line(error)}") from error

    @property
    def markup(self) -> Markup:
        return self._markup

    def reserve(self, tokens: Iterable[str]) -> None:
        new = {
            token for token in tokens if not is_blank(token) and self.token_id(token) is not None
        } - self._control.keys()
        if new:
            self._data = as_control(self._data, new)
            self._load()

    def _load(self) -> None:
        self._pieces.LoadFromSerializedProto(self._data)
        self._written = [self._pieces.IdToPiece(index) for index in range(self._pieces.GetPieceSize())]
        self._control = {
            piece: index
            for index, piece in enumerate(self._written)
            if self._pieces.IsControl(index) or self._pieces.IsUnknown(index)
        }
        self._special = set(self._control.values())
        self._markup = Markup(self._control)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._pieces.EncodeAsIds(text)
        return ids

    def encode_markup(self, markup: str) -> list[int]:
        return _encode_markup(self, self._control, markup)

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        text, plain = "", list[int]()
        for token_id in token_ids:
            if token_id >= self._pieces.GetPieceSize():
                continue  # the embedding has more rows than the vocabulary has pieces
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

    def spellings(self, count: int) -> list[bytes | None]:
        return [
            None if index in self._special or index >= len(self._written) else spelled(self._written[index])
            for index in range(count)
        ]


def _encode_markup(tokenizer: Tokenizer, control: Mapping[str, int], markup: str) -> list[int]:
    ids: list[int] = []
    for part, is_control in tokenizer.markup.split(markup):
        if is_control:
            ids.append(control[part])
        else:
            ids.extend(tokenizer.encode(part))
    return ids


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load a checkpoint folder's ``tokenizer.json``, or else its ``tokenizer.model``.

    Raises:
        ValueError: There is neither file, or it is broken; the message names it.
    """
    if has_file(folder / "tokenizer.json"):
        return JsonTokenizer(folder / "tokenizer.json")
    if has_file(folder / "tokenizer.model"):
        return SentencePieceTokenizer(folder / "tokenizer.model")
    raise ValueError(f"There is no tokenizer.json or tokenizer.model in {folder}")


def _surrogate(text: str) -> str:
    """The first lone surrogate of a text, with up to 20 characters on each side."""
    place = next(index for index, character in enumerate(text) if "\ud800" <= character <= "\udfff")
    return text[max(0, place - 20) : place + 20]


def _line(error: Exception) -> str:
    """A library's error on one line, at most 300 characters."""
    text = "".join(character if character.isprintable() else " " for character in str(error))
    return " ".join(text.split())[:300]


def decode(tokenizer: Tokenizer, token_ids: Sequence[int]) -> str:
    """Text of token ids without special tokens, exactly as ``Detokenizer`` streams it."""
    text = tokenizer.decode(token_ids)
    if REPLACEMENT not in text:
        return text
    stream = Detokenizer(tokenizer)
    return "".join(map(stream.push, token_ids)) + stream.flush()


class Detokenizer:
    """Streams the text of token ids, each character as soon as it is complete.

    A character may span several tokens (``é`` as the byte tokens C3, A9), so ids wait until their text is complete.
    The pieces joined are the text of all ids.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        # ids[:_shown] were shown already; they stay as context for the spaces of the next ones
        self._ids: list[int] = []
        self._shown = 0

    def push(self, token_id: int) -> str:
        """Take a token; return the text that it completes, possibly empty."""
        self._ids.append(token_id)
        text = self._new_text()
        if not text.endswith(REPLACEMENT):
            return self._show(text)
        return self._give_up()

    def flush(self) -> str:
        """Return the rest. Bytes that never became a character become U+FFFD."""
        given_up = self._give_up()
        return given_up + self._show(self._new_text())

    def _give_up(self) -> str:
        """Return the waiting bytes that no further token can complete."""
        text = ""
        while count := self._broken():
            self._ids, self._shown = self._ids[self._shown :], count
            text += self._decode(self._ids[:count])
            rest = self._decode(self._ids[count:])
            if not rest.endswith(REPLACEMENT):
                return text + self._show(rest)
        return text

    def _broken(self) -> int:
        """How many of the waiting ids, from the first, cannot be part of a character that is still incomplete."""
        waiting = self._ids[self._shown :]
        whole = self._decode(waiting)
        splits = [
            (count, self._decode(waiting[:count]) + self._decode(waiting[count:])) for count in range(1, len(waiting))
        ]
        # byte-fallback decoders replace a whole run of bytes if part of it is invalid: prefer a split that saves some
        better = (count for count, text in splits if text.count(REPLACEMENT) < whole.count(REPLACEMENT))
        closed = (count for count, text in splits if len(waiting) >= MOST_BYTES and text == whole)
        return next(better, 0) or next(closed, 0)

    def _new_text(self) -> str:
        waiting = self._ids[self._shown :]
        shown, text = self._decode(self._ids[: self._shown]), self._decode(self._ids)
        if not text.startswith(shown):
            return self._decode(waiting)
        new = text[len(shown) :]
        alone = self._decode(waiting) if REPLACEMENT in new else new
        return alone if alone.count(REPLACEMENT) < new.count(REPLACEMENT) else new

    def _show(self, text: str) -> str:
        if text:
            self._ids, self._shown = self._ids[self._shown :], len(self._ids) - self._shown
        return text

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special=self._skip_special)
