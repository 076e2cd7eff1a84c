"""kill -9 of a rehearsal, wherever it is: the tenant is as it was, and the next rehearsal clears away what was left."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path

import asyncpg
import pytest

import orchestrator
from tests.projects import Project, files, make_project, schemas, until
from tests.servers import PostgresServer, execute, fetch

NOTES = """
def upgrade():
    op.create_table("notes", sa.Column("id", sa.Integer, primary_key=True))

def downgrade():
    op.drop_table("notes")
"""
#: Goes on for as long as nobody ends it.
ENDLESS = 'op.execute("SELECT pg_sleep(600)")'
QUICK = 'op.execute("ALTER TABLE notes ADD COLUMN body text")'

#: Scratch databases.
_SCRATCH = "SELECT datname FROM pg_database WHERE starts_with(datname, 'orchestrator_scratch_')"
#: What is at work in one of them, or for one: psql, pg_dump, migrations.
_BUSY = "SELECT pid FROM pg_stat_activity WHERE starts_with(datname, 'orchestrator_scratch_') AND state <> 'idle'"
_ASLEEP = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
#: pg_dump waits for a table.
_WAITS = "SELECT pid FROM pg_locks WHERE NOT granted AND locktype = 'relation'"


async def ended(project: Project, reached: Callable[[], Awaitable[object]], number: int) -> tuple[int, str]:
    """Rehearse in a process of its own, and send it a signal once ``reached`` says so; its exit code and complaints."""
    command = (sys.executable, "-X", "faulthandler", "-m", "orchestrator", "rehearse", "--lock-timeout", "60s")
    process = await asyncio.create_subprocess_exec(
        *command, cwd=project.path, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        await until(reached, bool)
        process.send_signal(number)
        reading = asyncio.ensure_future(process.communicate())
        if not (await asyncio.wait({reading}, timeout=30))[0]:
            # Its threads' stacks come with what it says.
            process.send_signal(signal.SIGABRT)
            raise AssertionError((await reading)[1].decode())
        told = (await reading)[1]
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert process.returncode is not None
    return process.returncode, told.decode()


def everything(url: str) -> list[tuple[object, ...]]:
    """The tenant to the row, with when each was changed."""
    query = "SELECT 'notes', xmin::text, t::text FROM acme.notes t UNION ALL SELECT 'version', xmin::text, v::text"
    return [tuple(row) for row in fetch(url, f"{query} FROM acme.alembic_version v ORDER BY 1, 3")]


@pytest.fixture
async def made(tmp_path: Path, database: str) -> Project:
    """A tenant with rows, and a revision before it that does not end."""
    project = make_project(tmp_path, {"r1": NOTES, "r2": ENDLESS}, schemas(database, "acme"))
    await project.upgrade("r1")
    execute(database, "INSERT INTO acme.notes SELECT generate_series(1, 1000)")
    return project


def mend(project: Project) -> None:
    """Let the revision end."""
    file = project.path / "alembic" / "versions" / "r2.py"
    file.write_text(file.read_text().replace(ENDLESS, QUICK).replace("    pass", "    op.drop_column('notes', 'body')"))


async def cleared(project: Project, pg: PostgresServer, database: str, before: object) -> None:
    """After a kill: the clone is there, the tenant is untouched, and the next rehearsal leaves nothing of it."""
    assert len(fetch(pg.url, _SCRATCH)) == 1
    assert everything(database) == before
    mend(project)
    report = await orchestrator.rehearse(project.fleet)
    assert report.exit_code == 0, report.as_json()
    assert fetch(pg.url, _SCRATCH) == []
    assert everything(database) == before


async def test_killed_while_a_clone_is_migrated(made: Project, pg: PostgresServer, database: str) -> None:
    """kill -9 in a revision: its backend ends, doctor tells of the clone, the next rehearsal drops it."""
    before = everything(database)
    watcher = await asyncpg.connect(pg.url)
    try:
        code, _ = await ended(made, lambda: watcher.fetch(_ASLEEP), signal.SIGKILL)
        assert code == -signal.SIGKILL
        await until(lambda: watcher.fetch(_BUSY), lambda rows: not rows)
        found = (await orchestrator.doctor(made.fleet)).findings
        assert any(each.check == "scratch" and "orchestrator_scratch_" in each.message for each in found)
        await cleared(made, pg, database, before)
    finally:
        await watcher.close()


async def test_killed_while_a_tenant_is_cloned(made: Project, pg: PostgresServer, database: str) -> None:
    """kill -9 while pg_dump waits: it ends with us, and so does psql; the half-filled clone is dropped by the next."""
    before = everything(database)
    watcher, holder = await asyncpg.connect(pg.url), await asyncpg.connect(database)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE acme.notes IN ACCESS EXCLUSIVE MODE")
            await ended(made, lambda: watcher.fetch(_WAITS), signal.SIGKILL)
        await until(lambda: watcher.fetch(_BUSY), lambda rows: not rows)
        await cleared(made, pg, database, before)
    finally:
        await watcher.close()
        await holder.close()


async def test_ended_by_sigterm(made: Project, pg: PostgresServer, database: str) -> None:
    """SIGTERM and Ctrl-C end it at once, and it clears away before that; the journal knows that it was interrupted."""
    before = everything(database)
    watcher = await asyncpg.connect(pg.url)
    try:
        for number, expected in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            code, told = await ended(made, lambda: watcher.fetch(_ASLEEP), number)
            assert code == expected, told
            assert "Traceback" not in told
            assert fetch(pg.url, _SCRATCH) == []
            await until(lambda: watcher.fetch(_ASLEEP), lambda rows: not rows)
    finally:
        await watcher.close()
    assert everything(database) == before
    runs = (await orchestrator.list_runs(made.fleet)).as_json()["runs"]
    assert [run["status"] for run in runs if run["command"] == "rehearse"] == ["interrupted", "interrupted"]


async def test_two_at_once(made: Project, pg: PostgresServer, database: str, tmp_path: Path) -> None:
    """A rehearsal that is under way keeps its clone, whoever clears up, also by way of another database."""
    other = tmp_path / "other"
    other.mkdir()
    beside = make_project(other, {"r1": NOTES, "r2": QUICK}, schemas(pg.url, "globex"))
    await beside.upgrade("r1")
    watcher = await asyncpg.connect(pg.url)

    async def reached() -> bool:
        if not await watcher.fetch(_ASLEEP):
            return False
        assert (await orchestrator.rehearse(beside.fleet)).exit_code in (0, 1)
        assert len(await watcher.fetch(_SCRATCH)) == 1
        return True

    try:
        await ended(made, reached, signal.SIGTERM)
    finally:
        await watcher.close()
        execute(pg.url, "DROP SCHEMA globex CASCADE")
    assert fetch(pg.url, _SCRATCH) == []


async def test_killed_beside_a_file(tmp_path: Path) -> None:
    """kill -9 with a copied SQLite file: the next rehearsal removes the copy, and the tenant's file is as it was."""
    flag = tmp_path / "go on"
    waits = f"""
def upgrade():
    import pathlib, time
    while not pathlib.Path({str(flag)!r}).exists():
        time.sleep(0.01)
    op.add_column("notes", sa.Column("body", sa.Text))

def downgrade():
    with op.batch_alter_table("notes") as batch:
        batch.drop_column("body")
"""
    data = tmp_path / "data"
    project = make_project(tmp_path, {"r1": NOTES, "r2": waits}, files(data, "acme"))
    await project.upgrade("r1")
    with closing(sqlite3.connect(data / "acme.db")) as connection, connection:
        connection.execute("INSERT INTO notes VALUES (1)")
    before = (data / "acme.db").read_bytes()

    async def copied() -> list[Path]:
        return list(data.glob(".orchestrator_scratch_*/acme.db"))

    await ended(project, copied, signal.SIGKILL)
    assert await copied()
    flag.touch()
    report = await orchestrator.rehearse(project.fleet)
    assert report.exit_code == 0, report.as_json()
    assert list(data.glob(".orchestrator_scratch_*")) == []
    assert (data / "acme.db").read_bytes() == before
