"""Put a tenant into the fleet for good, and take it out: where it belongs, and not half.

A tenant belongs to the SQL source that has a statement for it, or to the glob that finds it anyway, or into
tenants.yaml. The fleet is read anew before and after: nobody is believed to be in it, or out of it, unread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.actions.onboarding.belonging import finder, require_same, told, writable
from orchestrator.actions.servers import Servers, opened_servers
from orchestrator.actions.sources import read_sources
from orchestrator.databases.answers import Check
from orchestrator.databases.port.database import Database
from orchestrator.errors import ConfigurationError, DatabaseError, OrchestratorError
from orchestrator.fleet import registry
from orchestrator.fleet.clashes import clashes, same_place
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.load import load
from orchestrator.fleet.problems import suggestion
from orchestrator.fleet.rows import read_rows
from orchestrator.fleet.sources import DatabaseSource, SchemaSource, SqlSource
from orchestrator.fleet.statements import values_of
from orchestrator.fleet.tenant import Tenant

#: Sources that a server answers.
_ASKED = (SqlSource, SchemaSource, DatabaseSource)


@dataclass(frozen=True, slots=True)
class Registration:
    """Where a tenant is written down, and whether that is new."""

    #: ``tenants.yaml`` or what the source calls itself; ``None`` for a tenant that was to be taken out and is nowhere.
    where: str | None
    #: Something was written.
    changed: bool


async def register(servers: Servers, fleet: Fleet, tenant: Tenant, source: SqlSource | None = None) -> Registration:
    """Make ``tenant`` one of the fleet.

    It goes to ``source``; else to the SQL source with a ``register:`` statement that is on the tenant's server or whose
    statement says ``:server``; else nowhere, where a source's glob matches it; else into tenants.yaml. Again, it does
    nothing. A tenant whom a glob is to find has to have its schema or database already.

    Args:
        servers: opened for ``fleet``.
        fleet: as loaded, its sources unread; it has the tenant's server.
        tenant: whom.
        source: one of the fleet's, to overrule the choice.

    Raises:
        ConfigurationError: the id or the place is another tenant's, no or more than one source is meant, or what was
            written does not make a tenant of the fleet in this place; then nothing of it stays.
        DatabaseError: a source cannot be asked, or its statement fails.
    """
    (done,) = await register_all(servers, fleet, [tenant], source)
    if isinstance(done, OrchestratorError):
        raise done
    return done


async def register_all(
    servers: Servers, fleet: Fleet, tenants: Sequence[Tenant], source: SqlSource | None = None
) -> list[Registration | OrchestratorError]:
    """:func:`register` for several: the fleet is read once before and once after all of them.

    Returns:
        What became of each, in their order; one that cannot be registered keeps nobody else out.

    Raises:
        OrchestratorError: the fleet cannot be read; before, nothing was written.
    """
    done: dict[str, Registration | OrchestratorError] = {}
    unlisted: list[Tenant] = []
    async with _opened(servers, fleet) as (now, databases):
        whole = await read_sources(now, databases)
        for tenant in tenants:
            try:
                entered = await _entered(now, databases, whole, fleet, tenant, source)
            except OrchestratorError as error:
                done[tenant.id] = error
                continue
            if entered is None:
                unlisted.append(tenant)
            else:
                done[tenant.id] = entered
            if all(each.id != tenant.id for each in whole.tenants):
                # For the next one, this one is there.
                whole = replace(whole, tenants=(*whole.tenants, tenant))
    written = await _written_down(fleet, unlisted)
    done |= written
    try:
        missing = await _missing(servers, fleet, tenants, done)
    except ConfigurationError:
        # A source has meanwhile come to name one of them, too: nobody could read this fleet.
        await _taken_out(fleet, written, unlisted)
        raise
    await _taken_out(fleet, written, [tenant for tenant, _ in missing])
    done.update((tenant.id, problem) for tenant, problem in missing)
    return [done[tenant.id] for tenant in tenants]


async def unregister(servers: Servers, fleet: Fleet, tenant: Tenant) -> Registration:
    """Take ``tenant`` out of the fleet, there where it is written down.

    A tenant that a glob finds is in the fleet as long as it has its schema or database: nothing to do. Again, it does
    nothing.

    Args:
        servers: opened for ``fleet``.
        fleet: as loaded, its sources unread.
        tenant: whom.

    Raises:
        ConfigurationError: the id is another tenant's now, or its source has no ``unregister:``, or still names it
            after that; then nothing of it stays.
        DatabaseError: a source cannot be asked, or its statement fails.
    """
    async with _opened(servers, fleet) as (now, databases):
        whole = await read_sources(now, databases)
        if _listed(whole, tenant) is None:
            return Registration(None, changed=False)
        source = whole.origins.get(tenant.id)
        if source is None:
            changed = await asyncio.to_thread(registry.unregister, now.path, tenant.id)
            return Registration(now.path.name, changed)
        if isinstance(source, SchemaSource | DatabaseSource):
            return Registration(str(source), changed=False)
        if not isinstance(source, SqlSource) or source.unregister is None:
            message = f"tenant `{tenant.id}` is from {source}, which has no way to take it out"
            hint = "take it out there" + (", or give it `unregister:`" if isinstance(source, SqlSource) else "")
            raise ConfigurationError(message, hint=hint)

        def accept(rows: Sequence[Mapping[str, Any]]) -> None:
            if any(row.get("id") == tenant.id for row in rows):
                message = f"the `unregister:` of {source} leaves tenant `{tenant.id}` in it; it was rolled back"
                raise ConfigurationError(message, hint="correct the statement, or the query")

        await _write(databases, source, source.unregister, "unregister", tenant, Check(source.sql, accept))
        return Registration(str(source), changed=True)


async def lists(servers: Servers, fleet: Fleet, tenant: Tenant) -> bool:
    """Whether ``tenant`` is in the fleet, in its place.

    Raises:
        ConfigurationError: what has this id is in another place.
        DatabaseError: a source cannot be asked.
    """
    async with _opened(servers, fleet) as (now, databases):
        return _listed(await read_sources(now, databases), tenant) is not None


@asynccontextmanager
async def _opened(servers: Servers, fleet: Fleet) -> AsyncIterator[tuple[Fleet, Mapping[str, Database]]]:
    """tenants.yaml as it is now, and the servers that its sources ask."""
    now = await asyncio.to_thread(load, fleet.path, may_be_empty=True)
    asked = {source.server: now.servers[source.server] for source in now.sources if isinstance(source, _ASKED)}
    # One that has another address by now is another one.
    if all(name in servers.databases and server == fleet.servers.get(name) for name, server in asked.items()):
        yield now, servers.databases
    else:
        async with opened_servers(now) as others:
            yield now, others.databases


def _listed(whole: Fleet, tenant: Tenant) -> Tenant | None:
    """The tenant as the fleet has it.

    Raises:
        ConfigurationError: what has this id is in another place.
    """
    there = next((each for each in whole.tenants if each.id == tenant.id), None)
    if there is not None and not same_place(there, tenant, whole.servers):
        message = f"tenant `{tenant.id}` is in the fleet already: {told(there)} ({_where(whole, there)})"
        raise ConfigurationError(message, hint="see `orchestrator tenants list`; the new one needs another id")
    return there


def _refuse_taken(whole: Fleet, fleet: Fleet, tenant: Tenant) -> None:
    servers = {**fleet.servers, **whole.servers}
    if tenant.server not in servers:
        message = f"tenant `{tenant.id}` is on an unknown server `{tenant.server}`"
        raise ConfigurationError(message, hint=suggestion(tenant.server, servers))
    for number, first, problem in clashes([*whole.tenants, tenant], servers):
        if number < len(whole.tenants):
            continue  # two others, whom this one has nothing to do with
        other = whole.tenants[first]
        raise ConfigurationError(f"{problem.message} (`{other.id}`, {_where(whole, other)})", hint=problem.hint)


async def _write_to(now: Fleet, databases: Mapping[str, Database], tenant: Tenant, source: SqlSource) -> None:
    if source.register is None or source not in now.sources:
        message = f"{source} has no `register:`" if source in now.sources else f"{source} is not in {now.path} any more"
        raise ConfigurationError(message, hint=f"add it in {now.path}")

    def accept(rows: Sequence[Mapping[str, Any]]) -> None:
        declared = {name: server for name, server in now.servers.items() if not server.own}
        read = read_rows(rows, source, declared, now.defaults)
        found = now.with_tenants(tuple(read.tenants), {**now.servers, **read.servers})
        if not _is_among(found, tenant):
            raise _not_listed(found, tenant, f"the `register:` of {source} was rolled back")

    await _write(databases, source, source.register, "register", tenant, Check(source.sql, accept))


async def _entered(
    now: Fleet, databases: Mapping[str, Database], whole: Fleet, fleet: Fleet, tenant: Tenant, source: SqlSource | None
) -> Registration | None:
    """Where the tenant is, or has been put now; ``None`` where it belongs into tenants.yaml.

    Args:
        now: as loaded just now.
        databases: those of its sources.
        whole: with its sources read.
        fleet: as it was loaded before.
        tenant: whom.
        source: overrules the choice.
    """
    there = _listed(whole, tenant)
    origin = whole.origins.get(tenant.id)
    if there is not None and origin is not None:
        require_same(now, origin, there, tenant)
        return Registration(str(origin), changed=False)
    if there is not None:
        return None
    _refuse_taken(whole, fleet, tenant)
    chosen = source or writable(now, tenant)
    if chosen is not None:
        await _write_to(now, databases, tenant, chosen)
        return Registration(str(chosen), changed=True)
    found = await finder(now, databases, tenant)
    return None if found is None else Registration(str(found), changed=False)


async def _written_down(fleet: Fleet, tenants: Sequence[Tenant]) -> dict[str, Registration | OrchestratorError]:
    """Put tenants into tenants.yaml, by id."""
    done: dict[str, Registration | OrchestratorError] = {}
    for tenant in tenants:
        try:
            changed = await asyncio.to_thread(registry.register, fleet.path, registry.entry_of(tenant, fleet))
            done[tenant.id] = Registration(fleet.path.name, changed)
        except OrchestratorError as error:
            done[tenant.id] = error
    return done


async def _write(
    databases: Mapping[str, Database], source: SqlSource, sql: str, key: str, tenant: Tenant, check: Check
) -> None:
    try:
        await databases[source.server].write(sql, values_of(tenant), check)
    except DatabaseError as error:
        message = f"the `{key}:` of {source} failed for tenant `{tenant.id}`: {error.message}"
        raise DatabaseError(message, hint=error.hint or "correct the statement in tenants.yaml") from error


async def is_listed(servers: Servers, fleet: Fleet, tenant: Tenant) -> bool:
    """Whether the fleet, read anew, has ``tenant``; also where it cannot be read, or has it in another place.

    Args:
        servers: opened for ``fleet``.
        fleet: as it was read before.
        tenant: whom.
    """
    try:
        return await lists(servers, fleet, tenant)
    except OrchestratorError:
        return True


async def _taken_out(
    fleet: Fleet, written: Mapping[str, Registration | OrchestratorError], tenants: Sequence[Tenant]
) -> None:
    """Take those of ``tenants`` out of tenants.yaml again who have just been ``written`` there."""
    for tenant in tenants:
        there = written.get(tenant.id)
        if isinstance(there, Registration) and there.changed:
            await asyncio.to_thread(registry.unregister, fleet.path, tenant.id)


async def _missing(
    servers: Servers, fleet: Fleet, tenants: Sequence[Tenant], done: Mapping[str, Registration | OrchestratorError]
) -> list[tuple[Tenant, ConfigurationError]]:
    """Who should be in the fleet by now, and is not in it, read again; with what is there instead."""
    where = {tenant: str(there.where) for tenant, there in done.items() if isinstance(there, Registration)}
    if not where:
        return []
    async with _opened(servers, fleet) as (now, databases):
        whole = await read_sources(now, databases)
    return [
        (tenant, _not_listed(whole, tenant, f"it should be in {where[tenant.id]}"))
        for tenant in tenants
        if tenant.id in where and not _is_among(whole, tenant)
    ]


def _is_among(whole: Fleet, tenant: Tenant) -> bool:
    return any(each.id == tenant.id and same_place(each, tenant, whole.servers) for each in whole.tenants)


def _not_listed(whole: Fleet, tenant: Tenant, what: str) -> ConfigurationError:
    """Says who is there instead."""
    near = [each for each in whole.tenants if each.id == tenant.id or same_place(each, tenant, whole.servers)]
    instead = ", ".join(f"`{each.id}` with {told(each)}" for each in near) or f"{len(whole.tenants)} others"
    message = f"tenant `{tenant.id}` with {told(tenant)} is not listed: {what}, which lists {instead}"
    return ConfigurationError(message, hint="see `orchestrator tenants list`, and compare the query with the statement")


def _where(whole: Fleet, tenant: Tenant) -> str:
    return str(whole.origins.get(tenant.id, whole.path.name))
