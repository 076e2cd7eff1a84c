"""The repository's own history on many tenants at once: every catalog is the one that plain Alembic makes."""

from __future__ import annotations

from pathlib import Path

from tests.fleets import Fleet, Place, database_of, in_schemas, plain_catalog, write_tenants
from tests.histories import SAMPLE
from tests.servers import PostgresServer


def test_100_schemas_16_at_once(tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """A hundred schemas of one database, sixteen of them being migrated at any time."""
    in_schemas(SAMPLE, tmp_path, pg, database, 100, at_once=16).upgrade("--jobs", "16")


def test_mixed_isolation_on_two_servers(tmp_path: Path, pg: PostgresServer, second_pg: PostgresServer) -> None:
    """Schemas and databases of the same names on two servers, migrated in one run."""
    servers = {"main": pg, "eu": second_pg}
    shared = {name: server.create_database() for name, server in servers.items()}
    own = [f"{database_of(shared['main'])}_{number}" for number in range(4)]
    places: dict[str, Place] = {}
    tenants: dict[str, str] = {}
    for name, server in servers.items():
        for database in own:
            places[f"{name}-schema-of-{database}"] = Place(shared[name], database)
            tenants[f"{name}-schema-of-{database}"] = f"server: {name}, schema: {database}"
            places[f"{name}-{database}"] = Place(server.database_url(database))
            tenants[f"{name}-{database}"] = f"server: {name}, isolation: database, database: {database}"
    workspace = SAMPLE.project(tmp_path)
    write_tenants(workspace, {name: f'url: "{url}", max_concurrency: 8' for name, url in shared.items()}, tenants)
    try:
        Fleet(workspace, SAMPLE, places, plain_catalog(workspace, pg)).upgrade()
    finally:
        for name, server in servers.items():
            for url in (shared[name], *(server.database_url(database) for database in own)):
                server.drop_database(url)
