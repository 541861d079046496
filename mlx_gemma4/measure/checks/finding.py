"""What a check has found out: a verdict, a sentence, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

Verdict = Literal["ok", "warning", "problem", "not tested"]
"""A warning works, within limits that the text names. A problem does not work."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    subject: str
    """What was looked at, in one or two words."""
    verdict: Verdict
    text: str
    remedy: str = ""
    """What to do about it; empty if nothing has to be done."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, for ``--json`` and for later checks: anything that JSON can hold."""
    table: Sequence[Sequence[str]] = ()
    """Rows of cells below the text; the first one has the titles."""

    def to_dict(self) -> dict[str, Any]:
        """The fields, for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Finding:
        """The finding of these fields."""
        return cls(**{**fields, "table": tuple(map(tuple, fields["table"]))})


Findings: TypeAlias = Iterator[Finding]
Known: TypeAlias = Mapping[str, Mapping[str, Any]]
"""The figures of the findings so far, by their subject."""


class Check(Protocol):
    """Looks at one thing. Findings are handed over one by one, so that a check that is cut off loses only the rest."""

    def __call__(self, known: Known) -> Findings: ...
