"""What ``revision`` is asked for, and what it has written, as values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.actions.linting.report import LintReport


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of ``revision``; the names are those of ``alembic revision``."""

    message: str
    autogenerate: bool = False
    #: Pattern of the tenant whose kind of place the models are compared in; ``None`` to choose one.
    like: str | None = None
    #: The revision it comes after.
    head: str = "head"
    #: Allow ``head`` to be no head.
    splice: bool = False
    #: Name of the branch it starts.
    branch_label: str | None = None
    #: Which of several directories of revisions it is written to.
    version_path: str | None = None
    #: Its identifier; ``None`` for a new one.
    rev_id: str | None = None
    #: Revisions that it needs besides.
    depends_on: tuple[str, ...] = ()

    def for_alembic(self) -> dict[str, Any]:
        """As Alembic's own command keeps it."""
        return {
            "message": self.message,
            "autogenerate": self.autogenerate,
            "sql": False,
            "head": self.head,
            "splice": self.splice,
            "branch_label": self.branch_label,
            "version_path": self.version_path,
            "rev_id": self.rev_id,
            "depends_on": list(self.depends_on) or None,
        }


@dataclass(frozen=True, slots=True)
class WrittenRevision:
    """What came of it."""

    #: The files that were written; more than one only where ``process_revision_directives`` in env.py wants it. Empty
    #: where models and revisions agree.
    files: tuple[Path, ...]
    #: Id of the tenant beside which the models were compared; ``None`` where they were not.
    like: str | None = None
    #: What lint says of the files; ``None`` where nobody asked it, or it could not look.
    lint: LintReport | None = None

    @property
    def passed(self) -> bool:
        """Whether lint calls nothing in the files an error; a squawk that is not installed is none here."""
        report = self.lint
        return report is None or not any(each.severity == "error" for each in (*report.findings, *report.not_linted))

    def as_json(self) -> dict[str, Any]:
        """The document of ``revision --json`` (see docs/cli.md)."""
        files = [str(file) for file in self.files]
        return {
            "file": files[0] if files else None,
            "files": files,
            "like": self.like,
            "lint": None if self.lint is None else self.lint.as_json(),
        }
