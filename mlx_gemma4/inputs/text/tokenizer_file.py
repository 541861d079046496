"""Tokenizer files of a stranger: read, and checked to hold nothing but what Gemma's tokenizers are made of.

Both libraries run what a file says: regular expressions of exponential time, replacements that multiply the text, and
positions that they do not check themselves. Here each component is one of a list, with values of its types.
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
MOST_PARTS = 16
"""Components in a sequence."""
MOST_GROWTH = 8
"""How much longer replacements may make a text."""
MOST_TOKEN = 1024
"""Bytes of a token that is looked for in text; Gemma's longest has 96."""

CONTROL, USER_DEFINED = b"\x18\x03", b"\x18\x04"
"""The type of a piece, the last of its fields."""

Check = Callable[[Mapping[str, Any], str], None]


def read_tokenizer_json(path: Path) -> bytes:
    """The content of a ``tokenizer.json`` that the ``tokenizers`` library may load.

    Raises:
        ValueError: It has a component that Gemma's tokenizers have not, or a value of another type; named.
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
            raise ValueError(f"Expected a text at most {MOST_GROWTH} times as long from {key!r} in {path}")
    return data


def _check_model(model: Mapping[str, Any], path: Path) -> None:
    if model.get("type") != "BPE":
        raise ValueError(f"Expected a tokenizer of type BPE, as Gemma's, in {path}, got {shown(model.get('type'))}")
    if model.get("dropout") not in (None, 0):
        raise ValueError(f"Expected no dropout in {path}, got {shown(model['dropout'])}")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key) not in (None, ""):
            raise ValueError(f"Expected no {key} in {path}, got {shown(model[key])}")
    vocab = table(model.get("vocab"), f"'vocab' in {path}")
    for value in vocab.values():
        if type(value) is not int or not 0 <= value < MOST_ID:
            raise ValueError(f"Expected ids from 0 to {MOST_ID - 1} in 'vocab' in {path}, got {shown(value)}")
    if len(set(vocab.values())) < len(vocab):
        raise ValueError(f"Each token needs an id of its own, but some ids are there twice in {path}")


def _check_added(tokens: Any, path: Path) -> None:
    for token in tokens:
        told = table(token, f"an added token in {path}")
        name = shown(told.get("content"))
        content = text(told.get("content"), f"the content of an added token in {path}")
        if not 0 < len(content.encode("utf-8", "surrogatepass")) <= MOST_TOKEN:
            raise ValueError(f"Expected 1 to {MOST_TOKEN} bytes of text for the added token {name} in {path}")
        whole(told.get("id"), f"the id of {name} in {path}", least=0, most=MOST_ID - 1)
        for key in ("single_word", "lstrip", "rstrip", "normalized", "special"):
            flag(told.get(key, False), f"{key!r} of {name} in {path}")


def _parts(component: Any, known: Mapping[str, Check], where: str) -> Iterator[Mapping[str, Any]]:
    """Check a component and those inside it; the replacements among them."""
    if component is None:
        return
    told = table(component, where)
    kind = told.get("type")
    if kind == "Sequence":
        inner = [value for key, value in told.items() if key != "type"]
        if len(inner) != 1 or len(array(inner[0], where)) > MOST_PARTS:
            raise ValueError(f"Expected one list of at most {MOST_PARTS} components for {where}, got {shown(told)}")
        for each in inner[0]:
            if isinstance(each, dict) and each.get("type") == "Sequence":
                raise ValueError(f"A Sequence cannot stand inside another in {where}")
            yield from _parts(each, known, where)
        return
    if not isinstance(kind, str) or kind not in known:
        raise ValueError(
            f"Expected components that Gemma's tokenizers have ({', '.join(known)}) for {where}, got {shown(kind)}"
        )
    known[kind](told, where)
    if kind == "Replace":
        yield told


def _pattern(told: Mapping[str, Any], where: str) -> None:
    """Plain text to look for: a regular expression may take exponential time."""
    pattern = table(told.get("pattern"), f"a pattern in {where}")
    if list(pattern) != ["String"] or not text(pattern["String"], f"a pattern in {where}"):
        raise ValueError(f"Expected a plain string as the pattern in {where}, got {shown(pattern)}")


def _replace(told: Mapping[str, Any], where: str) -> None:
    _pattern(told, where)
    text(told.get("content"), f"the content of a Replace in {where}")


def _split(told: Mapping[str, Any], where: str) -> None:
    _pattern(told, where)
    text(told.get("behavior"), f"the behavior of a Split in {where}")
    flag(told.get("invert", False), f"'invert' in {where}")


def _prepend(told: Mapping[str, Any], where: str) -> None:
    if len(text(told.get("prepend"), f"'prepend' in {where}")) > MOST_PARTS:
        raise ValueError(f"Expected at most {MOST_PARTS} characters for 'prepend' in {where}")


def _strip(told: Mapping[str, Any], where: str) -> None:
    if len(text(told.get("content"), f"the content of a Strip in {where}")) != 1:
        raise ValueError(f"Expected one character for the content of a Strip in {where}, got {shown(told['content'])}")
    for key in ("start", "stop"):
        whole(told.get(key), f"{key!r} of a Strip in {where}", least=0, most=MOST_PARTS)


def _flags(told: Mapping[str, Any], where: str) -> None:
    """A component whose values are all true, false, or short texts."""
    for key, value in told.items():
        if not isinstance(value, bool) and len(text(value, f"{key!r} in {where}")) > MOST_PARTS:
            raise ValueError(f"Expected at most {MOST_PARTS} characters for {key!r} in {where}")


def _template(told: Mapping[str, Any], where: str) -> None:
    """Each special token of a template is described beside it, and the text is in it once."""
    described = table(told.get("special_tokens"), f"'special_tokens' in {where}")
    for token in described.values():
        ids = array(table(token, where).get("ids"), f"'ids' in {where}")
        tokens = array(token.get("tokens"), f"'tokens' in {where}")
        if len(ids) != len(tokens) or len(ids) > MOST_PARTS:
            raise ValueError(f"Expected as many ids as tokens, at most {MOST_PARTS}, in {where}, got {shown(token)}")
        for token_id in ids:
            whole(token_id, f"'ids' in {where}", least=0, most=MOST_ID - 1)
    for key in ("single", "pair"):
        pieces = array(told.get(key), f"{key!r} in {where}")
        if len(pieces) > MOST_PARTS:
            raise ValueError(f"Expected at most {MOST_PARTS} pieces for {key!r} in {where}, got {len(pieces)}")
        texts = [name for name in (_piece(piece, described, where) for piece in pieces) if name]
        if key == "single" and texts != ["A"]:
            raise ValueError(f"Expected the text once in 'single' in {where}, got {shown(pieces)}")


def _piece(piece: Any, described: Mapping[str, Any], where: str) -> str:
    """The name of the text that a piece of a template stands for; empty for a special token."""
    for kind, inner in table(piece, where).items():
        name = text(table(inner, where).get("id"), f"an id in {where}")
        whole(inner.get("type_id"), f"'type_id' in {where}", least=0)
        if len(piece) == 1 and kind == "Sequence" and name in ("A", "B"):
            return name
        if len(piece) == 1 and kind == "SpecialToken" and name in described:
            return ""
    raise ValueError(f"Expected a Sequence, or a SpecialToken that is described, in {where}, got {shown(piece)}")


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
        ValueError: It is no such model, or its rules for normalizing a text make it much longer.
    """
    data = read_bytes(path, MOST_PIECES)
    try:
        for number, message in _fields(data):
            if number == 1:
                _check_piece(message)
            elif number == 4 and len(message) > MOST_TOKEN:
                raise ValueError("it holds a test of itself that takes long")
            elif number in (3, 5):
                _check_rules(message)
    except ValueError as error:
        raise ValueError(f"Cannot read the SentencePiece model in {path}: {error}") from error
    return data


def as_control(data: bytes, pieces: Collection[str]) -> bytes:
    """A ``tokenizer.model`` in which these user-defined pieces are control pieces."""
    named = {piece.encode() for piece in pieces}
    for number, message in _fields(data):
        if number == 1 and message.endswith(USER_DEFINED) and dict(_fields(message)).get(1) in named:
            data = data.replace(message, message.removesuffix(USER_DEFINED) + CONTROL, 1)
    return data


def _check_piece(message: bytes) -> None:
    if len(message) > MOST_TOKEN:
        raise ValueError(f"a piece of {len(message):,} bytes, at most {MOST_TOKEN} are read")


def _check_rules(message: bytes) -> None:
    """The map of characters: the size of a trie, the trie, and the replacements, each ended by a zero."""
    for number, rules in _fields(message):
        if number == 2 and rules:
            size = int.from_bytes(rules[:4], "little")
            if max(map(len, rules[4 + size :].split(b"\0"))) > 8 * MOST_GROWTH:
                raise ValueError("it replaces a character by a long text")


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a Protocol Buffers message: their numbers, and the content of those that have a length."""
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
            raise ValueError("it is no Protocol Buffers message")
        if at > len(message):
            raise ValueError("it ends too early")
        yield key >> 3, content


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of up to ten bytes, and where the next field begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("it ends too early")
        value |= (message[at] & 127) << shift
        at += 1
        if message[at - 1] < 128:
            return value, at
    raise ValueError("it is no Protocol Buffers message")
