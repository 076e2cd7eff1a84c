"""A new tenant comes to its target by the fastest way that makes what Alembic makes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from orchestrator.actions.onboarding.making import Made, NotMade, Way, make, prepare, template_for
from orchestrator.actions.project import Project as Opened
from orchestrator.actions.project import opened_project
from orchestrator.fleet.tenant import Isolation, Limits, Tenant
from orchestrator.rollout.blueprints import Blueprint
from tests.catalog import catalog, catalogs, difference
from tests.projects import ACCOUNTS, ENV, PROJECTS, Project, files, make_project, schemas, tables
from tests.replays import EMPTY
from tests.servers import PostgresServer, execute, fetch

#: Rows that come with the tables, one of them changed, and a sequence that has moved on.
NOTES = """
    notes = op.create_table("notes", sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text))
    op.bulk_insert(notes, [{"body": "it's $1 \\\\ ;"}, {"body": None}, {"body": "\\\\restrict"}])
    op.execute("UPDATE notes SET body = 'two' WHERE id = 2")
    op.execute("CREATE VIEW told AS SELECT body FROM notes WHERE body IS NOT NULL")
"""
#: Reads, and does what it does for what it has read.
READING = """
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM accounts")) == 0:
        op.execute("INSERT INTO accounts VALUES (7)")
"""
STATIC = {"r1": ACCOUNTS, "r2": NOTES, "r3": PROJECTS}
DYNAMIC = {"r1": ACCOUNTS, "r2": READING, "r3": NOTES}
ALEMBIC = [Way.ALEMBIC]


@pytest.fixture
def database(shared_database: str) -> str:
    """Address of an empty database."""
    execute(shared_database, EMPTY)
    return shared_database


@asynccontextmanager
async def opened(project: Project) -> AsyncIterator[tuple[Opened, Tenant]]:
    """The project as a process opens it, and its first tenant."""
    async with opened_project(project.fleet) as found:
        yield found, found.fleet.tenants[0]


async def made(project: Opened, tenant: Tenant, ways: list[Way] | None = None) -> Made:
    """The tenant at its heads."""
    return await make(project, tenant, "heads", application="test", limits=Limits(), ways=ways)


def named(tenant: Tenant, name: str) -> Tenant:
    """One like ``tenant``, in a schema of its own."""
    return replace(tenant, id=name, schema=name)


def alone(tenant: Tenant, name: str) -> Tenant:
    """One like ``tenant``, in a database of its own."""
    return replace(tenant, id=name, isolation=Isolation.DATABASE, schema=None, database=name)


def holds(url: str, schema: str) -> tuple[Mapping[str, str], dict[str, list[Any]]]:
    """Catalog of a schema, and its rows and sequences."""
    names = sorted(tables(url, schema) - {"told"})
    rows = {name: sorted(map(repr, fetch(url, f'SELECT * FROM "{schema}"."{name}"'))) for name in names}
    moved = fetch(
        url, f"SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = '{schema}' ORDER BY sequencename"
    )
    return catalog(url, schema), {**rows, "sequences": [tuple(row) for row in moved]}


def in_database(url: str, name: str) -> str:
    """The address of another database."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


async def test_alembic_makes_it(tmp_path: Path, database: str) -> None:
    """A schema that is not there yet is made and brought to its target; again, there is nothing left to do."""
    async with opened(make_project(tmp_path, STATIC, schemas(database, "acme"))) as (project, acme):
        first = await make(project, acme, "r1", application="test", limits=Limits())
        second = await made(project, acme)

    assert (first.way, first.heads, second.heads) == (Way.ALEMBIC, ("r1",), ("r3",))
    assert first.not_taken == dict.fromkeys([Way.REPLAY, Way.SNAPSHOT], "nothing is prepared for it")
    assert tables(database, "acme") == {"accounts", "alembic_version", "notes", "projects", "told"}


async def test_a_revision_that_fails_is_named(tmp_path: Path, database: str) -> None:
    """Who cannot be made says in which revision, and where it is."""
    async with opened(make_project(tmp_path, {"r1": ACCOUNTS, "r2": ACCOUNTS}, schemas(database, "acme"))) as (p, acme):
        with pytest.raises(NotMade, match="in revision r2") as raised:
            await made(p, acme)

    assert (raised.value.failure.sqlstate, raised.value.heads) == ("42P07", ("r1",))


@pytest.mark.parametrize(
    ("revisions", "way"), [(STATIC, Way.REPLAY), (DYNAMIC, Way.SNAPSHOT)], ids=["replay", "snapshot"]
)
async def test_a_schema_is_as_alembic_makes_it(
    tmp_path: Path, database: str, revisions: Mapping[str, str], way: Way
) -> None:
    """By replay, or by snapshot where that may not be: catalog, rows and sequences are Alembic's, nothing else is."""
    async with opened(make_project(tmp_path, revisions, schemas(database, "acme"))) as (project, acme):
        plain = await made(project, named(acme, "plain"), ALEMBIC)
        await prepare(project, acme, "heads")
        fast = [await made(project, named(acme, name)) for name in ("Eins", "two; --", 'th"ree')]

    assert [(each.way, each.heads) for each in fast] == [(way, plain.heads)] * 3
    expected, rows = holds(database, "plain")
    for name in ("Eins", "two; --"):
        found = holds(database, name)
        assert (difference(expected, found[0]), found[1]) == ([], rows)
    assert fetch(database, "SELECT nspname FROM pg_namespace WHERE nspname ~ '^orchestrator'") == []


async def test_a_database_is_copied(tmp_path: Path, database: str, pg: PostgresServer) -> None:
    """A database comes from a template that nobody can connect to, with rows and all; the next is as fast."""
    names = ["making_a", "making_b", "making_plain"]
    async with opened(make_project(tmp_path, DYNAMIC, schemas(database, "acme"))) as (project, acme):
        blueprint = await prepare(project, alone(acme, "like"), "heads")
        try:
            fast = [await made(project, alone(acme, name)) for name in names[:2]]
            again = await made(project, alone(acme, names[0]))
            await made(project, alone(acme, names[2]), ALEMBIC)
            expected = holds(in_database(database, names[2]), "public")
            found = [holds(in_database(database, name), "public") for name in names[:2]]
            kept = fetch(
                database, "SELECT datname, datallowconn FROM pg_database WHERE datistemplate AND datname ~ '^o'"
            )
        finally:
            drop(pg, database, *names, blueprint.template)

    assert [each.way for each in fast] == [Way.TEMPLATE] * 2
    assert found == [expected] * 2
    assert [tuple(row) for row in kept] == [(blueprint.template, False)]
    assert (again.way, again.heads) == (Way.ALEMBIC, ("r3",))
    assert again.not_taken == {Way.TEMPLATE: "the database making_a is there already"}


async def test_a_file_is_copied(tmp_path: Path) -> None:
    """A SQLite file comes from one that is kept; an empty one is filled, one that holds something goes by Alembic."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": READING}, files(tmp_path / "files", "a", "b", "c", "plain"))
    async with opened_project(project.fleet) as found:
        a, b, c, plain = found.fleet.tenants
        await prepare(found, a, "heads")
        await found.databases["files"].provision(b)
        with closing(sqlite3.connect(tmp_path / "files" / "c.db")) as own:
            own.execute("CREATE TABLE own (id int)")
        ends = [await made(found, each) for each in (a, b, c)]
        await made(found, plain, ALEMBIC)
        shapes = await found.databases["files"].fingerprints([a, b, plain], "alembic_version")

    assert [each.way for each in ends] == [Way.TEMPLATE, Way.TEMPLATE, Way.ALEMBIC]
    assert "holds something" in ends[2].not_taken[Way.TEMPLATE]
    assert len(set(shapes.values())) == 1
    for name in ("a", "b"):
        with closing(sqlite3.connect(tmp_path / "files" / f"{name}.db")) as file:
            assert file.execute("SELECT id FROM accounts").fetchall() == [(7,)]
    assert {path.name for path in (tmp_path / "files").iterdir() if "making" in path.name} == set()


async def test_kept_on_disk(tmp_path: Path, database: str) -> None:
    """Another process takes what this one has prepared, and what no longer fits is not taken."""
    project = make_project(tmp_path, STATIC, schemas(database, "acme"))
    async with opened(project) as (first, acme):
        await prepare(first, acme, "heads")
    async with opened(project) as (second, acme):
        assert (await made(second, named(acme, "two"))).way is Way.REPLAY
    revision = tmp_path / "alembic" / "versions" / "r3.py"
    revision.write_text(revision.read_text() + "# changed\n")
    async with opened(project) as (third, acme):
        assert (await made(third, named(acme, "three"))).way is Way.ALEMBIC
    (tmp_path / "alembic" / "env.py").write_text(ENV + "# changed\n")
    async with opened(project) as (fourth, acme):
        assert (await made(fourth, named(acme, "four"))).not_taken[Way.REPLAY] == "nothing is prepared for it"
        await prepare(fourth, acme, "heads")
        assert (await made(fourth, named(acme, "five"))).way is Way.REPLAY


async def test_a_template_goes_with_its_directory(tmp_path: Path, database: str, pg: PostgresServer) -> None:
    """A change of the directory makes a new template, and drops the old one."""
    project = make_project(tmp_path, STATIC, schemas(database, "acme"))
    async with opened(project) as (first, acme):
        old = await prepare(first, alone(acme, "like"), "heads")
    revision = tmp_path / "alembic" / "versions" / "r3.py"
    revision.write_text(revision.read_text() + "# changed\n")
    async with opened(project) as (second, acme):
        assert (await made(second, alone(acme, "making_c"))).way is Way.ALEMBIC
        new = await prepare(second, alone(acme, "like"), "heads")
        assert (await made(second, alone(acme, "making_d"))).way is Way.TEMPLATE
    there = {row[0] for row in fetch(database, "SELECT datname FROM pg_database WHERE datistemplate")}
    drop(pg, database, "making_c", "making_d", new.template)
    assert old.template not in there
    assert new.template in there


async def test_each_fleet_has_its_own_template(tmp_path: Path, database: str, pg: PostgresServer) -> None:
    """Staging, which is ahead on the same server, leaves production's where it is."""

    def fleet(name: str, revisions: Mapping[str, str]) -> Project:
        tenants = json.dumps({"name": name, **json.loads(schemas(database, "acme"))})
        (tmp_path / name).mkdir()
        return make_project(tmp_path / name, revisions, tenants)

    production, staging = fleet("production", {"r1": ACCOUNTS}), fleet("staging", STATIC)
    async with opened(production) as (ours, acme), opened(staging) as (theirs, _):
        mine = await prepare(ours, alone(acme, "like"), "heads")
        other = await prepare(theirs, alone(acme, "like"), "heads")
        try:
            end = await made(ours, alone(acme, "making_p"))
        finally:
            drop(pg, database, "making_p", mine.template, other.template)
    assert end.way is Way.TEMPLATE


async def test_a_template_that_is_gone(tmp_path: Path, database: str, pg: PostgresServer) -> None:
    """Where somebody has dropped the template, Alembic makes the tenant, and it can be prepared again."""
    async with opened(make_project(tmp_path, STATIC, schemas(database, "acme"))) as (project, acme):
        blueprint = await prepare(project, alone(acme, "like"), "heads")
        drop(pg, database, blueprint.template)
        first = await made(project, alone(acme, "making_e"))
        await prepare(project, alone(acme, "like"), "heads")
        second = await made(project, alone(acme, "making_f"))
        drop(pg, database, "making_e", "making_f", blueprint.template)

    assert (first.way, second.way) == (Way.ALEMBIC, Way.TEMPLATE)
    assert "does not exist" in first.not_taken[Way.TEMPLATE]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('op.execute("INSERT INTO notes (body) VALUES (now()::text)")', "hold different things"),
        ('op.execute("INSERT INTO notes (body) VALUES (current_schema())")', "schema's own name"),
        (
            "schema = op.get_bind().scalar(sa.text('SELECT current_schema()'))\nop.execute("
            "f\"CREATE FUNCTION f() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM {schema}.notes'\")",
            "a definition says its tenant's name",
        ),
        (
            "schema = op.get_bind().scalar(sa.text('SELECT current_schema()'))\nop.execute("
            "f\"CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path TO '{schema}' AS 'SELECT 1'\")",
            "came out different",
        ),
        ("op.execute('SELECT * FROM public.plans')", "touches public.plans"),
        ("op.execute('INSERT INTO public.plans VALUES (1)')", "touches public.plans, and a scratch tenant must not"),
        ('op.execute("SELECT lo_create(0)")', "not the tenant's alone"),
        ("import os\nop.execute(f\"COMMENT ON TABLE notes IS '{os.environ.get(1)}'\")", "depend on more"),
        ("op.execute('CREATE EXTENSION IF NOT EXISTS citext')", "the extension citext is in the tenant's own schema"),
    ],
)
async def test_no_snapshot(tmp_path: Path, database: str, body: str, reason: str) -> None:
    """What a copy would get wrong is not copied, and it is said why; Alembic makes the tenant."""
    execute(database, "CREATE TABLE public.plans (id int)")
    last = body if "get(1)" not in body else body.replace("get(1)", "get('X')")
    project = make_project(tmp_path, {**DYNAMIC, "r4": f"op.get_bind()\n{last}"}, schemas(database, "acme"))
    async with opened(project) as (found, acme):
        blueprint = await prepare(found, acme, "heads")
        if "EXTENSION" in body:
            execute(database, "DROP EXTENSION IF EXISTS citext")
        end = await made(found, acme)

    assert end.way is Way.ALEMBIC
    assert reason in blueprint.closed[Way.SNAPSHOT], blueprint.closed
    assert end.not_taken == dict(blueprint.closed)
    assert len(fetch(database, "SELECT * FROM public.plans")) == ("INSERT INTO public.plans" in body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('op.execute("INSERT INTO notes (body) VALUES (current_database())")', "hold different things"),
        ('op.execute("INSERT INTO notes (body) VALUES (gen_random_uuid()::text)")', "hold different things"),
        (
            "op.execute(\"DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET a.b = 1', current_database()); END $$\")",
            "does not come along",
        ),
        (
            'op.execute("DO $$ BEGIN CREATE ROLE making_guest; END $$")',
            "writes to pg_authid), and a scratch tenant must",
        ),
    ],
)
async def test_no_template(tmp_path: Path, database: str, pg: PostgresServer, body: str, reason: str) -> None:
    """What a copy of a database would have wrong, or lack, is not copied, and it is said why."""
    project = make_project(tmp_path, {**STATIC, "r4": body}, schemas(database, "acme"))
    async with opened(project) as (found, acme):
        blueprint = await prepare(found, alone(acme, "like"), "heads")
        # Only the tenant itself, which is made in earnest, makes it.
        assert fetch(database, "SELECT FROM pg_roles WHERE rolname = 'making_guest'") == []
        end = await made(found, alone(acme, "making_i"))
        drop(pg, database, "making_i")
        execute(database, "DROP ROLE IF EXISTS making_guest")
    assert reason in blueprint.closed[Way.TEMPLATE]
    assert (end.way, end.not_taken) == (Way.ALEMBIC, dict(blueprint.closed))


async def test_what_holds_to_the_end_is_not_replayed_as_one(tmp_path: Path, database: str) -> None:
    """A setting for one transaction would reach all that follow: such a history goes by snapshot."""
    bodies = {"r1": 'op.execute("SET LOCAL quote_all_identifiers = on")', "r2": ACCOUNTS}
    async with opened(make_project(tmp_path, bodies, schemas(database, "acme"))) as (project, acme):
        blueprint = await prepare(project, acme, "heads")
        assert "r1: holds to the end of its transaction" in blueprint.closed[Way.REPLAY]
        assert (await made(project, acme)).way is Way.SNAPSHOT


async def test_no_template_for_whom_env_differs(tmp_path: Path, database: str, pg: PostgresServer) -> None:
    """What env.py configures may go into rows, which no shape shows: only who is alike is copied."""
    env = ENV.replace("transaction_per_migration=True", "transaction_per_migration='late' not in tenant.tags")
    async with opened(make_project(tmp_path, STATIC, schemas(database, "acme"), env)) as (project, acme):
        blueprint = await prepare(project, alone(acme, "like"), "heads")
        like = await template_for(project, alone(acme, "making_l"), "heads")
        late = await template_for(project, replace(alone(acme, "making_l"), tags=("late",)), "heads")
        drop(pg, database, blueprint.template)
    assert like is not None
    assert late is None


async def test_env_that_differs(tmp_path: Path, database: str) -> None:
    """A tenant for whom env.py configures Alembic differently is not made as the blueprint was."""
    env = ENV.replace("transaction_per_migration=True", "transaction_per_migration='late' not in tenant.tags")
    async with opened(make_project(tmp_path, STATIC, schemas(database, "acme"), env)) as (project, acme):
        await prepare(project, acme, "heads")
        late = await made(project, replace(named(acme, "late"), tags=("late",)))
        assert (await made(project, acme)).way is Way.REPLAY

    assert late.way is Way.ALEMBIC
    assert late.not_taken[Way.REPLAY] == "env.py configures Alembic differently for this tenant"


@pytest.mark.parametrize(
    ("revisions", "way"), [(STATIC, Way.REPLAY), (DYNAMIC, Way.SNAPSHOT)], ids=["replay", "snapshot"]
)
async def test_a_schema_that_holds_something(
    tmp_path: Path, database: str, revisions: Mapping[str, str], way: Way
) -> None:
    """Only an empty schema is filled; what was in another one is still there."""
    execute(database, "CREATE SCHEMA acme; CREATE FUNCTION acme.own() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    async with opened(make_project(tmp_path, revisions, schemas(database, "acme"))) as (project, acme):
        await prepare(project, acme, "heads")
        end = await made(project, acme)

    assert (end.way, end.not_taken[way]) == (Way.ALEMBIC, "its schema holds something already")
    assert fetch(database, "SELECT acme.own()")[0][0] == 1


async def test_a_schema_keeps_what_it_was_given(tmp_path: Path, database: str) -> None:
    """Owner, grants, comment and default privileges of a schema that was made before are its own afterwards."""
    execute(
        database,
        "CREATE SCHEMA acme; COMMENT ON SCHEMA acme IS 'mine'; GRANT USAGE ON SCHEMA acme TO pg_monitor;"
        " ALTER DEFAULT PRIVILEGES IN SCHEMA acme GRANT SELECT ON TABLES TO pg_monitor",
    )
    query = (
        "SELECT oid, nspacl::text, obj_description(oid), has_table_privilege('pg_monitor', 'acme.notes', 'SELECT')"
        " FROM pg_namespace WHERE nspname = 'acme'"
    )
    before = fetch(database, query.replace("has_table_privilege('pg_monitor', 'acme.notes', 'SELECT')", "true"))
    async with opened(make_project(tmp_path, DYNAMIC, schemas(database, "acme"))) as (project, acme):
        await prepare(project, acme, "heads")
        assert (await made(project, acme)).way is Way.SNAPSHOT
    assert [tuple(row) for row in fetch(database, query)] == [tuple(row) for row in before]


@pytest.mark.parametrize(
    ("revisions", "way"), [(STATIC, Way.REPLAY), (DYNAMIC, Way.SNAPSHOT)], ids=["replay", "snapshot"]
)
async def test_another_shape(tmp_path: Path, database: str, revisions: Mapping[str, str], way: Way) -> None:
    """What comes out different from the blueprint is never seen by anybody, and Alembic makes the tenant."""
    project = make_project(tmp_path, revisions, schemas(database, "acme"))
    async with opened(project) as (first, acme):
        await prepare(first, acme, "heads")
    spoil(tmp_path, shape="0" * 32)
    async with opened(project) as (second, acme):
        end = await made(second, acme)

    assert end.way is Way.ALEMBIC
    assert "came out different" in end.not_taken[way]
    assert tables(database, "acme") == {"accounts", "alembic_version", "notes", "told"} | (
        {"projects"} if revisions is STATIC else set()
    )


async def test_a_copy_of_another_shape(tmp_path: Path) -> None:
    """The same of a file: one that is not as its template was said to be does not appear."""
    project = make_project(tmp_path, {"r1": ACCOUNTS}, files(tmp_path / "files", "a"))
    async with opened(project) as (first, a):
        blueprint = await prepare(first, a, "heads")
    assert blueprint.template is not None
    with closing(sqlite3.connect(blueprint.template)) as file:
        file.execute("CREATE TABLE other (id int)")
    async with opened(project) as (second, a):
        end = await made(second, a)
    assert end.way is Way.ALEMBIC
    assert "came out different" in end.not_taken[Way.TEMPLATE]
    with closing(sqlite3.connect(tmp_path / "files" / "a.db")) as file:
        assert file.execute("SELECT count(*) FROM sqlite_master WHERE name = 'other'").fetchone() == (0,)


@pytest.mark.parametrize(
    ("revisions", "way"), [(STATIC, Way.REPLAY), (DYNAMIC, Way.SNAPSHOT)], ids=["replay", "snapshot"]
)
async def test_twenty_at_once(tmp_path: Path, database: str, revisions: Mapping[str, str], way: Way) -> None:
    """Twenty sign-ups at once all go the fast way, and each tenant is whole; two of one tenant do no harm."""
    async with opened(make_project(tmp_path, revisions, schemas(database, "acme"))) as (project, acme):
        await prepare(project, acme, "heads")
        names = [f"t{number:02}" for number in range(20)]
        # Shorter than all of them take: nobody waits for another one's lock but for his turn.
        limits = Limits(lock_timeout=0.05)
        calls = (make(project, named(acme, name), "heads", application="test", limits=limits) for name in names)
        ends = await asyncio.gather(*calls)
        twice = await asyncio.gather(*(made(project, acme) for _ in range(3)))

    assert {end.way for end in ends} == {way}
    found = catalogs(database, [*names, "acme"])
    assert [difference(found["acme"], each) for each in found.values() if difference(found["acme"], each)] == []
    assert sorted(end.way for end in twice).count(way) == 1
    assert {end.heads for end in twice} == {ends[0].heads}


async def test_twenty_databases_at_once(tmp_path: Path, database: str, pg: PostgresServer) -> None:
    """The same of databases that are copied from one template."""
    names = [f"making_t{number:02}" for number in range(20)]
    async with opened(make_project(tmp_path, STATIC, schemas(database, "acme"))) as (project, acme):
        blueprint = await prepare(project, alone(acme, "like"), "heads")
        try:
            ends = await asyncio.gather(*(made(project, alone(acme, name)) for name in names))
            twice = await asyncio.gather(*(made(project, alone(acme, "making_same")) for _ in range(2)))
        finally:
            drop(pg, database, *names, "making_same", blueprint.template)

    assert {end.way for end in ends} == {Way.TEMPLATE}, ends
    assert sorted(end.way for end in twice) == [Way.ALEMBIC, Way.TEMPLATE]
    assert {end.heads for end in [*ends, *twice]} == {("r3",)}


async def test_prepared_by_two_at_once(tmp_path: Path, database: str, pg: PostgresServer) -> None:
    """Of two that prepare one template, one builds and the other takes what it has built."""
    project = make_project(tmp_path, STATIC, schemas(database, "acme"))
    async with opened(project) as (first, acme), opened(project) as (second, _):
        like = alone(acme, "like")
        one, other = await asyncio.gather(*(prepare(each, like, "heads") for each in (first, second)))
        drop(pg, database, one.template)
    assert one == other


async def test_a_template_is_one_servers(
    tmp_path: Path, database: str, pg: PostgresServer, second_pg: PostgresServer
) -> None:
    """What is prepared on one server is not taken for prepared on another."""
    tenants = json.loads(schemas(database, "acme"))
    other_url = second_pg.create_database()
    tenants["servers"]["other"] = {"url": other_url}
    tenants["tenants"].append({"id": "there", "server": "other"})
    tenants["defaults"] = {"server": "main"}
    async with opened(make_project(tmp_path, STATIC, json.dumps(tenants))) as (project, acme):
        there = project.fleet.tenants[1]
        one = await prepare(project, alone(acme, "like"), "heads")
        before = await made(project, alone(there, "making_g"))
        other = await prepare(project, alone(there, "like"), "heads")
        after = await made(project, alone(there, "making_h"))
        drop(pg, database, one.template)
        drop(second_pg, other_url, "making_g", "making_h", other.template)
        second_pg.drop_database(other_url)

    assert (before.way, before.not_taken) == (Way.ALEMBIC, {Way.TEMPLATE: "nothing is prepared for it"})
    assert after.way is Way.TEMPLATE


def drop(pg: PostgresServer, url: str, *names: str | None) -> None:
    """Drop databases, templates included."""
    for name in filter(None, names):
        if fetch(url, f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
            execute(url, f'ALTER DATABASE "{name}" IS_TEMPLATE false')
            pg.drop_database(in_database(url, name))


def spoil(root: Path, **changes: Any) -> None:
    """Change what is kept of the only blueprint."""
    (file,) = (root / ".orchestrator" / "blueprints").glob("*.json")
    blueprint = Blueprint.from_json(json.loads(file.read_text()))
    file.write_text(json.dumps(replace(blueprint, **changes).as_json()))
