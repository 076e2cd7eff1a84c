"""How large the tables are that a plan is about, on its largest tenants."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from orchestrator.actions.project import Project
from orchestrator.databases.sizes import TableSize
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.mentioned import mentioned
from orchestrator.rollout.plan import Plan
from orchestrator.statuses import TenantStatus

#: Tenants that are told of.
_LARGEST = 5


async def sizes(project: Project, made: Plan) -> tuple[TableSize, ...]:
    """Tables that pending revisions name, on the tenants where they are largest; what cannot be read is left out.

    Args:
        project: opened.
        made: of an upgrade or a downgrade.
    """
    pending = [each for each in made.tenants if each.verdict is TenantStatus.PENDING]
    paths = {each.path for each in pending}
    words = {
        revision: mentioned(project.history.file(revision), made.command)
        for revision in dict.fromkeys(revision for path in paths for revision in path)
    }
    names = {path: frozenset().union(*(words[revision] for revision in path)) for path in paths}
    there: dict[str, list[Tenant]] = defaultdict(list)
    for each in pending:
        if each.state is not TenantStatus.UNPROVISIONED:
            there[each.tenant.server].append(each.tenant)
    everything = frozenset().union(*names.values())
    found = await asyncio.gather(
        *(project.databases[server].sizes(tenants, everything, _LARGEST) for server, tenants in there.items())
    )
    theirs = {each.tenant.id: names[each.path] for each in pending}
    by_tenant: dict[str, list[TableSize]] = defaultdict(list)
    for size in (size for part in found for size in part if size.table in theirs[size.tenant]):
        by_tenant[size.tenant].append(size)

    def total(tables: list[TableSize]) -> tuple[int, int]:
        return sum(each.bytes or 0 for each in tables), sum(each.rows or 0 for each in tables)

    largest = sorted(by_tenant.values(), key=total, reverse=True)[:_LARGEST]
    return tuple(
        size for tables in largest for size in sorted(tables, key=lambda each: (-(each.bytes or 0), each.table))
    )
