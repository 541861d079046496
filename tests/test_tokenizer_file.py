"""What a stranger's tokenizer may be made of: the parts of Gemma's, and nothing that runs away."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers, processors

from mlx_gemma4 import demo_folder
from mlx_gemma4.inputs.text.tokenizer import JsonTokenizer, SentencePieceTokenizer
from mlx_gemma4.inputs.text.tokenizer_file import read_sentencepiece, read_tokenizer_json

DEMO = json.loads((demo_folder() / "checkpoint" / "tokenizer.json").read_text())
ADDED = DEMO["added_tokens"][0]
WORDS = {"<unk>": 0, "<bos>": 1, "a": 2, "▁": 3, "b": 4}


def gemma(path: Path) -> Path:
    """A tokenizer as transformers builds it for Gemma."""
    model = tokenizers.models.BPE(vocab=WORDS, merges=[], fuse_unk=True, unk_token="<unk>", byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern=" ", behavior="merged_with_previous", invert=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos>:0 $A:0", pair="<bos>:0 $A:0 <bos>:1 $B:1", special_tokens=[("<bos>", 1)]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.save(str(path))
    return path


def test_as_transformers_builds_it(tmp_path: Path) -> None:
    """Its parts are known, and are used."""
    tokenizer = JsonTokenizer(gemma(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("a b") == [2, 3, 4]
    assert tokenizer.decode([2, 3, 4]) == "a b"
    assert tokenizer.first_id() == 1


def test_no_text_is_cut_or_filled_up(tmp_path: Path) -> None:
    """Settings for training that a fine-tune has left in the file do not apply to prompts."""
    path = tmp_path / "tokenizer.json"
    truncation = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    padding |= {"pad_type_id": 0, "pad_token": "<pad>"}
    path.write_text(json.dumps({**DEMO, "truncation": truncation, "padding": padding}))
    plain = JsonTokenizer(demo_folder() / "checkpoint" / "tokenizer.json")
    assert JsonTokenizer(path).encode("hello all") == plain.encode("hello all")


def split(pattern: object) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


def replace(pattern: object, content: object) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(name: str, *parts: object) -> dict[str, Any]:
    return {"type": "Sequence", name: list(parts)}


def model(**changes: Any) -> dict[str, Any]:
    return {"model": {**DEMO["model"], **changes}}


def template(*pieces: Any, **tokens: Any) -> dict[str, Any]:
    return {
        "post_processor": {"type": "TemplateProcessing", "single": list(pieces), "pair": [], "special_tokens": tokens}
    }


TEXT = {"Sequence": {"id": "A", "type_id": 0}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"pre_tokenizer": split({"Regex": "(a+)+$"})},
            "The pattern in 'pre_tokenizer' in {path} must be a plain string",
        ),
        (
            {"normalizer": replace({"Regex": "(.*a){{25}}"}, "")},
            "The pattern in 'normalizer' in {path} must be a plain string",
        ),
        ({"decoder": replace({"String": ""}, "a")}, "The pattern in 'decoder' in {path} must be a plain string"),
        (
            {"pre_tokenizer": sequence("pretokenizers", split({"Regex": "a|b"}), {"type": "ByteLevel"})},
            "The pattern in 'pre_tokenizer' in {path} must be a plain string, got {{'Regex': 'a|b'}}",
        ),
        (
            {"normalizer": sequence("normalizers", *[replace({"String": "a"}, "a" * 10)] * 9)},
            "The replacements of 'normalizer' in {path} make a text more than 8 times as long",
        ),
        (
            {"decoder": replace({"String": "a"}, "a" * 1000)},
            "The replacements of 'decoder' in {path} make a text more than 8 times as long",
        ),
        (
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AA"}},
            "Only the components of Gemma's tokenizers (Replace, Prepend, NFC) are allowed for 'normalizer'",
        ),
        (
            {"normalizer": {"type": "BertNormalizer"}},
            "Only the components of Gemma's tokenizers (Replace, Prepend, NFC) are allowed for 'normalizer' in {path}, "
            "got 'BertNormalizer'",
        ),
        (
            {"normalizer": {"type": ["NFC"]}},
            "Only the components of Gemma's tokenizers (Replace, Prepend, NFC) are allowed ",
        ),
        (
            {"normalizer": sequence("normalizers", *[{"type": "NFC"}] * 99)},
            "The Sequence in 'normalizer' in {path} must have one list of at most 16 components, got ",
        ),
        (
            {"normalizer": sequence("normalizers", sequence("normalizers"))},
            "A Sequence cannot stand inside another in 'normalizer'",
        ),
        (
            {"normalizer": {"type": "Prepend", "prepend": "a" * 99}},
            "'prepend' in 'normalizer' in {path} must have at most 16 characters",
        ),
        (
            {"decoder": {"type": "Strip", "content": "ab", "start": 0, "stop": 0}},
            "The content of a Strip in 'decoder' in {path} must be one character, got 'ab'",
        ),
        ({"decoder": {"type": "Strip", "content": "a", "start": 10**9, "stop": 0}}, "'start' of a Strip in 'decoder'"),
        (
            {"decoder": {"type": "CTC", "pad_token": "a"}},
            "Only the components of Gemma's tokenizers (Replace, ByteFallback, Fuse, Strip, ByteLevel, Metaspace) are ",
        ),
        (
            template({"SpecialToken": {"id": "<x>", "type_id": 0}}, TEXT),
            "A piece in 'post_processor' in {path} must be a Sequence or a SpecialToken that is described, got {{'Spec",
        ),
        (template(*[TEXT] * 2), "'single' in 'post_processor' in {path} must have the text once, got "),
        (template(*[TEXT] * 10**5), "'single' in 'post_processor' in {path} must have at most 16 pieces, got 100000"),
        (
            template({}),
            "A piece in 'post_processor' in {path} must be a Sequence or a SpecialToken that is described, got {{}}",
        ),
        (
            template(TEXT, x={"id": "x", "ids": [2**32], "tokens": ["x"]}),
            "'ids' in 'post_processor' in {path}, got 42949",
        ),
        (
            template(TEXT, x={"id": "x", "ids": [1, 2], "tokens": ["x"]}),
            "'post_processor' in {path} must have as many ids as tokens, at most 16, got ",
        ),
        (model(type="Unigram"), "The tokenizer in {path} must have the type BPE, as Gemma's, got 'Unigram'"),
        (
            model(continuing_subword_prefix="##"),
            "The tokenizer in {path} must have no continuing_subword_prefix, got '##'",
        ),
        (model(dropout=0.5), "The tokenizer in {path} must have no dropout, got 0.5"),
        (model(vocab={"a": 2**32 - 1}), "ids from 0 to 4194303 in 'vocab' in {path}, got 4294967295"),
        (model(vocab={"a": 1.0}), "ids from 0 to 4194303 in 'vocab' in {path}, got 1.0"),
        (model(vocab={"a": 1, "b": 1}), "Two tokens in {path} have the same id; each needs one of its own"),
        (model(vocab=[]), "an object for 'vocab' in {path}, got []"),
        (model(merges=["a b c"]), "Cannot read the tokenizer in {path}: "),
        (model(merges=["a zzzz"]), "Cannot read the tokenizer in {path}: "),
        ({"added_tokens": [{**ADDED, "content": ""}]}, "The added token '' in {path} must have 1 to 1024 bytes"),
        ({"added_tokens": [{**ADDED, "content": "a" * 1025}]}, "The added token 'aaa"),
        ({"added_tokens": [{**ADDED, "id": -1}]}, "the id of '<pad>' in {path}, got -1"),
        ({"added_tokens": [{**ADDED, "special": "yes"}]}, "'special' of '<pad>' in {path}, got 'yes'"),
        ({"added_tokens": {"a": 1}}, "a list for 'added_tokens' in {path}, got {{'a': 1}}"),
    ],
)
def test_parts_that_gemma_has_not(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Each is named before the library sees it."""
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**DEMO, **changes}))
    with pytest.raises(ValueError, match=f"^(Expected .*)?{re.escape(message.format(path=path))}") as raised:
        JsonTokenizer(path)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 800


def test_the_checked_bytes_are_those_that_are_loaded(tmp_path: Path) -> None:
    """Keys that come twice would be read differently by another parser."""
    path = tmp_path / "tokenizer.json"
    text = json.dumps(DEMO)
    path.write_text('{"normalizer": {"type": "Lowercase"}, ' + text[1:])
    with pytest.raises(ValueError, match="the key 'normalizer' twice in one object"):
        read_tokenizer_json(path)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A ``tokenizer.model`` that normalizes as SentencePiece does by default."""
    folder = tmp_path_factory.mktemp("pieces")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox", "hello world"] * 10),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=3,
    )
    return (folder / "tokenizer.model").read_bytes()


def field(number: int, content: bytes) -> bytes:
    """A field of a Protocol Buffers message that has a length."""
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def rules(longest: int) -> bytes:
    return field(3, field(2, (8).to_bytes(4, "little") + bytes(8) + b"a" * longest + b"\0"))


def test_the_usual_rules(tmp_path: Path, pieces: bytes) -> None:
    """NFKC, with which most models are trained, is within bounds."""
    path = tmp_path / "tokenizer.model"
    path.write_bytes(pieces)
    assert read_sentencepiece(path) == pieces
    assert SentencePieceTokenizer(path).decode(SentencePieceTokenizer(path).encode("hello")) == "hello"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data + rules(65), "it replaces a character by more than 64 bytes"),
        (lambda data: data + field(5, rules(65)[3:]), "it "),
        (lambda data: data + field(1, field(1, b"a" * 1025)), "a piece has 1,028 bytes, more than 1024"),
        (lambda data: data + field(4, b"a" * 1025), "its self-test has 1,025 bytes, more than 1024"),
        (lambda data: data[:-1], "it ends too early"),
        (lambda data: data + b"\x0b", "it is not a Protocol Buffers message"),
        (lambda data: data + b"\xff" * 20, "it is not a Protocol Buffers message"),
        (lambda data: b"", ""),
    ],
)
def test_pieces_of_another_form(tmp_path: Path, pieces: bytes, change: Callable[[bytes], bytes], message: str) -> None:
    """A model that would make long texts of short ones, or is damaged."""
    path = tmp_path / "tokenizer.model"
    path.write_bytes(change(pieces))
    with pytest.raises(ValueError, match=f"Cannot read the SentencePiece model in {path}: {message}"):
        SentencePieceTokenizer(path)
