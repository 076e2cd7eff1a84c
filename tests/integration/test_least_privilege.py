"""The SQL of docs/howto/least-privilege.md is run, and then the main roads are gone as the role that it makes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import orchestrator
from orchestrator.actions.execute import Execution
from tests.documents import blocks
from tests.projects import ACCOUNTS, PROJECTS, Project, make_project, one, statuses, with_role
from tests.replays import paths
from tests.servers import PostgresServer, execute, fetch

PAGE = "docs/howto/least-privilege.md"
HISTORY = {
    "r1": f"def upgrade():\n    {ACCOUNTS}\n\ndef downgrade():\n    op.drop_table('accounts')",
    "r2": f"def upgrade():\n    {PROJECTS}\n\ndef downgrade():\n    op.drop_table('projects')",
    "r3": "def upgrade():\n    op.add_column('accounts', sa.Column('note', sa.Text))\n\n"
    "def downgrade():\n    op.drop_column('accounts', 'note')",
}


@dataclass(frozen=True, slots=True)
class Place:
    """A server with the databases and roles that the page takes for granted."""

    project: Project
    #: The database `app`, as a superuser and as `migrator`.
    superuser: str
    migrator: str

    def fleet(self, url: str, *tenants: str | dict[str, str], extensions: bool = True) -> None:
        """Write tenants.yaml."""
        server = {"url": url, **({"extensions_schema": "extensions"} if extensions else {})}
        entries = [tenant if isinstance(tenant, dict) else {"id": tenant} for tenant in tenants]
        document = {"servers": {"main": server}, "defaults": {"server": "main"}, "tenants": entries}
        (self.project.path / "tenants.yaml").write_text(json.dumps(document), encoding="utf-8")

    def follow_page(self) -> None:
        """Run every block of SQL of the page, in order."""
        for block in blocks(PAGE):
            assert block.language == "sql", block.place
            execute(self.superuser, block.text)


@pytest.fixture
def place(second_pg: PostgresServer, tmp_path: Path) -> Iterator[Place]:
    """Databases `app` and `globex`, roles `application` and `app_owner`, and a tenant of the latter's at r1."""
    execute(second_pg.url, "CREATE DATABASE app")
    execute(second_pg.url, "CREATE DATABASE globex")
    execute(second_pg.url, "CREATE ROLE application LOGIN; CREATE ROLE app_owner LOGIN")
    superuser = second_pg.database_url("app")
    execute(superuser, "GRANT CREATE ON DATABASE app TO app_owner; CREATE TABLE public.tenants (id text)")
    made = Place(make_project(tmp_path, HISTORY, "{}"), superuser, with_role(superuser, "migrator", "choose%20another"))
    yield made
    for name in ("app", "globex", "made"):
        execute(second_pg.url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    for name in ("application", "app_owner", "migrator"):
        execute(second_pg.url, f"DROP ROLE IF EXISTS {name}")


async def test_page_and_main_roads(place: Place) -> None:
    """Provision, upgrade both ways, take over, resume, downgrade, stamp, status, doctor: all without a superuser."""
    project = place.project
    place.fleet(with_role(place.superuser, "app_owner", "x"), "old", extensions=False)
    assert statuses(await project.upgrade("r1")) == {"old": "succeeded"}
    execute(place.superuser, "CREATE ROLE early LOGIN; GRANT CONNECT ON DATABASE app TO early")
    place.fleet(with_role(place.superuser, "early", "x"), "old", "new", extensions=False)
    before = await orchestrator.doctor(project.fleet)
    assert {finding.check for finding in before.findings if finding.level == "problem"} == {"rights", "places"}
    execute(place.superuser, "DROP OWNED BY early; DROP ROLE early")

    place.follow_page()

    assert fetch(place.superuser, "SELECT rolsuper FROM pg_roles WHERE rolname = 'migrator'")[0][0] is False
    whole = [{"id": "globex", "isolation": "database"}, {"id": "made", "isolation": "database"}]
    place.fleet(place.migrator, "acme", "old", "a", "b", "c", "d", *whole)
    fleet = replace(project.fleet, journal=f"{place.migrator}?options=-csearch_path%3Dorchestrator")
    checkup = await orchestrator.doctor(fleet)
    assert checkup.healthy, [each for each in checkup.findings if each.level != "ok"]

    execute(place.superuser, "CREATE SCHEMA d AUTHORIZATION migrator; CREATE TABLE d.projects ()")
    execute(place.superuser, "ALTER TABLE d.projects OWNER TO migrator")
    result = await orchestrator.upgrade(fleet, provision=True, execution=Execution(continue_on_error=True))
    assert statuses(result) == {
        **dict.fromkeys(["acme", "old", "a", "b", "c", "globex", "made"], "succeeded"), "d": "failed"
    }  # fmt: skip
    assert {"alembic", "replay"} <= set(paths(result).values())
    execute(place.superuser, "DROP TABLE d.projects")
    assert statuses(await orchestrator.resume(fleet))["d"] == "succeeded"

    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('acme', 'old', 'a', 'd')"
    assert [row[0] for row in fetch(place.superuser, owners)] == ["migrator"]
    rights = (
        "has_schema_privilege('application', 'a', 'USAGE'), has_table_privilege('application', 'a.accounts', 'UPDATE')"
    )
    assert list(fetch(place.superuser, f"SELECT {rights}")[0]) == [True, True]

    down = await orchestrator.downgrade(fleet, "r1", tenants=["a", "old", "globex"])
    assert set(statuses(down).values()) == {"succeeded"}
    stamped = await orchestrator.stamp(fleet, "r2", tenants=["a"])
    assert one(stamped, "a")["to"] == ["r2"]
    assert (await orchestrator.status(fleet)).summary == {"behind": 3, "current": 5}
    runs = (await orchestrator.list_runs(fleet)).as_json()["runs"]
    assert [run["command"] for run in runs] == ["stamp", "downgrade", "upgrade"]
    assert (await orchestrator.doctor(fleet)).healthy
    assert fetch(place.superuser, "SELECT count(*) FROM orchestrator.orchestrator_runs")[0][0] == 3
