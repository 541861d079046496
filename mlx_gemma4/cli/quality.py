"""Print what a conversion lost: scores, the worst modules, and the layers."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_gemma4.checkpoint.hub import checkpoint_folder, default_model
from mlx_gemma4.cli.shared.notes import note
from mlx_gemma4.cli.shared.options import add_kv_bits, add_model
from mlx_gemma4.cli.shared.report import add_report, aligned, report_file, save

if TYPE_CHECKING:
    from mlx_gemma4.measure.quality import Quality
    from mlx_gemma4.measure.tokens import Scores

QUALITY = "Measure the loss of a conversion: how far its tokens are from the reference's, and which modules cause it."
TEXT = "plain text to score (default: a packaged page of prose in five languages, code and numbers)"
AUDIO = (
    "JSON lines as 'eval wer' takes them: what is said is scored as the answer to the transcription prompt "
    "(default: the recordings of the demo)"
)
COLUMNS = ("", "tokens", "KL", "KL p99", "top-1", "logits", "perplexity", "reference's")
WORST = 10
PREFIX = "language_model.model."
PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

COMMON = ("--help", "--help-all", "--reference", "--model", "--text", "--audio", "--kv-bits", "--no-wer", "--json")
"""The options that ``--help`` shows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reference", required=True, help="the source of the conversion: a folder, a repo id or 'demo'"
    )
    add_model(parser, dtype="float32", context=None)
    add_kv_bits(parser)
    parser.add_argument("--text", metavar="FILE", help=TEXT)
    parser.add_argument("--audio", metavar="MANIFEST", help=AUDIO)
    parser.add_argument(
        "--language", default="English", help="spoken language, as an English name or a code (default: English)"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="measure the first N chunks of text and N recordings only"
    )
    parser.add_argument(
        "--no-wer",
        action="store_true",
        help="skip the word error rates, which need each model to fit in memory",
    )
    add_report(parser, "including the error of each module")


def run(arguments: argparse.Namespace) -> None:
    from mlx_gemma4.measure.wer import check_extra, check_files, read_manifest
    from mlx_gemma4.programs.languages import language_name

    # everything that can be wrong is reported before a model is read
    text = None if arguments.text is None else read_text(Path(arguments.text))
    recordings = None if arguments.audio is None else read_manifest(arguments.audio)[: arguments.limit]
    check_files(recordings or [])
    language = language_name(arguments.language)
    if not arguments.no_wer:
        check_extra()
    report = report_file(arguments)
    reference = checkpoint_folder(arguments.reference)
    model = checkpoint_folder(arguments.model or default_model(), revision=arguments.revision)

    from mlx_gemma4.decoder.types import DTYPES
    from mlx_gemma4.measure.quality import measure

    quality = measure(
        reference,
        model,
        text=text,
        recordings=recordings,
        language=language,
        limit=arguments.limit,
        dtype=DTYPES[arguments.dtype],
        kv_bits=arguments.kv_bits,
        hear=not arguments.no_wer,
        progress=note,
    )
    print("\n\n".join([scores(quality), worst(quality), layers(quality)]))
    save(report, {"reference": str(reference), "model": str(model), "kv_bits": arguments.kv_bits, **asdict(quality)})


def read_text(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"There is no file for --text at {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not plain text: {error}") from error
    if not text.strip():
        raise ValueError(f"There is no text to score in {path}: it is empty")
    return text


def scores(quality: Quality) -> str:
    """A row for each kind of sequence and one for all, and the word error rates."""
    rows = [_row(kind, part) for kind, part in quality.parts.items()]
    if len(rows) > 1:
        rows.append(_row("all", quality))
    title = "KL(reference ‖ model) in nats a token, and the error of logits (root mean square)"
    table = f"{title}\n{aligned([COLUMNS, *rows])}"
    if quality.wer is None or quality.reference_wer is None:
        return table
    return f"{table}\nWER {quality.wer:.2%}, the reference's {quality.reference_wer:.2%}"


def worst(quality: Quality) -> str:
    """The modules with the largest errors."""
    rows = [(module.name.removeprefix(PREFIX), _figure(module.error)) for module in quality.modules[:WORST]]
    return f"worst modules: ‖B(x) − A(x)‖ / ‖A(x)‖ on the reference's own inputs\n{aligned(rows)}"


def layers(quality: Quality) -> str:
    """The drift of the hidden state after each layer, and the errors of its modules."""
    errors = {module.name: module.error for module in quality.modules}
    rows = []
    for index, drift in enumerate(quality.layers):
        names = (f"{PREFIX}layers.{index}.{'mlp' if part in PARTS[4:] else 'self_attn'}.{part}" for part in PARTS)
        rows.append((str(index), _figure(drift), *(_figure(errors.get(name)) for name in names)))
    return f"layers: drift of the hidden state, ‖hB − hA‖ / ‖hA‖, and modules as above\n{aligned([LAYERS, *rows])}"


LAYERS = ("layer", "drift", *(part.removesuffix("_proj") for part in PARTS))


def _row(kind: str, part: Scores) -> tuple[str, ...]:
    shares = (f"{part.kl:.4f}", f"{part.kl_p99:.4f}", f"{part.top1:.2%}", f"{part.logit_error:.4f}")
    return (kind, str(part.tokens), *shares, f"{part.perplexity:.3f}", f"{part.reference_perplexity:.3f}")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
