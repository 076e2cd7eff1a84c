"""Whether a rollback has left tenants as they were: compared by the fingerprint of what they hold, not by their heads.

A run looks at few of its tenants, because looking at all would cost nearly as much as migrating them. What it saw is in
the journal. So a tenant that looks after the run as one of those that were looked at, and went the same way, looked as
that one before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from orchestrator.actions.project import Project
from orchestrator.databases.failures import Failure
from orchestrator.fleet.tenant import Tenant
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import AttemptRecord, RunRecord
from orchestrator.rollout.next_commands import retry_of
from orchestrator.rollout.plan import Plan
from orchestrator.rollout.tries import SHAPE
from orchestrator.statuses import TenantStatus

#: The option of a rollback's record with what its tenants are to look like, by tenant id.
OPTION = "shapes"
#: Type of the error of a tenant that does not.
NOT_AS_BEFORE = "not_as_before"

#: Ends that say that a tenant is back.
_BACK = frozenset({TenantStatus.SUCCEEDED, TenantStatus.ALREADY_CURRENT})


async def shapes_before(
    project: Project, journal: Journal, run: RunRecord, changed: Mapping[str, AttemptRecord], plan: Plan
) -> dict[str, str]:
    """What the tenants of ``plan`` looked like before ``run``, by tenant id, as far as that is known.

    Not of those that were changed by hand since, nor of those that had no revision before: going back to base leaves an
    empty version table, which was not there.

    Args:
        project: opened.
        journal: with what the run saw.
        run: what is to be taken back.
        changed: what it did, by tenant id.
        plan: of the rollback.
    """
    seen = {
        event.tenant: (event.detail["before"], event.detail["after"])
        for event in await journal.events(run.id)
        if event.kind == SHAPE and event.tenant is not None and event.detail is not None
    }
    if not seen:
        return {}
    alike = {
        (changed[tenant].from_heads, changed[tenant].to_heads, after): before
        for tenant, (before, after) in seen.items()
        if tenant in changed
    }
    todo = [each for each in plan.tenants if each.verdict is TenantStatus.PENDING and each.goal]
    now = await _shapes(project, [each.tenant for each in todo])
    found: dict[str, str] = {}
    for each in todo:
        tenant, attempt = each.tenant.id, changed[each.tenant.id]
        if each.heads != attempt.to_heads:
            # Later runs are taken along: what it looked like after this one cannot be seen any more.
            before = seen[tenant][0] if tenant in seen else None
        else:
            before = alike.get((attempt.from_heads, attempt.to_heads, now.get(tenant, "")))
            if tenant in seen:
                before = seen[tenant][0] if now.get(tenant) == seen[tenant][1] else None
        if before is not None:
            found[tenant] = before
    return found


async def as_before(project: Project, record: RunRecord, attempts: Iterable[AttemptRecord]) -> list[AttemptRecord]:
    """Of tenants that are back, those that are not what they were, as failures; and those that are by now, as done.

    Args:
        project: opened.
        record: of the rollback.
        attempts: how its tenants have ended.
    """
    expected: Mapping[str, str] = record.options.get(OPTION, {})
    back = {attempt.tenant: attempt for attempt in attempts if attempt.status in _BACK and attempt.tenant in expected}
    now = await _shapes(project, [tenant for tenant in project.fleet.tenants if tenant.id in back])
    return [
        replace(back[tenant], status=TenantStatus.FAILED, error=_failure(record, tenant).as_json())
        for tenant, shape in now.items()
        if shape != expected[tenant]
    ]


async def _shapes(project: Project, tenants: Sequence[Tenant]) -> dict[str, str]:
    servers = {tenant.server: [each for each in tenants if each.server == tenant.server] for tenant in tenants}
    found = await asyncio.gather(
        *(project.databases[server].fingerprints(here, project.loop.version_table) for server, here in servers.items())
    )
    return {tenant: shape for part in found for tenant, shape in part.items()}


def _failure(record: RunRecord, tenant: str) -> Failure:
    return Failure(
        NOT_AS_BEFORE,
        f"its heads are those before run {record.requested_target}, and its tables are not as they were:"
        " a downgrade() does not take back all that its upgrade() does",
        hint="compare it with a tenant that has none of the run's revisions (pg_dump --schema-only), take away what was"
        f" left, then: {retry_of(record)}",
    )
