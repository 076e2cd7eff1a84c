"""Where a new tenant is to be written down: in a source that takes it, in tenants.yaml, or nowhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from orchestrator.databases.port.database import Database
from orchestrator.errors import ConfigurationError
from orchestrator.fleet import registry
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.rows import read_rows
from orchestrator.fleet.sources import DatabaseSource, SchemaSource, Source, SqlSource
from orchestrator.fleet.statements import parse
from orchestrator.fleet.tenant import Isolation, Tenant


def writable(now: Fleet, tenant: Tenant) -> SqlSource | None:
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


def finds_itself(fleet: Fleet, tenant: Tenant) -> bool:
    """Whether nothing is written down of ``tenant``: a glob finds its schema or database, as long as it is there.

    Args:
        fleet: as loaded, its sources unread.
        tenant: whom.
    """
    return writable(fleet, tenant) is None and any(_matches(source, tenant) for source in fleet.sources)


def _matches(source: Source, tenant: Tenant) -> bool:
    if isinstance(source, SchemaSource):
        name, isolation = tenant.schema, Isolation.SCHEMA
    elif isinstance(source, DatabaseSource):
        name, isolation = tenant.database, Isolation.DATABASE
    else:
        return False
    same = tenant.isolation is isolation and tenant.server == source.server
    return same and name is not None and fnmatchcase(name, source.pattern)


async def finder(now: Fleet, databases: Mapping[str, Database], tenant: Tenant) -> Source | None:
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
        require_same(now, source, found, tenant)
        return source
    return None


def _is_in_default(tenant: Tenant, databases: Mapping[str, Database]) -> bool:
    """Whether its schema is in the database that the server's address names; may block while a secret is read."""
    return tenant.database in (None, databases[tenant.server].default_database)


def require_same(now: Fleet, source: Source, found: Tenant, tenant: Tenant) -> None:
    """A glob tells nothing but a name: whoever has more to say of the tenant has to be told that it is lost.

    Raises:
        ConfigurationError: it makes another tenant of it.
    """
    if isinstance(source, SchemaSource | DatabaseSource):
        alike = replace(tenant, database=found.database) if isinstance(source, SchemaSource) else tenant
        if alike != found:
            is_so, wanted = (registry.shown(registry.entry_of(each, now)) for each in (found, alike))
            message = f"{source} finds {told(tenant)} by itself, as {is_so} and not as {wanted}"
            hint = "give it a name that the glob does not match, or leave out what a glob cannot tell"
            raise ConfigurationError(message, hint=hint)


def told(tenant: Tenant) -> str:
    """A tenant's place, for people."""
    return f"{tenant.isolation} {tenant.place} on server {tenant.server}"
