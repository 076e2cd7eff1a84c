"""Clashes: two tenants that are one, or that would be migrated in one and the same place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from orchestrator.errors import ConfigurationError
from orchestrator.fleet import urls
from orchestrator.fleet.problems import Problem
from orchestrator.fleet.tenant import Server, Tenant

#: Where tables of a tenant without a schema of its own go, unless the role has another search path.
_DEFAULT_SCHEMA = "public"
_DEFAULT_PORT = 5432

#: Server address, database and schema; or a file.
_Target = tuple[object, ...]


def clashes(tenants: Iterable[Tenant], servers: Mapping[str, Server]) -> Iterator[tuple[int, int, Problem]]:
    """Find tenants with the id or the target of an earlier one.

    Servers are told apart by host, port and database as far as those are known without reading files and running
    commands; two names of one host are not seen through.

    Yields:
        The tenant's position, the earlier one's, and the problem, whose path starts at the tenant.
    """
    ids: dict[str, int] = {}
    targets: dict[_Target, int] = {}
    addresses = {name: _address(server) for name, server in servers.items()}
    for number, tenant in enumerate(tenants):
        first = ids.setdefault(tenant.id, number)
        if first != number:
            message = f"the id `{tenant.id}` is taken already"
            yield number, first, Problem(("id",), message, "give it an id of its own")
            continue
        first = targets.setdefault(_target(tenant, addresses), number)
        if first != number:
            message = f"tenant `{tenant.id}` would be migrated in the place of another one: {tenant.place}"
            yield number, first, Problem(("id",), message, "give one of them a schema, database or file of its own")


def same_place(one: Tenant, other: Tenant, servers: Mapping[str, Server]) -> bool:
    """Whether two tenants would be migrated in one and the same place, as far as :func:`clashes` can tell."""
    addresses = {name: _address(servers[name]) for name in (one.server, other.server) if name in servers}
    return len(addresses) == len({one.server, other.server}) and _target(one, addresses) == _target(other, addresses)


def same_address(servers: Mapping[str, Server]) -> Iterator[tuple[str, str]]:
    """Find servers with the address of an earlier one: the budgets of one machine would be counted twice.

    Yields:
        The server's name and the earlier one's.
    """
    seen: dict[str, str] = {}
    for name, server in servers.items():
        first = seen.setdefault(server.url.from_environment(), name)
        if first != name:
            yield name, first


def _target(tenant: Tenant, addresses: Mapping[str, tuple[_Target, str | None]]) -> _Target:
    if tenant.file is not None:
        return (tenant.file,)
    location, database = addresses[tenant.server]
    return (*location, tenant.database or database, tenant.schema or _DEFAULT_SCHEMA)


def _address(server: Server) -> tuple[_Target, str | None]:
    """What tells a server from others, and the database its address names."""
    text = server.url.from_environment()
    try:
        parts = urls.split(text)
    except ConfigurationError:  # still full of ${...}, or wrong: whoever connects will say so
        return (text,), None
    hosts = tuple((host.lower(), port or _DEFAULT_PORT) for host, port in parts.hosts)
    elsewhere = tuple(parts.query.get(key) for key in ("host", "hostaddr", "port"))
    return (hosts, elsewhere), parts.query.get("dbname") or parts.database or parts.user
