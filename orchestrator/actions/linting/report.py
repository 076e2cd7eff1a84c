"""What ``lint`` has found, as values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.history.hazards import Hazard
from orchestrator.history.lint_sql import Statement
from orchestrator.statuses import Severity


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule says."""

    #: Its rule's name; ``squawk/NAME`` for one of squawk's.
    rule: str
    severity: Severity
    #: ``None`` for what is about the directory.
    revision: str | None
    #: From the directory with tenants.yaml; ``None`` for what is about the directory of revisions.
    file: str | None
    #: 1-based line in the file.
    line: int
    message: str
    #: What to do about it.
    hint: str | None = None

    def as_json(self) -> dict[str, Any]:
        """An entry of ``findings`` and ``not_linted`` in the document of ``lint --json``."""
        return {
            "rule": self.rule,
            "severity": self.severity.value,
            "revision": self.revision,
            "file": self.file,
            "line": self.line,
            "message": self.message,
            "hint": self.hint,
        }


@dataclass(frozen=True, slots=True)
class Ignored:
    """A finding that a comment in the file excuses."""

    finding: Finding
    #: Why, as the comment says.
    reason: str


@dataclass(frozen=True, slots=True)
class Squawk:
    """Whether squawk was asked."""

    #: Whether it has looked at all that there is to look at.
    ran: bool = False
    #: Why it was not; ``None`` where it was.
    reason: str | None = None
    #: What to type, where that helps.
    hint: str | None = None
    #: How much it weighs that it was not; ``off`` where nobody wanted it to be.
    severity: Severity = Severity.OFF

    def as_json(self) -> dict[str, Any]:
        """The entry ``squawk`` in the document of ``lint --json``."""
        return {"ran": self.ran, "reason": self.reason, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class LintedRevision:
    """One revision, as far as it was looked at without squawk."""

    revision: str
    file: str
    #: What the rules found, before anybody has said how much that weighs.
    hazards: tuple[Hazard, ...]
    #: What ``upgrade`` sends, for squawk.
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class LintReport:
    """What was looked at, and what was found."""

    #: ``pending``, ``range``, ``all`` or ``written``: how the revisions were taken.
    taken: str
    #: In the order in which they run.
    revisions: tuple[str, ...]
    findings: tuple[Finding, ...]
    #: Revisions, or directions of one, whose SQL was not seen, or not all of it.
    not_linted: tuple[Finding, ...]
    ignored: tuple[Ignored, ...]
    squawk: Squawk

    @property
    def passed(self) -> bool:
        """Whether nothing is an error: no finding, nothing that could not be looked at, no squawk that is missing."""
        severities = [finding.severity for finding in (*self.findings, *self.not_linted)]
        return Severity.ERROR not in (*severities, self.squawk.severity)

    @property
    def summary(self) -> dict[str, int]:
        """How many findings of which severity, revisions not linted in full, and findings ignored."""
        counts = Counter(finding.severity for finding in self.findings)
        return {
            "errors": counts[Severity.ERROR],
            "warnings": counts[Severity.WARNING],
            "not_linted": len({finding.revision for finding in self.not_linted}),
            "ignored": len(self.ignored),
        }

    def as_json(self) -> dict[str, Any]:
        """The document of ``lint --json`` (see docs/cli.md)."""
        return {
            "passed": self.passed,
            "taken": self.taken,
            "revisions": list(self.revisions),
            "findings": _listed(self.findings),
            "not_linted": _listed(self.not_linted),
            "ignored": [{**each.finding.as_json(), "reason": each.reason} for each in self.ignored],
            "squawk": self.squawk.as_json(),
            "summary": self.summary,
        }


def _listed(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [finding.as_json() for finding in findings]
