"""BOS, stop tokens and media tokens, whichever of a checkpoint's files tell of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from conftest import loaded
from reference_cases import media_file
from small_files import DEMO, demo_copy, edit, write

from mlx_gemma4 import Model, Processor, Sampling, Transcriber, load_audio, stream_generate
from mlx_gemma4.live.see.views import Asking, Glance
from mlx_gemma4.outputs.sample import Sampler

HELLO = [{"role": "user", "content": "hello"}]
DEMO_MEDIA = {6, 7, 8, 9, 10, 11, 12}
"""<|image>, <|image|>, <image|>, <|audio>, <|audio|>, <audio|> and <|video|>."""
TOKENIZER_BOS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return demo_copy(tmp_path / "checkpoint")


def without_ids(table: dict[str, Any]) -> None:
    """A config that names neither BOS nor what ends an answer."""
    for each in (table, table["text_config"]):
        each.pop("bos_token_id", None)
        each.pop("eos_token_id", None)


def strip(folder: Path, *kept: str) -> None:
    """Remove what tells of BOS and stop tokens, except in the sources that are kept."""
    if "tokenizer_config" not in kept:
        (folder / "tokenizer_config.json").unlink()
    if "generation_config" not in kept:
        (folder / "generation_config.json").unlink()
    if "config" not in kept:
        edit(folder / "config.json", without_ids)


def rename_bos(folder: Path) -> None:
    """<bos> under another name, so that the vocabulary alone does not give it away."""

    def change(table: dict[str, Any]) -> None:
        table["added_tokens"][2]["content"] = "<s>"
        table["model"]["vocab"]["<s>"] = table["model"]["vocab"].pop("<bos>", 2)

    edit(folder / "tokenizer.json", change)


def begins(folder: Path) -> int:
    return int(Processor.from_folder(folder).prompt(HELLO).token_ids[0])


@pytest.mark.parametrize("missing", ["tokenizer_config.json", "generation_config.json", "config.json", "all"])
def test_bos_with_a_source_missing(folder: Path, missing: str) -> None:
    """Without one of the files that name it, and without all of them, prompts begin with the same token."""
    kept = {"tokenizer_config", "generation_config", "config"} - {missing.removesuffix(".json")}
    strip(folder, *(kept if missing != "all" else ()))
    processor = Processor.from_folder(folder)
    expected = Processor.from_folder(DEMO).prompt(HELLO).token_ids
    np.testing.assert_array_equal(processor.prompt(HELLO).token_ids, expected)
    assert processor.bos_id == expected[0] == 2
    assert processor.completion("hello").token_ids.tolist() == [2, *processor.tokenizer.encode("hello")]


def add_post_processor(folder: Path) -> None:
    processor = {**TOKENIZER_BOS, "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, TOKENIZER_BOS["single"][1]]}
    processor["special_tokens"] = {"<s>": {"id": "<s>", "ids": [2], "tokens": ["<s>"]}}
    edit(folder / "tokenizer.json", lambda table: table.update(post_processor=processor))


@pytest.mark.parametrize(
    "tell",
    [
        lambda folder: write(folder / "tokenizer_config.json", {"bos_token": "<s>"}),
        lambda folder: write(folder / "tokenizer_config.json", {"bos_token": {"content": "<s>", "special": True}}),
        lambda folder: write(folder / "special_tokens_map.json", {"bos_token": "<s>"}),
        lambda folder: write(folder / "special_tokens_map.json", {"bos_token": {"content": "<s>"}}),
        lambda folder: write(folder / "generation_config.json", {"bos_token_id": 2}),
        lambda folder: edit(folder / "config.json", lambda table: table.update(bos_token_id=2)),
        lambda folder: edit(folder / "config.json", lambda table: table["text_config"].update(bos_token_id=2)),
        add_post_processor,
    ],
    ids=["tokenizer_config", "object", "map", "object in map", "generation_config", "config", "text_config", "json"],
)
def test_bos_with_one_source(folder: Path, tell: Callable[[Path], None]) -> None:
    """Each source is enough, alone."""
    strip(folder)
    rename_bos(folder)
    assert Processor.from_folder(folder).bos_id is None
    tell(folder)
    assert begins(folder) == 2
    assert Processor.from_folder(folder).bos_id == 2


def test_bos_that_is_no_token(folder: Path) -> None:
    """A name or an id that the tokenizer does not know leaves it to the next source."""
    edit(folder / "tokenizer_config.json", lambda table: table.update(bos_token="<none>"))
    edit(folder / "config.json", lambda table: table.update(bos_token_id=10**6))
    assert begins(folder) == 2


@pytest.mark.parametrize("beginning", ["", "{{ bos_token }}", "<bos>", "\n{{ bos_token }}"])
def test_bos_whatever_the_template_writes(folder: Path, beginning: str) -> None:
    """Templates that leave it to the tokenizer have one in front; others no second one."""
    (folder / "chat_template.jinja").write_text(f"{beginning}<|turn>user\n{{{{ messages[0].content }}}}")
    ids = Processor.from_folder(folder).prompt(HELLO).token_ids.tolist()
    assert ids.count(2) == 1 and ids.index(2) == (1 if beginning.startswith("\n") else 0)


def test_plain_text_has_no_markup(folder: Path) -> None:
    """BOS written in it is text."""
    processor = Processor.from_folder(folder)
    ids = processor.completion("<bos>a").token_ids.tolist()
    assert ids.count(2) == 1 and processor.decode(ids) == "<bos>a"


@pytest.mark.parametrize(
    ("tell", "expected"),
    [
        (lambda folder: None, {1, 5}),
        (
            lambda folder: edit(folder / "config.json", lambda table: table.update(eos_token_id=[20, 21])),
            {1, 5, 20, 21},
        ),
        (lambda folder: edit(folder / "config.json", lambda table: table.update(eos_token_id=20)), {1, 5, 20}),
        (
            lambda folder: edit(folder / "config.json", lambda table: table["text_config"].update(eos_token_id=20)),
            {1, 5, 20},
        ),
        (lambda folder: write(folder / "generation_config.json", {"eos_token_id": [20]}), {1, 5, 20}),
        (lambda folder: write(folder / "tokenizer_config.json", {"eot_token": "<unk>"}), {1, 5, 3}),
        (lambda folder: write(folder / "special_tokens_map.json", {"eos_token": "<unk>"}), {1, 5, 3}),
    ],
    ids=["names", "config", "one id", "text_config", "generation_config", "tokenizer_config", "map"],
)
def test_stop_tokens(folder: Path, tell: Callable[[Path], None], expected: set[int]) -> None:
    """They are those of all files together, and those that have a name that ends an answer."""
    strip(folder)
    tell(folder)
    assert Processor.from_folder(folder).stop_ids == expected


def test_a_tool_response_ends_an_answer(released: tuple[Model, Processor]) -> None:
    """The model calls; the response is the caller's to write. The 12B's own list says so too."""
    _, processor = released
    assert processor.stop_ids == {1, 5, processor.tokenizer.token_id("<|tool_response>")} == {1, 5, 20}


def test_an_answer_ends_without_generation_config(folder: Path) -> None:
    """Where only the top of config.json names the end of a turn."""
    model, _ = loaded("demo")
    (folder / "generation_config.json").unlink()
    edit(folder / "config.json", lambda table: table.update(eos_token_id=[1, 5]))
    edit(folder / "config.json", lambda table: table["text_config"].update(eos_token_id=1))
    processor = Processor.from_folder(folder)
    content = [{"type": "text", "text": "Transcribe the audio."}, {"type": "audio", "audio": media_file("pico-04.wav")}]
    *_, last = stream_generate(
        model, processor, processor.prompt([{"role": "user", "content": content}]), max_tokens=60
    )
    assert last.finish_reason == "stop"


@pytest.mark.parametrize(
    "missing", [(), ("generation_config.json",), ("generation_config.json", "tokenizer_config.json")]
)
def test_media_tokens_are_suppressed(folder: Path, missing: Sequence[str]) -> None:
    """Whatever generation_config.json lists, and where config.json names none, by their names."""
    for name in missing:
        (folder / name).unlink()
    assert set(Processor.from_folder(folder).suppressed_ids) == DEMO_MEDIA
    names = ("image", "audio", "video", "boi", "eoi", "boa", "eoa")
    ids = {f"{name}_token_id" for name in names} | {"eoa_token_index"}
    edit(folder / "config.json", lambda table: [table.pop(key, None) for key in ids])
    assert set(Processor.from_folder(folder).suppressed_ids) == DEMO_MEDIA
    write(folder / "generation_config.json", {"suppress_tokens": [20, 7]})
    assert set(Processor.from_folder(folder).suppressed_ids) == DEMO_MEDIA | {20}


def test_media_tokens_by_other_names(folder: Path) -> None:
    """tokenizer_config.json says which tokens they are; so does config.json, by id."""
    edit(folder / "tokenizer_config.json", lambda table: table.update(boa_token="<unk>"))
    edit(folder / "config.json", lambda table: table.update(image_token_id=30))
    assert {3, 30} <= set(Processor.from_folder(folder).suppressed_ids)


def test_a_stop_token_is_no_media_token(folder: Path) -> None:
    """A config that takes one for the other does not make answers endless."""
    edit(folder / "config.json", lambda table: table.update(video_token_id=5))
    processor = Processor.from_folder(folder)
    assert 5 in processor.stop_ids and 5 not in processor.suppressed_ids


@pytest.mark.parametrize("missing", [False, True])
def test_a_thousand_samples_hold_no_media_token(folder: Path, missing: bool) -> None:
    """At temperature 2, from logits in which media tokens are the likeliest."""
    if missing:
        (folder / "generation_config.json").unlink()
    processor = Processor.from_folder(folder)
    size = processor.config.text_config.vocab_size
    rows = np.random.default_rng(0).normal(size=(1000, size)).astype(np.float32)
    rows[:, list(DEMO_MEDIA)] += 10
    sampler = Sampler(Sampling(temperature=2.0, seed=0), size, suppress=processor.suppressed_ids)
    drawn = np.array(mx.stack([sampler(row) for row in mx.array(rows)]))
    assert not DEMO_MEDIA & set(drawn.tolist())
    assert not DEMO_MEDIA & set(sampler.greedy(mx.array(rows)))
    blind = Sampler(Sampling(temperature=2.0, seed=0), size)
    assert DEMO_MEDIA & {int(blind(row).item()) for row in mx.array(rows[:20])}


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What any sampler chooses, of a model that would rather write media tokens than anything else."""
    tokens: list[int] = []
    logits, greedy, call = Model.logits, Sampler.greedy, Sampler.__call__

    def fond(self: Model, h: mx.array) -> mx.array:
        bias = np.zeros(self.config.text_config.vocab_size, np.float32)
        bias[list(DEMO_MEDIA)] = 1000
        return logits(self, h) + mx.array(bias)

    def recorded(self: Sampler, rows: mx.array) -> list[int]:
        tokens.extend(greedy(self, rows))
        return tokens[-len(rows) :]

    def recorded_one(self: Sampler, row: mx.array) -> mx.array:
        token = call(self, row)
        tokens.append(int(token.item()))
        return token

    monkeypatch.setattr(Model, "logits", fond)
    monkeypatch.setattr(Sampler, "greedy", recorded)
    monkeypatch.setattr(Sampler, "__call__", recorded_one)
    return tokens


def answered(model: Model, processor: Processor) -> None:
    list(stream_generate(model, processor, "hi", max_tokens=9, sampling=Sampling(temperature=2.0, seed=0)))


def transcribed(model: Model, processor: Processor) -> None:
    transcriber = Transcriber(model, processor, text="Transcribe the audio.", max_tokens=9)
    frames = processor.frames(load_audio(media_file("pico-04.wav")))
    list(transcriber.feed(frames))
    transcriber.guess()
    transcriber.finish()
    list(transcriber.transcribe_batch([(0, frames), (0, frames[:20])]))


def watched(model: Model, processor: Processor) -> None:
    view = Glance(Asking(model, processor, question="What?", system=None, max_tokens=9))
    view.take(np.zeros((48, 48, 3), np.uint8), 0.0)
    view.ask(draft=view.ask())


@pytest.mark.parametrize("program", [answered, transcribed, watched])
def test_no_program_writes_media_tokens(
    demo: tuple[Model, Processor], folder: Path, chosen: list[int], program: Callable[[Model, Processor], None]
) -> None:
    """Answers, transcripts one by one and side by side, and descriptions: all leave out the same tokens."""
    (folder / "generation_config.json").unlink()
    program(demo[0], Processor.from_folder(folder))
    assert len(chosen) > 1 and not DEMO_MEDIA & set(chosen)
