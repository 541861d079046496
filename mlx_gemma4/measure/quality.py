"""A conversion against its reference: KL divergence, perplexity, word error rate, and the error of each module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.decoder.weights import load_model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.text.tokenizer import load_tokenizer
from mlx_gemma4.measure.probes import (
    Probe,
    audio_probes,
    image_probes,
    packaged_recordings,
    page_probes,
    text_probes,
)
from mlx_gemma4.measure.stream import Pair, embed, run_layers, score
from mlx_gemma4.measure.tokens import Scores, Tokens
from mlx_gemma4.measure.wer import Recording, Score, check_extra, check_files, evaluate, normalizer
from mlx_gemma4.programs.segments import joined, transcribe_each
from mlx_gemma4.programs.transcribe import Transcriber, instruction

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Module:
    """One module, under its name in the ``quantization`` block of config.json."""

    name: str
    error: float
    """Relative error of its output B(x) against the reference module's A(x), on the reference's own input: the square
    root of the mean over rows of ‖B(x) − A(x)‖² / ‖A(x)‖²."""


@dataclass(frozen=True)
class Quality(Scores):
    """How far a conversion is from its reference, over all scored tokens."""

    parts: dict[str, Scores]
    """The scores of text, audio and image, as far as they were measured."""
    modules: list[Module]
    """The worst first."""
    layers: list[float]
    """Relative error of the hidden state after each layer, as in ``Module``."""
    wer: float | None
    """Word error rate; None if nothing was transcribed."""
    reference_wer: float | None


def measure(
    reference: Path,
    model: Path,
    *,
    text: str | None = None,
    recordings: Sequence[Recording] | None = None,
    language: str = "English",
    limit: int | None = None,
    dtype: mx.Dtype = mx.float32,
    kv_bits: int | None = None,
    hear: bool = True,
    progress: Progress = lambda line: None,
) -> Quality:
    """Compare two checkpoint folders on text, sound and pictures.

    Both are computed layer by layer, so that neither is in memory as a whole. With ``hear``, one model at a
    time is loaded whole.

    Args:
        text: Text to score; the packaged page by default.
        recordings: Sound and what is said in it; the packaged recordings by default, none if empty. By default they
            are left out where a checkpoint has no audio weights.
        language: What is spoken in them.
        limit: Only the first so many chunks of text and recordings.
        dtype: Compare in this type.
        kv_bits: Bits in which the model stores keys and values of full layers. The reference stores them as they are
            computed, so that both may be the same checkpoint.
        hear: Transcribe the recordings with both, each in its own type, for word error rates, which need the [eval]
            extra.

    Raises:
        ValueError: The checkpoints are not conversions of one model, or have no audio weights for ``recordings``; there
            is nothing to score; a checkpoint computes NaN; the model's heads cannot be stored in ``kv_bits``.
        ImportError: The [eval] extra is missing.
    """
    pair = Pair(reference, model, dtype, kv_bits)
    chosen = packaged_recordings() if recordings is None else list(recordings)
    check_files(chosen)
    has_audio, has_vision = _check_pair(pair)
    if chosen and not has_audio:
        if recordings is not None:
            raise ValueError(f"Both checkpoints need audio weights: {_without(pair, 'audio')}")
        progress(f"audio is left out: {_without(pair, 'audio')}")
        chosen = []
    if not has_vision:
        progress(f"images are left out: {_without(pair, 'vision')}")
    chosen = chosen[:limit]
    if hear and chosen:
        check_extra()

    processor = Processor.from_folder(reference)
    probes = (page_probes(processor) if text is None else text_probes(processor, text))[:limit]
    probes += audio_probes(processor, chosen, language, progress)
    probes += image_probes(processor) if has_vision else []
    _check_tokenizers(pair, processor, probes)

    scored, errors, drifts = _run(pair, probes, progress)
    rates = [
        _wer(folder, bits, chosen, language, progress) if hear and chosen else None
        for folder, bits in ((reference, None), (model, kv_bits))
    ]
    return _quality(probes, scored, errors, drifts, rates)


def _run(pair: Pair, probes: Sequence[Probe], progress: Progress) -> tuple[list[Tokens], dict[str, float], list[float]]:
    prompts = [probe.prompt for probe in probes]
    states, errors = embed(pair, prompts)
    drifts, layer_errors = run_layers(pair, states, prompts, progress)
    scored = score(pair, states, probes)
    mx.clear_cache()
    return scored, errors | layer_errors, drifts


def _quality(
    probes: Sequence[Probe],
    scored: Sequence[Tokens],
    errors: dict[str, float],
    drifts: list[float],
    rates: Sequence[float | None],
) -> Quality:
    kinds: dict[str, list[Tokens]] = {}
    for probe, tokens in zip(probes, scored, strict=True):
        kinds.setdefault(probe.kind, []).append(tokens)
    modules = [Module(name, error) for name, error in errors.items()]
    return Quality(
        **vars(Scores.of(Tokens.join(scored))),
        parts={kind: Scores.of(Tokens.join(tokens)) for kind, tokens in kinds.items()},
        modules=sorted(modules, key=lambda module: -module.error),
        layers=drifts,
        reference_wer=rates[0],
        wer=rates[1],
    )


def _check_pair(pair: Pair) -> tuple[bool, bool]:
    """Check that both have the same sizes. Returns whether both take sound, and whether both take pictures."""
    models = pair.open()
    configs = [model.config.text_config for model in models]
    for name, sizes in (
        ("layers", [len(config.layers) for config in configs]),
        ("tokens in the vocabulary", [config.vocab_size for config in configs]),
        ("hidden dimensions", [config.hidden_size for config in configs]),
    ):
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"The checkpoints are not conversions of one model: {pair.reference} has {sizes[0]} {name}, "
                f"{pair.model} has {sizes[1]}"
            )
    return _both(models, "audio"), _both(models, "vision")


def _both(models: Sequence[Model], part: str) -> bool:
    return all(_has(model, part) for model in models)


def _has(model: Model, part: str) -> bool:
    return (model.config.audio_config if part == "audio" else model.config.vision_config) is not None


def _without(pair: Pair, part: str) -> str:
    folders = [
        str(folder)
        for folder, model in zip((pair.reference, pair.model), pair.open(), strict=True)
        if not _has(model, part)
    ]
    return f"there are no {part} weights in {' and '.join(folders)}"


def _check_tokenizers(pair: Pair, processor: Processor, probes: Sequence[Probe]) -> None:
    """Raise a ValueError if the two tokenizers differ in a token of the probes: the scores could not be compared."""
    tokenizer = load_tokenizer(pair.model)
    for probe in probes:
        for token in dict.fromkeys(probe.prompt.token_ids.tolist()):
            expected, got = processor.tokenizer.token(token), tokenizer.token(token)
            if expected != got:
                raise ValueError(
                    f"The checkpoints have different tokenizers: token {token} is {expected!r} in {pair.reference} "
                    f"and {got!r} in {pair.model}"
                )


def _wer(
    folder: Path, kv_bits: int | None, recordings: Sequence[Recording], language: str, progress: Progress
) -> float | None:
    """The word error rate of one checkpoint, which is released afterwards."""
    mx.clear_cache()  # the buffers of the checkpoint before
    progress(f"listening with {folder}")
    model = load_model(folder)
    model.kv_bits = kv_bits
    transcriber = Transcriber(model, Processor.from_folder(folder), text=instruction(language))
    total = Score()
    for result in evaluate(
        recordings,
        lambda sounds: map(joined, transcribe_each(sounds, transcriber)),
        normalizer(language=language),
    ):
        total += result.score
        if not result.score.exact:
            progress(f"{result.recording.name}: {result.recording.text!r}, heard {result.heard!r}")
    return total.wer
