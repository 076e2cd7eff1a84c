"""Look at one PostgreSQL server: whether it answers, its databases one by one, and what they have in common."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeAlias

import asyncpg

from orchestrator.databases.checkup import Finding, Level, Need, some
from orchestrator.databases.checkup_places import Places, look_at_database
from orchestrator.databases.checkup_postgresql import check_server, check_timeouts
from orchestrator.databases.script import enter
from orchestrator.errors import OrchestratorError, Unprovisioned
from orchestrator.fleet.tenant import Server, Tenant

_RawConnection: TypeAlias = asyncpg.Connection
_Connected: TypeAlias = AbstractAsyncContextManager[_RawConnection]


@dataclass(frozen=True, slots=True)
class Access:
    """The adapter's own ways to its server: what is looked at is what a run would meet."""

    #: Connects to a database; ``None`` for the one in the server's address.
    connected: Callable[[str | None], _Connected]
    #: Connects to a database that is surely there.
    maintenance: Callable[[], _Connected]
    #: What a run sets for a tenant.
    settings: Callable[[Tenant], dict[str, str]]
    search_path: Callable[[Tenant], str | None]
    #: Key of the lock of a database (by name) and schema.
    lock_key: Callable[[str, str | None], int]
    server: Server
    #: Query for how many connections are free.
    free_connections: str
    #: Milliseconds that one question may take.
    longest_ms: int


async def examine(access: Access, need: Need) -> list[Finding]:
    """See :meth:`orchestrator.databases.port.Database.examine`."""
    started = time.perf_counter()
    try:
        async with access.maintenance() as raw:
            took = (time.perf_counter() - started) * 1000
            reachable = Finding("reachable", Level.OK, f"answers in {took:.0f} ms", measured={"ms": round(took, 1)})
            await _limit(raw, access)
            free = int(await raw.fetchval(access.free_connections))
            may_make = await raw.fetchval("SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user")
            places = Places()
            failed = await _look_at_databases(access, need, places, may_make)
            concurrency = access.server.max_concurrency
            general = await check_server(raw, len(need.pending), free, concurrency, places.largest)
            timeouts = [await _timeouts(raw, access.settings(need.tenants[0]))] if need.tenants else []
    except OrchestratorError as error:
        return [Finding("reachable", Level.PROBLEM, error.message, error.hint)]
    return [reachable, *failed, *general, *timeouts, *places.findings(need)]


async def _look_at_databases(access: Access, need: Need, places: Places, may_make: bool) -> list[Finding]:
    """Look at every database that has tenants; what comes back is about those that gave no connection."""
    by_database: dict[str | None, list[Tenant]] = defaultdict(list)
    for tenant in need.tenants:
        by_database[tenant.database].append(tenant)
    budget = asyncio.Semaphore(access.server.max_concurrency)

    async def look(database: str | None, tenants: Sequence[Tenant]) -> Finding | None:
        ids = tuple(tenant.id for tenant in tenants)
        try:
            async with budget, access.connected(database) as raw:
                await _limit(raw, access)
                name = await raw.fetchval("SELECT current_database()")
                keys: Mapping[int, str] = {access.lock_key(name, tenant.schema): tenant.id for tenant in tenants}
                alone = next((tenant for tenant in tenants if tenant.schema is None), None)
                path = access.search_path(alone) if alone is not None else None
                if path is not None:
                    await raw.execute(f"SET search_path = {path}")
                await look_at_database(raw, tenants, need, keys, access.server.extensions_schema, places)
        except Unprovisioned:
            places.missing.update(dict.fromkeys(ids, may_make))
        except OrchestratorError as error:
            return Finding("reachable", Level.PROBLEM, f"{some(ids)}: {error.message}", error.hint, ids)
        return None

    found = await asyncio.gather(*(look(database, tenants) for database, tenants in by_database.items()))
    return [finding for finding in found if finding is not None]


async def _timeouts(raw: _RawConnection, settings: Mapping[str, str]) -> Finding:
    """Set on the session what a run sets, and see what came of it."""
    await raw.execute(enter({name: value for name, value in settings.items() if name != "search_path"}))
    return await check_timeouts(raw, settings)


async def _limit(raw: _RawConnection, access: Access) -> None:
    await raw.execute(
        f"SET application_name = 'orchestrator doctor'; SET lock_timeout = {access.longest_ms};"
        f" SET statement_timeout = {access.longest_ms}"
    )
