"""A tenant is taken back where the run changed it; one that lives elsewhere by now is left alone, whatever its name."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from tests.projects import Project, files, make_project, one, schemas, statuses, tables
from tests.replays import EMPTY
from tests.rollbacks import LINE, cut_off, heads, table
from tests.servers import PostgresServer, execute

AT_R3 = {"alembic_version", "r1", "r2", "r3"}


@pytest.fixture
def database(shared_database: str) -> str:
    """Address of an empty database."""
    execute(shared_database, EMPTY)
    return shared_database


def fleet(servers: dict[str, str], *tenants: dict[str, Any]) -> str:
    """A tenants.yaml with these servers, by name to address."""
    return json.dumps({"servers": {name: {"url": url} for name, url in servers.items()}, "tenants": tenants})


def rewrite(project: Project, text: str) -> None:
    """Edit tenants.yaml."""
    (project.path / "tenants.yaml").write_text(text)


def places(project: Project) -> list[tuple[str, str]]:
    """The journal's events about places: run and detail."""
    with closing(sqlite3.connect(project.path / ".orchestrator" / "journal.db")) as journal:
        return list(journal.execute("SELECT run, detail FROM orchestrator_events WHERE kind = 'places'"))


async def test_another_schema(tmp_path: Path, database: str) -> None:
    """A tenant whose schema was edited is blocked, with both places and a way on, dry or not; the others go back."""
    project = make_project(tmp_path, LINE, schemas(database, "a", "b", "other"))
    await project.upgrade("r1")
    up = await project.upgrade(tenants=["a", "b"])
    await project.upgrade(tenants=["other"])
    edited = {"id": "a", "schema": "other"}
    rewrite(project, fleet({"main": database}, edited, {"id": "b"}))

    planned = (await orchestrator.plan_rollback(project.fleet, up.run.id)).as_json()
    back = await orchestrator.rollback(project.fleet, up.run.id)
    along = await orchestrator.rollback(project.fleet, up.run.id, tenants=["a"], to_before=True)

    assert [(each["tenant"], each["error"]["type"]) for each in planned["blocked"]] == [("a", "elsewhere")]
    assert (statuses(back), statuses(along)) == ({"a": "blocked", "b": "succeeded"}, {"a": "blocked"})
    assert not back.satisfied
    error = one(back, "a")["error"]
    assert error["type"] == "elsewhere"
    assert ".a, and it is at" in error["message"]
    assert ".other now" in error["message"]
    assert "orchestrator downgrade r1 -t a" in error["hint"]
    assert tables(database, "other") == tables(database, "a") == AT_R3


@pytest.mark.parametrize("how", ["address", "tenant"])
async def test_another_database(tmp_path: Path, make_database: Callable[..., str], how: str) -> None:
    """So it is where the schema is called the same, in another database of the same server."""
    old = make_database()
    project = make_project(tmp_path, LINE, schemas(old, "a"))
    up = await project.upgrade()
    new = make_database(old)
    name = new.rpartition("/")[2]
    tenant = {"id": "a", "database": name, "schema": "a"}
    rewrite(project, schemas(new, "a") if how == "address" else fleet({"main": old}, tenant))

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(back) == {"a": "blocked"}
    assert one(back, "a")["error"]["type"] == "elsewhere"
    assert tables(new, "a") == tables(old, "a") == AT_R3


async def test_another_server(tmp_path: Path, database: str, second_pg: PostgresServer) -> None:
    """So it is on another server; a server that only has another name in tenants.yaml is the same one."""
    new = second_pg.create_database()
    project = make_project(tmp_path, LINE, fleet({"main": database}, {"id": "a"}, {"id": "b"}))
    up = await project.upgrade()
    rewrite(
        project,
        fleet({"renamed": database, "new": new}, {"id": "a", "server": "new"}, {"id": "b", "server": "renamed"}),
    )
    await project.upgrade(tenants=["a"])

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(back) == {"a": "blocked", "b": "succeeded"}
    assert one(back, "a")["error"]["type"] == "elsewhere"
    assert tables(new, "a") == AT_R3
    second_pg.drop_database(new)


async def test_out_of_reach(tmp_path: Path, database: str) -> None:
    """A tenant on a server that cannot be reached is told as that, wherever it was before; nothing is known of it."""
    project = make_project(tmp_path, LINE, schemas(database, "a"))
    up = await project.upgrade()
    rewrite(project, schemas("postgresql://postgres@127.0.0.1:1/nowhere", "a"))

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(back) == {"a": "failed"}
    assert one(back, "a")["error"]["type"] == "unreachable"


async def test_another_file(tmp_path: Path) -> None:
    """So it is with SQLite files."""
    project = make_project(tmp_path, LINE, files(tmp_path / "old", "a", "b"))
    up = await project.upgrade()
    rewrite(project, files(tmp_path / "new", "a", "b"))
    (tmp_path / "old").rename(tmp_path / "new")

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(back) == {"a": "blocked", "b": "blocked"}
    assert await heads(project) == {"a": ("r3",), "b": ("r3",)}


async def test_moved_while_the_run_was_held_up(tmp_path: Path, database: str) -> None:
    """A run that met a tenant at two places did at neither all that it says."""
    project = make_project(tmp_path, LINE, schemas(database, "a", "b"))
    await project.upgrade("r1")
    execute(database, "CREATE TABLE a.r3 ()")
    up = await project.upgrade("r3", tenants=["a"])
    execute(database, "DROP TABLE a.r3")
    # As versions did that went on with it there.
    detail = dict(places(project))[up.run.id]
    elsewhere = detail.replace('"a",null', '"b",null')
    assert elsewhere != detail
    with closing(sqlite3.connect(tmp_path / ".orchestrator" / "journal.db")) as journal, journal:
        journal.execute(
            "INSERT INTO orchestrator_events (run, writer, number, at, kind, detail)"
            " SELECT run, 'then', number, at, kind, ? FROM orchestrator_events"
            " WHERE run = ? AND kind = 'places'",
            (elsewhere, up.run.id),
        )
    rewrite(project, fleet({"main": database}, {"id": "a", "schema": "b"}))
    await project.upgrade(tenants=["a"])

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(back) == {"a": "blocked"}
    assert one(back, "a")["error"]["type"] == "elsewhere"
    assert tables(database, "b") == AT_R3


async def test_moved_before_the_rollback_is_resumed(tmp_path: Path, database: str) -> None:
    """A rollback that is carried on looks again where tenants are."""
    project = make_project(tmp_path, LINE, schemas(database, "a", "b"))
    up = await project.upgrade()
    execute(database, "CREATE VIEW a.mine AS SELECT * FROM a.r3")
    back = await orchestrator.rollback(project.fleet, up.run.id, tenants=["a"])
    assert statuses(back) == {"a": "failed"}
    rewrite(project, fleet({"main": database}, {"id": "a", "schema": "b"}))

    done = await orchestrator.resume(project.fleet, back.run.id)

    assert statuses(done) == {"a": "blocked"}
    assert one(done, "a")["error"]["type"] == "elsewhere"
    assert tables(database, "b") == AT_R3


@pytest.mark.parametrize("is_cut_off", [True, False], ids=["cut off", "finished"])
async def test_nothing_to_do_there(tmp_path: Path, database: str, is_cut_off: bool) -> None:
    """A tenant that is elsewhere is told of also where, by its heads, nothing is to be taken back."""
    project = make_project(tmp_path, {**LINE, "r4": table("r4")}, schemas(database, "a", "b"))
    await project.upgrade("r1")
    up = await cut_off(project, database, "r3") if is_cut_off else await project.upgrade(tenants=["a"])
    rewrite(project, fleet({"main": database}, {"id": "a", "schema": "b"}))

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(back) == {"a": "blocked"}
    assert one(back, "a")["error"]["type"] == "elsewhere"


async def test_another_name(tmp_path: Path, database: str) -> None:
    """A tenant that only has another id is not taken back; it is said which one has its place now, and the way."""
    project = make_project(tmp_path, LINE, schemas(database, "a", "b"))
    await project.upgrade("r1")
    up = await project.upgrade()
    rewrite(project, fleet({"main": database}, {"id": "acme", "schema": "a"}, {"id": "b"}))

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(back) == {"a": "skipped", "b": "succeeded"}
    error = one(back, "a")["error"]
    assert (error["type"], "tenant acme's now" in error["message"]) == ("gone", True)
    assert "it was at r1" in error["hint"]
    assert "-t acme" in error["hint"]
    assert tables(database, "a") == AT_R3


async def test_one_event_for_all(tmp_path: Path, database: str) -> None:
    """Places are one event of a run, and none where nobody is migrated or a run goes back; passwords are not in it."""
    ids = [f"t{number}" for number in range(20)]
    project = make_project(tmp_path, LINE, schemas(database, *ids))
    up = await project.upgrade()
    await project.upgrade()
    await orchestrator.rollback(project.fleet, up.run.id)

    ((run, detail),) = places(project)

    assert run == up.run.id
    ((server, tenants),) = json.loads(detail).items()
    assert f"@{server}/" in database
    assert tenants == {id: [database.rpartition("/")[2], id, None] for id in ids}


async def test_runs_from_before(tmp_path: Path, database: str) -> None:
    """A run whose tenants' places were not written down is taken back by their names, as it was then."""
    project = make_project(tmp_path, LINE, schemas(database, "a"))
    up = await project.upgrade()
    with closing(sqlite3.connect(tmp_path / ".orchestrator" / "journal.db")) as journal, journal:
        journal.execute("DELETE FROM orchestrator_events WHERE kind = 'places'")

    assert statuses(await orchestrator.rollback(project.fleet, up.run.id)) == {"a": "succeeded"}
