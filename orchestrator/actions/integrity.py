"""Whether the revision files are those that tenants were migrated with: an edited one makes tenants of two kinds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.actions.project import Project
from orchestrator.errors import HistoryError
from orchestrator.history.directory import History
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import RevisionRecord
from orchestrator.rollout.inventory import take_inventory
from orchestrator.rollout.plan import Plan


@dataclass(frozen=True, slots=True)
class Edited:
    """A revision whose file was edited after tenants were migrated with it."""

    revision: str
    #: Relative to the directory with tenants.yaml, where it is inside.
    file: str
    #: The run that applied it first as it was.
    run: str
    #: When that was.
    at: datetime
    #: The commit that was checked out then; ``None`` where that is not known.
    commit: str | None
    #: How many tenants have it; servers that are away are not counted.
    tenants: int
    #: One of them; ``None`` where only servers that are away may have them.
    example: str | None

    @property
    def message(self) -> str:
        """What is wrong, for people."""
        whom = f"{self.tenants} tenants have it, for example {self.example}" if self.example else "servers are away"
        return (
            f"revision {self.revision} was edited after it was applied: {self.file} is not what run {self.run} applied"
            f" on {self.at:%Y-%m-%d} ({whom})"
        )

    @property
    def hint(self) -> str:
        """What to do about it."""
        return self.hint_with("--accept-edited ")

    def hint_with(self, accept: str) -> str:
        """What to do about it.

        Args:
            accept: what a revision is accepted with, where the command was typed.
        """
        # Nobody knows which commit was checked out then: not a repository, or not asked in one.
        look = f"git diff {self.commit} -- {self.file}" if self.commit else f"git log -p -- {self.file}"
        return (
            f"see what changed: {look}; put the file back and write a new"
            f" revision, or, where old and new do the same: {accept}{self.revision}"
        )

    def as_json(self) -> dict[str, Any]:
        """An entry of ``edited`` in the documents of ``plan`` and ``status``."""
        return {
            "revision": self.revision,
            "file": self.file,
            "run": self.run,
            "at": self.at.isoformat(),
            "commit": self.commit,
            "tenants": self.tenants,
            "example": self.example,
        }


class EditedRevision(HistoryError):
    """A revision's file is not the one that tenants were migrated with.

    Args:
        edited: those that were not accepted; at least one.
    """

    def __init__(self, edited: Sequence[Edited]) -> None:
        super().__init__("\n".join(each.message for each in edited), hint="; ".join(each.hint for each in edited))
        self.edited = tuple(edited)


@dataclass(frozen=True, slots=True)
class Integrity:
    """What comparing the files with the journal found."""

    edited: tuple[Edited, ...]
    #: All that the journal has, by revision.
    known: Mapping[str, Sequence[RevisionRecord]]

    def require(self, history: History, accepted: Collection[str]) -> None:
        """Refuse edited revisions but for the accepted ones.

        Args:
            history: the shared directory.
            accepted: revisions as typed after ``--accept-edited``.

        Raises:
            EditedRevision: one was edited.
            HistoryError: there is no such revision as one of the accepted.
        """
        names = history.all_of(accepted)
        refused = [each for each in self.edited if each.revision not in names]
        if refused:
            raise EditedRevision(refused)

    def begin(self, plan: Plan, history: History, run: str, accepted: Collection[str]) -> list[RevisionRecord]:
        """What a run writes down before it begins: the files it applies, and those it finds applied for the first time.

        Args:
            plan: of the run.
            history: the shared directory.
            run: its id.
            accepted: revisions that may be as they are, though they were edited.
        """
        if plan.command == "stamp":
            # It says what tenants have, and not what they were migrated with.
            return []
        now = datetime.now(UTC)
        there = applied(history, (each.heads for each in plan.tenants))
        meant = {revision for each in plan.tenants for revision in each.path}
        records = []
        for revision in sorted(there | meant | set(accepted)):
            checksum = history.checksum(revision)
            before = self.known.get(revision, ())
            same = next((each for each in before if each.checksum == checksum), None)
            found_there = revision in there and not before
            record = same or RevisionRecord(revision, checksum, run, now, now if found_there else None)
            if record.applied_at is None and revision in accepted:
                record = replace(record, applied_at=now)
            if record is not same or record.applied_at is None:
                records.append(record)
            if record.applied_at is None and revision not in there:
                # Nobody has it any more as it was: nothing is left to compare it with.
                records += (replace(each, applied_at=None) for each in before if each.applied_at is not None)
        return records


async def integrity(project: Project, journal: Journal) -> Integrity:
    """Compare every revision's file with what the journal says it was when tenants were migrated with it.

    Tenants are read only where a file differs: then all of the fleet's, because a revision that nobody has any more may
    be edited.

    Raises:
        JournalError: the journal cannot be read.
    """
    history = project.history
    known = await _known(journal)
    differ = _differ(history, known)
    if not differ:
        return Integrity((), known)
    found = await take_inventory(project.fleet.tenants, project.databases, project.loop.version_table)
    having: dict[str, list[str]] = defaultdict(list)
    for tenant, reading in found.readings.items():
        for revision in applied(history, [reading.heads]) & differ.keys():
            having[revision].append(tenant)
    away = any(reading.failure is not None for reading in found.readings.values())
    edited = []
    for revision, record in sorted(differ.items()):
        tenants = having.get(revision, [])
        if tenants or (away and record.applied_at is not None):
            commit = await journal.commit_of(record.first_run)
            edited.append(_edited(history, project.fleet.root, record, commit, sorted(tenants)))
    return Integrity(tuple(edited), known)


async def edited_by_journal(history: History, root: Path, journal: Journal) -> tuple[Edited, ...]:
    """The same without asking any server: by the journal alone, whoever has the revisions now.

    Raises:
        JournalError: the journal cannot be read.
    """
    differ = _differ(history, await _known(journal))
    return tuple(
        [
            _edited(history, root, record, await journal.commit_of(record.first_run), ())
            for _, record in sorted(differ.items())
            if record.applied_at is not None
        ]
    )


async def _known(journal: Journal) -> dict[str, list[RevisionRecord]]:
    known: dict[str, list[RevisionRecord]] = defaultdict(list)
    for record in await journal.revisions():
        known[record.revision].append(record)
    return known


def _differ(history: History, known: Mapping[str, Sequence[RevisionRecord]]) -> dict[str, RevisionRecord]:
    """The last of the texts that tenants were migrated with, of revisions that have another one now."""
    expected = {
        revision: _expected(records) for revision, records in known.items() if revision in history.graph.parents
    }
    return {
        revision: records[-1]
        for revision, records in expected.items()
        if history.checksum(revision) not in {each.checksum for each in records}
    }


def applied(history: History, heads: Any) -> frozenset[str]:
    """Revisions that tenants at ``heads`` have, as far as the directory knows them.

    Args:
        history: the shared directory.
        heads: of each tenant, ``None`` where they could not be read.
    """
    graph = history.graph
    tips = {head for each in set(heads) for head in each or () if head in graph.parents}
    return graph.closure(tips)


def _expected(records: Sequence[RevisionRecord]) -> list[RevisionRecord]:
    """Those that tenants were migrated with; where no run lived to see that, those that one may have been."""
    return [each for each in records if each.applied_at is not None] or list(records)


def _edited(history: History, root: Path, record: RevisionRecord, commit: str | None, tenants: Sequence[str]) -> Edited:
    file, root = history.file(record.revision).resolve(), root.resolve()
    return Edited(
        record.revision,
        str(file.relative_to(root) if file.is_relative_to(root) else file.name),
        record.first_run,
        record.applied_at or record.at,
        commit,
        len(tenants),
        tenants[0] if tenants else None,
    )
