"""Fleets of many tenants over one history, migrated by the real command line and compared with plain Alembic's work."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.catalog import Catalog, catalog, catalogs, difference
from tests.histories import History, migrate_plainly
from tests.servers import PostgresServer, execute
from tests.workspace import Workspace

#: Where extensions are when tenants share a database.
EXTENSIONS = "extensions"
#: Seconds that one command over a whole fleet may take.
_TIMEOUT = 300


@dataclass(frozen=True, slots=True)
class Place:
    """Where one tenant's tables are."""

    #: Address of its database or file.
    url: str
    schema: str = "public"


@dataclass(frozen=True, slots=True)
class Fleet:
    """Tenants of one history, and the commands on all of them."""

    workspace: Workspace
    history: History
    #: By tenant id.
    places: Mapping[str, Place]
    #: What every tenant is to hold.
    expected: Catalog = field(repr=False)
    #: Schema with the extensions; ``None`` where each database has its own.
    extensions: str | None = None

    def upgrade(self, *options: str, already: int = 0) -> None:
        """``orchestrator upgrade --provision`` succeeds on every tenant, and each is as plain Alembic makes it.

        Args:
            options: more of the command line.
            already: how many tenants have nothing to do.
        """
        document = self.workspace.json("upgrade", "--provision", *options, timeout=_TIMEOUT)
        expected = {"succeeded": len(self.places) - already, "already_current": already}
        summary = {status: count for status, count in expected.items() if count}
        assert document["summary"] == summary, json.dumps([document["summary"], document["causes"]], indent=1)
        self.assert_complete()

    def downgrade(self, *options: str, exit_code: int = 0) -> Any:
        """``orchestrator downgrade base`` of whom ``options`` select; its document."""
        allowed = ("--yes", "--allow-data-loss")
        return self.workspace.json("downgrade", "base", *options, *allowed, exit_code=exit_code, timeout=_TIMEOUT)

    def catalogs(self) -> dict[str, Catalog]:
        """What every tenant's place holds, by tenant id."""
        schemas: dict[str, list[str]] = {}
        for place in self.places.values():
            schemas.setdefault(place.url, []).append(place.schema)
        found = {url: catalogs(url, here, self.extensions) for url, here in schemas.items()}
        return {tenant: found[place.url][place.schema] for tenant, place in self.places.items()}

    def assert_complete(self) -> None:
        """Every tenant is at the history's heads and holds exactly what plain Alembic makes."""
        self.assert_are(self.places, self.history.heads, self.expected)

    def assert_are(self, tenants: Iterable[str], heads: tuple[str, ...], expected: Catalog) -> None:
        """``tenants`` are at ``heads`` and hold what is ``expected``, nothing else."""
        found = {tenant["tenant"]: tenant["heads"] for tenant in self.workspace.json("status")["tenants"]}
        held = self.catalogs()
        for tenant in tenants:
            assert found[tenant] == list(heads), (tenant, found[tenant])
            different = difference(expected, held[tenant])
            assert not different, "\n".join([tenant, *different])


def names(count: int) -> list[str]:
    """Tenants' ids, which as names in SQL only work where they are quoted."""
    return [f"Tenant-{number:03}" for number in range(1, count + 1)]


def in_schemas(history: History, path: Path, server: PostgresServer, url: str, count: int, at_once: int = 8) -> Fleet:
    """Tenants that are to have schemas of the database at ``url``; the operator's extensions are made there."""
    workspace = history.project(path)
    places = {name: Place(url, name) for name in names(count)}
    extensions = EXTENSIONS if history.extensions else None
    more = f", extensions_schema: {extensions}" if extensions else ""
    write_tenants(workspace, {"main": f'url: "{url}", max_concurrency: {at_once}{more}'}, dict.fromkeys(places, ""))
    if extensions:
        make_extensions(url, history.extensions)
    return Fleet(workspace, history, places, plain_catalog(workspace, server, history.extensions), extensions)


@contextmanager
def in_databases(history: History, path: Path, server: PostgresServer, count: int) -> Iterator[Fleet]:
    """Tenants that are to have databases of their own, dropped at the end."""
    workspace = history.project(path)
    first = server.create_database()
    places = {name: Place(f"{first}_{name}") for name in names(count)}
    tenants = {name: f"isolation: database, database: {database_of(place.url)}" for name, place in places.items()}
    write_tenants(workspace, {"main": f'url: "{first}", max_concurrency: 8'}, tenants)
    try:
        yield Fleet(workspace, history, places, plain_catalog(workspace, server))
    finally:
        for url in (first, *(place.url for place in places.values())):
            server.drop_database(url)


def in_files(history: History, path: Path, count: int) -> Fleet:
    """Tenants that are to have SQLite files in ``path``."""
    workspace = history.project(path)
    places = {name: Place(f"sqlite:///{path}/files/{name}.db") for name in names(count)}
    write_tenants(workspace, {"main": f'url: "sqlite:///{path}/files"'}, dict.fromkeys(places, "isolation: file"))
    plain = f"sqlite:///{path}/plain/plain.db"
    migrate_plainly(workspace, plain)
    return Fleet(workspace, history, places, catalog(plain))


def plain_catalog(
    workspace: Workspace, server: PostgresServer, extensions: tuple[str, ...] = (), *, back: bool = False
) -> Catalog:
    """The catalog that plain Alembic makes in the public schema of a database of its own.

    Args:
        workspace: with the history.
        server: where the database is made, and dropped again.
        extensions: those that the operator makes in a schema of their own.
        back: what downgrading to base again leaves, which is not always nothing.
    """
    url = server.create_database()
    try:
        if extensions:
            make_extensions(url, extensions)
        migrate_plainly(workspace, url)
        if back:
            migrate_plainly(workspace, url, "downgrade", "base")
        return catalog(url, extensions=EXTENSIONS if extensions else None)
    finally:
        server.drop_database(url)


def write_tenants(workspace: Workspace, servers: Mapping[str, str], tenants: Mapping[str, str]) -> None:
    """Write tenants.yaml.

    Args:
        workspace: where.
        servers: by name, what follows in its mapping; the first is every tenant's that does not say another.
        tenants: by id, what follows in its mapping.
    """
    lines = ["servers:", *(f"  {name}: {{{keys}}}" for name, keys in servers.items())]
    lines += [f"defaults: {{server: {next(iter(servers))}}}", "tenants:"]
    lines += [f"  - {{id: {name}{', ' if keys else ''}{keys}}}" for name, keys in tenants.items()]
    workspace.write("tenants.yaml", "\n".join(lines) + "\n")


def database_of(url: str) -> str:
    """Name of the database that an address names."""
    return urlsplit(url).path.lstrip("/")


def make_extensions(url: str, extensions: tuple[str, ...]) -> None:
    """What an operator does whose tenants share a database: each extension once, in a schema that all can reach."""
    execute(url, f"CREATE SCHEMA {EXTENSIONS}")
    execute(url, f'ALTER DATABASE "{database_of(url)}" SET search_path = public, {EXTENSIONS}')
    for extension in extensions:
        execute(url, f"CREATE EXTENSION {extension} SCHEMA {EXTENSIONS}")
