"""doctor: whether anything would break a run, before it is begun. Reads only."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.actions.integrity import integrity
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.partial import left_partial
from orchestrator.actions.project import Project, opened_project
from orchestrator.actions.servers import Tenants
from orchestrator.databases.findings import Finding, Level
from orchestrator.databases.port.database import Database
from orchestrator.errors import JournalError, OrchestratorError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.reach import Reach
from orchestrator.migration.seam import self_check
from orchestrator.rollout.plan import Plan
from orchestrator.rollout.planning import Request
from orchestrator.statuses import TenantStatus

#: States of tenants that a run would leave as they are, and that looking at their servers does not tell.
_LEFT_ALONE = (TenantStatus.UNKNOWN_REVISION, TenantStatus.DIVERGED, TenantStatus.PARTIAL)
#: Tenants named in one message.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """Everything that was looked at, server by server."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing stands against a run."""
        return all(finding.level is not Level.PROBLEM for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """The document of ``doctor --json`` (see docs/cli.md)."""
        return {"healthy": self.healthy, "findings": [finding.as_json() for finding in self.findings]}


async def doctor(fleet: Fleet, *, tenants: Tenants = ()) -> DoctorReport:
    """Look at the servers of the selected tenants, all without a selection, at the directory and at the journal.

    Args:
        fleet: as loaded from tenants.yaml.
        tenants: ids or globs, or a :class:`Selection`.

    Raises:
        OrchestratorError: bad input. A server that cannot be reached is no error: it is a finding.
    """
    async with opened_project(fleet) as project:
        chosen = project.choose(tenants)
        # As upgrade --provision sees it: what is to be made has locks to take, too.
        plan = await project.plan(Request("upgrade", provision=True), chosen)
        plan, journal = await _journal(project, plan)
        by_server: dict[str, list[Tenant]] = defaultdict(list)
        for tenant in chosen:
            by_server[tenant.server].append(tenant)
        work = _work(project, plan)
        found = await asyncio.gather(
            *(_server(project.databases[name], name, here, work) for name, here in by_server.items())
        )
        general = [*_directory(project), await _seam(), *journal, *_tenants(plan)]
        return DoctorReport((*general, *(finding for part in found for finding in part)))


def _work(project: Project, plan: Plan) -> dict[str, tuple[Reach, ...]]:
    """The transactions that are pending, by tenant id; tenants on the same path share one value."""
    known: dict[tuple[str, ...], tuple[Reach, ...]] = {}
    work: dict[str, tuple[Reach, ...]] = {}
    for each in plan.tenants:
        if each.verdict is TenantStatus.PENDING:
            if each.path not in known:
                known[each.path] = project.history.transactions(each.path)
            work[each.tenant.id] = known[each.path]
    return work


def _tenants(plan: Plan) -> Iterator[Finding]:
    """Who would not be migrated, for what its version table or the journal says."""
    for state in _LEFT_ALONE:
        ids = [each.tenant.id for each in plan.tenants if each.state is state]
        if ids:
            more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
            text = f"{state.value}, a run would leave it alone: {', '.join(ids[:_NAMED])}{more}"
            yield Finding(Level.PROBLEM, "tenants", text, f"orchestrator plan -t {ids[0]}")


async def _server(
    database: Database, name: str, tenants: Sequence[Tenant], work: Mapping[str, Sequence[Reach]]
) -> list[Finding]:
    try:
        return [replace(finding, server=name) for finding in await database.diagnose(tenants, work)]
    except OrchestratorError as error:
        return [Finding(Level.PROBLEM, "connection", error.message, error.hint, name)]


def _directory(project: Project) -> Iterator[Finding]:
    heads = project.history.heads
    if len(heads) > 1:
        hint = "upgrade goes to `heads`, all of them; to join them: alembic merge -m 'merge heads' heads"
        yield Finding(Level.NOTE, "directory", f"{len(heads)} heads: {', '.join(heads)}", hint)
    else:
        yield Finding(Level.OK, "directory", f"head {', '.join(heads) or 'none'}")


async def _seam() -> Finding:
    if await self_check():
        return Finding(Level.OK, "alembic", "tenants can be migrated at once")
    text = "with this version of Alembic, tenants are migrated one at a time"
    return Finding(Level.NOTE, "alembic", text, "use Alembic 1.16 to 1.20")


async def _journal(project: Project, plan: Plan) -> tuple[Plan, list[Finding]]:
    """``plan`` as a run would see it, and what the journal says against one."""
    try:
        async with opened_journal(project.fleet) as journal:
            last = await journal.last_run()
            edited = (await integrity(project, journal)).edited
            plan = (await left_partial(project, journal, plan)).mark(plan, retry=False)
    except JournalError as error:
        return plan, [Finding(Level.PROBLEM, "journal", error.message, error.hint)]
    found = [Finding(Level.PROBLEM, "revisions", each.message, each.hint) for each in edited]
    text = "can be written" + (f"; the last run is {last.id}" if last else "")
    return plan, [Finding(Level.OK, "journal", text), *found]
