"""Who is to come into a fleet: entries as in tenants.yaml, given on the command line, in a file or by a program."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import ConfigurationError, UsageError
from orchestrator.fleet.clashes import clashes
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.problems import Located, Report
from orchestrator.fleet.rows import read_rows
from orchestrator.fleet.sources import Given
from orchestrator.fleet.tenant import Server, Tenant

#: Keys of an entry that are no tenant's.
_SEED = "seed"


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A tenant that is to come into the fleet."""

    tenant: Tenant
    #: Name of the seed that its entry asks for; ``None`` for the fleet's usual one.
    seed: str | None
    #: The fleet has it already: an earlier call was cut off later than that, or somebody has written it down by hand.
    listed: bool
    #: As its entry says it is: other than ``tenant`` where the fleet has one with other tags, say.
    asked: Tenant
    #: Keys of its entry.
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Newcomers:
    """All who are to come, and the fleet as it will be."""

    newcomers: tuple[Newcomer, ...]
    #: With them in it.
    fleet: Fleet


def read_newcomers(
    fleet: Fleet, entries: Sequence[Mapping[str, Any]], origin: str, *, expand: bool = False
) -> Newcomers:
    """Make newcomers of entries; everything that is wrong with any of them is told before anything is done.

    Args:
        fleet: with its sources read.
        entries: keys as in tenants.yaml, and ``seed``.
        origin: where they are from, for people.
        expand: whether ``${...}`` in an address means a secret, as in tenants.yaml: right for what an operator types,
            wrong for data.

    Raises:
        ConfigurationError: some are no tenants, or clash with each other or with the fleet's.
        UsageError: there are none.
    """
    if not entries:
        raise UsageError(f"{origin} names no tenant", hint="orchestrator onboard TENANT, or --from FILE")
    report = Report(None)
    for number, entry in enumerate(entries):
        seed = entry.get(_SEED)
        if not isinstance(seed, str | None):
            _note(report, origin, number, str(entry.get("id")), f"its seed {seed!r} is no name", "quote it")
            continue
        try:
            fleet.onboarding.seed_named(seed)
        except UsageError as error:
            _note(report, origin, number, str(entry.get("id")), error.message, error.hint)
    rows = [{key: value for key, value in entry.items() if key != _SEED} for entry in entries]
    declared = {name: server for name, server in fleet.servers.items() if not server.own}
    made = read_rows(rows, Given(origin), declared, fleet.defaults, expand=expand, report=report)
    present = {tenant.id: tenant for tenant in fleet.tenants}
    newcomers: list[Newcomer] = []
    new: list[tuple[int, Tenant]] = []
    for number, tenant in zip(made.numbers, made.tenants, strict=True):
        there = present.get(tenant.id)
        if there is not None and _place(there) != _place(tenant):
            message = f"it is a tenant already, in {there.place}"
            _note(report, origin, number, tenant.id, message, "choose another name")
        if there is None:
            new.append((number, tenant))
        keys = tuple(key for key in rows[number] if rows[number][key] is not None)
        newcomers.append(Newcomer(there or tenant, entries[number].get(_SEED), there is not None, tenant, keys))
    servers: dict[str, Server] = {**made.servers, **fleet.servers}
    everybody = (*fleet.tenants, *(tenant for _, tenant in new))
    before = len(fleet.tenants)
    for position, first, problem in clashes(everybody, servers):
        if position >= before > first:
            message = f"{problem.message} (`{everybody[first].id}`)"
            _note(report, origin, new[position - before][0], everybody[position].id, message, problem.hint)
    report.raise_if_any("nothing was touched; correct these, then the same command again")
    return Newcomers(tuple(newcomers), fleet.with_tenants(everybody, servers, fleet.origins))


def read_entries(text: str, name: str) -> list[dict[str, Any]]:
    """The entries of a file: CSV with a line of keys, or YAML or JSON with a list.

    Args:
        text: what is in it.
        name: what it is called; ``-`` or no ending is told apart by what it begins with.

    Raises:
        ConfigurationError: it is neither.
    """
    ending = Path(name).suffix.lower()
    listed = text.lstrip().startswith(("-", "[", "{", "tenants:"))
    if ending == ".csv" or (ending not in (".yaml", ".yml", ".json") and not listed):
        return _from_csv(text, name)
    try:
        document = json.loads(text) if ending == ".json" else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigurationError(f"{error}", file=name, hint="write a list of entries as in tenants.yaml") from error
    if isinstance(document, dict) and set(document) == {"tenants"}:
        document = document["tenants"]
    if not isinstance(document, list):
        raise ConfigurationError("it is no list of tenants", file=name, hint="write a list of entries: - {id: acme}")
    return [{"id": entry} if isinstance(entry, str) else _mapping(entry, name, row) for row, entry in _rows(document)]


def _from_csv(text: str, name: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ConfigurationError(str(error), file=name, line=reader.line_num, hint="is it a CSV file?") from error
    if "id" not in (reader.fieldnames or ()):
        raise ConfigurationError(
            "its first line names no column `id`", file=name, line=1, hint="begin it with: id,schema,tags"
        )
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise ConfigurationError(
                "it has another number of columns than the first line", file=name, line=number, hint="quote commas"
            )
    # What is empty in a table is left out; several tags stand in one cell.
    return [{key: value for key, value in row.items() if value} for row in rows]


def _mapping(entry: Any, name: str, row: int) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ConfigurationError(f"entry {row} is neither a name nor a mapping", file=name, hint="write - {id: acme}")
    return entry


def _rows(document: list[Any]) -> Iterable[tuple[int, Any]]:
    return enumerate(document, 1)


def _note(report: Report, origin: str, number: int, tenant: str, message: str, hint: str | None) -> None:
    report.found.append(Located(number, 0, f"{origin}, row {number + 1} (`{tenant}`): {message}", hint))


def _place(tenant: Tenant) -> tuple[str, str | None, str | None, str | None]:
    return tenant.server, tenant.database, tenant.schema, tenant.file
