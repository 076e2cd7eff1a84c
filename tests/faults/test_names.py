"""Names are inert: whatever tenants, schemas and databases are called, each is migrated and nobody else is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import orchestrator
from orchestrator.actions.project import Project as Opened
from orchestrator.actions.project import opened_project
from orchestrator.databases.postgresql.script import identifier
from orchestrator.errors import ConfigurationError
from orchestrator.fleet.tenant import Limits
from tests.names import KNOWN, LONGEST, names
from tests.projects import Project, make_project, one, schemas, statuses
from tests.servers import PostgresServer, execute

HISTORY = {
    "r1": """
def upgrade():
    op.create_table("accounts", sa.Column("id", sa.Integer, primary_key=True), sa.Column("note", sa.Text))
    op.create_index("accounts_note", "accounts", ["note"])

def downgrade():
    op.drop_table("accounts")
""",
    "r2": """
def upgrade():
    op.execute("CREATE TYPE kind AS ENUM ('a', 'b')")
    op.execute("ALTER TABLE accounts ADD COLUMN kind kind DEFAULT 'a'")

def downgrade():
    op.drop_column("accounts", "kind")
    op.execute("DROP TYPE kind")
""",
    "r3": """
def upgrade():
    op.create_table("projects", sa.Column("account", sa.Integer, sa.ForeignKey("accounts.id")))

def downgrade():
    op.drop_table("projects")
""",
}
TABLES = {"accounts", "projects", "alembic_version"}
#: Examples when all are wanted, and when some are; each has four names.
ALL, SOME = 1000, 25


def explored(count: int) -> Any:
    """How Hypothesis goes about it: real databases take their time, and minimising would take an hour."""
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=count == SOME,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


async def everything(url: str) -> dict[str, set[str]]:
    """Relations by schema, all schemas but PostgreSQL's own."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT nspname, coalesce(array_agg(relname) FILTER (WHERE relkind = 'r'), '{}') FROM pg_namespace n"
            " LEFT JOIN pg_class ON relnamespace = n.oid WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
            " GROUP BY nspname"
        )
    finally:
        await connection.close()
    return {row[0]: set(row[1]) for row in rows}


def runner() -> Any:
    """Runs coroutines one after the other: Hypothesis calls a plain function many times."""
    import asyncio

    return asyncio.Runner()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """One history for all examples; what it is for is the example's to write."""
    return make_project(tmp_path_factory.mktemp("names"), HISTORY, "{}")


async def migrated(project: Project, url: str, ids: Sequence[str]) -> None:
    """Tenants of these names go all the ways there are, and their neighbours stay as they were."""
    project.path.joinpath("tenants.yaml").write_text(schemas(url, *ids), encoding="utf-8")
    result = await project.upgrade()
    document = json.loads(json.dumps(result.as_json()))
    assert statuses(result) == dict.fromkeys(ids, "succeeded"), document["causes"]
    assert {one(result, id)["path"] for id in ids} == {"alembic", "replay"}
    assert await everything(url) == {"bystander": {"accounts"}, "public": set(), **dict.fromkeys(ids, TABLES)}

    status = (await orchestrator.status(project.fleet)).as_json()
    assert [(each["tenant"], each["schema"], each["heads"]) for each in status["tenants"]] == [
        (id, id, ["r3"]) for id in ids
    ]
    runs = (await orchestrator.list_runs(project.fleet, tenant=ids[-1], limit=1)).as_json()
    assert [run["run"] for run in runs["runs"]] == [document["run"]]
    shown = (await orchestrator.show_run(project.fleet, "last")).as_json()
    assert [tenant["tenant"] for tenant in shown["tenants"]] == list(ids)

    async with opened_project(project.fleet) as opened:
        database, tenants = opened.databases["main"], opened.fleet.tenants
        shapes = await database.fingerprints(tenants, "alembic_version")
        assert list(shapes) == list(ids)
        assert len(set(shapes.values())) == 1
        await locked_and_seen(project, opened)

    # Listed and not as a pattern: `a*` is a name, and a glob that means others, too.
    one_of_them = orchestrator.Selection(listed=(ids[0],))
    down = await orchestrator.downgrade(project.fleet, "base", tenants=one_of_them)
    assert statuses(down) == {ids[0]: "succeeded"}
    assert (await everything(url))[ids[0]] == {"alembic_version"}
    plan = await orchestrator.plan(project.fleet, tenants=one_of_them, sql=True)
    assert any(identifier(ids[0]) in sql for sql in plan.sql)
    again = await project.upgrade(tenants=one_of_them)
    assert one(again, ids[0])["status"] == "succeeded"


async def locked_and_seen(project: Project, opened: Opened) -> None:
    """A tenant's lock is its own, and doctor shows which run holds it."""
    database, (first, second, *_) = opened.databases["main"], opened.fleet.tenants
    async with database.session(first, f"orchestrator 20261125-101112-abcde {first.id}", Limits()) as held:
        assert await held.try_lock()
        async with database.session(second, "second", Limits()) as other:
            assert await other.try_lock()
            async with database.session(first, "third", Limits()) as refused:
                assert not await refused.try_lock()
        checkup = await orchestrator.doctor(project.fleet)
    assert any(each.check == "locks" and "20261125-101112-abcde" in each.message for each in checkup.findings)


def test_schemas(thorough: bool, project: Project, shared_database: str) -> None:
    """Four tenants at a time, whatever they are called: provisioned, migrated both ways, read, locked, journaled."""
    execute(shared_database, "CREATE SCHEMA bystander; CREATE TABLE bystander.accounts (id int)")
    with runner() as loop:

        @explored(ALL if thorough else SOME)
        @given(st.lists(names, min_size=4, max_size=4, unique=True))
        def check(ids: list[str]) -> None:
            try:
                loop.run(migrated(project, shared_database, ids))
            finally:
                execute(shared_database, "; ".join(f"DROP SCHEMA IF EXISTS {identifier(id)} CASCADE" for id in ids))

        check()


def test_known_names(project: Project, shared_database: str) -> None:
    """All names that are known to be hard, in one fleet."""
    execute(shared_database, "CREATE SCHEMA IF NOT EXISTS bystander")
    execute(shared_database, "CREATE TABLE IF NOT EXISTS bystander.accounts (id int)")
    with runner() as loop:
        try:
            loop.run(migrated(project, shared_database, KNOWN))
        finally:
            execute(shared_database, "; ".join(f"DROP SCHEMA IF EXISTS {identifier(id)} CASCADE" for id in KNOWN))


async def in_databases(project: Project, pg: PostgresServer, url: str, ids: Sequence[str]) -> None:
    """Tenants in databases of these names are migrated, read, and told apart."""
    tenants = [{"id": id, "isolation": "database"} for id in ids]
    document = {"servers": {"main": {"url": url}}, "tenants": tenants}
    project.path.joinpath("tenants.yaml").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    result = await project.upgrade()
    assert statuses(result) == dict.fromkeys(ids, "succeeded"), result.as_json()["causes"]
    status = (await orchestrator.status(project.fleet)).as_json()
    assert [(each["database"], each["heads"]) for each in status["tenants"]] == [(id, ["r3"]) for id in ids]
    connection = await asyncpg.connect(pg.url)
    try:
        found = await connection.fetch("SELECT datname FROM pg_database WHERE datname = ANY($1)", list(ids))
    finally:
        await connection.close()
    assert {row[0] for row in found} == set(ids)
    checkup = await orchestrator.doctor(project.fleet)
    assert [each for each in checkup.findings if each.check in ("rights", "reachable") and each.level != "ok"] == []


def test_databases(thorough: bool, project: Project, pg: PostgresServer, shared_database: str) -> None:
    """Three databases at a time, whatever they are called."""
    with runner() as loop:

        @explored(100 if thorough else 5)
        @given(st.lists(names.filter(lambda name: name not in ("postgres", "template0")), min_size=3, unique=True))
        def check(ids: list[str]) -> None:
            try:
                loop.run(in_databases(project, pg, shared_database, ids[:3]))
            finally:
                for id in ids[:3]:
                    execute(pg.url, f"DROP DATABASE IF EXISTS {identifier(id)} WITH (FORCE)")

        check()


@pytest.mark.parametrize("kind", ["schema", "database"])
def test_names_that_the_server_would_cut(thorough: bool, project: Project, kind: str) -> None:
    """A name of more bytes than the server keeps is refused, alone and beside one that shares what is kept."""

    @explored(ALL if thorough else SOME)
    @given(st.text("aé日😀\"';", min_size=16, max_size=LONGEST).filter(lambda text: len(text.encode()) >= LONGEST - 3))
    def check(start: str) -> None:
        long = start + "x" * 4
        kept = long.encode()[:LONGEST].decode(errors="ignore")
        for ids in ([long], [kept, long], [kept, kept]):
            entries = [{"id": id, "isolation": kind} for id in ids]
            document = {"servers": {"main": {"url": "postgresql://h/d"}}, "tenants": entries}
            project.path.joinpath("tenants.yaml").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
            with pytest.raises(ConfigurationError):
                orchestrator.load(project.path / "tenants.yaml")

    check()


def test_source_rows(project: Project, shared_database: str) -> None:
    """Names that come from rows are the same names: nothing in them is expanded, run or cut."""
    values = ", ".join("('" + id.replace("'", "''") + "')" for id in KNOWN)
    document = {
        "servers": {"main": {"url": shared_database}},
        "sources": [{"sql": f"SELECT * FROM (VALUES {values}) AS t (id)", "server": "main"}],
    }
    project.path.joinpath("tenants.yaml").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    with runner() as loop:
        status = loop.run(orchestrator.status(project.fleet)).as_json()
    assert [(each["tenant"], each["schema"], each["state"]) for each in status["tenants"]] == [
        (id, id, "unprovisioned") for id in KNOWN
    ]
    assert urlsplit(shared_database).path.lstrip("/") in {each["database"] for each in status["tenants"]}
    assert Path(project.path / "alembic.ini").exists()
