"""Rows of sources become tenants, by the rules of tenants.yaml's own entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import ConfigurationError
from orchestrator.fleet.clashes import clashes
from orchestrator.fleet.describe import problems_of
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.problems import Located, Problem, Report
from orchestrator.fleet.resolve import Refused, Resolver
from orchestrator.fleet.schema import TenantEntry
from orchestrator.fleet.sources import DatabaseSource, Defaults, Given, Row, SchemaSource, Source, SqlSource
from orchestrator.fleet.tenant import Isolation, Limits, Server, Tenant

_ENTRIES = TypeAdapter(list[TenantEntry])


@dataclass(frozen=True, slots=True)
class Rows:
    """What a source's rows came to."""

    tenants: list[Tenant]
    #: Servers of their own, of rows with a ``url``.
    servers: dict[str, Server]
    #: Each tenant's row, from 0.
    numbers: list[int]


def read_rows(
    rows: Iterable[Row],
    source: Source | Given,
    fleet_servers: Mapping[str, Server],
    defaults: Defaults,
    *,
    expand: bool = False,
    report: Report | None = None,
) -> Rows:
    """Make tenants of a source's rows.

    A key whose value is ``None`` counts as left out. A ``url`` is taken as it stands unless ``expand``: ``${...}`` in
    data would let whoever writes the table run commands here.

    Args:
        rows: mappings with a tenant's keys, tenants, or (of a pattern source) bare names.
        source: where they are from; it gives a server and an isolation to rows that have none.
        fleet_servers: the servers a row may name.
        defaults: the fleet's.
        expand: whether ``${...}`` in an address means a secret.
        report: where what is wrong is told, by a caller who raises it together with more; rows that are wrong are left
            out of the result then.

    Raises:
        ConfigurationError: rows break the rules; the message names the source and each row.
    """
    data = [_entry(row, source, number) for number, row in enumerate(rows, 1)]
    own = Report(None) if report is None else report
    entries = _validated(data, source, own)
    resolver = Resolver(fleet_servers, _defaults(source, defaults), expand=expand)
    tenants: list[Tenant] = []
    numbers: list[int] = []
    for number, entry in entries:
        try:
            tenant = resolver.tenant(entry)
        except Refused as refused:
            _note(own, source, number, entry.id, refused.problem)
            continue
        if tenant is None:
            problem = Problem(("server",), f"unknown server `{entry.server or resolver.defaults.server}`")
            _note(own, source, number, entry.id, problem)
            continue
        tenants.append(tenant)
        numbers.append(number)
    for number, first, problem in clashes(tenants, {**fleet_servers, **resolver.own}):
        told = replace(problem, message=f"{problem.message} (row {numbers[first] + 1})")
        _note(own, source, numbers[number], tenants[number].id, told)
    if report is None:
        own.raise_if_any(_hint(source))
    return Rows(tenants, resolver.own, numbers)


def complete(fleet: Fleet, read: Iterable[tuple[Source, Iterable[Row]]]) -> Fleet:
    """The fleet with its sources read: its own tenants, then each source's in the order of their rows.

    Args:
        fleet: as loaded.
        read: each source with the rows it gave.

    Raises:
        ConfigurationError: rows break the rules, or a tenant clashes with one from elsewhere.
    """
    tenants = list(fleet.tenants)
    origins = ["tenants.yaml"] * len(tenants)
    servers = dict(fleet.servers)
    # A row may name a declared server, not one that another tenant has for itself.
    declared = {name: server for name, server in fleet.servers.items() if not server.own}
    sources: dict[str, Source] = {}
    places = 1 if tenants else 0
    for source, rows in read:
        places += 1
        made = read_rows(rows, source, declared, fleet.defaults)
        tenants += made.tenants
        origins += [str(source)] * len(made.tenants)
        sources |= dict.fromkeys((tenant.id for tenant in made.tenants), source)
        servers = {**made.servers, **servers}
    report = Report(None)
    # One source's rows have been held against each other already.
    for number, first, problem in clashes(tenants, servers) if places > 1 else ():
        message = f"{problem.message} (`{tenants[first].id}` from {origins[first]})"
        report.found.append(
            Located(number, 0, f"{origins[number]}, tenant `{tenants[number].id}`: {message}", problem.hint)
        )
    report.raise_if_any("name each tenant in one place only")
    return fleet.with_tenants(tuple(tenants), servers, sources)


def _validated(data: list[dict[str, Any]], source: Source | Given, report: Report) -> list[tuple[int, TenantEntry]]:
    """The rows that are entries, each with its number from 0."""
    wrong: set[int] = set()
    try:
        return list(enumerate(_ENTRIES.validate_python(data)))
    except ValidationError as error:
        for problem in problems_of(error, prefix=("tenants",)):
            number = int(problem.path[1]) if len(problem.path) > 1 else 0
            wrong.add(number)
            _note(report, source, number, data[number].get("id"), problem)
    right = [number for number in range(len(data)) if number not in wrong]
    return list(zip(right, _ENTRIES.validate_python([data[number] for number in right]), strict=True))


def _entry(row: Row, source: Source | Given, number: int) -> dict[str, Any]:
    if type(row) is dict and isinstance(source, SqlSource):
        # What a server answers, a hundred thousand times.
        return {str(key): value for key, value in row.items() if value is not None}
    if isinstance(row, Tenant):
        entry: dict[str, Any] = {name: getattr(row, name) for name in Tenant.__slots__ if name != "limits"}
        entry |= {name: getattr(row.limits, name) for name in Limits.__slots__}
    elif isinstance(row, str) and isinstance(source, SchemaSource | DatabaseSource):
        entry = {"id": row}
    elif isinstance(row, Mapping):
        entry = {str(key): value for key, value in row.items()}
    else:
        message = f"{source}, row {number}: a row must be a mapping or a tenant, not {type(row).__name__}"
        raise ConfigurationError(message, hint='return rows like {"id": "acme", "schema": "acme"}')
    entry = {key: value for key, value in entry.items() if value is not None}
    if isinstance(source, SchemaSource):
        entry = {"server": source.server, "isolation": Isolation.SCHEMA, **entry}
    elif isinstance(source, DatabaseSource):
        entry = {"server": source.server, "isolation": Isolation.DATABASE, **entry}
    return entry


def _defaults(source: Source | Given, defaults: Defaults) -> Defaults:
    return replace(defaults, server=source.server) if isinstance(source, SqlSource) else defaults


def _note(report: Report, source: Source | Given, number: int, id: Any, problem: Problem) -> None:
    name = f" (`{id}`)" if isinstance(id, str) else ""
    report.found.append(Located(number, 0, f"{source}, row {number + 1}{name}: {problem.message}", problem.hint))


def _hint(source: Source | Given) -> str:
    if isinstance(source, Given):
        return "nothing was touched; correct these, then the same command again"
    return "correct the query" if isinstance(source, SqlSource) else "correct what the source returns"
