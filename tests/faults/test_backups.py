"""Backups of much data and in bad moments: every row is compared, restores are killed, tenants are busy meanwhile."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.command_line import FIRST, THIRD, Project, statuses
from tests.names import KNOWN, fits
from tests.projects import held, until, waiting_backend
from tests.servers import PostgresServer, execute, fetch
from tests.workspace import Workspace

AGREED = ("--yes", "--allow-data-loss")
GATE = 42
#: Rows of 1 kB: 100 MB when all is wanted.
MANY, SOME = 100_000, 20_000
#: Makes an index whose expression waits at the gate: dumped with the table, it stops a restore at a known point.
_GATED_INDEX = f"""
CREATE FUNCTION public.gate(id int) RETURNS int IMMUTABLE LANGUAGE sql
AS 'SELECT pg_advisory_xact_lock({GATE}); SELECT id';
CREATE INDEX gated ON acme.notes (public.gate(id));
"""


@pytest.fixture
def project(workspace: Workspace, database: str) -> Project:
    """A small history and an empty database."""
    return Project.create(workspace, database)


def fill(url: str, schema: str, count: int) -> None:
    """Rows of a kilobyte that no compression makes small, with what text may hold, and large values beside them."""
    execute(
        url,
        f"""
        CREATE TABLE {schema}.big (id int PRIMARY KEY, body text, raw bytea, at timestamptz, doc jsonb, mood float8);
        INSERT INTO {schema}.big SELECT n, E'\\t"''\\\\ \u65e5\u672c\n' ||
            (SELECT string_agg(md5(n || ':' || m), '') FROM generate_series(1, 32) m),
            decode(md5(n::text), 'hex'), 'epoch'::timestamptz + n * interval '1.000001 s',
            jsonb_build_object('n', n, 'list', ARRAY[n, NULL]), CASE WHEN n % 7 = 0 THEN 'NaN' ELSE n / 3.0 END
        FROM generate_series(1, {count}) n;
        CREATE INDEX ON {schema}.big (at);
        """,
    )


def all_rows(url: str, schema: str) -> dict[int, str]:
    """Every row's digest, by its key."""
    return {row[0]: row[1] for row in fetch(url, f"SELECT id, md5(big::text) FROM {schema}.big")}


@pytest.mark.parametrize("isolation", ["schema", "database"])
def test_every_row_comes_back(
    project: Project, make_database: Any, pg: PostgresServer, isolation: str, thorough: bool
) -> None:
    """A tenant of 100 MB is saved before an upgrade and put back, every row and index of it; its neighbour stays."""
    url, schema = (project.url, "acme") if isolation == "schema" else (make_database(), "public")
    name = url.rpartition("/")[2]
    acme = "acme" if isolation == "schema" else f"{{id: acme, isolation: database, database: {name}}}"
    project.fleet(acme, "globex")
    project.json("upgrade", FIRST)
    fill(url, schema, MANY if thorough else SOME)
    before, indexes = all_rows(url, schema), fetch(url, "SELECT indexdef FROM pg_indexes ORDER BY 1")
    size = fetch(url, f"SELECT pg_total_relation_size('{schema}.big')")[0][0]
    assert size > (100_000_000 if thorough else 20_000_000)
    run = project.json("upgrade", "--backup", "kept", timeout=300)
    assert statuses(run) == {"acme": "succeeded", "globex": "succeeded"}
    execute(url, f"DELETE FROM {schema}.big WHERE id % 2 = 0; UPDATE {schema}.big SET body = 'other' WHERE id % 3 = 0")
    assert statuses(project.json("restore", run["run"], "-t", "acme", *AGREED, timeout=300)) == {"acme": "succeeded"}
    assert all_rows(url, schema) == before
    shown = "SELECT indexdef FROM pg_indexes WHERE tablename <> 'extras' ORDER BY 1"
    theirs = [row[0] for row in fetch(url, shown) if "globex" not in row[0]]
    assert theirs == [row[0] for row in indexes if "globex" not in row[0]]
    assert project.heads("globex") == [THIRD]


async def restoring(project: Project, run: str, *options: str) -> asyncio.subprocess.Process:
    """A restore of ``acme`` that goes on."""
    return await asyncio.create_subprocess_exec(
        "env", "--default-signal=INT", sys.executable, "-m", "orchestrator", "restore", run, "-t", "acme", *AGREED,
        *options,
        cwd=project.workspace.path, env=project.workspace.environment(), stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip


async def test_killed_in_a_restore(project: Project) -> None:
    """kill -9 in its middle: the live tenant was there all the time and is what it was; the same command does it."""
    project.fleet("acme")
    project.json("upgrade", FIRST)
    project.execute(f"INSERT INTO acme.notes VALUES (1), (2); {_GATED_INDEX}")
    run = project.json("backup", "--to", "kept")["run"]
    project.execute("INSERT INTO acme.notes VALUES (3)")
    async with held(project.url, GATE) as gate:
        process = await restoring(project, run)
        await waiting_backend(gate)
        # Nobody has noticed anything: it can be read and written.
        assert await gate.fetchval("SELECT count(*) FROM acme.notes") == 3
        await gate.execute("DELETE FROM acme.notes WHERE id = 2")
        process.kill()
        await process.communicate()
        assert await gate.fetchval("SELECT count(*) FROM acme.notes") == 2
        # psql is still waiting in the server, and has the tenant's lock: nobody comes in between.
        blocked = await asyncio.to_thread(project.run, "upgrade", "-t", "acme", "--lock-wait", "0", "--json")
        assert statuses(json.loads(blocked.stdout)) == {"acme": "locked"}
    theirs = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'orchestrator %'"
    observer = await asyncpg.connect(project.url)
    await until(lambda: observer.fetch(theirs), lambda rows: not rows)
    await observer.close()
    assert sorted(row[0] for row in fetch(project.url, "SELECT id FROM acme.notes")) == [1, 3]
    assert statuses(project.json("restore", run, "-t", "acme", *AGREED)) == {"acme": "succeeded"}
    assert sorted(row[0] for row in fetch(project.url, "SELECT id FROM acme.notes")) == [1, 2]
    assert fetch(project.url, "SELECT 1 FROM pg_namespace WHERE nspname LIKE 'orchestrator%'") == []


async def test_killed_between_the_swap_and_the_journal(project: Project) -> None:
    """kill -9 when the tenant is back and the journal does not say so yet: all tell what is so, and it can be repeated.

    A half-done revision that is in the backup is in the journal all the same: it was there before.
    """
    project.fleet("acme")
    project.json("upgrade", FIRST)
    leaves = 'op.execute("CREATE TABLE inside (id int)")'
    body = f"with op.get_context().autocommit_block(): {leaves}\n    op.execute('SELECT 1 / 0')"
    project.revision("d4d4d4d4d4d4", FIRST, body)
    assert statuses(project.json("upgrade", "d4d4d4d4d4d4", exit_code=1)) == {"acme": "partial"}
    run = project.json("backup", "--to", "kept")["run"]
    project.json("stamp", "d4d4d4d4d4d4", "-t", "acme")
    # Which finds that the step is through.
    assert statuses(project.json("upgrade", "d4d4d4d4d4d4")) == {"acme": "already_current"}
    project.execute("INSERT INTO acme.notes VALUES (3)")
    async with held(project.url, GATE) as reader:
        # Whoever reads a table keeps its schema from being dropped, and from nothing else.
        await reader.execute("BEGIN; SELECT * FROM acme.notes")
        process = await restoring(project, run, "--lock-timeout", "1h")
        dropping = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE%'"
        observer = await asyncpg.connect(project.url)
        await until(lambda: observer.fetch(dropping), lambda rows: bool(rows) or process.returncode is not None)
        process.kill()
        await process.communicate()
        await reader.execute("ROLLBACK")
    await observer.close()
    assert (fetch(project.url, "SELECT * FROM acme.notes"), project.heads("acme")) == ([], [FIRST])
    assert project.json("status")["summary"] == {"partial": 1}
    shown = project.json("runs", "show", "last")
    assert (shown["command"], shown["status"]) == ("restore", "interrupted")
    assert "is not resumed" in project.run("resume", shown["run"]).stderr
    assert statuses(project.json("upgrade", "d4d4d4d4d4d4", exit_code=1)) == {"acme": "partial"}
    for source in (run, "last"):
        assert statuses(project.json("restore", source, "-t", "acme", *AGREED)) == {"acme": "succeeded"}
    assert fetch(project.url, "SELECT 1 FROM pg_namespace WHERE nspname LIKE 'orchestrator%'") == []


async def test_interrupted_restore(project: Project) -> None:
    """Ctrl-C twice cuts it off: the tenant is what it was, the journal says so, and no program is left."""
    project.fleet("acme")
    project.json("upgrade", FIRST)
    project.execute(f"INSERT INTO acme.notes VALUES (1), (2); {_GATED_INDEX}")
    run = project.json("backup", "--to", "kept")["run"]
    project.execute("DROP INDEX acme.gated; DELETE FROM acme.notes")
    async with held(project.url, GATE) as gate:
        process = await restoring(project, run)
        await waiting_backend(gate)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while b"no new tenant starts" not in (line := await process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGINT)
        await process.communicate()
        assert process.returncode == 130
        theirs = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'orchestrator %'"
        await until(lambda: gate.fetch(theirs), lambda rows: not rows)
    assert fetch(project.url, "SELECT * FROM acme.notes") == []
    assert statuses(project.json("runs", "show", "last")) == {"acme": "interrupted"}


async def test_killed_in_the_restore_of_a_database(project: Project, make_database: Any) -> None:
    """The half that was made beside is thrown away by the next restore; until then the live one is used."""
    url = make_database()
    name = url.rpartition("/")[2]
    project.fleet(f"{{id: acme, isolation: database, database: {name}}}", schemas=False)
    project.json("upgrade", FIRST)
    execute(url, "INSERT INTO notes VALUES (1), (2)")
    run = project.json("backup", "--to", "kept")["run"]
    execute(url, "DELETE FROM notes")
    beside = "SELECT datname FROM pg_database WHERE datname LIKE 'orchestrator%'"
    observer = await asyncpg.connect(project.url)
    process = await restoring(project, run)
    await until(lambda: observer.fetch(beside), lambda rows: bool(rows) or process.returncode is not None)
    process.kill()
    await process.communicate()
    await observer.close()
    assert fetch(url, "SELECT * FROM notes") == []
    assert statuses(project.json("restore", run, "-t", "acme", *AGREED)) == {"acme": "succeeded"}
    assert sorted(row[0] for row in fetch(url, "SELECT id FROM notes")) == [1, 2]
    assert fetch(project.url, beside) == []


async def test_busy_tenants(project: Project, thorough: bool) -> None:
    """Rows written and columns added elsewhere while a large tenant is dumped and restored wait for nothing."""
    project.fleet("acme", "globex")
    project.json("upgrade", FIRST)
    fill(project.url, "acme", MANY if thorough else SOME)
    ended = asyncio.Event()

    async def busy() -> int:
        """Works until told, with hardly any patience for locks."""
        raw = await asyncpg.connect(project.url)
        await raw.execute("SET lock_timeout = '500ms'")
        number = 0
        while not ended.is_set():
            number += 1
            await raw.execute("ALTER TABLE globex.notes RENAME TO renamed; ALTER TABLE globex.renamed RENAME TO notes")
            await raw.execute(f"INSERT INTO acme.notes VALUES ({number}) ON CONFLICT DO NOTHING")
        await raw.close()
        return number

    working = asyncio.create_task(busy())
    run = await asyncio.to_thread(project.json, "backup", "--to", "kept", "-t", "acme", timeout=300)
    restored = await asyncio.to_thread(project.json, "restore", run["run"], "-t", "acme", *AGREED, timeout=300)
    ended.set()
    assert await working > 10
    assert statuses(restored) == {"acme": "succeeded"}


def test_names(project: Project) -> None:
    """Every name that was ever trouble: saved, put back, and nobody else touched."""
    names = [name for name in KNOWN if fits(name)]
    tenants = json.dumps([{"id": name} for name in names], ensure_ascii=False)
    server = json.dumps({"main": {"url": project.url}})
    project.workspace.write("tenants.yaml", f"servers: {server}\ndefaults: {{server: main}}\ntenants: {tenants}\n")
    project.json("upgrade", FIRST, "--provision")
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    project.execute("".join(f"INSERT INTO {name}.notes VALUES ({at});" for at, name in enumerate(quoted)))
    run = project.json("backup", "--to", "kept", timeout=300)
    assert set(statuses(run).values()) == {"succeeded"}, run["causes"]
    project.execute("".join(f"DELETE FROM {name}.notes;" for name in quoted))
    restored = project.json("restore", run["run"], "--all", *AGREED, timeout=300)
    assert set(statuses(restored).values()) == {"succeeded"}, restored["causes"]
    for at, name in enumerate(quoted):
        assert [row[0] for row in fetch(project.url, f"SELECT id FROM {name}.notes")] == [at]


#: Puts a dump back as the adapter does; argv has the file and the dump.
_PUT_BACK = """
import sys
from pathlib import Path
from orchestrator.databases.dumping import Restoring
from orchestrator.databases.sqlite.dump import Waiting, restore_file
from orchestrator.fleet.tenant import Isolation, Limits, Tenant
file, dump = map(Path, sys.argv[1:])
tenant = Tenant("a", "files", Isolation.FILE, file=str(file))
work = Restoring(tenant, dump, (), "alembic_version", "suite", Limits(), 0.0)
while True:
    restore_file(file, work, Waiting(5.0))
"""


def filled_with(path: Path, letter: str) -> None:
    """A SQLite file with ten megabytes of one letter."""
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT)")
        made.executemany("INSERT INTO t (body) VALUES (?)", [(letter * 500,)] * 20_000)


async def test_sqlite_killed_in_a_restore(tmp_path: Path, thorough: bool) -> None:
    """Whenever it is killed, the file has all of the rows that it had, or all of those of the dump."""
    file, dump = tmp_path / "a.db", tmp_path / "a.dump"
    journal = file.with_name("a.db-journal")
    filled_with(dump, "b")
    for _ in range(30 if thorough else 5):
        file.unlink(missing_ok=True)
        filled_with(file, "a")
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _PUT_BACK, str(file), str(dump))

        async def begun() -> bool:
            return journal.exists() and journal.stat().st_size > 0

        await until(begun, bool)
        process.kill()
        await process.wait()
        with closing(sqlite3.connect(file)) as found:
            assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert found.execute("SELECT count(*), count(DISTINCT body) FROM t").fetchone() == (20_000, 1)
