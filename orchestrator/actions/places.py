"""Where tenants' tables are: written down by every run, so that one that is elsewhere later is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from orchestrator.actions.project import Project
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.tenant import Tenant
from orchestrator.journal.journal import Journal
from orchestrator.journal.last_seen import PLACES
from orchestrator.journal.records import EventRecord


async def default_databases(project: Project, servers: Iterable[str]) -> dict[str, str | None]:
    """The database that a tenant without one of its own is in, by server name; ``None`` where that is not known."""
    names = tuple(dict.fromkeys(servers))
    # An address may run a command to get its secret: never on the event loop.
    return await asyncio.to_thread(lambda: {name: _default_database(project, name) for name in names})


def place_of(project: Project, tenant: Tenant, defaults: Mapping[str, str | None]) -> str:
    """Where ``tenant`` is: its server's name in tenants.yaml, its database and schema, or its file.

    The name and not the address: the same server is reached by another address through a tunnel, or after a failover.
    A file is told from the directory with tenants.yaml, so that two checkouts agree.
    """
    if tenant.file is not None:
        root = f"{project.fleet.root}/"
        return f"{tenant.server}/{tenant.file.removeprefix(root)}"
    database = tenant.database or defaults.get(tenant.server) or "?"
    return "/".join(part for part in (tenant.server, database, tenant.schema) if part is not None)


async def note_places(project: Project, journal: Journal, run: str, tenants: Iterable[Tenant]) -> None:
    """Write down where the tenants of a run are."""
    meant = tuple(tenants)
    lacking = (tenant.server for tenant in meant if tenant.file is None and tenant.database is None)
    defaults = await default_databases(project, lacking)
    detail = {tenant.id: place_of(project, tenant, defaults) for tenant in meant}
    if detail:
        journal.record_event(EventRecord(run, None, datetime.now(UTC), PLACES, detail=detail))


def _default_database(project: Project, server: str) -> str | None:
    try:
        return project.databases[server].default_database
    except OrchestratorError:
        # Its secret cannot be read: its tenants say so.
        return None
