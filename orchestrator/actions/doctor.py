"""doctor: whether a run would have what it needs. Changes nothing."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.actions.journals import opened_journal
from orchestrator.actions.project import Project, Tenants, selection_of
from orchestrator.databases.checkup import Finding, Level, Need, some
from orchestrator.databases.connect import connect
from orchestrator.databases.port import Database
from orchestrator.errors import DatabaseError, JournalError, OrchestratorError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.directory import History
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.seam import self_check
from orchestrator.rollout.plan import Plan, Request
from orchestrator.statuses import TenantStatus

#: What keeps a tenant from being migrated that looking at its server does not say.
_IN_THE_WAY = frozenset({TenantStatus.UNKNOWN_REVISION, TenantStatus.DIVERGED})


@dataclass(frozen=True, slots=True)
class Checkup:
    """Everything that was looked at."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Nothing was found that would break a run; the command line's exit code 0."""
        return all(finding.level is not Level.PROBLEM for finding in self.findings)

    @property
    def summary(self) -> dict[str, int]:
        """How many findings are of which level."""
        counts = Counter(finding.level for finding in self.findings)
        return {level.value: counts[level] for level in Level}

    def as_json(self) -> dict[str, Any]:
        """The document of ``doctor --json`` (see docs/cli.md)."""
        return {
            "healthy": self.healthy,
            "findings": [finding.as_json() for finding in self.findings],
            "summary": self.summary,
        }


async def doctor(fleet: Fleet, *, tenants: Tenants = ()) -> Checkup:
    """Look at all that a run of the selected tenants needs, all without a selection.

    Args:
        fleet: as loaded from tenants.yaml.
        tenants: ids or globs, or a :class:`Selection`; without one, servers that have no tenant are looked at, too.

    Raises:
        OrchestratorError: tenants.yaml, the directory or the selection is wrong.
    """
    project, findings = await _opened(fleet)
    chosen = project.choose(tenants)
    databases = dict(project.databases)
    if selection_of(tenants).is_empty:
        idle = [name for name in project.fleet.servers if name not in databases]
        databases |= {name: connect(project.fleet.servers[name]) for name in idle}
    else:
        databases = {name: databases[name] for name in dict.fromkeys(tenant.server for tenant in chosen)}
    plan = await project.plan(Request("upgrade"), chosen)
    findings += [_directory(project.history), await _seam(), await _journal(fleet), *_tenants(plan)]
    findings += await _servers(project, databases, chosen, plan)
    return Checkup(tuple(findings))


async def _opened(fleet: Fleet) -> tuple[Project, list[Finding]]:
    """The project; where a source cannot be read, with the tenants that are written down."""
    try:
        return await Project.open(fleet), []
    except DatabaseError as error:
        found = Finding("sources", Level.PROBLEM, f"tenants could not be read: {error.message}", error.hint)
        return await Project.open(fleet.with_tenants(fleet.tenants, fleet.servers)), [found]


def _directory(history: History) -> Finding:
    heads = history.heads
    measured = {"heads": list(heads)}
    if len(heads) == 1:
        return Finding("directory", Level.OK, f"one head: {heads[0]}", measured=measured)
    if not heads:
        hint = 'orchestrator revision -m "..."'
        return Finding("directory", Level.NOTE, "the directory has no revision", hint, measured=measured)
    message = f"{len(heads)} heads: {', '.join(heads)}"
    hint = "right where each is the end of a labelled branch; otherwise: alembic merge heads"
    return Finding("directory", Level.NOTE, message, hint, measured=measured)


async def _seam() -> Finding:
    if await self_check():
        return Finding("seam", Level.OK, "tenants can be migrated side by side in this process")
    message = "with this version of Alembic, tenants are migrated one at a time"
    return Finding("seam", Level.NOTE, message, "install a version of Alembic that this one supports: pip check")


async def _journal(fleet: Fleet) -> Finding:
    try:
        async with opened_journal(fleet, read_only=True) as journal:
            await journal.probe()
            exists = journal.exists
    except JournalError as error:
        return Finding("journal", Level.PROBLEM, error.message, error.hint)
    message = "the journal can be written" if exists else "there is no journal yet; it can be made"
    return Finding("journal", Level.OK, message, measured={"exists": exists})


def _tenants(plan: Plan) -> Iterable[Finding]:
    """Who would be blocked for what its version table says."""
    blocked: dict[TenantStatus, list[str]] = defaultdict(list)
    for each in plan.tenants:
        if each.state in _IN_THE_WAY:
            blocked[each.state].append(each.tenant.id)
    for state, ids in blocked.items():
        message = f"{state.value}: {some(ids)} would be blocked"
        yield Finding("tenants", Level.PROBLEM, message, "orchestrator status", tuple(ids))
    if not blocked:
        measured = {"selected": len(plan.tenants), "pending": len(plan.pending)}
        message = f"{len(plan.pending)} of {len(plan.tenants)} tenants have revisions to run"
        yield Finding("tenants", Level.OK, message, measured=measured)


async def _servers(
    project: Project, databases: Mapping[str, Database], chosen: Sequence[Tenant], plan: Plan
) -> list[Finding]:
    migrator = Migrator(project.fleet, project.history, project.loop, databases)
    pending = frozenset(tenant.id for tenant in plan.pending)

    async def look(name: str) -> list[Finding]:
        here = [tenant for tenant in chosen if tenant.server == name]
        need = Need(
            tenants=here,
            pending=pending.intersection(tenant.id for tenant in here),
            limits=migrator.limits(here[0]) if here else project.fleet.servers[name].limits,
            version_table=project.loop.version_table,
        )
        try:
            found = await databases[name].examine(need)
        except OrchestratorError as error:
            found = [Finding("reachable", Level.PROBLEM, error.message, error.hint)]
        return [replace(finding, server=name) for finding in found]

    looked = await asyncio.gather(*(look(name) for name in databases))
    return [finding for part in looked for finding in part]
