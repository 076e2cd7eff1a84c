"""Two histories that others wrote, on twenty tenants; tests/acceptance has more of them and takes longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.catalog import catalog, difference
from tests.fleets import in_databases, in_files, in_schemas, plain_catalog
from tests.histories import ARGILLA, LIGHT, PLACEMENT, History, migrate_plainly
from tests.servers import PostgresServer

#: tests/acceptance has fifty.
TENANTS = 20
#: PostgreSQL takes longer to make a database than the orchestrator to migrate it.
DATABASES = 12
light = pytest.mark.parametrize("history", LIGHT, ids=lambda history: history.name)


def test_argilla_in_schemas(tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """Every tenant is as plain Alembic makes it; taken back to base it is empty, upgraded again it is as before."""
    fleet = in_schemas(ARGILLA, tmp_path, pg, database, TENANTS)
    fleet.upgrade()
    back, ahead = list(fleet.places)[:9], list(fleet.places)[9:]
    assert fleet.downgrade("-t", "Tenant-00*")["summary"] == {"succeeded": len(back)}
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


@light
def test_databases(history: History, tmp_path: Path, pg: PostgresServer) -> None:
    """With a database for each tenant."""
    with in_databases(history, tmp_path, pg, DATABASES) as fleet:
        fleet.upgrade()


@light
def test_same_application_in_public(history: History, tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """With the application in public, at head, tenants get all of their own, and nothing of public's changes."""
    fleet = in_schemas(history, tmp_path, pg, database, 5)
    migrate_plainly(fleet.workspace, database)
    public = catalog(database)
    fleet.upgrade()
    assert difference(public, catalog(database)) == []


@light
def test_files(history: History, tmp_path: Path) -> None:
    """With a SQLite file for each tenant."""
    in_files(history, tmp_path, 10).upgrade()
