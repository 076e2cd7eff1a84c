"""What a rehearsal keeps inside its clones: what would stay when they are gone is refused, and named."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import orchestrator
from orchestrator import Clones
from orchestrator.errors import UsageError
from tests.projects import files, make_project
from tests.rehearsing import NOTES, behind
from tests.servers import PostgresServer, execute, fetch

#: What a clone does not contain, done where nothing can be taken back; and what is said of it.
STAYING = {
    "GRANT rehearsed_role TO postgres": "GRANT rehearsed_role TO postgres (it writes to pg_auth_members)",
    "DO $$ BEGIN EXECUTE 'CREATE ROLE rehearsed_new'; END $$": "(it writes to pg_authid)",
    "ALTER SYSTEM SET work_mem = '5MB'": "it runs only outside transactions",
}


@pytest.mark.parametrize("statement", STAYING)
async def test_what_would_stay_is_not_done(tmp_path: Path, database: str, pg: PostgresServer, statement: str) -> None:
    """What a clone does not contain is refused and named, in an autocommit block, too, and whoever catches it."""
    body = f"""
try:
    with op.get_context().autocommit_block():
        op.execute({statement!r})
except Exception:
    op.execute("CREATE TABLE goes_on (id integer)")
"""
    execute(pg.url, "CREATE ROLE rehearsed_role")
    try:
        project = await behind(tmp_path, database, {"r1": NOTES, "r2": body}, "acme")
        report = await orchestrator.rehearse(project.fleet)
        (clone,) = report.as_json()["clones"]
        assert clone["error"]["revision"] == "r2"
        assert "would stay when its clone is gone, and that was not done" in clone["error"]["message"]
        assert STAYING[statement] in clone["error"]["message"]
        assert "orchestrator rehearse REVISION" in clone["error"]["hint"]
        assert fetch(pg.url, "SELECT 1 FROM pg_roles WHERE rolname = 'rehearsed_new'") == []
        assert fetch(pg.url, "SELECT 1 FROM pg_auth_members WHERE roleid = 'rehearsed_role'::regrole") == []
    finally:
        execute(pg.url, "DROP ROLE rehearsed_role; DROP ROLE IF EXISTS rehearsed_new")


async def test_what_commits_by_itself(tmp_path: Path, database: str) -> None:
    """Rows that are changed in parts are; what puts its SQL together needs a word, and then a note names it."""
    body = """
with op.get_context().autocommit_block():
    op.execute("DO $$ BEGIN UPDATE notes SET body = 'x'; COMMIT; END $$")
"""
    told = body.replace("UPDATE notes SET body = 'x'", "EXECUTE 'UPDATE notes SET id = id'")
    project = await behind(tmp_path, database, {"r1": NOTES, "r2": body, "r3": told}, "acme")
    (clone,) = (await orchestrator.rehearse(project.fleet)).as_json()["clones"]
    assert [one["revision"] for one in clone["revisions"]] == ["r2"]
    assert clone["error"]["revision"] == "r3"
    assert "it runs only outside transactions" in clone["error"]["message"]
    (clone,) = (await orchestrator.rehearse(project.fleet, clones=Clones(allow_outside=True))).as_json()["clones"]
    assert clone["error"] is None, clone
    assert len([note for note in clone["notes"] if "if it did, was done for real" in note]) == 1


@pytest.mark.parametrize("statement", ["VACUUM FULL", "CLUSTER"])
async def test_all_tables_of_the_database(tmp_path: Path, database: str, statement: str) -> None:
    """A schema's clone is in a database of its own: what says no table's name is done, nobody else's are touched."""
    body = f"with op.get_context().autocommit_block():\n    op.execute({statement!r})"
    project = await behind(tmp_path, database, {"r1": NOTES, "r2": body}, "acme", "other")
    execute(database, "CREATE INDEX ix ON other.notes (id); CLUSTER other.notes USING ix")
    stored = "SELECT oid::regclass, relfilenode FROM pg_class WHERE relname = 'notes' ORDER BY 1"
    before = fetch(database, stored)
    (clone,) = (await orchestrator.rehearse(project.fleet, tenants=["acme"])).as_json()["clones"]
    assert (clone["error"], [one["revision"] for one in clone["revisions"]]) == (None, ["r2"])
    assert fetch(database, stored) == before


async def test_other_connections_are_refused(tmp_path: Path, database: str) -> None:
    """A revision that connects by itself would do so for real: refused before anything is cloned, unless allowed."""
    body = 'url = "create_engine"\nop.execute("SELECT 1")'
    project = await behind(tmp_path, database, {"r1": NOTES, "r2": body}, "acme")
    with pytest.raises(UsageError, match=r"r2 uses create_engine \(r2.py:\d+\)"):
        await orchestrator.rehearse(project.fleet)
    report = await orchestrator.rehearse(project.fleet, clones=Clones(allow_outside=True))
    assert report.exit_code == 0
    assert "done for real" in report.as_json()["notes"][0]


#: On another connection than the migration's.
_BY_ANOTHER = """with op.get_bind().engine.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
            other.exec_driver_sql(SAID)"""
#: Ways out of a SQLite file, and what is said of each; ``FILE`` is another one.
ELSEWHERE = {
    "ATTACH 'FILE' AS other": "ATTACH ? AS other (it reaches another file)",
    "ATTACH DATABASE lower('FILE') AS other": "ATTACH DATABASE lower(?) AS other (it reaches another file)",
    "VACUUM INTO 'FILE'": "VACUUM INTO ? (it reaches another file)",
}


@pytest.mark.parametrize("send", ["op.execute(SAID)", _BY_ANOTHER], ids=["its own", "another"])
@pytest.mark.parametrize("statement", ELSEWHERE)
async def test_other_files_are_not_reached(tmp_path: Path, statement: str, send: str) -> None:
    """From a clone that is a file, and from a scratch tenant's: it is not done, and named, whoever catches that."""
    file = tmp_path / "of_others.db"
    said = statement.replace("FILE", str(file))
    body = f"""
try:
    with op.get_context().autocommit_block():
        {send.replace("SAID", repr(said))}
        op.execute("CREATE TABLE other.stray (id integer)")
except Exception:
    op.execute("CREATE TABLE goes_on (id integer)")
"""
    data = tmp_path / "data"
    project = make_project(tmp_path, {"r1": NOTES, "r2": body}, files(data, "acme"))
    await project.upgrade("r1")

    (clone,) = (await orchestrator.rehearse(project.fleet)).as_json()["clones"]

    assert clone["error"]["revision"] == "r2"
    assert "would stay when its clone is gone, and that was not done" in clone["error"]["message"]
    assert ELSEWHERE[statement] in clone["error"]["message"]
    assert "orchestrator rehearse REVISION" in clone["error"]["hint"]
    assert not file.exists()
    (clone,) = (await orchestrator.rehearse(project.fleet, clones=Clones(allow_outside=True))).as_json()["clones"]
    assert clone["error"] is None, clone
    told = ELSEWHERE[statement].partition(" (")[0]
    assert f"{told}: what it did outside its clone, if it did, was done for real" in clone["notes"]
    file.unlink(missing_ok=True)
    execute_in(data / "acme.db", "UPDATE alembic_version SET version_num = 'r2'")
    (odd,) = (await orchestrator.drift(project.fleet)).as_json()["not_compared"]
    assert ELSEWHERE[statement] in odd["error"]["message"]
    assert not file.exists()


async def test_what_is_the_connections_own(tmp_path: Path) -> None:
    """A plain VACUUM, and databases that end with the connection, reach no other file: nothing is said of them."""
    body = """
with op.get_context().autocommit_block():
    op.execute("VACUUM")
    op.execute("ATTACH ':memory:' AS aside")
    op.execute("CREATE TABLE aside.kept AS SELECT * FROM notes")
    op.execute("ATTACH '' AS another")
"""
    project = make_project(tmp_path, {"r1": NOTES, "r2": body}, files(tmp_path / "data", "acme"))
    await project.upgrade("r1")
    (clone,) = (await orchestrator.rehearse(project.fleet)).as_json()["clones"]
    assert clone["error"] is None, clone
    await project.upgrade()
    assert (await orchestrator.drift(project.fleet)).exit_code == 0


def execute_in(file: Path, statement: str) -> None:
    """Run one in a SQLite file."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement)
