"""The answers of the demo on this device, beside those of the reference implementation (``golden.json``).

Every token is decoded alone, as a user's would be, in float32 and in the checkpoint's own precision. Then the kernels
of quantized weights are compared with plain ones on the same weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_gemma4.checkpoint.hub import demo_folder
from mlx_gemma4.measure.checks.finding import Finding, Findings, Known

if TYPE_CHECKING:
    from mlx_gemma4.decoder.model import Model
    from mlx_gemma4.inputs.processor import Processor
    from mlx_gemma4.inputs.prompt import Prompt

GOLDEN = Path(__file__).with_name("golden.json")
"""Written by ``tests/make_reference.py``."""
EXACT = 0.001
"""How far the lead of a token may be from the reference's, in logits: float32 on a CPU gives 2e-5, bfloat16 5e-2."""
CLOSE = 0.01
"""Relative error of a quantized product in float32: more is not rounding."""
ROWS = (1, 8, 40)
"""Rows of a forward: each has a kernel of its own."""
REPORT = "Install MLX again (pip install --force-reinstall mlx). If it stays like this, report it."


@dataclass(frozen=True)
class Answer:
    """What the demo answered, and what it should have."""

    name: str
    text: str
    expected: str
    sure: str
    """The beginning of the text that is certain in the checkpoint's own precision."""
    lead_error: float
    """How far the smallest lead of a token over the next likely one is from the reference's, in logits."""

    @property
    def is_right(self) -> bool:
        return self.text == self.expected


def check(known: Known) -> Findings:
    folder = demo_folder()
    yield exact(answers(folder, "float32"))
    yield own(answers(folder, None))
    yield quantized(folder)


def exact(found: list[Answer]) -> Finding:
    """Whether float32 gives the reference's answers and logits."""
    error = max(answer.lead_error for answer in found)
    figures = _figures(found)
    if wrong := [answer for answer in found if not answer.is_right]:
        return Finding("golden", "problem", _wrong(wrong, len(found), "in float32"), REPORT, figures)
    names = ", ".join(answer.name for answer in found)
    text = f"All {len(found)} answers ({names}) are the reference's in float32"
    if error > EXACT:
        text += f", but logits are off by {error:.2g}: products are rounded to TF32 or less."
        return Finding("golden", "warning", text, "Set MLX_ENABLE_TF32=0 to compare again.", figures)
    return Finding("golden", "ok", f"{text}; logits within {error:.1g}.", figures=figures)


def own(found: list[Answer]) -> Finding:
    """Whether the checkpoint's own precision gives them, as far as they are certain in it."""
    wrong = [answer for answer in found if not answer.text.startswith(answer.sure)]
    if wrong:
        return Finding("bfloat16", "problem", _wrong(wrong, len(found), "in bfloat16"), REPORT, _figures(found))
    return Finding("bfloat16", "ok", f"All {len(found)} answers are the reference's too.", figures=_figures(found))


def quantized(folder: Path) -> Finding:
    """Whether the kernels of quantized weights compute what plain ones do."""
    errors = {mode: kernel_error(folder, mode) for mode in ("affine", "mxfp4")}
    text = ", ".join(f"{'4 bits' if mode == 'affine' else mode} {error:.1g}" for mode, error in errors.items())
    if max(errors.values()) > CLOSE:
        return Finding("kernels", "problem", f"Quantized products are wrong. Relative errors: {text}.", REPORT, errors)
    return Finding("kernels", "ok", f"Quantized products are right. Relative errors: {text}.", figures=errors)


def answers(folder: Path, dtype: str | None) -> list[Answer]:
    """The demo's answers, token by token.

    Args:
        folder: Holds ``checkpoint`` and ``media``.
        dtype: Compute in this type; None: the checkpoint's own.
    """
    from mlx_gemma4.loading import load

    model, processor = load(folder / "checkpoint", dtype=dtype)
    cases = json.loads(GOLDEN.read_text(encoding="utf-8"))["answers"]
    return [_answer(model, processor, folder / "media", name, case) for name, case in cases.items()]


def _answer(model: Model, processor: Processor, media: Path, name: str, case: dict[str, Any]) -> Answer:
    content = [_part(kind, value, media) for part in case["content"] for kind, value in part.items()]
    prompt = processor.prompt([{"role": "user", "content": content}])
    tokens, lead = _greedy(model, prompt, len(case["tokens"]))
    kept = [token for token in tokens if token not in processor.stop_ids]
    text = case["text"] if tokens == case["tokens"] else processor.tokenizer.decode(kept).strip()
    return Answer(name, text, case["text"], case["sure"], abs(lead - case["lead"]))


def _part(kind: str, value: Any, media: Path) -> dict[str, Any]:
    """A part of a message as the processor takes it; a video shows one frame a second."""
    import numpy as np

    from mlx_gemma4.inputs.vision.image import load_image

    if kind == "text":
        return {"type": kind, kind: value}
    if kind == "video":
        return {"type": kind, kind: (np.stack([load_image(media / frame) for frame in value]), 1.0)}
    return {"type": kind, kind: media / value}


def _greedy(model: Model, prompt: Prompt, count: int) -> tuple[list[int], float]:
    """The first tokens of the answer, and the smallest lead of one of them."""
    import mlx.core as mx
    import numpy as np

    from mlx_gemma4.session import Session

    session = Session(model)
    logits, tokens, leads = session.extend(prompt), list[int](), list[float]()
    for _ in range(count):
        values = np.array(logits.astype(mx.float32))
        tokens.append(int(values.argmax()))
        second, first = np.sort(values)[-2:]
        leads.append(float(first - second))
        logits = session.step(mx.array(tokens[-1]))
    return tokens, min(leads)


def kernel_error(folder: Path, mode: str) -> float:
    """The relative error of logits from quantized weights, beside those from the same weights dequantized."""
    import mlx.core as mx
    import mlx.nn as nn
    import numpy as np

    from mlx_gemma4.loading import load
    from mlx_gemma4.measure.twins import dequantize
    from mlx_gemma4.session import Session

    found = []
    for is_plain in (False, True):
        model, _ = load(folder / "checkpoint", dtype="float32")
        nn.quantize(
            model,
            group_size=64 if mode == "affine" else 32,
            bits=4,
            mode=mode,
            class_predicate=lambda path, module: path.endswith("_proj"),
        )
        if is_plain:
            dequantize(model, mx.float32)
        session, rows = Session(model), list[np.ndarray]()
        for count in ROWS:
            ids = np.arange(count) * 7 % model.config.text_config.vocab_size
            rows.append(np.array(session.extend(ids, logits_from=0)))
        found.append(np.concatenate(rows))
    return float(np.linalg.norm(found[0] - found[1]) / np.linalg.norm(found[1]))


def _wrong(wrong: list[Answer], count: int, where: str) -> str:
    each = ", ".join(f"{answer.name} '{answer.text}' instead of '{answer.expected}'" for answer in wrong)
    return f"{len(wrong)} of {count} answers are wrong {where}: {each}."


def _figures(found: list[Answer]) -> dict[str, Any]:
    return {
        answer.name: {"text": answer.text, "expected": answer.expected, "lead_error": round(answer.lead_error, 6)}
        for answer in found
    }
