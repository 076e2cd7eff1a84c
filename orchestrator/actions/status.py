"""status: where every tenant stands. Reads only."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from orchestrator.actions.histogram import Group, histogram
from orchestrator.actions.integrity import Edited, integrity
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.noticed import Notice, notice
from orchestrator.actions.partial import left_partial
from orchestrator.actions.project import Project, opened_project
from orchestrator.actions.servers import Tenants
from orchestrator.databases.port.database import Database
from orchestrator.errors import JournalError, OrchestratorError
from orchestrator.fleet.fleet import Fleet
from orchestrator.history.directory import History
from orchestrator.rollout.plan import Plan, PlannedTenant, Request
from orchestrator.statuses import TenantStatus
from orchestrator.targets import require_absolute

log = logging.getLogger("orchestrator.status")


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Where the selected tenants stand, seen from their targets."""

    #: The revisions that the targets stand for, sorted.
    target: tuple[str, ...]
    tenants: tuple[PlannedTenant, ...]
    #: The database that a tenant without one of its own is in, by server name.
    default_databases: Mapping[str, str | None]
    #: Revisions whose files are not those that tenants were migrated with.
    edited: tuple[Edited, ...] = ()
    #: Tenants that are not where the journal's runs saw them last, by id.
    noticed: Mapping[str, Notice] = field(default_factory=dict)
    #: How many tenants stand where, the most frequent first.
    revisions: tuple[Group, ...] = ()
    #: Whether there is a journal, and it was read: otherwise nobody knows who is partial, edited or to be noticed.
    journal_read: bool = True

    @property
    def summary(self) -> dict[str, int]:
        """How many tenants are in which state; only states that occur."""
        counts = Counter(each.state for each in self.tenants)
        return {state.value: counts[state] for state in TenantStatus if counts[state]}

    def as_json(self) -> dict[str, Any]:
        """The document of ``status --json`` (see docs/cli.md)."""
        return {
            "target": list(self.target),
            "tenants": [self._tenant(each) for each in self.tenants],
            "revisions": [group.as_json() for group in self.revisions],
            "edited": [each.as_json() for each in self.edited],
            "journal_read": self.journal_read,
            "summary": self.summary,
        }

    def _tenant(self, each: PlannedTenant) -> dict[str, Any]:
        tenant, noticed = each.tenant, self.noticed.get(each.tenant.id)
        return {
            "tenant": tenant.id,
            "server": tenant.server,
            "database": tenant.file or tenant.database or self.default_databases.get(tenant.server),
            "schema": tenant.schema,
            "tags": list(tenant.tags),
            "heads": None if each.heads is None else list(each.heads),
            "state": each.state.value,
            "pending": len(each.path),
            "noticed": noticed.as_json() if noticed is not None else None,
            "error": each.failure.as_json() if each.failure is not None else None,
        }


@dataclass(frozen=True, slots=True)
class Narrowed:
    """Which of the selected tenants are told of. Nothing set means all."""

    #: Only those in one of these states.
    states: Collection[str] = ()
    #: Only those that are not known to have this revision.
    older_than: str | None = None
    #: Only those that are not where the journal's runs saw them last.
    noticed: bool = False


async def status(
    fleet: Fleet,
    target: str | None = None,
    *,
    tenants: Tenants = (),
    narrowed: Narrowed = Narrowed(),
) -> StatusReport:
    """Read where the selected tenants stand, all without a selection.

    Args:
        fleet: as loaded from tenants.yaml.
        target: what to measure them by; ``None`` for each tenant's own target.
        tenants: ids or globs, or a :class:`Selection`.
        narrowed: which of them to tell of.

    Raises:
        JournalError: ``narrowed.noticed``, and there is no journal that can be read: nobody knows then.
        OrchestratorError: bad input. A tenant that cannot be read is no error: it says so itself.
    """
    async with opened_project(fleet) as project:
        wanted = None if narrowed.older_than is None else revisions_of(project.history, narrowed.older_than)
        began = datetime.now(UTC)
        # Waves say who goes when, and would reorder what is listed here.
        found = await project.plan(Request("upgrade", target), project.choose(tenants))
        defaults = await asyncio.to_thread(
            lambda: {name: _default_database(database) for name, database in project.databases.items()}
        )
        judged = await _judged(project, found, began)
        if narrowed.noticed and not judged.journal_read:
            raise judged.error or _no_journal(project.fleet)
        found, noticed = judged.plan, judged.noticed
        by_id = {each.tenant.id: each for each in found.tenants}
        # Thousands of tenants are at the same heads.
        at = {each.heads for each in found.tenants}
        older = {heads for heads in at if wanted is not None and not has_all(project.history, heads, wanted)}
        listed = tuple(
            by_id[tenant.id]
            for tenant in project.fleet.tenants
            if tenant.id in by_id
            and (not narrowed.states or by_id[tenant.id].state in narrowed.states)
            and (not narrowed.noticed or tenant.id in noticed)
            and (wanted is None or by_id[tenant.id].heads in older)
        )
        noticed = {each.tenant.id: noticed[each.tenant.id] for each in listed if each.tenant.id in noticed}
        groups = histogram(project.history, listed)
        return StatusReport(found.target, listed, defaults, judged.edited, noticed, groups, judged.journal_read)


def revisions_of(history: History, revision: str) -> frozenset[str]:
    """What a tenant has to have to have ``revision``.

    Raises:
        HistoryError: the directory has no such revision.
        UsageError: it is blank, or counted from where each tenant is.
    """
    require_absolute(revision)
    return frozenset(history.resolve(revision))


def has_all(history: History, heads: Collection[str] | None, revisions: Collection[str]) -> bool:
    """Whether a tenant at ``heads`` is known to have ``revisions``.

    What is before a head that the directory does not know is not known either, and neither is what a tenant has that
    could not be read.
    """
    if heads is None:
        return False
    return history.graph.closure(head for head in heads if head in history.graph.parents) >= frozenset(revisions)


def _default_database(database: Database) -> str | None:
    try:
        return database.default_database
    except OrchestratorError:
        # Its secret cannot be read: its tenants say so.
        return None


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the version tables cannot tell and the journal can."""

    #: With who was left half done.
    plan: Plan
    #: Which files were edited.
    edited: tuple[Edited, ...] = ()
    #: Who is not where a run saw it last.
    noticed: Mapping[str, Notice] = field(default_factory=dict)
    journal_read: bool = False
    #: Why it was not read; ``None`` also where there is none.
    error: JournalError | None = None


def _no_journal(fleet: Fleet) -> JournalError:
    return JournalError(
        "nobody knows who is not as the journal has it: there is no journal here",
        hint="read the one that runs write: `journal:` in tenants.yaml with an address that all machines reach"
        f" (postgresql://...), or its file beside {fleet.path.name}; the first run of a new fleet begins one",
    )


async def _judged(project: Project, found: Plan, began: datetime) -> _Judged:
    try:
        async with opened_journal(project.fleet, read_only=True) as journal:
            files = await integrity(project, journal)
            found = (await left_partial(project, journal, found)).mark(found, retry=False)
            noticed = await notice(project, journal, found.tenants, began)
            return _Judged(found, files.edited, noticed, journal.exists)
    except JournalError as error:
        log.warning(
            "%s; neither tenants that were left partial or changed outside nor edited revisions are marked",
            error.message,
        )
        return _Judged(found, error=error)
