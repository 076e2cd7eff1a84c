"""Read where every tenant stands, all servers at once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.databases.answers import Reading
from orchestrator.databases.failures import describe
from orchestrator.databases.port.database import Database
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.tenant import Tenant


@dataclass(frozen=True, slots=True)
class Inventory:
    """What one look at the fleet found."""

    #: By tenant id.
    readings: Mapping[str, Reading]
    #: Dialect and version by server name; without those that gave no connection.
    kinds: Mapping[str, tuple[str, str]]


async def take_inventory(tenants: Sequence[Tenant], databases: Mapping[str, Database], version_table: str) -> Inventory:
    """Read the heads of ``tenants``; a server that is away makes its own tenants unreachable and nobody else's."""
    by_server: dict[str, list[Tenant]] = defaultdict(list)
    for tenant in tenants:
        by_server[tenant.server].append(tenant)
    found = await asyncio.gather(*(_read(databases[server], here, version_table) for server, here in by_server.items()))
    readings = {tenant: reading for part, _ in found for tenant, reading in part.items()}
    return Inventory(readings, {server: kind for server, (_, kind) in zip(by_server, found, strict=True) if kind})


async def _read(
    database: Database, tenants: Sequence[Tenant], version_table: str
) -> tuple[Mapping[str, Reading], tuple[str, str] | None]:
    try:
        readings = await database.read(tenants, version_table)
        return readings, (database.dialect, await database.version())
    except OrchestratorError as error:
        return {tenant.id: Reading(exists=True, failure=describe(error)) for tenant in tenants}, None
