"""Runs the checks of ``mlx_gemma4 doctor`` in order, each in a process of its own. Loads nothing heavy itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlx_gemma4.measure.checks.apart import run_apart
from mlx_gemma4.measure.checks.finding import Finding, Findings, Verdict

MODULES = "mlx_gemma4.measure.checks."


@dataclass(frozen=True)
class CheckPlan:
    """A check, and what it needs."""

    name: str
    """Of its module, and of findings about the check itself."""
    seconds: float
    """Time that it may take."""
    needs: tuple[str, ...] = ()
    """Subjects of earlier findings whose figures it reads."""
    is_device: bool = False
    """Whether it switches a microphone or a camera on."""


CHECKS = (
    CheckPlan("system", 20.0),
    CheckPlan("golden", 120.0, ("device",)),
    CheckPlan("speed", 120.0, ("device",)),
    CheckPlan("fit", 20.0, ("device", "memory")),
    CheckPlan("live", 120.0, ("device", "speed")),
    CheckPlan("checkpoint", 20.0),
    CheckPlan("voice", 20.0),
    CheckPlan("microphone", 15.0, is_device=True),
    CheckPlan("camera", 15.0, is_device=True),
)


def examine(
    options: Mapping[str, Any],
    *,
    devices: bool = True,
    begin: Callable[[str], None] = lambda name: None,
    checks: Iterable[CheckPlan] = CHECKS,
) -> Findings:
    """Yield what is found out about this machine.

    Args:
        options: ``device`` and ``camera``, as the commands take them; None for the defaults.
        devices: Whether to try the microphone and the camera.
        begin: Called with the name of each check that begins.
    """
    known: dict[str, Mapping[str, Any]] = {"options": options}
    for check in checks:
        missing = [subject for subject in check.needs if subject not in known]
        if check.is_device and not devices:
            found: Iterable[Finding] = [Finding(check.name, "not tested", "Left out by --no-devices.")]
        elif missing:
            text = f"It needs the result of another check: {', '.join(missing)}."
            found = [Finding(check.name, "not tested", text)]
        else:
            begin(check.name)
            found = run_apart(MODULES + check.name, check.name, check.seconds, known)
        for finding in found:
            if finding.figures:
                known[finding.subject] = finding.figures
            yield finding


def worst(findings: Iterable[Finding]) -> Verdict:
    """The gravest verdict: a problem, a warning, or ok. What was not tested is no fault."""
    verdicts = {finding.verdict for finding in findings}
    order: tuple[Verdict, ...] = ("problem", "warning")
    return next((verdict for verdict in order if verdict in verdicts), "ok")
