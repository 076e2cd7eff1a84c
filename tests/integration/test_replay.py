"""Two tenants of a kind go through Alembic, the others get what those were sent: the same end by a shorter way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from orchestrator.databases.postgresql.session import lock_key
from tests.catalog import catalogs, difference
from tests.projects import (
    ACCOUNTS,
    ALL,
    ENV,
    PROJECTS,
    held,
    make_project,
    one,
    schemas,
    statuses,
    tables,
    until,
    waiting_backend,
)
from tests.replays import EMPTY, GATED, gate, paths, reasons, revisions
from tests.servers import PostgresServer, execute, fetch

NOTES = """
    notes = op.create_table(
        "notes", sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text), sa.Column("at", sa.DateTime)
    )
    op.bulk_insert(notes, [{"id": 1, "body": "it's $1 \\\\ ;"}, {"id": 2, "body": None}])
    op.execute(notes.update().where(notes.c.id == 2).values(body="two"))
"""
READING = 'assert op.get_bind().execute(sa.text("SELECT 1")).scalar() == 1'
IDS = ("a", "b", "c", "d", "e")
REPLAYED = {"a": "alembic", "b": "alembic", "c": "replay", "d": "replay", "e": "replay"}
SUCCEEDED = dict.fromkeys(IDS, "succeeded")
WITHOUT = Execution(replay=False)
ONE_COMMIT = ENV.replace("transaction_per_migration=True", "transaction_per_migration=False")


@pytest.fixture
def database(shared_database: str) -> str:
    """Address of an empty database."""
    execute(shared_database, EMPTY)
    return shared_database


def alike(url: str, ids: Iterable[str] = IDS) -> list[str]:
    """How the tenants' schemas differ from the first one's, which went through Alembic."""
    first, *others = catalogs(url, ids).values()
    return [line for other in others for line in difference(first, other)]


def commits(url: str, schema: str, *names: str) -> int:
    """How many transactions made these tables."""
    listed = ", ".join(f"'{schema}.{name}'::regclass" for name in names)
    return int(fetch(url, f"SELECT count(DISTINCT xmin::text) FROM pg_class WHERE oid IN ({listed})")[0][0])


def key(url: str, schema: str) -> int:
    """The key of a tenant's lock."""
    return lock_key(urlsplit(url).path.lstrip("/"), schema)


async def test_all_static(tmp_path: Path, database: str) -> None:
    """Revisions that read nothing are replayed on all but two tenants, whose schemas do not differ from theirs."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": NOTES, "r3": PROJECTS}, schemas(database, *IDS))

    result = await project.upgrade()

    assert (statuses(result), paths(result)) == (SUCCEEDED, REPLAYED)
    assert alike(database) == []
    rows = [fetch(database, f"SELECT * FROM {id}.notes ORDER BY id") for id in IDS]
    assert rows.count(rows[0]) == len(IDS)
    assert (one(result, "c")["from"], one(result, "c")["to"]) == ([], ["r3"])
    assert revisions(project, "c") == ["r1", "r2", "r3"]
    assert reasons(project) == {}


async def test_reading_in_between(tmp_path: Path, database: str) -> None:
    """Around a revision that reads, the others are replayed: mixed."""
    bodies = {"r1": ACCOUNTS, "r2": READING, "r3": PROJECTS, "r4": READING, "r5": NOTES}
    project = make_project(tmp_path, bodies, schemas(database, *IDS))

    result = await project.upgrade()

    assert (statuses(result), set(paths(result).values())) == (SUCCEEDED, {"alembic", "mixed"})
    assert [one(result, "e")[part] for part in ("from", "to")] == [[], ["r5"]]
    assert revisions(project, "e") == ["r1", "r2", "r3", "r4", "r5"]
    assert alike(database) == []


async def test_each_revision_keeps_its_own_commit(tmp_path: Path, database: str) -> None:
    """With transaction_per_migration, a replay commits as often as Alembic does."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS, "r3": NOTES}, schemas(database, *IDS))

    assert paths(await project.upgrade()) == REPLAYED

    assert {id: commits(database, id, "accounts", "projects", "notes") for id in IDS} == dict.fromkeys(IDS, 3)


async def test_one_transaction_for_all(tmp_path: Path, database: str) -> None:
    """Without transaction_per_migration, a replay commits once, and a failure leaves nothing behind."""
    execute(database, "CREATE SCHEMA d; CREATE TABLE d.projects (own int)")
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS}, schemas(database, *IDS), ONE_COMMIT)

    result = await project.upgrade(execution=ALL)

    assert paths(result) == {**REPLAYED, "d": "alembic"}
    assert commits(database, "c", "accounts", "projects") == 1
    assert (one(result, "d")["status"], one(result, "d")["to"], tables(database, "d")) == ("failed", [], {"projects"})
    assert alike(database, "abce") == []


async def test_a_drifted_tenant(tmp_path: Path, database: str) -> None:
    """Where a replay fails, Alembic says which revision and statement; what was committed stays; others go on."""
    execute(database, "CREATE SCHEMA d; CREATE TABLE d.projects (own int)")
    bodies = {"r1": ACCOUNTS, "r2": PROJECTS, "r3": NOTES}
    project = make_project(tmp_path, bodies, schemas(database, *IDS))

    result = await project.upgrade(execution=ALL)

    found = one(result, "d")
    assert statuses(result) == {**SUCCEEDED, "d": "failed"}
    assert (found["from"], found["to"], found["path"]) == ([], ["r1"], "replay")
    assert (found["error"]["revision"], found["error"]["sqlstate"]) == ("r2", "42P07")
    assert "CREATE TABLE projects" in found["error"]["statement"]
    assert set(reasons(project)) == {"d"}
    assert "projects" in reasons(project)["d"]
    assert {id: paths(result)[id] for id in "abce"} == {id: REPLAYED[id] for id in "abce"}
    assert revisions(project, "d") == ["r1"]


async def test_resume_after_a_failure(tmp_path: Path, database: str) -> None:
    """A run that a drifted tenant has stopped is carried on: those not reached are replayed after one recording."""
    ids = [f"t{number:02}" for number in range(9)]
    execute(database, "CREATE SCHEMA t02; CREATE TABLE t02.projects (own int)")
    tenants = json.loads(schemas(database, *ids))
    tenants["servers"]["main"]["max_concurrency"] = 1
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS}, json.dumps(tenants))
    assert set(statuses(await project.upgrade()).values()) == {"succeeded", "failed", "not_started"}
    execute(database, "DROP TABLE t02.projects")

    result = await orchestrator.resume(project.fleet)

    assert set(statuses(result).values()) == {"succeeded"}
    assert [paths(result)[id] for id in ids] == ["alembic"] * 4 + ["replay"] * 5
    assert alike(database, ids) == []


async def test_no_replay(tmp_path: Path, database: str) -> None:
    """Told not to, nobody is replayed."""
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *IDS))

    result = await project.upgrade(execution=WITHOUT)

    assert (statuses(result), set(paths(result).values())) == (SUCCEEDED, {"alembic"})


async def test_downgrade(tmp_path: Path, database: str) -> None:
    """Downgrades are replayed, too, to a revision and to base."""
    down = 'def upgrade():\n    {up}\n\n\ndef downgrade():\n    op.drop_table("{name}")\n'
    bodies = {"r1": down.format(up=ACCOUNTS, name="accounts"), "r2": down.format(up=PROJECTS, name="projects")}
    project = make_project(tmp_path, bodies, schemas(database, *IDS))
    await project.upgrade()

    back = await orchestrator.downgrade(project.fleet, "r1", everyone=True)

    assert (statuses(back), paths(back)) == (SUCCEEDED, REPLAYED)
    assert all(tables(database, id) == {"accounts", "alembic_version"} for id in IDS)
    base = await orchestrator.downgrade(project.fleet, "base", everyone=True)
    assert (paths(base), one(base, "e")["to"]) == (REPLAYED, [])
    assert alike(database) == []
    again = await project.upgrade()
    # What the first run recorded stands for one of the two.
    assert list(paths(again).values()).count("replay") == 4
    assert (statuses(again), alike(database)) == (SUCCEEDED, [])


BRANCHES = {
    "r1": ACCOUNTS,
    "a1": 'op.create_table("a1")',
    "b1": 'down_revision = "r1"\n\n\ndef upgrade():\n    op.create_table("b1")\n\n\ndef downgrade():\n    pass',
    "a2": 'down_revision = "a1"\n\n\ndef upgrade():\n    op.create_table("a2")\n\n\ndef downgrade():\n    pass',
}
MERGED = 'down_revision = ("a2", "b1")\n\n\ndef upgrade():\n    pass\n\n\ndef downgrade():\n    pass'


async def test_several_heads_and_their_merge(tmp_path: Path, database: str) -> None:
    """Branches are replayed to all their heads, then to the revision that merges them."""
    project = make_project(tmp_path, {**BRANCHES, "m": MERGED}, schemas(database, *IDS))
    (tmp_path / "alembic" / "versions" / "m.py").rename(tmp_path / "m.py")

    result = await project.upgrade()

    assert (statuses(result), paths(result)) == (SUCCEEDED, REPLAYED)
    assert one(result, "e")["to"] == ["a2", "b1"]
    assert alike(database) == []
    (tmp_path / "m.py").rename(tmp_path / "alembic" / "versions" / "m.py")
    merged = await project.upgrade()
    assert (paths(merged), one(merged, "e")["to"]) == (REPLAYED, ["m"])
    assert [row[0] for row in fetch(database, "SELECT version_num FROM e.alembic_version")] == ["m"]


async def test_databases_of_their_own(tmp_path: Path, pg: PostgresServer, database: str) -> None:
    """Tenants with a database each are replayed, in databases that the run makes."""
    own = urlsplit(database).path.lstrip("/")
    names = {id: f"{own}_{id}" for id in "abcd"}
    tenants = [{"id": id, "isolation": "database", "database": name} for id, name in names.items()]
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": NOTES}, schemas(database))
    (tmp_path / "tenants.yaml").write_text(json.dumps({**json.loads(schemas(database)), "tenants": tenants}))
    try:
        result = await project.upgrade()

        assert paths(result) == {"a": "alembic", "b": "alembic", "c": "replay", "d": "replay"}
        first, last = (catalogs(pg.database_url(names[id]), ["public"])["public"] for id in "ad")
        assert difference(first, last) == []
        assert len(first) > 3
        assert tables(database, "public") == set()
    finally:
        for name in names.values():
            pg.drop_database(pg.database_url(name))


async def test_two_servers(tmp_path: Path, database: str, second_pg: PostgresServer) -> None:
    """What tenants of one server were sent is replayed on another server's, of the same version."""
    other = second_pg.create_database()
    server = {"main": {"url": database}, "other": {"url": other}}
    tenants = [{"id": id, "server": "main" if id in "ab" else "other"} for id in IDS]
    project = make_project(tmp_path, {"r1": NOTES}, json.dumps({"servers": server, "tenants": tenants}))
    try:
        # One at a time: so it is the first server's two that are recorded.
        result = await project.upgrade(execution=Execution(jobs=1))

        assert list(paths(result).values()).count("replay") == 3
        (here,), (there,) = catalogs(database, "a").values(), catalogs(other, "e").values()
        assert difference(here, there) == []
    finally:
        second_pg.drop_database(other)


async def test_provision_makes_the_schema(tmp_path: Path, database: str) -> None:
    """A replayed tenant whose schema is missing is blocked, or gets it with --provision."""
    execute(database, "CREATE SCHEMA a; CREATE SCHEMA b; CREATE SCHEMA c")
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *IDS))

    blocked = await project.upgrade(provision=False)
    assert statuses(blocked) == {**SUCCEEDED, "d": "blocked", "e": "blocked"}
    assert statuses(await project.upgrade()) == {
        **dict.fromkeys("abc", "already_current"),
        "d": "succeeded",
        "e": "succeeded",
    }
    assert alike(database) == []


async def test_heads_that_moved_since_the_plan(tmp_path: Path, database: str) -> None:
    """A tenant that somebody else has moved meanwhile is judged anew, and only what is left is run."""
    project = make_project(tmp_path, {"r1": f"{GATED}\n{ACCOUNTS}", "r2": PROJECTS}, schemas(database, *IDS))
    async with held(database, gate("a")) as holder, held(database, gate("b")):
        running = asyncio.create_task(project.upgrade())
        await waiting_backend(holder, 2)
        moved = "CREATE TABLE {0}.alembic_version AS SELECT '{1}' AS version_num; CREATE TABLE {0}.accounts ();"
        execute(database, f"CREATE SCHEMA c; CREATE SCHEMA d; {moved.format('c', 'r1')} {moved.format('d', 'r2')}")

    result = await running

    assert statuses(result) == {**SUCCEEDED, "d": "already_current"}
    assert (one(result, "c")["from"], one(result, "c")["path"], one(result, "e")["path"]) == (
        ["r1"],
        "alembic",
        "replay",
    )
    assert tables(database, "c") == {"alembic_version", "accounts", "projects"}
    assert tables(database, "d") == {"alembic_version", "accounts"}
    said = "the tenant is no longer where it was when the run was planned"
    assert reasons(project) == {"c": said, "d": said}


async def test_a_tenant_that_another_process_holds(tmp_path: Path, database: str) -> None:
    """A tenant whose lock is taken is not touched, and nobody waits for it but its own worker."""
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *IDS))
    async with held(database, key(database, "d")):
        result = await project.upgrade(execution=Execution(lock_wait=0.1))

    assert statuses(result) == {**SUCCEEDED, "d": "locked"}
    assert tables(database, "d") == set()
    assert reasons(project) == {"d": "another migration of this tenant is under way"}


async def test_a_failed_replay_does_not_lock_its_own_tenant_out(tmp_path: Path, database: str) -> None:
    """Without waiting for locks, a tenant whose replay failed is still found free by the attempt that follows."""
    ids = [f"t{number}" for number in range(12)]
    execute(database, ";".join(f"CREATE SCHEMA {id}; CREATE TABLE {id}.accounts ()" for id in ids[2:]))
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *ids))

    result = await project.upgrade(execution=Execution(continue_on_error=True, lock_wait=0))

    assert set(statuses(result).values()) == {"succeeded", "failed"}


@pytest.mark.parametrize(("retries", "ends"), [(0, "unknown"), (3, "succeeded")])
async def test_a_connection_that_is_cut_in_a_replay(tmp_path: Path, database: str, retries: int, ends: str) -> None:
    """What a replay had committed when its connection broke is read from the tenant, never guessed."""
    bodies = {"r1": ACCOUNTS, "r2": f"{GATED}\n{PROJECTS}", "r3": 'op.create_table("last")'}
    project = make_project(tmp_path, bodies, schemas(database, *IDS, policy={"retries": retries}))
    async with held(database, gate("c")) as holder:
        running = asyncio.create_task(project.upgrade(execution=ALL))
        (waits,) = await waiting_backend(holder)
        await holder.execute(f"SELECT pg_terminate_backend({waits['pid']})")
        # Its locks are gone: whoever comes next is not the one that was cut off.
        await until(
            lambda: holder.fetch(f"SELECT FROM pg_stat_activity WHERE pid = {waits['pid']}"), lambda rows: not rows
        )

    result = await running

    assert statuses(result) == {**SUCCEEDED, "c": ends}
    if ends == "unknown":
        assert (one(result, "c")["to"], tables(database, "c")) == (None, {"alembic_version", "accounts"})
        assert statuses(await orchestrator.resume(project.fleet)) == SUCCEEDED
    assert alike(database) == []


async def test_a_canary_first(tmp_path: Path, database: str) -> None:
    """A wave of one tenant and the next wave's first are the two that are recorded."""
    waves = [{"name": "canary", "select": {"tags": ["canary"]}}, {"name": "rest"}]
    document = json.loads(schemas(database, *IDS, waves=waves))
    document["tenants"][4]["tags"] = ["canary"]
    document["servers"]["main"]["max_concurrency"] = 1
    project = make_project(tmp_path, {"r1": ACCOUNTS}, json.dumps(document))

    result = await project.upgrade()

    assert paths(result) == {"e": "alembic", "a": "alembic", "b": "replay", "c": "replay", "d": "replay"}
    assert alike(database) == []


async def test_cohorts_side_by_side(tmp_path: Path, database: str) -> None:
    """Tenants that start elsewhere are another kind: each kind is recorded by itself, at the same time."""
    old, new = [f"old{number}" for number in range(5)], [f"new{number}" for number in range(5)]
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS, "r3": NOTES}, schemas(database, *old, *new))
    await project.upgrade("r2", tenants=["old*"], execution=WITHOUT)

    result = await project.upgrade()

    assert [list(paths(result).values()).count(way) for way in ("alembic", "replay")] == [4, 6]
    assert {one(result, id)["path"] for id in (old[4], new[4])} == {"replay"}
    assert alike(database, [*old, *new]) == []


async def test_a_tenant_that_fails_proves_nothing(tmp_path: Path, database: str) -> None:
    """The first two are drifted: the next two are recorded in their stead."""
    execute(database, ";".join(f"CREATE SCHEMA {id}; CREATE TABLE {id}.accounts ()" for id in "ab"))
    document = json.loads(schemas(database, *IDS))
    document["servers"]["main"]["max_concurrency"] = 1
    project = make_project(tmp_path, {"r1": ACCOUNTS}, json.dumps(document))

    result = await project.upgrade(execution=ALL)

    assert statuses(result) == {**SUCCEEDED, "a": "failed", "b": "failed"}
    assert {id: paths(result)[id] for id in "cde"} == {"c": "alembic", "d": "alembic", "e": "replay"}


async def test_what_was_recorded_is_not_believed(tmp_path: Path, database: str) -> None:
    """A recording on disk that says something else than what a tenant is sent now is not replayed on anybody."""
    document = json.loads(schemas(database, *IDS, "f", "g", "h", "i"))
    document["servers"]["main"]["max_concurrency"] = 1
    project = make_project(tmp_path, {"r1": ACCOUNTS}, json.dumps(document))
    await project.upgrade(tenants=[*IDS])
    (file,) = (tmp_path / ".orchestrator" / "transcripts").iterdir()
    text = file.read_text()
    assert "CREATE TABLE accounts" in text
    file.write_text(text.replace("CREATE TABLE accounts", "CREATE TABLE evil"))

    result = await project.upgrade(tenants=["f", "g", "h", "i"])

    assert list(paths(result).values()) == ["alembic", "alembic", "replay", "replay"]
    assert alike(database, [*IDS, "f", "g", "h", "i"]) == []


async def test_names_that_need_quoting(tmp_path: Path, database: str) -> None:
    """Schemas and version tables with quotes, backslashes, other scripts and full length are replayed."""
    names = ["a", "b", 'we"ird', "o'brien", "a.b", "percent%s:bind", "x" * 63, "ж" * 31, "{brace}", "back\\slash"]
    env = ENV.replace("connection=connection", 'connection=connection, version_table="my \\"versions\'"')
    env = env.replace("for_each_tenant(migrate)", 'for_each_tenant(migrate, version_table="my \\"versions\'")')
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": NOTES}, schemas(database, *names), env)

    result = await project.upgrade(execution=ALL)

    assert list(paths(result).values()) == ["alembic"] * 2 + ["replay"] * 8
    assert {name: len(tables(database, name)) for name in names} == dict.fromkeys(names, 3)
    assert tables(database, "public") == set()


async def test_no_more_connections_than_the_server_was_given(
    tmp_path: Path, pg: PostgresServer, make_database: Callable[..., str]
) -> None:
    """Over several databases, recorded, replayed and looked at: never more than max_concurrency at once."""
    role = urlsplit(make_database()).path.lstrip("/") + "_role"
    urls = [make_database() for _ in range(3)]
    execute(pg.url, f'CREATE ROLE "{role}" LOGIN CONNECTION LIMIT 3')
    names = [urlsplit(url).path.lstrip("/") for url in urls]
    for name in names:
        execute(pg.url, f'GRANT ALL ON DATABASE "{name}" TO "{role}"')
    server = {
        "main": {
            "url": urls[0].replace("://" + urlsplit(urls[0]).netloc.rpartition("@")[0], f"://{role}"),
            "max_concurrency": 3,
        }
    }
    tenants = [{"id": f"t{n}", "database": names[n % 3], "schema": f"t{n}"} for n in range(24)]
    project = make_project(tmp_path, {"r1": ACCOUNTS}, json.dumps({"servers": server, "tenants": tenants}))
    try:
        result = await project.upgrade(execution=Execution(verify_all=True, continue_on_error=True))

        assert [each.error for each in result.tenants if each.error] == []
        assert list(paths(result).values()).count("replay") == 22
    finally:
        for url in urls:
            execute(url, f'DROP OWNED BY "{role}"')
        execute(pg.url, f'DROP ROLE "{role}"')


async def test_type_that_a_later_revision_uses_again(tmp_path: Path, database: str) -> None:
    """Alembic makes an ENUM type once in a run, whoever names it again: a revision that cannot be replayed and does so
    takes what came before it along, and what comes after it is replayed."""
    table = 'op.create_table("{}", sa.Column("kind", sa.Enum("x", "y", name="kinds")))'
    revisions = {"r1": table.format("one"), "r2": f"op.get_bind()\n{table.format('two')}", "r3": PROJECTS}
    project = make_project(tmp_path, revisions, schemas(database, *IDS))

    result = await project.upgrade(execution=ALL)

    assert statuses(result) == SUCCEEDED
    assert set(paths(result).values()) == {"alembic", "mixed"}
    assert alike(database) == []
