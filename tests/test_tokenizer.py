"""Text to ids and back, whole and streamed, by both kinds of tokenizer files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from golden import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_cases import TEXTS

from mlx_gemma4 import demo_folder
from mlx_gemma4.inputs.text.tokenizer import (
    Detokenizer,
    JsonTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    decode,
    load_tokenizer,
)

RELEASED = load_tokenizer(Path(__file__).parent / "data" / "reference" / "released" / "checkpoint")
DEMO = load_tokenizer(demo_folder() / "checkpoint")
REPLACEMENT = "\ufffd"

CHAT, MEDIA, WIDE = TEXTS
CALL = '<|tool_call>call:f{x:<|"|>a b<|"|>}<tool_call|>'


def pieces(tokenizer: Tokenizer, token_ids: list[int], *, skip_special: bool = True) -> list[str]:
    """What a stream shows: a piece for every token, and the flushed rest."""
    stream = Detokenizer(tokenizer, skip_special=skip_special)
    return [*(stream.push(token_id) for token_id in token_ids), stream.flush()]


# what transformers' AutoTokenizer gives for the same files
@pytest.mark.parametrize(
    ("tokenizer", "text", "token_ids"),
    [
        (RELEASED, CHAT, [2, 4, 333, 221, 62, 91, 98, 98, 101, 34, 341, 357, 243, 280, 358, 53, 5, 221, 4, 331, 221]),
        (RELEASED, MEDIA, [9, 10, 10, 11, 243, 87, 243, 12, 13, 14]),
        (RELEASED, WIDE, [185, 268, 121, 185, 273, 128, 187, 126, 275, 243, 195, 276, 270, 247, 243, 150, 125]),
        (RELEASED, CALL, [18, 89, 87, 98, 98, 48, 92, 113, 110, 48, 22, 87, 243, 88, 22, 115, 19]),
        *((DEMO, text, GOLDEN["token_ids"][text]) for text in TEXTS),
    ],
)
def test_ids(tokenizer: Tokenizer, text: str, token_ids: list[int]) -> None:
    """Special tokens written out become their ids, none are added, and all of it reads back."""
    assert tokenizer.encode_markup(text) == token_ids
    assert tokenizer.decode(token_ids, skip_special=False) == text


def test_special_tokens_are_left_out() -> None:
    """Decoding leaves special tokens out and the spaces around them in."""
    assert RELEASED.decode(RELEASED.encode_markup(CHAT)) == "user\nHello, what is this?\nmodel\n"
    assert RELEASED.decode(RELEASED.encode_markup(MEDIA)) == " a "
    assert RELEASED.decode(RELEASED.encode_markup(CALL)) == "call:f{x:a b}"


def test_single_tokens() -> None:
    """A token's id and its text; None for what the vocabulary does not hold."""
    assert (RELEASED.token_id("<|channel>"), RELEASED.token_id("<|nonsense>")) == (6, None)
    assert (RELEASED.token(6), RELEASED.token(371), DEMO.token_id("<|channel>")) == ("<|channel>", None, None)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 370)), st.booleans())
def test_streamed_is_whole(token_ids: list[int], skip_special: bool) -> None:
    """The pieces of any ids joined are the text of all of them."""
    streamed = pieces(RELEASED, token_ids, skip_special=skip_special)
    assert "".join(streamed) == RELEASED.decode(token_ids, skip_special=skip_special)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text())
def test_streamed_text_has_whole_characters(text: str) -> None:
    """No piece of a text ends in half a character."""
    shown = pieces(DEMO, DEMO.encode(text.replace(REPLACEMENT, "")))
    assert "".join(shown) == text.replace(REPLACEMENT, "")
    assert not any(REPLACEMENT in piece for piece in shown)


def test_wide_characters_come_with_their_last_byte() -> None:
    """A character of several tokens is shown when its last one arrives, and not before."""
    shown = ["", "", "日", "", "", "本", "", "", "語", " ", "", "", "", "🙂", " ", "", "é", ""]
    assert pieces(RELEASED, RELEASED.encode(WIDE)) == shown


def test_broken_bytes_are_flushed() -> None:
    """Bytes that never became a character show as U+FFFD, at the end or when text follows them."""
    half = RELEASED.encode("日")[:2]
    assert pieces(RELEASED, half) == ["", "", REPLACEMENT]
    assert pieces(RELEASED, [*half, *RELEASED.encode("a")]) == ["", "", REPLACEMENT + "a", ""]


@pytest.fixture(scope="module")
def byte_fallback_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.json in the manner of Gemma's own: spaces as ▁, rare characters as single bytes."""
    words = ["<bos>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "▁b"]
    model = tokenizers.models.BPE({word: index for index, word in enumerate(words)}, [("▁", "b")], byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    decoders = tokenizers.decoders
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<bos>"])
    path = tmp_path_factory.mktemp("byte-fallback") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture
def byte_fallback(byte_fallback_file: Path) -> JsonTokenizer:
    return JsonTokenizer(byte_fallback_file)


def test_byte_fallback_stream(byte_fallback: JsonTokenizer) -> None:
    """Characters of byte tokens come whole, and the space before a word stays."""
    token_ids = byte_fallback.encode_markup("<bos> b é日 ab")
    assert token_ids == [0, 260, 257, 196, 170, 231, 152, 166, 257, 258, 259]
    assert pieces(byte_fallback, token_ids) == ["", " b", " ", "", "é", "", "", "日", " ", "a", "b", ""]


def test_byte_fallback_cut_short(byte_fallback: JsonTokenizer) -> None:
    """A cut character takes nothing with it of the one before, though the library gives up the whole run of bytes."""
    run = byte_fallback.encode("日本")
    assert byte_fallback.decode(run[:-1]) == REPLACEMENT * 5
    assert pieces(byte_fallback, run[:-1]) == ["", "", "日", "", "", REPLACEMENT * 2]
    assert pieces(byte_fallback, run) == ["", "", "日", "", "", "本", ""]


def test_byte_fallback_decoded(byte_fallback: JsonTokenizer) -> None:
    """Whole characters beside bytes that are none are kept, streamed and at once."""
    wide, lost = byte_fallback.encode("日"), [1 + 0xFF]
    for token_ids, text in (
        ([*wide, *wide[:2]], "日" + REPLACEMENT * 2),
        ([*lost, *wide, *wide], REPLACEMENT + "日日"),
        ([*wide[:2], *wide, 257], REPLACEMENT * 2 + "日 "),
        ([*wide, *lost * 7, *wide, *lost], "日" + REPLACEMENT * 7 + "日" + REPLACEMENT),
        ([*lost * 9, 258, *wide[:1]], REPLACEMENT * 9 + "a" + REPLACEMENT),
    ):
        assert "".join(pieces(byte_fallback, token_ids)) == decode(byte_fallback, token_ids) == text


BYTES = st.lists(st.one_of(st.sampled_from([b"a", "é".encode(), "日".encode(), "🙂".encode()]), st.binary(max_size=3)))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(BYTES.map(b"".join))
def test_whole_characters_are_never_lost(byte_fallback_file: Path, data: bytes) -> None:
    """Of any bytes: what UTF-8 decoding leaves out instead of replacing it, in order."""
    tokenizer = JsonTokenizer(byte_fallback_file)
    expected = data.decode("utf-8", "ignore")
    shown = decode(tokenizer, [1 + byte for byte in data])
    assert shown.replace(REPLACEMENT, "") == expected.replace(REPLACEMENT, "")
    assert shown == "".join(pieces(tokenizer, [1 + byte for byte in data]))


class Counting:
    """A tokenizer, and how many ids it decodes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.count = 0

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        self.count += len(token_ids)
        return self.tokenizer.decode(token_ids, skip_special=skip_special)


@pytest.mark.parametrize("kind", ["bytes", "byte fallback"])
def test_long_runs_of_broken_bytes(byte_fallback: JsonTokenizer, kind: str) -> None:
    """Each is given up soon: the cost of a stream grows with its length, and not faster."""
    tokenizer, lost = (byte_fallback, [1 + 0xFF]) if kind == "byte fallback" else (RELEASED, RELEASED.encode("日")[:1])
    counting = Counting(tokenizer)
    stream = Detokenizer(counting)  # type: ignore[arg-type]
    text = "".join(map(stream.push, lost * 2000)) + stream.flush()
    assert text == REPLACEMENT * 2000
    assert counting.count < 100 * 2000


def test_stream_keeps_spaces(tmp_path: Path) -> None:
    """Where decoding drops the space before the first word, words in the middle of a stream keep theirs."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"▁a": 0, "▁b": 1}, merges=[]))
    decoders = tokenizers.decoders
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert pieces(load_tokenizer(tmp_path), [0, 1, 1]) == ["a", " b", " b", ""]


@pytest.fixture(scope="module")
def piece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer.model with Gemma's settings: no dummy prefix, no normalization, byte fallback."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox", "hello world how are you", "user model"] * 10),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=330,
        hard_vocab_limit=False,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        control_symbols=["<|image|>"],
        user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "<table>", "\n"],
        minloglevel=3,
    )
    return folder


@pytest.fixture
def sp(piece_model: Path) -> Tokenizer:
    return load_tokenizer(piece_model)


def test_sentencepiece_special_tokens(sp: Tokenizer) -> None:
    """Control and user-defined pieces become their ids; text between them gets no space of its own."""
    token_ids = sp.encode_markup("<bos><start_of_turn>user\n<|image|><|image|>hello<end_of_turn>")
    text = ["<bos>", "<start_of_turn>", "user", "\n", "<|image|>", "<|image|>", "hello", "<end_of_turn>"]
    assert [sp.token(token_id) for token_id in token_ids] == text
    assert token_ids[:2] + token_ids[-1:] == [2, 5, 6]


@pytest.mark.parametrize(
    "text", ["hello", " hello", "  a  b ", "<bos> hello<|image|> world", "日本語 🙂 é", "<table>a"]
)
def test_sentencepiece_round_trip(sp: Tokenizer, text: str) -> None:
    """Every space and every character reads back, beside special tokens too."""
    assert sp.decode(sp.encode_markup(text), skip_special=False) == text


def test_sentencepiece_leaves_special_tokens_out(sp: Tokenizer) -> None:
    """Decoding leaves out what marks turns and media, and not a <table> that the model writes."""
    assert (
        sp.decode(sp.encode_markup("<bos><start_of_turn>user\n<|image|> <table>hello<end_of_turn>"))
        == "user\n <table>hello"
    )
    assert sp.decode([3, *sp.encode("a"), 9999]) == "a"


def test_sentencepiece_single_tokens(sp: Tokenizer) -> None:
    """A piece's id and its text; None for what the vocabulary does not hold."""
    assert [sp.token_id(token) for token in ("<|image|>", "<start_of_turn>", "<unk>", "<|channel>")] == [4, 5, 3, None]
    assert [sp.token(token_id) for token_id in (4, -1, 9999)] == ["<|image|>", None, None]


def test_sentencepiece_stream(sp: Tokenizer) -> None:
    """Characters of byte pieces come whole; a space shows with the word behind it."""
    assert pieces(sp, sp.encode_markup("é<bos> world")) == ["", "é", "", " world", ""]
    assert pieces(sp, sp.encode("日")[:2]) == ["", "", REPLACEMENT * 2]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(token_ids=st.lists(st.integers(0, 299)))
def test_sentencepiece_streamed_is_whole(piece_model: Path, token_ids: list[int]) -> None:
    """The pieces of any ids joined are the text of all of them."""
    tokenizer = SentencePieceTokenizer(piece_model / "tokenizer.model")
    assert "".join(pieces(tokenizer, token_ids)) == tokenizer.decode(token_ids)


def test_json_comes_first(piece_model: Path, tmp_path: Path) -> None:
    """Where a folder holds both files, tokenizer.json is read."""
    for source in (piece_model / "tokenizer.model", demo_folder() / "checkpoint" / "tokenizer.json"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    assert isinstance(load_tokenizer(tmp_path), JsonTokenizer)


def test_no_tokenizer(tmp_path: Path) -> None:
    """A folder without either file is named."""
    with pytest.raises(ValueError, match=f"There is no tokenizer.json or tokenizer.model in {tmp_path}"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tokenizer.json", "{} is not valid JSON: "),
        ("tokenizer.model", "Cannot read the SentencePiece model in {}: it "),
    ],
)
def test_broken_files(tmp_path: Path, name: str, message: str) -> None:
    """A file that is no tokenizer is named."""
    (tmp_path / name).write_bytes(b'{"version": "1.0"')
    with pytest.raises(ValueError, match=message.format(tmp_path / name)):
        load_tokenizer(tmp_path)


def test_half_a_surrogate_pair_is_refused() -> None:
    """What Python makes of arguments that are not UTF-8."""
    tokenizer = load_tokenizer(demo_folder() / "checkpoint")
    with pytest.raises(ValueError, match=r"Expected text that can be written as UTF-8, got 'a\\udcff'"):
        tokenizer.encode("a\udcff")
    with pytest.raises(ValueError, match=r"got '\.{20}\\udcff\.{19}'$"):
        tokenizer.encode("." * 10_000 + "\udcff" + "." * 10_000)
