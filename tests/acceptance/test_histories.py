"""Five histories that others wrote, on fifty tenants each; three need the package they belong to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.catalog import catalog, difference
from tests.fleets import in_databases, in_files, in_schemas, plain_catalog
from tests.histories import ALL, ARGILLA, KEYSTONE, OPTUNA, PLACEMENT, PREFECT, History, migrate_plainly
from tests.servers import PostgresServer

TENANTS = 50


def named(*histories: History) -> pytest.MarkDecorator:
    """Run the test with each of ``histories``."""
    return pytest.mark.parametrize("history", histories, ids=[history.name for history in histories])


def test_schemas_there_and_back(tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """In schemas of one database, tenants are as plain Alembic makes them; so they are after base and back again."""
    fleet = in_schemas(ARGILLA, tmp_path, pg, database, TENANTS)
    fleet.upgrade()
    assert fleet.downgrade("--all")["summary"] == {"succeeded": TENANTS}
    fleet.assert_are(fleet.places, (), plain_catalog(fleet.workspace, pg, back=True))
    fleet.upgrade()


def test_schemas_with_a_broken_way_back(
    tmp_path: Path, pg: PostgresServer, database: str, make_database: Callable[..., str]
) -> None:
    """A downgrade that raises: every tenant is told so, and stays where plain Alembic leaves its one database."""
    fleet = in_schemas(OPTUNA, tmp_path, pg, database, TENANTS)
    fleet.upgrade()
    document = fleet.downgrade("--all", "--continue-on-error", exit_code=1)
    assert document["summary"] == {"failed": TENANTS}
    (cause,) = document["causes"]
    assert cause["count"] == TENANTS
    alone = make_database()
    migrate_plainly(fleet.workspace, alone)
    with pytest.raises(AssertionError, match=cause["message"]):
        migrate_plainly(fleet.workspace, alone, "downgrade", "base")
    fleet.assert_are(fleet.places, ("v3.0.0.c",), catalog(alone))


@named(PLACEMENT, KEYSTONE)
def test_schemas_without_a_way_back(history: History, tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """Revisions without a downgrade: going back is refused for every tenant before anything is done to one."""
    fleet = in_schemas(history, tmp_path, pg, database, TENANTS)
    fleet.upgrade()
    document = fleet.downgrade("--all", exit_code=1)
    assert document["summary"] == {"blocked": TENANTS}
    assert {tenant["error"]["type"] for tenant in document["tenants"]} == {"irreversible"}
    fleet.assert_complete()


def test_schemas_that_share_an_extension(tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """All use the operator's extension. A downgrade that would drop it is reported, and the others are unharmed."""
    fleet = in_schemas(PREFECT, tmp_path, pg, database, TENANTS)
    fleet.upgrade()
    first, *others = fleet.places
    document = fleet.downgrade("-t", first, exit_code=1)
    (tenant,) = document["tenants"]
    # Its revision had dropped indexes outside a transaction before.
    assert (tenant["status"], tenant["to"]) == ("partial", ["77ebcc9cf355"])
    assert (tenant["error"]["sqlstate"], tenant["error"]["revision"]) == ("2BP01", "77ebcc9cf355")
    assert tenant["error"]["statement"].startswith("DROP EXTENSION")
    fleet.assert_are(others, PREFECT.heads, fleet.expected)


@named(ARGILLA, PLACEMENT, OPTUNA, KEYSTONE)
def test_databases(history: History, tmp_path: Path, pg: PostgresServer) -> None:
    """In databases of their own, tenants are as plain Alembic makes them."""
    with in_databases(history, tmp_path, pg, TENANTS) as fleet:
        fleet.upgrade()


def test_databases_with_extensions_of_their_own(tmp_path: Path, pg: PostgresServer) -> None:
    """A tenant's history makes the extension in the tenant's database, and can drop it."""
    with in_databases(PREFECT, tmp_path, pg, TENANTS) as fleet:
        fleet.upgrade()
        first, *others = fleet.places
        assert fleet.downgrade("-t", first)["summary"] == {"succeeded": 1}
        fleet.assert_are(others, PREFECT.heads, fleet.expected)
        fleet.assert_are([first], (), plain_catalog(fleet.workspace, pg, back=True))


@named(ARGILLA, PLACEMENT, OPTUNA, KEYSTONE)
def test_files(history: History, tmp_path: Path) -> None:
    """In SQLite files, tenants are as plain Alembic makes them."""
    in_files(history, tmp_path, 10).upgrade()


@named(*ALL)
def test_same_application_in_public(history: History, tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """With the application in public, at head, tenants get all of their own, and nothing of public's changes."""
    fleet = in_schemas(history, tmp_path, pg, database, 5)
    migrate_plainly(fleet.workspace, database)
    public = catalog(database)
    fleet.upgrade()
    assert difference(public, catalog(database)) == []


@named(OPTUNA, PREFECT, KEYSTONE)
def test_linted(history: History, tmp_path: Path) -> None:
    """Each revision is linted, or is said not to be: those that read the database are. No server is there to ask."""
    workspace = history.project(tmp_path)
    workspace.write("tenants.yaml", "servers: {main: 'postgresql://nobody@127.0.0.1:1/app'}\ntenants: [acme]\n")
    result = workspace.run("lint", "--all-revisions", "--json", timeout=300)
    assert result.returncode == 3, result.stderr
    document = json.loads(result.stdout)
    assert set(history.heads) <= set(document["revisions"])
    assert {finding["revision"] for finding in document["not_linted"]} <= set(document["revisions"])
    assert document["not_linted"]
    # The packages' environments have none.
    assert document["squawk"]["hint"] == "pip install 'alembic-orchestrator[lint]'"
    assert "several_heads" not in {finding["rule"] for finding in document["findings"]}
