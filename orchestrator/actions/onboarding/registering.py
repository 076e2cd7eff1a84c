"""Put a tenant into the fleet for good, and take it out: where it belongs, and not half.

A tenant belongs to the SQL source that has a statement for it, or to the glob that finds it anyway, or into
tenants.yaml. The fleet is read anew before and after: nobody is believed to be in it, or out of it, unread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.actions.servers import Servers, opened_servers
from orchestrator.actions.sources import read_sources
from orchestrator.databases.port import Check, Database
from orchestrator.errors import ConfigurationError, DatabaseError, OrchestratorError
from orchestrator.fleet import registry
from orchestrator.fleet.clashes import clashes, same_place
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.load import load
from orchestrator.fleet.problems import suggestion
from orchestrator.fleet.rows import read_rows
from orchestrator.fleet.sources import DatabaseSource, SchemaSource, Source, SqlSource
from orchestrator.fleet.statements import parse, values_of
from orchestrator.fleet.tenant import Isolation, Tenant

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
    async with _opened(servers, fleet) as (now, databases):
        whole = await read_sources(now, databases)
        there = _listed(whole, tenant)
        origin = whole.origins.get(tenant.id)
        if there is not None and origin is not None:
            _require_same(now, origin, there, tenant)
            return Registration(str(origin), changed=False)
        if there is None:
            _refuse_taken(whole, fleet, tenant)
            chosen = source or _writable(now, tenant)
            if chosen is not None:
                await _write_to(now, databases, tenant, chosen)
                await _require_listed(servers, fleet, tenant, str(chosen))
                return Registration(str(chosen), changed=True)
            finder = await _finder(now, databases, tenant)
            if finder is not None:
                await _require_listed(servers, fleet, tenant, str(finder))
                return Registration(str(finder), changed=False)
        return await _write_down(servers, fleet, tenant)


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
        message = f"tenant `{tenant.id}` is in the fleet already: {_told(there)} ({_where(whole, there)})"
        raise ConfigurationError(message, hint="see `orchestrator tenants list`; the new one needs another id")
    return there


def _refuse_taken(whole: Fleet, fleet: Fleet, tenant: Tenant) -> None:
    servers = {**fleet.servers, **whole.servers}
    if tenant.server not in servers:
        message = f"tenant `{tenant.id}` is on an unknown server `{tenant.server}`"
        raise ConfigurationError(message, hint=suggestion(tenant.server, servers))
    for _, first, problem in clashes([*whole.tenants, tenant], servers):
        other = whole.tenants[first]
        raise ConfigurationError(f"{problem.message} (`{other.id}`, {_where(whole, other)})", hint=problem.hint)


def _writable(now: Fleet, tenant: Tenant) -> SqlSource | None:
    """The source that has a statement for this tenant.

    Raises:
        ConfigurationError: there are several.
    """
    found = [source for source in now.sources if isinstance(source, SqlSource) and _takes(source, tenant)]
    if len(found) > 1:
        message = f"{len(found)} sources have a `register:` for tenant `{tenant.id}`: {', '.join(map(str, found))}"
        raise ConfigurationError(message, hint="keep `register:` at one of them")
    return found[0] if found else None


def _takes(source: SqlSource, tenant: Tenant) -> bool:
    if source.register is None:
        return False
    return source.server == tenant.server or "server" in parse(source.register).names


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


async def _write_down(servers: Servers, fleet: Fleet, tenant: Tenant) -> Registration:
    """Put the tenant into tenants.yaml."""
    changed = await asyncio.to_thread(registry.register, fleet.path, registry.entry_of(tenant, fleet))
    try:
        await _require_listed(servers, fleet, tenant, fleet.path.name)
    except ConfigurationError:
        if changed:  # a source has meanwhile come to name it, too: nobody could read this fleet
            await asyncio.to_thread(registry.unregister, fleet.path, tenant.id)
        raise
    return Registration(fleet.path.name, changed)


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


def finds_itself(fleet: Fleet, tenant: Tenant) -> bool:
    """Whether nothing is written down of ``tenant``: a glob finds its schema or database, as long as it is there.

    Args:
        fleet: as loaded, its sources unread.
        tenant: whom.
    """
    return _writable(fleet, tenant) is None and any(_matches(source, tenant) for source in fleet.sources)


def _matches(source: Source, tenant: Tenant) -> bool:
    if isinstance(source, SchemaSource):
        name, isolation = tenant.schema, Isolation.SCHEMA
    elif isinstance(source, DatabaseSource):
        name, isolation = tenant.database, Isolation.DATABASE
    else:
        return False
    same = tenant.isolation is isolation and tenant.server == source.server
    return same and name is not None and fnmatchcase(name, source.pattern)


async def _finder(now: Fleet, databases: Mapping[str, Database], tenant: Tenant) -> Source | None:
    """The source whose glob the tenant's schema or database matches.

    Raises:
        ConfigurationError: it matches, but the source would make another tenant of it.
    """
    for source in now.sources:
        if not isinstance(source, SchemaSource | DatabaseSource) or not _matches(source, tenant):
            continue
        if tenant.isolation is Isolation.SCHEMA and not await asyncio.to_thread(_is_in_default, tenant, databases):
            continue
        (found,) = read_rows([tenant.schema or tenant.database or ""], source, now.servers, now.defaults).tenants
        _require_same(now, source, found, tenant)
        return source
    return None


def _is_in_default(tenant: Tenant, databases: Mapping[str, Database]) -> bool:
    """Whether its schema is in the database that the server's address names; may block while a secret is read."""
    return tenant.database in (None, databases[tenant.server].default_database)


def _require_same(now: Fleet, source: Source, found: Tenant, tenant: Tenant) -> None:
    """A glob tells nothing but a name: whoever has more to say of the tenant has to be told that it is lost.

    Raises:
        ConfigurationError: it makes another tenant of it.
    """
    if isinstance(source, SchemaSource | DatabaseSource):
        alike = replace(tenant, database=found.database) if isinstance(source, SchemaSource) else tenant
        if alike != found:
            told, wanted = (registry.shown(registry.entry_of(each, now)) for each in (found, alike))
            message = f"{source} finds {_told(tenant)} by itself, as {told} and not as {wanted}"
            hint = "give it a name that the glob does not match, or leave out what a glob cannot tell"
            raise ConfigurationError(message, hint=hint)


async def _require_listed(servers: Servers, fleet: Fleet, tenant: Tenant, where: str) -> None:
    """Read the fleet again: the tenant has to be in it."""
    async with _opened(servers, fleet) as (now, databases):
        whole = await read_sources(now, databases)
    if not _is_among(whole, tenant):
        raise _not_listed(whole, tenant, f"it should be in {where}")


def _is_among(whole: Fleet, tenant: Tenant) -> bool:
    return any(each.id == tenant.id and same_place(each, tenant, whole.servers) for each in whole.tenants)


def _not_listed(whole: Fleet, tenant: Tenant, what: str) -> ConfigurationError:
    """Says who is there instead."""
    near = [each for each in whole.tenants if each.id == tenant.id or same_place(each, tenant, whole.servers)]
    instead = ", ".join(f"`{each.id}` with {_told(each)}" for each in near) or f"{len(whole.tenants)} others"
    message = f"tenant `{tenant.id}` with {_told(tenant)} is not listed: {what}, which lists {instead}"
    return ConfigurationError(message, hint="see `orchestrator tenants list`, and compare the query with the statement")


def _told(tenant: Tenant) -> str:
    return f"{tenant.isolation} {tenant.place} on server {tenant.server}"


def _where(whole: Fleet, tenant: Tenant) -> str:
    return str(whole.origins.get(tenant.id, whole.path.name))
