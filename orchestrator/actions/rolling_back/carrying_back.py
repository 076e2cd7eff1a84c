"""A rollback that is carried on: whoever has been moved in between is not taken back by what was decided before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.actions.places import back_there, blocked_elsewhere, known_places, moved_places
from orchestrator.actions.project import Project
from orchestrator.databases.failures import Failure
from orchestrator.history.way_back import WayBack
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import AttemptRecord, RunRecord
from orchestrator.rollout.plan import Plan, PlannedTenant
from orchestrator.rollout.share import Change, added, left_at
from orchestrator.statuses import TenantStatus


def narrowed(ways: Mapping[str, str], earlier: Mapping[str, AttemptRecord]) -> dict[str, str]:
    """``ways`` back, each from where the rollback left its tenant: whoever is further now was moved by somebody else.

    Args:
        ways: as text, by tenant id.
        earlier: what the rollback has done so far, by tenant id.
    """
    starts = {tenant: left_at(attempt) for tenant, attempt in earlier.items()}
    return {
        tenant: way if (start := starts.get(tenant)) is None else str(replace(WayBack.parse(way), start=start))
        for tenant, way in ways.items()
    }


async def still_taken_back(
    project: Project, journal: Journal, record: RunRecord, plan: Plan, later: Mapping[str, Sequence[Change]]
) -> Plan:
    """``plan`` without tenants that are elsewhere by now, or have by later runs what the rollback would take away.

    Args:
        project: opened.
        journal: opened.
        record: the rollback.
        plan: for the tenants that are still to be done.
        later: what later runs did to them, oldest first, by tenant id.
    """
    graph = project.history.graph

    def judged(each: PlannedTenant) -> PlannedTenant:
        tenant, changes = each.tenant.id, later.get(each.tenant.id, ())
        if each.verdict is not TenantStatus.PENDING or not added(graph, changes) & frozenset(each.path):
            return each
        by = " and ".join(f"run {run.id} ({run.command})" for run, _ in changes)
        failure = Failure(
            "moved_on",
            f"{by} came after this rollback began: the tenant is at {', '.join(each.heads or ()) or 'base'}",
            hint=f"decide anew: orchestrator rollback {record.requested_target} -t {tenant}",
        )
        return replace(each, verdict=TenantStatus.BLOCKED, failure=failure, path=())

    known = await known_places(journal, record.requested_target)
    moved = await moved_places(project, known, [each.tenant for each in plan.tenants])
    return blocked_elsewhere(plan.judged(judged), moved, back_there)
