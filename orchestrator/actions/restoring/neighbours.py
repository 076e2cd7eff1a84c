"""Who else is in a database or file that is to be replaced whole: tenants of the fleet by other names, and strangers.

Names do not tell: one server may be declared twice, by another host name, role or pooler. So each server is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.actions.project import Project
from orchestrator.databases.failures import Failure, describe
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.tenant import Isolation, Tenant

log = logging.getLogger("orchestrator.restore")

#: Servers that are asked at once.
_AT_ONCE = 32
#: Neighbours that are named.
_NAMED = 3
#: Type of the failure.
SHARED = "shared_database"


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the fleet's tenants are, as their servers say."""

    #: By tenant id; without those whose server did not answer.
    known: Mapping[str, str]
    #: Tenants whose server did not answer.
    unknown: Sequence[Tenant]


async def neighbours(
    project: Project,
    tenants: Sequence[Tenant],
    version_tables: Mapping[str, Sequence[str]],
    what: str = "its backup is of",
) -> dict[str, Failure]:
    """Find those of ``tenants`` whose database or file, replaced or taken away whole, would take others along.

    Args:
        project: opened.
        tenants: whose backup is of a whole database or file.
        version_tables: what version tables may be called, by tenant id.
        what: begins the messages; ``the whole database`` follows.

    Returns:
        Why each of them must not be touched, by id. Who shares with nobody is not in it.
    """
    if not tenants:
        return {}
    places = await _places(project, {tenant.isolation is Isolation.FILE for tenant in tenants})
    inside = defaultdict(list)
    for tenant, place in places.known.items():
        inside[place].append(tenant)
    found: dict[str, Failure] = {}
    places_asked = asyncio.Semaphore(_AT_ONCE)

    async def look(tenant: Tenant) -> None:
        async with places_asked:
            failure = await _failure(project, tenant, places, inside, version_tables[tenant.id], what)
        if failure is not None:
            found[tenant.id] = failure

    await asyncio.gather(*(look(tenant) for tenant in tenants))
    return found


async def _places(project: Project, kinds: set[bool]) -> _Places:
    """Ask the servers of all tenants that are of the same kind, files or databases."""
    by_server: dict[str, list[Tenant]] = defaultdict(list)
    for tenant in project.fleet.tenants:
        if (tenant.isolation is Isolation.FILE) in kinds:
            by_server[tenant.server].append(tenant)
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def ask(name: str) -> Mapping[str, str]:
        try:
            async with at_once:
                return await project.databases[name].whereabouts(by_server[name])
        except OrchestratorError:
            return {}

    answers = await asyncio.gather(*(ask(name) for name in by_server))
    known = {tenant: place for answer in answers for tenant, place in answer.items()}
    unknown = [tenant for here in by_server.values() for tenant in here if tenant.id not in known]
    return _Places(known, unknown)


async def _failure(
    project: Project,
    tenant: Tenant,
    places: _Places,
    inside: Mapping[str, Sequence[str]],
    version_tables: Sequence[str],
    what: str,
) -> Failure | None:
    place = places.known.get(tenant.id)
    if place is None:
        return Failure(SHARED, "its server does not say who else is in its database", hint="try again when it answers")
    others = [other for other in inside[place] if other != tenant.id]
    if others:
        return Failure(
            SHARED,
            f"{what} the whole {_what(tenant)}, and {_named(others)} is in it, too",
            hint="give each tenant a schema, and back that up",
        )
    try:
        schemas = await project.databases[tenant.server].others_within(tenant, version_tables)
    except OrchestratorError as error:
        return describe(error)
    if schemas:
        return Failure(
            SHARED,
            f"{what} the whole database, and in that are schemas with a version table, too, of tenants that "
            f"this fleet does not have: {_named(schemas)}",
            hint="where they are nobody's: drop them; where they are the tenant's own: pg_restore puts the dump back",
        )
    _warn(project, tenant, places.unknown)
    return None


def _warn(project: Project, tenant: Tenant, unknown: Sequence[Tenant]) -> None:
    """What could not be asked counts only where it may be meant; a server that is down holds up no other's restore."""
    mine = _database(project, tenant)
    same = [other for other in unknown if other.isolation is not Isolation.FILE and _database(project, other) == mine]
    if same:
        servers = _named(list(dict.fromkeys(other.server for other in same)))
        log.warning(
            "%s: server %s does not answer; no version table but the tenant's own was found in database %s",
            tenant.id,
            servers,
            mine,
        )


def _database(project: Project, tenant: Tenant) -> str | None:
    try:
        return tenant.database or project.databases[tenant.server].default_database
    except OrchestratorError:
        return tenant.database


def _what(tenant: Tenant) -> str:
    return "file" if tenant.isolation is Isolation.FILE else "database"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
