"""kill -9 while a tenant is made, or what tenants are made from: nothing, an empty place or a whole one is left."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from orchestrator.actions.onboarding.making import Made, Way, make, prepare
from orchestrator.actions.project import opened_project
from orchestrator.fleet.tenant import Isolation, Limits, Tenant
from tests.projects import ACCOUNTS, PROJECTS, Project, make_project, schemas, tables, until
from tests.servers import PostgresServer, execute, fetch

#: A row that waits to be written for as long as the server's roles are told so; one more revision before it, and after.
WAITING = """
op.execute('''CREATE FUNCTION waits() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('making.wait', true) = 'on' THEN PERFORM pg_sleep(600); END IF; RETURN true;
END $$''')
op.execute("CREATE TABLE waiting (id int CHECK (waits()))")
op.execute("INSERT INTO waiting VALUES (1)")
"""
STATIC = {"r1": ACCOUNTS, "r2": WAITING, "r3": PROJECTS}
DYNAMIC = {**STATIC, "r4": "op.get_bind()"}
WHOLE = {"accounts", "alembic_version", "projects", "waiting"}
_PROGRAM = """
import asyncio, sys
from dataclasses import replace
import orchestrator
from orchestrator.actions.onboarding.making import make, prepare
from orchestrator.actions.project import opened_project
from orchestrator.fleet.tenant import Isolation, Limits

async def main(what, name):
    async with opened_project(orchestrator.load("tenants.yaml")) as project:
        tenant = project.fleet.tenants[0]
        if name:
            tenant = replace(tenant, id=name, isolation=Isolation.DATABASE, schema=None, database=name)
        if what == "prepare":
            await prepare(project, tenant, "heads")
        else:
            await make(project, tenant, "heads", application="killed", limits=Limits())

asyncio.run(main(*sys.argv[1:]))
"""
#: Who waits in the row, in any database.
_ASLEEP = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


@pytest.fixture
def url(second_pg: PostgresServer) -> Iterator[str]:
    """An empty database on a server whose roles a test may change."""
    made = second_pg.create_database()
    yield made
    execute(made, "ALTER ROLE ALL RESET ALL")
    second_pg.drop_database(made)


@contextmanager
def waiting(url: str) -> Iterator[None]:
    """Whoever connects meanwhile waits in the row."""
    execute(url, "ALTER ROLE ALL SET making.wait = 'on'")
    try:
        yield
    finally:
        execute(url, "ALTER ROLE ALL RESET ALL")


async def killed(project: Project, url: str, seen: str, *arguments: str) -> None:
    """Run :data:`_PROGRAM` in ``project`` and kill it once the query ``seen`` finds something, or it is through."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _PROGRAM, *arguments, cwd=project.path)
    watcher = await asyncpg.connect(url)
    try:
        await until(lambda: watcher.fetch(seen), lambda rows: bool(rows) or process.returncode is not None)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await watcher.close()


async def gone(url: str, query: str) -> None:
    """Wait until the server has noticed that a client is gone."""
    watcher = await asyncpg.connect(url)
    await until(lambda: watcher.fetch(query), lambda rows: not rows)
    await watcher.close()


@asynccontextmanager
async def again(project: Project, *, alone: str = "") -> AsyncIterator[tuple[Tenant, Made]]:
    """What the same calls come to afterwards: prepared where it is not, then made."""
    async with opened_project(project.fleet) as opened:
        tenant = opened.fleet.tenants[0]
        if alone:
            tenant = replace(tenant, id=alone, isolation=Isolation.DATABASE, schema=None, database=alone)
        await prepare(opened, tenant, "heads")
        yield tenant, await make(opened, tenant, "heads", application="test", limits=Limits())


def ours(url: str) -> list[str]:
    """Schemas and databases that are nobody's tenants."""
    names = "SELECT nspname FROM pg_namespace UNION ALL SELECT datname FROM pg_database"
    return [row[0] for row in fetch(url, f"SELECT * FROM ({names}) n WHERE nspname ~ '^orchestrator_scratch'")]


@pytest.mark.parametrize(
    ("revisions", "way"), [(STATIC, Way.REPLAY), (DYNAMIC, Way.SNAPSHOT)], ids=["replay", "snapshot"]
)
async def test_while_a_schema_is_filled(tmp_path: Path, url: str, revisions: dict[str, str], way: Way) -> None:
    """A schema is empty until it is whole; the same call once more fills it, by the same way."""
    project = make_project(tmp_path, revisions, schemas(url, "acme"))
    async with opened_project(project.fleet) as opened:
        await prepare(opened, opened.fleet.tenants[0], "heads")
    with waiting(url):
        await killed(project, url, _ASLEEP, "make", "")
        assert tables(url, "acme") == set()
    await gone(url, _ASLEEP)
    assert tables(url, "acme") == set()

    async with again(project) as (_, made):
        assert (made.way, made.not_taken.get(way)) == (way, None)
    assert tables(url, "acme") == WHOLE
    assert ours(url) == []


@pytest.mark.parametrize(
    ("alone", "way"), [("", Way.SNAPSHOT), ("making_killed", Way.TEMPLATE)], ids=["snapshot", "template"]
)
async def test_while_a_blueprint_is_made(tmp_path: Path, url: str, alone: str, way: Way) -> None:
    """What a killed process was making others from is no template; the next one clears it up and makes its own."""
    project = make_project(tmp_path, DYNAMIC, schemas(url, "acme"))
    with waiting(url):
        await killed(project, url, _ASLEEP, "prepare", alone)
        assert ours(url) != []
        assert fetch(url, "SELECT datname FROM pg_database WHERE datname ~ '^orchestrator_template'") == []
    # Until then somebody seems to be at work there, and it is left to him.
    await gone(url, _ASLEEP)

    async with again(project, alone=alone) as (_, made):
        assert made.way is way
    assert ours(url) == []
    if alone:
        for (name,) in fetch(url, "SELECT datname FROM pg_database WHERE datname ~ '^orchestrator_template'"):
            execute(url, f'ALTER DATABASE "{name}" IS_TEMPLATE false')
            execute(url, f'DROP DATABASE "{name}"')
        execute(url, f'DROP DATABASE "{alone}"')


async def test_while_a_database_is_copied(tmp_path: Path, url: str) -> None:
    """A database that is there is whole, whenever whoever asked for it was killed; the same call takes it as it is."""
    project = make_project(tmp_path, STATIC, schemas(url, "acme"))
    names = [f"making_killed_{number}" for number in range(3)]
    async with again(project, alone=names[0]) as (_, made):
        assert made.way is Way.TEMPLATE
    copying = "SELECT pid FROM pg_stat_activity WHERE query ~ '^CREATE DATABASE' AND state = 'active'"
    for name in names[1:]:
        await killed(project, url, copying, "make", name)
        await gone(url, copying)
        async with again(project, alone=name) as (_, made):
            assert made.heads == ("r3",)
        assert tables(url.rpartition("/")[0] + f"/{name}", "public") == WHOLE
    for (name,) in fetch(url, "SELECT datname FROM pg_database WHERE datname ~ '^orchestrator_template|^making_'"):
        execute(url, f'ALTER DATABASE "{name}" IS_TEMPLATE false')
        execute(url, f'DROP DATABASE "{name}"')
