"""Migrating some tenants changes these and nobody else, whatever else is in their database."""

from __future__ import annotations

from pathlib import Path

import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from orchestrator.fleet.fleet import Fleet
from tests.catalog import catalogs, difference
from tests.projects import statuses
from tests.servers import execute, fetch
from tests.workspace import Workspace

CHOSEN, OTHERS = [f"t{number}" for number in range(4)], ["t4", "t5", "public"]
#: Where everybody stands before: an autocommit block and a revision that reads are still to come.
BEFORE = "6a1785f2cd3e"


@pytest.fixture
async def fleet(tmp_path: Path, database: str) -> Fleet:
    """Six tenants half-way, and the same application in public, at head."""
    workspace = Workspace.create(tmp_path)
    listed = ", ".join([*CHOSEN, *OTHERS])
    workspace.write("tenants.yaml", f"{{servers: {{main: '{database}'}}, tenants: [{listed}]}}")
    fleet = orchestrator.load(tmp_path / "tenants.yaml")
    schemas = [*CHOSEN, *OTHERS[:-1]]
    assert (await orchestrator.upgrade(fleet, BEFORE, tenants=schemas, provision=True)).satisfied
    assert (await orchestrator.upgrade(fleet, tenants=["public"])).satisfied
    for schema in [*schemas, "public"]:
        execute(database, f"INSERT INTO {schema}.accounts (name, slug) VALUES ('{schema}', '{schema}')")
    return fleet


def rows(database: str) -> dict[str, list[str]]:
    """Everything that the others' tables hold."""
    tables = fetch(
        database,
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
        f" AND table_schema IN ({', '.join(repr(schema) for schema in OTHERS)})",
    )
    return {
        f"{schema}.{table}": sorted(str(row) for row in fetch(database, f'SELECT * FROM "{schema}"."{table}"'))
        for schema, table in tables
    }


@pytest.mark.parametrize("path", [None, "ROLE postgres", "DATABASE"], ids=["plain", "role", "database"])
@pytest.mark.parametrize("replay", [True, False], ids=["replay", "alembic"])
async def test_nobody_else_changes(database: str, fleet: Fleet, replay: bool, path: str | None) -> None:
    """Also where the role or the database puts public on every search path."""
    if path is not None:
        whose = path if path != "DATABASE" else f'DATABASE "{database.rpartition("/")[2]}"'
        execute(database, f"ALTER {whose} SET search_path = public, t4")
    before, held = catalogs(database, OTHERS), rows(database)
    try:
        result = await orchestrator.upgrade(fleet, tenants=CHOSEN, execution=Execution(replay=replay))
    finally:
        if path == "ROLE postgres":
            execute(database, "ALTER ROLE postgres RESET search_path")

    assert statuses(result) == dict.fromkeys(CHOSEN, "succeeded"), result.as_json()
    after = catalogs(database, OTHERS)
    for schema in OTHERS:
        assert difference(before[schema], after[schema]) == []
    assert rows(database) == held
    # And they have become what public was before.
    mine = catalogs(database, CHOSEN)
    for schema in CHOSEN:
        assert difference(before["public"], mine[schema]) == []
