"""The demo's answers on this device, beside the reference's: right, rounded, and with broken weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from golden import packaged

from mlx_gemma4 import demo_folder
from mlx_gemma4.measure.checks.golden import CLOSE, GOLDEN, REPORT, Answer, answers, exact, kernel_error, own, quantized

LAYER = "model.language_model.layers.2.mlp.down_proj.weight"
RIGHT = [Answer(name, "yes", "yes", "ye", 0.0) for name in ("speech", "a picture")]


def test_the_package_holds_the_references_answers() -> None:
    """``make_reference.py`` writes both files."""
    assert json.loads(GOLDEN.read_text(encoding="utf-8")) == packaged()


def test_this_device_is_exact() -> None:
    found = answers(demo_folder(), "float32")
    finding = exact(found)
    assert finding.verdict == "ok"
    assert finding.text.startswith(
        "All 4 answers (speech, a picture, a spoken question, a video) are the reference's in float32; logits within "
    )
    assert [answer.text for answer in found] == [case["text"] for case in packaged()["answers"].values()]
    assert max(answer.lead_error for answer in found) < 2e-4
    assert set(finding.figures) == set(packaged()["answers"])


def test_a_weight_that_is_wrong(tmp_path: Path) -> None:
    """As if a kernel computed one matrix wrongly."""
    shutil.copytree(demo_folder(), tmp_path / "demo")
    file = tmp_path / "demo" / "checkpoint" / "model.safetensors"
    weights = mx.load(str(file))
    assert isinstance(weights, dict)
    weights[LAYER] = -3 * weights[LAYER]
    mx.eval(weights)
    file.unlink()
    mx.save_safetensors(str(file), weights, metadata={"format": "pt"})
    found = answers(tmp_path / "demo", "float32")
    wrong = [answer for answer in found if not answer.is_right]
    finding = exact(found)
    assert wrong and finding.verdict == "problem" and finding.remedy == REPORT
    assert finding.text.startswith(f"{len(wrong)} of 4 answers are wrong in float32: {wrong[0].name} '")
    assert f"instead of '{wrong[0].expected}'" in finding.text
    assert own(found).verdict == "problem"


def test_answers_that_are_right_by_rounded_logits() -> None:
    finding = exact([RIGHT[0], replace(RIGHT[1], lead_error=0.0312)])
    assert (finding.verdict, finding.text, finding.remedy) == (
        "warning",
        "All 2 answers (speech, a picture) are the reference's in float32, but logits are off by 0.031: products are "
        "rounded to TF32 or less.",
        "Set MLX_ENABLE_TF32=0 to compare again.",
    )
    assert exact([*RIGHT]).text.endswith("in float32; logits within 0.")


def test_answers_that_are_wrong() -> None:
    finding = exact([RIGHT[0], replace(RIGHT[1], text="no")])
    assert (finding.verdict, finding.text, finding.remedy) == (
        "problem",
        "1 of 2 answers are wrong in float32: a picture 'no' instead of 'yes'.",
        REPORT,
    )
    assert finding.figures["a picture"] == {"text": "no", "expected": "yes", "lead_error": 0.0}


@pytest.mark.parametrize(("text", "verdict"), [("yes", "ok"), ("yet", "ok"), ("no", "problem")])
def test_close_tokens_may_swap_in_the_checkpoints_own_precision(text: str, verdict: str) -> None:
    finding = own([RIGHT[0], replace(RIGHT[1], text=text)])
    assert finding.verdict == verdict
    assert (
        finding.text
        == {
            "ok": "All 2 answers are the reference's too.",
            "problem": "1 of 2 answers are wrong in bfloat16: a picture 'no' instead of 'yes'.",
        }[verdict]
    )


def test_quantized_products_of_this_device() -> None:
    for mode in ("affine", "mxfp4"):
        assert kernel_error(demo_folder(), mode) < 1e-4


def test_quantized_products_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {"affine": 1e-6, "mxfp4": 2 * CLOSE}
    monkeypatch.setattr("mlx_gemma4.measure.checks.golden.kernel_error", lambda folder, mode: errors[mode])
    finding = quantized(demo_folder())
    assert (finding.verdict, finding.text, finding.remedy, finding.figures) == (
        "problem",
        "Quantized products are wrong. Relative errors: 4 bits 1e-06, mxfp4 0.02.",
        REPORT,
        errors,
    )
    errors["mxfp4"] = 2e-6
    finding = quantized(demo_folder())
    assert (finding.verdict, finding.text) == (
        "ok",
        "Quantized products are right. Relative errors: 4 bits 1e-06, mxfp4 2e-06.",
    )
