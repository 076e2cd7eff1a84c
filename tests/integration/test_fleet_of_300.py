"""A fleet of 300 in which 7 % fail, for three causes: what stops a run, what is told of it, and what resume touches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from tests.projects import Project, make_project, schemas, statuses
from tests.servers import PostgresServer, execute, fetch
from tests.workspace import Workspace

TENANTS = [f"t{number:03}" for number in range(300)]
#: 7 % have one of three faults, the tenant at the very front among them.
WRONG = {tenant: number % 3 for number, tenant in enumerate(TENANTS[0:294:14])}
#: What makes a tenant fail: a table that is there already, a row without a name, one that a trigger refuses.
FAULTS = (
    'CREATE TABLE "{tenant}".projects (id int)',
    'INSERT INTO "{tenant}".accounts (id) VALUES (1)',
    'ALTER TABLE "{tenant}".accounts ADD CONSTRAINT closed CHECK (id <> 7)',
)
CAUSES = {"42P07", "23502", "23514"}
REVISIONS = {
    "r1": 'op.execute("CREATE TABLE accounts (id int, name text)")',
    "r2": 'op.execute("CREATE TABLE projects (id int)")',
    "r3": 'op.execute("ALTER TABLE accounts ALTER name SET NOT NULL")',
    "r4": "op.execute(\"INSERT INTO accounts VALUES (7, 'seventh')\")\n"
    "op.execute('INSERT INTO public.seen SELECT current_schema()')",
}
MENDED = (
    'DROP TABLE IF EXISTS "{tenant}".projects',
    'DELETE FROM "{tenant}".accounts',
    'ALTER TABLE "{tenant}".accounts DROP CONSTRAINT IF EXISTS closed',
)


@pytest.fixture
def database_of_300(pg: PostgresServer, template: str) -> Any:
    """A copy of a database where all are at the first revision."""
    url = pg.create_database(template)
    yield url
    pg.drop_database(url)


@pytest.fixture(scope="module")
def template(pg: PostgresServer) -> Any:
    """300 schemas at the first revision, 21 of them not as they should be."""
    url = pg.create_database()
    for start in range(0, 300, 50):
        execute(
            url,
            "".join(
                f'CREATE SCHEMA "{tenant}"; CREATE TABLE "{tenant}".accounts (id int, name text);'
                f'CREATE TABLE "{tenant}".alembic_version (version_num varchar(32) PRIMARY KEY);'
                f"INSERT INTO \"{tenant}\".alembic_version VALUES ('r1');"
                for tenant in TENANTS[start : start + 50]
            ),
        )
    execute(url, "CREATE TABLE public.seen (tenant text)")
    execute(url, ";".join(FAULTS[kind].format(tenant=tenant) for tenant, kind in WRONG.items()))
    yield url
    pg.drop_database(url)


def project_of(path: Path, url: str, waves: list[dict[str, Any]] | None = None, **policy: Any) -> Project:
    """The fleet, eight at once."""
    keys = {"waves": waves} if waves else {}
    text = schemas(url, *TENANTS, policy={"retries": 0, **policy}, **keys)
    return make_project(path, REVISIONS, text)


async def test_canary_stops_it(tmp_path: Path, database_of_300: str) -> None:
    """Its first failure in a canary of three ends the run: nobody else was begun."""
    canary = {"name": "canary", "count": 3, "max_failures": 0}
    project = project_of(tmp_path, database_of_300, [canary], max_failures="50%")

    result = await project.upgrade(execution=Execution(jobs=1))

    assert (result.run.status, result.summary) == ("failed", {"failed": 1, "not_started": 299})
    assert result.held_up is not None
    assert str(result.held_up) == "wave canary: 1 of 3 tenants failed"


async def test_budget_stops_it(tmp_path: Path, database_of_300: str) -> None:
    """A budget of 2 % lets six fail; the seventh ends it."""
    result = await project_of(tmp_path, database_of_300, max_failures="2%").upgrade(execution=Execution(jobs=1))

    assert result.run.status == "failed"
    assert result.summary["failed"] == 7
    assert result.summary["not_started"] > 200


async def test_breaker_stops_it(tmp_path: Path, database_of_300: str) -> None:
    """The budget would let all go on; four that fail alike end it."""
    project = project_of(tmp_path, database_of_300, max_failures="100%", same_cause=4)

    result = await project.upgrade(execution=Execution(jobs=1))

    assert max(cause.count for cause in result.causes) == 4
    assert result.summary["not_started"] > 100


async def test_three_causes_then_only_what_is_left(tmp_path: Path, database_of_300: str) -> None:
    """All is tried: 21 fail, told as three causes. Mended and resumed, these and nobody else are touched."""
    project = project_of(tmp_path, database_of_300)

    result = await project.upgrade(execution=Execution(continue_on_error=True))

    assert result.summary == {"succeeded": 279, "failed": 21}
    assert [cause.count for cause in result.causes] == [7, 7, 7]
    example = {cause.example: one for cause in result.causes for one in result.tenants if one.tenant == cause.example}
    assert {(one.error or {})["sqlstate"] for one in example.values()} == CAUSES
    assert all(cause.retry == f"orchestrator resume {result.run.id}" for cause in result.causes)

    told = Workspace(tmp_path).run("runs", "show", "last").stdout
    assert "\n21 tenants, 3 causes\n" in told
    assert told.count(" and 6 more for the same cause\n") == 3

    for sql in MENDED:
        execute(database_of_300, ";".join(sql.format(tenant=tenant) for tenant in WRONG))
    before = Counter(row[0] for row in fetch(database_of_300, "SELECT tenant FROM public.seen"))
    result = await orchestrator.resume(project.fleet)

    assert (result.run.status, result.summary) == ("succeeded", {"succeeded": 300})
    after = Counter(row[0] for row in fetch(database_of_300, "SELECT tenant FROM public.seen"))
    assert after - before == Counter(WRONG.keys())
    assert after == Counter(TENANTS)
    assert set(statuses(result).values()) == {"succeeded"}
