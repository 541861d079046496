"""Reads tokenizer files and checks them before a library loads them: a downloaded file may be hostile.

Both libraries do what a file says. It may hold regular expressions of exponential time, replacements that multiply a
text, and positions that the libraries do not check. So only the components of Gemma's own tokenizers are allowed, with
values of the right types and bounded sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from mlx_gemma4.checkpoint.files import read_bytes
from mlx_gemma4.checkpoint.json_file import array, flag, parse_object, shown, table, text, whole

MOST_JSON, MOST_PIECES = 128 * 2**20, 64 * 2**20
"""Bytes of a ``tokenizer.json`` and a ``tokenizer.model``; Gemma's have 33 and 5 million."""
MOST_ID = 2**22
"""Ids are less than this; Gemma's vocabulary has 262,144."""
MOST_PARTS = 16
"""Components in a sequence, pieces in a template, characters in a setting."""
MOST_GROWTH = 8
"""The factor by which replacements may lengthen a text."""
MOST_TOKEN = 1024
"""Bytes of an added token; Gemma's longest has 96."""

CONTROL, USER_DEFINED = b"\x18\x03", b"\x18\x04"
"""The type of a piece, which is its last field: key 3 << 3 | 0, then 3 or 4."""

Check = Callable[[Mapping[str, Any], str], None]


def read_tokenizer_json(path: Path) -> bytes:
    """The content of a ``tokenizer.json`` that the ``tokenizers`` library may load.

    Raises:
        ValueError: A component is not one of those that Gemma's tokenizers have, or a value has another type or size.
            The message names it.
    """
    data = read_bytes(path, MOST_JSON)
    raw = parse_object(data, path)
    _check_model(table(raw.get("model"), f"'model' in {path}"), path)
    _check_added(array(raw.get("added_tokens") or [], f"'added_tokens' in {path}"), path)
    for key, known in (
        ("normalizer", NORMALIZERS),
        ("pre_tokenizer", PRE_TOKENIZERS),
        ("post_processor", POST_PROCESSORS),
        ("decoder", DECODERS),
    ):
        parts = list(_parts(raw.get(key), known, f"{key!r} in {path}"))
        growth = prod(max(len(text(part["content"], key)) / len(part["pattern"]["String"]), 1.0) for part in parts)
        if growth > MOST_GROWTH:
            raise ValueError(f"The replacements of {key!r} in {path} make a text more than {MOST_GROWTH} times as long")
    return data


def _check_model(model: Mapping[str, Any], path: Path) -> None:
    if model.get("type") != "BPE":
        raise ValueError(f"The tokenizer in {path} must have the type BPE, as Gemma's, got {shown(model.get('type'))}")
    if model.get("dropout") not in (None, 0):
        raise ValueError(f"The tokenizer in {path} must have no dropout, got {shown(model['dropout'])}")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key) not in (None, ""):
            raise ValueError(f"The tokenizer in {path} must have no {key}, got {shown(model[key])}")
    vocab = table(model.get("vocab"), f"'vocab' in {path}")
    for value in vocab.values():
        if type(value) is not int or not 0 <= value < MOST_ID:
            raise ValueError(f"Expected ids from 0 to {MOST_ID - 1} in 'vocab' in {path}, got {shown(value)}")
    if len(set(vocab.values())) < len(vocab):
        raise ValueError(f"Two tokens in {path} have the same id; each needs one of its own")


def _check_added(tokens: Any, path: Path) -> None:
    for item in tokens:
        token = table(item, f"an added token in {path}")
        name = shown(token.get("content"))
        content = text(token.get("content"), f"the content of an added token in {path}")
        if not 0 < len(content.encode("utf-8", "surrogatepass")) <= MOST_TOKEN:
            raise ValueError(f"The added token {name} in {path} must have 1 to {MOST_TOKEN} bytes")
        whole(token.get("id"), f"the id of {name} in {path}", least=0, most=MOST_ID - 1)
        for key in ("single_word", "lstrip", "rstrip", "normalized", "special"):
            flag(token.get(key, False), f"{key!r} of {name} in {path}")


def _parts(component: Any, known: Mapping[str, Check], where: str) -> Iterator[Mapping[str, Any]]:
    """Check a component and those inside it; yield those that replace text."""
    if component is None:
        return
    part = table(component, where)
    kind = part.get("type")
    if kind == "Sequence":
        inner = [value for key, value in part.items() if key != "type"]
        if len(inner) != 1 or len(array(inner[0], where)) > MOST_PARTS:
            raise ValueError(
                f"The Sequence in {where} must have one list of at most {MOST_PARTS} components, got {shown(part)}"
            )
        for item in inner[0]:
            if isinstance(item, dict) and item.get("type") == "Sequence":
                raise ValueError(f"A Sequence cannot stand inside another in {where}")
            yield from _parts(item, known, where)
        return
    if not isinstance(kind, str) or kind not in known:
        raise ValueError(
            f"Only the components of Gemma's tokenizers ({', '.join(known)}) are allowed for {where}, got {shown(kind)}"
        )
    known[kind](part, where)
    if kind == "Replace":
        yield part


def _pattern(part: Mapping[str, Any], where: str) -> None:
    """Check that a pattern is plain text: a regular expression may take exponential time."""
    pattern = table(part.get("pattern"), f"a pattern in {where}")
    if list(pattern) != ["String"] or not text(pattern["String"], f"a pattern in {where}"):
        raise ValueError(f"The pattern in {where} must be a plain string, got {shown(pattern)}")


def _replace(part: Mapping[str, Any], where: str) -> None:
    _pattern(part, where)
    text(part.get("content"), f"the content of a Replace in {where}")


def _split(part: Mapping[str, Any], where: str) -> None:
    _pattern(part, where)
    text(part.get("behavior"), f"the behavior of a Split in {where}")
    flag(part.get("invert", False), f"'invert' in {where}")


def _prepend(part: Mapping[str, Any], where: str) -> None:
    if len(text(part.get("prepend"), f"'prepend' in {where}")) > MOST_PARTS:
        raise ValueError(f"'prepend' in {where} must have at most {MOST_PARTS} characters")


def _strip(part: Mapping[str, Any], where: str) -> None:
    if len(text(part.get("content"), f"the content of a Strip in {where}")) != 1:
        raise ValueError(f"The content of a Strip in {where} must be one character, got {shown(part['content'])}")
    for key in ("start", "stop"):
        whole(part.get(key), f"{key!r} of a Strip in {where}", least=0, most=MOST_PARTS)


def _flags(part: Mapping[str, Any], where: str) -> None:
    """Check a component whose values are all true, false, or short texts."""
    for key, value in part.items():
        if not isinstance(value, bool) and len(text(value, f"{key!r} in {where}")) > MOST_PARTS:
            raise ValueError(f"{key!r} in {where} must have at most {MOST_PARTS} characters")


def _template(part: Mapping[str, Any], where: str) -> None:
    """Check that a template describes each of its special tokens, and has the text once."""
    described = table(part.get("special_tokens"), f"'special_tokens' in {where}")
    for token in described.values():
        ids = array(table(token, where).get("ids"), f"'ids' in {where}")
        tokens = array(token.get("tokens"), f"'tokens' in {where}")
        if len(ids) != len(tokens) or len(ids) > MOST_PARTS:
            raise ValueError(f"{where} must have as many ids as tokens, at most {MOST_PARTS}, got {shown(token)}")
        for token_id in ids:
            whole(token_id, f"'ids' in {where}", least=0, most=MOST_ID - 1)
    for key in ("single", "pair"):
        pieces = array(part.get(key), f"{key!r} in {where}")
        if len(pieces) > MOST_PARTS:
            raise ValueError(f"{key!r} in {where} must have at most {MOST_PARTS} pieces, got {len(pieces)}")
        texts = [name for name in (_piece(piece, described, where) for piece in pieces) if name]
        if key == "single" and texts != ["A"]:
            raise ValueError(f"'single' in {where} must have the text once, got {shown(pieces)}")


def _piece(piece: Any, described: Mapping[str, Any], where: str) -> str:
    """The name of the text (A or B) that a piece of a template stands for; empty for a special token."""
    for kind, inner in table(piece, where).items():
        name = text(table(inner, where).get("id"), f"an id in {where}")
        whole(inner.get("type_id"), f"'type_id' in {where}", least=0)
        if len(piece) == 1 and kind == "Sequence" and name in ("A", "B"):
            return name
        if len(piece) == 1 and kind == "SpecialToken" and name in described:
            return ""
    raise ValueError(f"A piece in {where} must be a Sequence or a SpecialToken that is described, got {shown(piece)}")


NORMALIZERS: Mapping[str, Check] = {"Replace": _replace, "Prepend": _prepend, "NFC": _flags}
PRE_TOKENIZERS: Mapping[str, Check] = {"Split": _split, "ByteLevel": _flags, "Metaspace": _flags}
POST_PROCESSORS: Mapping[str, Check] = {"TemplateProcessing": _template, "ByteLevel": _flags}
DECODERS: Mapping[str, Check] = {
    "Replace": _replace,
    "ByteFallback": _flags,
    "Fuse": _flags,
    "Strip": _strip,
    "ByteLevel": _flags,
    "Metaspace": _flags,
}


def read_sentencepiece(path: Path) -> bytes:
    """The content of a ``tokenizer.model`` that the ``sentencepiece`` library may load.

    Raises:
        ValueError: It is no SentencePiece model, or a piece or a replacement in it is too long.
    """
    data = read_bytes(path, MOST_PIECES)
    try:
        for number, message in _fields(data):
            if number == 1:
                _check_piece(message)
            elif number == 4 and len(message) > MOST_TOKEN:
                raise ValueError(f"its self-test has {len(message):,} bytes, more than {MOST_TOKEN}")
            elif number in (3, 5):
                _check_rules(message)
    except ValueError as error:
        raise ValueError(f"Cannot read the SentencePiece model in {path}: {error}") from error
    return data


def as_control(data: bytes, pieces: Collection[str]) -> bytes:
    """A copy of a ``tokenizer.model`` in which these user-defined pieces are control pieces."""
    named = {piece.encode() for piece in pieces}
    for number, message in _fields(data):
        if number == 1 and message.endswith(USER_DEFINED) and dict(_fields(message)).get(1) in named:
            data = data.replace(message, message.removesuffix(USER_DEFINED) + CONTROL, 1)
    return data


def _check_piece(message: bytes) -> None:
    if len(message) > MOST_TOKEN:
        raise ValueError(f"a piece has {len(message):,} bytes, more than {MOST_TOKEN}")


def _check_rules(message: bytes) -> None:
    """Check the map of characters: the size of a trie, the trie, and the replacements, each ended by a zero byte."""
    for number, rules in _fields(message):
        if number == 2 and rules:
            size = int.from_bytes(rules[:4], "little")
            if max(map(len, rules[4 + size :].split(b"\0"))) > 8 * MOST_GROWTH:
                raise ValueError(f"it replaces a character by more than {8 * MOST_GROWTH} bytes")


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number of each field of a Protocol Buffers message, and its content if it has a length."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind, content = key & 7, b""
        if kind == 0:
            _, at = _varint(message, at)
        elif kind == 2:
            length, at = _varint(message, at)
            content, at = message[at : at + length], at + length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("it is not a Protocol Buffers message")
        if at > len(message):
            raise ValueError("it ends too early")
        yield key >> 3, content


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Read a number of up to ten bytes, and return it with the index after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it ends too early")
        value |= (message[at] & 127) << shift
        at += 1
        if message[at - 1] < 128:
            return value, at
    raise ValueError("it is not a Protocol Buffers message")
