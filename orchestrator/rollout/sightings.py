"""Where each tenant stands and what shape it has, read together: database by database, part by part."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.databases.answers import Reading
from orchestrator.databases.failures import Failure, describe
from orchestrator.databases.port.database import Database
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.tenant import Tenant

#: Tenants of one database that are looked at over one connection before others of it are given another. What a shape
#: costs is the server's processor time, and a connection has one processor.
_PART = 100


class Kind(NamedTuple):
    """What tenants have in common that can be compared."""

    dialect: str
    version: str
    #: Each has a database of its own: the database's extensions count, too.
    whole: bool


@dataclass(frozen=True, slots=True)
class Sighting:
    """One tenant as it was seen."""

    tenant: Tenant
    reading: Reading
    #: ``None`` where its server gave no connection.
    kind: Kind | None
    #: Digest of its shape; ``None`` where it could not be read.
    digest: str | None


async def take_sightings(
    tenants: Sequence[Tenant],
    databases: Mapping[str, Database],
    version_table: str,
    budgets: Mapping[str, tuple[str, int]],
    jobs: int,
    seen: Callable[[Sighting], None] = lambda _: None,
    also: frozenset[str] = frozenset(),
) -> list[Sighting]:
    """Look at ``tenants``; never raises for them.

    Args:
        tenants: in any order; the answer has the same.
        databases: by server name.
        version_table: Alembic's.
        budgets: each server's physical identity and how many connections it gives, by server name.
        jobs: connections over all.
        seen: told of each at once, while others are still to be looked at.
        also: what else counts of their shape: comments, owners.
    """
    places: dict[tuple[str, str | None], list[Tenant]] = defaultdict(list)
    for tenant in tenants:
        places[tenant.server, tenant.database].append(tenant)
    least: dict[str, int] = {}
    for identity, cap in budgets.values():
        least[identity] = min(cap, least.get(identity, cap))
    servers = {identity: asyncio.Semaphore(cap) for identity, cap in least.items()}
    at_once = asyncio.Semaphore(jobs)

    async def look(server: str, here: Sequence[Tenant]) -> list[Sighting]:
        async with servers[budgets[server][0]], at_once:
            found = await _look(databases[server], here, version_table, also)
        for sighting in found:
            seen(sighting)
        return found

    parts = [
        (server, here[start : start + _PART])
        for (server, _), here in places.items()
        for start in range(0, len(here), _PART)
    ]
    found = await asyncio.gather(*(look(server, part) for server, part in parts))
    by_id = {sighting.tenant.id: sighting for part in found for sighting in part}
    return [by_id[tenant.id] for tenant in tenants]


async def _look(
    database: Database, tenants: Sequence[Tenant], version_table: str, also: frozenset[str]
) -> list[Sighting]:
    try:
        readings, digests = await database.look(tenants, version_table, also)
        version = await database.version() if any(reading.found for reading in readings.values()) else ""
    except OrchestratorError as error:
        failed = Reading(exists=True, failure=describe(error))
        return [Sighting(tenant, failed, None, None) for tenant in tenants]
    return [
        Sighting(
            tenant,
            readings[tenant.id],
            Kind(database.dialect, version, tenant.schema is None),
            digests.get(tenant.id),
        )
        for tenant in tenants
    ]


def unlike(sighting: Sighting) -> Failure | None:
    """Why a tenant cannot be compared with any other; ``None`` where it can."""
    if sighting.reading.failure is not None:
        return sighting.reading.failure
    if not sighting.reading.exists:
        return Failure("unprovisioned", "its schema, database or file does not exist")
    if sighting.digest is None:
        return Failure(
            "unreadable",
            "its definitions cannot be read: it is being altered right now, or the role has no USAGE on its schema",
            hint="try again; orchestrator doctor says what is locked and what the role lacks",
        )
    return None
