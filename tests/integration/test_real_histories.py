"""Two histories that others wrote, on a few tenants; tests/acceptance has more of them and takes longer."""

from __future__ import annotations

from pathlib import Path

from tests.catalog import catalog, difference
from tests.fleets import in_databases, in_files, in_schemas, plain_catalog
from tests.histories import ARGILLA, PLACEMENT, migrate_plainly
from tests.servers import PostgresServer

#: tests/acceptance has fifty, and the other history for each way as well.
TENANTS = 8
#: PostgreSQL takes longer to make a database than the orchestrator to migrate it.
DATABASES = 4


def test_argilla_in_schemas(tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """Every tenant is as plain Alembic makes it; taken back to base it is empty, upgraded again it is as before."""
    fleet = in_schemas(ARGILLA, tmp_path, pg, database, TENANTS)
    fleet.upgrade()
    back, ahead = list(fleet.places)[:3], list(fleet.places)[3:]
    assert fleet.downgrade("-t", "Tenant-00[1-3]")["summary"] == {"succeeded": len(back)}
    fleet.assert_are(back, (), plain_catalog(fleet.workspace, pg, back=True))
    fleet.assert_are(ahead, ARGILLA.heads, fleet.expected)
    fleet.upgrade(already=len(ahead))


def test_placement_in_schemas(tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """Its revisions have no downgrade: going back is refused for every tenant before anything is done to one."""
    fleet = in_schemas(PLACEMENT, tmp_path, pg, database, TENANTS)
    fleet.upgrade()
    document = fleet.downgrade("--all", exit_code=1)
    assert document["summary"] == {"blocked": TENANTS}
    assert {tenant["error"]["type"] for tenant in document["tenants"]} == {"irreversible"}
    assert all(tenant["to"] == list(PLACEMENT.heads) for tenant in document["tenants"])
    fleet.assert_complete()


def test_databases(tmp_path: Path, pg: PostgresServer) -> None:
    """With a database for each tenant."""
    with in_databases(PLACEMENT, tmp_path, pg, DATABASES) as fleet:
        fleet.upgrade()


def test_same_application_in_public(tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """With the application in public, at head, tenants get all of their own, and nothing of public's changes."""
    fleet = in_schemas(ARGILLA, tmp_path, pg, database, 5)
    migrate_plainly(fleet.workspace, database)
    public = catalog(database)
    fleet.upgrade()
    assert difference(public, catalog(database)) == []


def test_files(tmp_path: Path) -> None:
    """With a SQLite file for each tenant."""
    in_files(PLACEMENT, tmp_path, DATABASES).upgrade()
