"""A migrating role that is no superuser and owns the tenants' schemas can do everything."""

from __future__ import annotations

from pathlib import Path

import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from tests.catalog import catalogs, difference
from tests.histories import SAMPLE
from tests.projects import statuses, with_role
from tests.servers import PostgresServer, execute
from tests.workspace import Workspace

IDS = [f"t{number}" for number in range(6)]


@pytest.fixture
def role(pg: PostgresServer, database: str) -> str:
    """Address of the database for such a role."""
    name = database.rpartition("/")[2]
    execute(
        database,
        "DO $$ BEGIN CREATE ROLE migrator LOGIN NOSUPERUSER; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        f'GRANT CREATE ON DATABASE "{name}" TO migrator; ALTER ROLE migrator CREATEDB',
    )
    return with_role(database, "migrator", "x")


@pytest.mark.parametrize("replay", [True, False], ids=["replay", "alembic"])
async def test_every_verb(tmp_path: Path, pg: PostgresServer, database: str, role: str, replay: bool) -> None:
    """Provision, upgrade, downgrade, stamp, status and doctor, over the repository's own history."""
    workspace = Workspace.create(tmp_path)
    workspace.write("tenants.yaml", f"{{servers: {{main: '{role}'}}, tenants: [{', '.join(IDS)}]}}")
    fleet, execution = orchestrator.load(tmp_path / "tenants.yaml"), Execution(replay=replay, verify_all=True)

    upgraded = await orchestrator.upgrade(fleet, provision=True, execution=execution)
    assert statuses(upgraded) == dict.fromkeys(IDS, "succeeded"), upgraded.as_json()
    first, *others = catalogs(database, IDS).values()
    assert all(difference(first, other) == [] for other in others)

    back = await orchestrator.downgrade(fleet, "c4f1a09e27b3", everyone=True, execution=execution)
    assert statuses(back) == dict.fromkeys(IDS, "succeeded"), back.as_json()
    assert (await orchestrator.upgrade(fleet, execution=execution)).satisfied
    stamped = await orchestrator.stamp(fleet, "d05bc3987e41", tenants=["t0"])
    assert statuses(stamped) == {"t0": "succeeded"}
    assert (await orchestrator.status(fleet)).summary == {"behind": 1, "current": 5}
    assert (await orchestrator.doctor(fleet)).healthy


async def test_databases(tmp_path: Path, pg: PostgresServer, database: str, role: str) -> None:
    """With CREATEDB it makes tenants' databases, too."""
    names = [f"{database.rpartition('/')[2]}_{number}" for number in range(3)]
    workspace = SAMPLE.project(tmp_path)
    listed = ", ".join(f"{{id: {name}, isolation: database}}" for name in names)
    workspace.write("tenants.yaml", f"{{servers: {{main: '{role}'}}, tenants: [{listed}]}}")
    fleet = orchestrator.load(tmp_path / "tenants.yaml")
    try:
        result = await orchestrator.upgrade(fleet, provision=True)
        assert statuses(result) == dict.fromkeys(names, "succeeded"), result.as_json()
    finally:
        for name in names:
            pg.drop_database(pg.database_url(name))


async def test_backup_and_restore(tmp_path: Path, pg: PostgresServer, database: str, role: str) -> None:
    """What it owns it can also save and put back: schemas by owning them, databases with CREATEDB."""
    own = f"{database.rpartition('/')[2]}_own"
    workspace = SAMPLE.project(tmp_path)
    workspace.write(
        "tenants.yaml",
        f"{{servers: {{main: '{role}'}}, tenants: [t0, {{id: whole, isolation: database, database: {own}}}]}}",
    )
    fleet, ids = orchestrator.load(tmp_path / "tenants.yaml"), ("t0", "whole")
    try:
        assert (await orchestrator.upgrade(fleet, "c4f1a09e27b3", provision=True)).satisfied
        upgraded = await orchestrator.upgrade(fleet, execution=Execution(backup=tmp_path / "kept"))
        assert statuses(upgraded) == dict.fromkeys(ids, "succeeded"), upgraded.as_json()
        restored = await orchestrator.restore(fleet, upgraded.run.id, everyone=True)
        assert statuses(restored) == dict.fromkeys(ids, "succeeded"), restored.as_json()
        assert {attempt.to_heads for attempt in restored.tenants} == {("c4f1a09e27b3",)}
        assert (await orchestrator.upgrade(fleet)).satisfied
    finally:
        pg.drop_database(pg.database_url(own))
