"""What appears outside every tenant during a run: a revision that opens a connection of its own leads there.

Such a connection knows nothing of the tenant's search path. What it makes lies where the role's own path leads, usually
in ``public``, and Alembic knows nothing of it. So that place is looked at before the run and after it. Rows that are
changed there are not found in this way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from orchestrator.databases.port import Database
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.directory import History
from orchestrator.rollout.plan import Plan
from orchestrator.statuses import TenantStatus

#: Objects by server, and by database where the server's is not meant.
Outside = Mapping[tuple[str, str | None], frozenset[str]]


async def look_outside(plan: Plan, history: History, databases: Mapping[str, Database]) -> Outside:
    """What lies outside the tenants that ``plan`` is to migrate; nothing where no revision can leave its tenant.

    Args:
        plan: whom it means. One whose revisions depend on their files alone opens no connections.
        history: the shared directory.
        databases: by server name.
    """
    pending = [each for each in plan.tenants if each.verdict is TenantStatus.PENDING]
    ways = {each.path for each in pending}
    if plan.command == "stamp" or not any(history.impurities(way, plan.command) for way in ways):
        return {}
    tenants: dict[tuple[str, str | None], list[Tenant]] = {}
    for each in pending:
        if each.tenant.schema is not None:
            tenants.setdefault((each.tenant.server, each.tenant.database), []).append(each.tenant)

    async def look(place: tuple[str, str | None], here: Sequence[Tenant]) -> frozenset[str]:
        return await databases[place[0]].outside(place[1], {tenant.schema or "" for tenant in here})

    found = await asyncio.gather(*(look(place, here) for place, here in tenants.items()))
    return dict(zip(tenants, found, strict=True))


def appeared(before: Outside, after: Outside) -> list[str]:
    """What is there now and was not before, sorted."""
    return sorted({name for place, names in after.items() if place in before for name in names - before[place]})
