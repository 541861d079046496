"""The quality of a conversion: layers are computed as in a session, a copy has no error, and damage is located."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import soundfile
from demo_sizes import DEMO, LAYERS
from golden import clearest, said
from mlx.utils import tree_flatten
from reference_cases import CASES, REFERENCE, SHORT, demo_prompts, media_file, reference_case

from mlx_gemma4 import Model, Processor, Session, load_audio
from mlx_gemma4.decoder.weights import MEDIA_PREFIXES, load_model, read_weights
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.measure.probes import CHUNK, SHOWN, audio_probes, image_probes, page_probes, text_probes
from mlx_gemma4.measure.quality import Quality, measure
from mlx_gemma4.measure.stream import Pair, embed, run_layers
from mlx_gemma4.measure.tokens import Scores, Tokens, compare
from mlx_gemma4.measure.twins import RelativeError, Twin, dequantize
from mlx_gemma4.measure.wer import Recording

RELEASED, RESAVED = (REFERENCE / name / "checkpoint" for name in ("released", "resaved"))
TEXT = "Go back seven meters, und zwar sofort: 12.5 + 3 = 15.5"
SPOKEN = Recording(clearest(), media_file(clearest()), said(clearest()))
DOWN = "language_model.model.layers.3.mlp.down_proj"

MODES = [("affine", 8, 32), ("affine", 3, 64), ("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]

Tensors = dict[str, mx.array]


def altered(folder: Path, change: Callable[[Tensors], Tensors], source: Path = DEMO) -> Path:
    """A copy of a checkpoint with other tensors."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    mx.save_safetensors(str(folder / "model.safetensors"), change(read_weights(source)))
    return folder


def noisy(share: float, name: str = DOWN) -> Callable[[Tensors], Tensors]:
    """Noise on a matrix, as a share of its weights."""

    def change(tensors: Tensors) -> Tensors:
        weight = tensors[f"{name}.weight"]
        scale = share * mx.sqrt(mx.square(weight.astype(mx.float32)).mean())
        noise = mx.random.normal(weight.shape, key=mx.random.key(1)) * scale
        return {**tensors, f"{name}.weight": (weight + noise).astype(weight.dtype)}

    return change


def quantized(folder: Path, source: Path = DEMO, *, bits: int = 4, group_size: int = 64, mode: str = "affine") -> Path:
    """A copy of a checkpoint as MLX quantizes it."""
    block = {"group_size": group_size, "bits": bits, "mode": mode}

    def change(_: Tensors) -> Tensors:
        model = load_model(source)
        nn.quantize(model, **block)
        return dict(tree_flatten(model.parameters()))

    altered(folder, change, source)
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization": block}))
    return folder


def text_only(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(MEDIA_PREFIXES)}


def short(reference: Path, model: Path, **options: Any) -> Quality:
    """A little of everything, in float32: a line of text, a sentence after a short instruction, a picture."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlx_gemma4.measure.probes.instruction", lambda language: SHORT)
        patch.setattr("mlx_gemma4.measure.quality.image_probes", lambda processor: image_probes(processor)[:1])
        chosen = {"recordings": [SPOKEN], "dtype": mx.float32, "hear": False, **options}
        return measure(reference, model, text=TEXT, **chosen)


def errors(quality: Quality) -> dict[str, float]:
    return {module.name: module.error for module in quality.modules}


# layer by layer


def streamed(reference: Path, model: Path, prompts: list[Prompt], which: int) -> list[np.ndarray]:
    """Logits [L, V] of each prompt."""
    pair = Pair(reference, model, mx.float32)
    states, _ = embed(pair, prompts)
    run_layers(pair, states, prompts, lambda line: None)
    ends = pair.open()[which]
    return [np.array(ends.logits(ends.language_model.model.norm(state[which])))[0] for state in states]


def of_session(folder: Path, prompts: list[Prompt]) -> list[np.ndarray]:
    model = load_model(folder, dtype=mx.float32)
    return [np.array(Session(model).extend(prompt, logits_from=0)) for prompt in prompts]


def test_streamed_logits_are_those_of_a_session() -> None:
    """Text, sound, pictures and films, in every order."""
    prompts = [reference_case("resaved", name).prompt for name in CASES]
    for logits, expected in zip(streamed(RESAVED, RESAVED, prompts, 0), of_session(RESAVED, prompts), strict=True):
        np.testing.assert_allclose(logits, expected, atol=2e-6)


def test_streamed_logits_of_a_sequence_longer_than_the_window() -> None:
    """And longer than what a session computes in one forward."""
    prompts = [Prompt.from_tokens(np.arange(530) * 7 % 300 + 20)]
    (logits,), (expected,) = streamed(RESAVED, RESAVED, prompts, 0), of_session(RESAVED, prompts)
    np.testing.assert_allclose(logits, expected, atol=2e-6)


def test_streamed_logits_of_a_quantized_model(demo: tuple[Model, Processor], tmp_path: Path) -> None:
    prompts, folder = [demo_prompts(demo[1])["image"]], quantized(tmp_path / "q4")
    (logits,), (expected,) = streamed(DEMO, folder, prompts, 1), of_session(folder, prompts)
    np.testing.assert_allclose(logits, expected, atol=1e-3)


def test_a_layer_is_released_before_the_next_is_read() -> None:
    """Memory does not grow from layer to layer; opening a model reads no weights."""
    before = mx.get_active_memory()
    pair = Pair(DEMO, DEMO)
    models = pair.open()
    layer = sum(array.nbytes for _, array in tree_flatten(models[0].language_model.model.layers[0].parameters()))
    opened = mx.get_active_memory() - before
    del models
    prompts = [Prompt.from_tokens([2, 40, 41])]
    states, _ = embed(pair, prompts)
    memory: list[int] = []
    run_layers(pair, states, prompts, lambda line: memory.append(mx.get_active_memory()))
    assert len(memory) == LAYERS
    assert opened < layer / 2
    assert max(memory) - min(memory) < layer / 2


@pytest.mark.parametrize(("mode", "bits", "group_size"), MODES)
def test_quantized_modules_are_dequantized(mode: str, bits: int, group_size: int) -> None:
    """A plain module computes the same as the quantized one, with its bias."""
    parts = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 64, bias=False))
    x = mx.random.normal((5, 64), key=mx.random.key(2))
    nn.quantize(parts, group_size=group_size, bits=bits, mode=mode, class_predicate=lambda path, _: path == "layers.0")
    expected = parts.layers[0](x)
    dequantize(parts, mx.float32)
    assert type(parts.layers[0]) is nn.Linear
    np.testing.assert_allclose(np.array(parts.layers[0](x)), np.array(expected), atol=1e-5)


# scores


def test_kl_by_hand() -> None:
    """As computed in float64; a constant added to all logits changes nothing."""
    rng = np.random.default_rng(0)
    expected, got = rng.normal(size=(2, 6, 11)) * 5
    targets = np.array([0, 10, 3, 3, 7, 1])
    p, q = (x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in (expected, got))
    tokens = compare(mx.array(expected), mx.array(got + 7), targets)
    np.testing.assert_allclose(tokens.kl, (np.exp(p) * (p - q)).sum(axis=-1), rtol=1e-5)
    np.testing.assert_allclose(tokens.nll, -q[np.arange(6), targets], rtol=1e-5)
    np.testing.assert_allclose(tokens.reference_nll, -p[np.arange(6), targets], rtol=1e-5)
    assert tokens.same.tolist() == (p.argmax(axis=-1) == q.argmax(axis=-1)).tolist()
    assert tokens.kl.dtype == np.float64


def test_scores() -> None:
    one, two = np.array([0.0, 0.2]), np.array([1.0, 0.0])
    tokens = Tokens.join([Tokens(one, two, np.array([9.0, 23.0]), np.log([2.0, 8.0]), np.log([1.0, 4.0]))] * 2)
    scores = Scores.of(tokens)
    assert (scores.tokens, scores.top1) == (4, 0.5)
    assert scores.logit_error == 4
    assert (scores.kl, scores.kl_p99) == pytest.approx((0.1, 0.2))
    assert (scores.perplexity, scores.reference_perplexity) == pytest.approx((4, 2))


def test_relative_errors_by_hand() -> None:
    """A mean over rows, whatever their norm; rows of zeros are left out, and without rows there is no error."""
    error = RelativeError()
    assert error.value is None
    error.add(mx.zeros((1, 2, 3)), mx.zeros((1, 2, 3)))
    assert error.value is None
    error.add(mx.array([[[3.0, 5.0], [0.0, 0.0]]]), mx.array([[[3.0, 4.0], [0.0, 0.0]]]))
    assert error.value == pytest.approx(1 / 5)
    error.add(mx.array([[[3000.0, 4000.0]]]), mx.array([[[3000.0, 4000.0]]]))
    assert error.value == pytest.approx(1 / 50**0.5)


def test_a_twin_returns_the_output_of_the_reference() -> None:
    """In the reference's type; the other module computes in its own."""
    one, other = nn.Linear(4, 3), nn.Linear(4, 3)
    other.weight, other.bias = (2 * one.weight).astype(mx.bfloat16), (2 * one.bias).astype(mx.bfloat16)
    twin, x = Twin(one, other), mx.random.normal((1, 300, 4), key=mx.random.key(3))
    assert mx.array_equal(twin(x), one(x)) and twin(x).dtype == mx.float32
    assert twin.error.value == pytest.approx(1, abs=0.02)


# what is scored


def test_text_is_cut_into_chunks(demo: tuple[Model, Processor]) -> None:
    """Each chunk begins with BOS, and all tokens are scored, in order."""
    processor = demo[1]
    text = "one two three " * 300
    ids = processor.tokenizer.encode(text.strip())
    probes, bos = text_probes(processor, text), processor.tokenizer.token_id("<bos>")
    assert [len(probe.prompt) for probe in probes[:-1]] == [CHUNK] * (len(probes) - 1)
    assert all(probe.prompt.token_ids[0] == bos and probe.scored == len(probe.prompt) - 1 for probe in probes)
    assert np.concatenate([probe.prompt.token_ids[1:] for probe in probes]).tolist() == ids
    assert 1 <= len(page_probes(processor)) <= 2


def test_answers_are_scored_to_their_end(demo: tuple[Model, Processor]) -> None:
    """The prompt is the one for generation; the scored tokens are the true text and the end of the turn."""
    processor = demo[1]
    (heard,) = audio_probes(processor, [SPOKEN], "English", lambda line: None)
    seen = image_probes(processor)
    for probe, answer in ((heard, SPOKEN.text), (seen[1], SHOWN["picture-02.png"])):
        assert processor.decode(probe.prompt.token_ids[-probe.scored :]) == answer
        assert processor.tokenizer.token(int(probe.prompt.token_ids[-1])) == "<turn|>"
        assert processor.tokenizer.decode(probe.prompt.token_ids.tolist(), skip_special=False).count("<turn|>") == 2
    assert len(heard.prompt.frames) == -(-len(load_audio(SPOKEN.path)) // 640)
    assert [probe.kind for probe in (heard, *seen)] == ["audio", "image", "image"]


def test_recordings_longer_than_a_prompt_are_not_scored(demo: tuple[Model, Processor], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.full(31 * 16_000, 0.1), 16_000)
    notes: list[str] = []
    probes = audio_probes(demo[1], [Recording("long.wav", tmp_path / "long.wav", "a"), SPOKEN], "English", notes.append)
    assert len(probes) == 1
    assert notes == ["long.wav is too long for one prompt; its tokens are not scored"]


# measure


def test_a_model_has_no_error_against_itself() -> None:
    quality = short(DEMO, DEMO)
    assert (quality.kl, quality.kl_p99, quality.top1) == (0, 0, 1)
    assert quality.perplexity == quality.reference_perplexity
    assert list(quality.parts) == ["text", "audio", "image"]
    assert quality.tokens == sum(part.tokens for part in quality.parts.values())
    assert quality.parts["audio"].perplexity < 1.5
    assert quality.layers == [0] * LAYERS
    assert set(errors(quality).values()) == {0}
    assert (quality.wer, quality.reference_wer) == (None, None)
    linear = {name.removesuffix(".weight") for name in read_weights(DEMO) if "proj" in name}
    others = {"language_model.model.embed_tokens", "vision_embedder.patch_dense"}
    assert set(errors(quality)) == linear | others


def test_a_damaged_module_is_named(tmp_path: Path) -> None:
    """Modules behind it have no error of their own; the drift begins with it."""
    quality = short(DEMO, altered(tmp_path / "damaged", noisy(1)))
    assert quality.modules[0].name == DOWN and quality.modules[0].error > 0.1
    assert {module.error for module in quality.modules[1:]} == {0}
    assert quality.layers[:3] == [0, 0, 0]
    assert min(quality.layers[3:]) > 0.01
    assert quality.kl > 1e-4 and quality.kl_p99 > quality.kl
    assert quality.perplexity != quality.reference_perplexity


def test_a_damaged_embedder_is_named(tmp_path: Path) -> None:
    quality = short(DEMO, altered(tmp_path / "damaged", noisy(0.5, "embed_audio.embedding_projection")))
    assert quality.modules[0].name == "embed_audio.embedding_projection"
    assert {module.error for module in quality.modules[1:]} == {0}
    assert quality.parts["text"].kl == quality.parts["image"].kl == 0 < quality.parts["audio"].kl


def test_four_bits_are_worse_than_eight(tmp_path: Path) -> None:
    """In each module, each layer, and all tokens."""
    four, eight = (short(DEMO, quantized(tmp_path / f"q{bits}", bits=bits)) for bits in (4, 8))
    assert all(errors(four)[name] > 3 * error > 0 for name, error in errors(eight).items())
    assert 0 < eight.kl < four.kl / 5
    assert all(more > less > 0 for more, less in zip(four.layers, eight.layers, strict=True))


def test_both_models_transcribe_the_recordings(tmp_path: Path) -> None:
    """A model whose projection of sound is noise has many errors."""
    deaf = altered(tmp_path / "deaf", noisy(30, "embed_audio.embedding_projection"))
    notes: list[str] = []
    quality = short(DEMO, deaf, hear=True, progress=notes.append)
    assert quality.reference_wer == 0
    assert quality.wer is not None and quality.wer > 0.5
    assert [line for line in notes if "listening" in line] == [f"listening with {DEMO}", f"listening with {deaf}"]
    assert notes[-1].startswith(f"{SPOKEN.name}: {SPOKEN.text!r}, heard ")


def test_text_only_conversions(tmp_path: Path) -> None:
    """Sound and pictures are left out, with a note; recordings that were named are an error."""
    folder = altered(tmp_path / "text", text_only)
    notes: list[str] = []
    quality = measure(DEMO, folder, text=TEXT, progress=notes.append)
    assert list(quality.parts) == ["text"] and (quality.kl, quality.wer) == (0, None)
    assert notes[:2] == [
        f"audio is left out: there are no audio weights in {folder}",
        f"images are left out: there are no vision weights in {folder}",
    ]
    message = f"^Both checkpoints need audio weights: there are no audio weights in {folder}$"
    with pytest.raises(ValueError, match=message):
        measure(DEMO, folder, text=TEXT, recordings=[SPOKEN])


def test_transcribing_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_gemma4.measure.quality.check_extra", lambda: (_ for _ in ()).throw(ImportError("extra")))
    with pytest.raises(ImportError, match="extra"):
        measure(DEMO, DEMO, text=TEXT, recordings=[SPOKEN])
    monkeypatch.setattr("mlx_gemma4.measure.quality.image_probes", lambda processor: [])
    for options in ({"recordings": [SPOKEN], "hear": False}, {"recordings": [], "hear": True}):
        assert measure(RELEASED, RELEASED, text="Go.", **options).kl == 0  # type: ignore[arg-type]


# errors


def test_checkpoints_of_two_models() -> None:
    message = f"^The checkpoints are not conversions of one model: {DEMO} has {LAYERS} layers, {RELEASED} has 12$"
    with pytest.raises(ValueError, match=message):
        measure(DEMO, RELEASED)


def test_checkpoints_with_different_tokenizers(tmp_path: Path) -> None:
    folder = altered(tmp_path / "other", dict)
    table = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = table["model"]["vocab"]
    vocabulary["b"], vocabulary["o"] = vocabulary["o"], vocabulary["b"]
    (folder / "tokenizer.json").write_text(json.dumps(table))
    message = rf"^The checkpoints have different tokenizers: token \d+ is 'o' in {DEMO} and 'b' in {folder}$"
    with pytest.raises(ValueError, match=message):
        measure(DEMO, folder, text="o", recordings=[], hear=False)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    folder = altered(tmp_path / "broken", noisy(float("inf")))
    with pytest.raises(ValueError, match=f"^{folder} computes NaN or infinity in layer 3: "):
        short(DEMO, folder)
    with pytest.raises(ValueError, match=f"^{folder} computes NaN or infinity in "):
        short(folder, DEMO)


def test_nothing_to_score(demo: tuple[Model, Processor]) -> None:
    with pytest.raises(ValueError, match=r"^There is no text to score in ' \\n'$"):
        measure(DEMO, DEMO, text=" \n", recordings=[])


def test_missing_recordings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^There is no audio file at {tmp_path / 'a.wav'}$"):
        measure(DEMO, DEMO, recordings=[Recording("a.wav", tmp_path / "a.wav", "a")])
