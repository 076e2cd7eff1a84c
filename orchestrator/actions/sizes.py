"""How large the tables are that a plan is about, on its largest tenants."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from orchestrator.actions.project import Project
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.mentioned import mentioned
from orchestrator.history.position import direction_of
from orchestrator.rollout.plan import Plan
from orchestrator.statuses import TenantStatus

#: Tenants that are told of.
_LARGEST = 5


@dataclass(frozen=True, slots=True)
class TableSize:
    """One table of one tenant."""

    tenant: str
    table: str
    #: About; exact only in SQLite.
    rows: int
    #: With its indexes and what is kept beside it; ``None`` where that is not known.
    bytes: int | None

    def as_json(self) -> dict[str, Any]:
        """An entry of ``sizes`` in the document of ``plan``."""
        return {"tenant": self.tenant, "table": self.table, "rows": self.rows, "bytes": self.bytes}


async def sizes(project: Project, made: Plan) -> tuple[TableSize, ...]:
    """Tables that pending revisions name, on the tenants where they are largest; what cannot be read is left out.

    Args:
        project: opened.
        made: of an upgrade or a downgrade.
    """
    pending = [each for each in made.tenants if each.verdict is TenantStatus.PENDING]
    paths = {each.path for each in pending}
    words = {
        revision: mentioned(project.history.file(revision), direction_of(made.command))
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
    by_tenant = [
        [TableSize(tenant, table, size.rows, size.bytes) for table, size in tables.items() if table in theirs[tenant]]
        for part in found
        for tenant, tables in part.items()
    ]

    def total(tables: list[TableSize]) -> tuple[int, int]:
        return sum(each.bytes or 0 for each in tables), sum(each.rows for each in tables)

    largest = sorted(by_tenant, key=total, reverse=True)[:_LARGEST]
    return tuple(
        size for tables in largest for size in sorted(tables, key=lambda each: (-(each.bytes or 0), each.table))
    )
