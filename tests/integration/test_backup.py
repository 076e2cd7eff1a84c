"""Backups: before an upgrade or on their own, listed in the journal; a tenant is put back whole, or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
from contextlib import closing
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

import orchestrator
from orchestrator.databases import server_binaries
from orchestrator.databases.postgresql.session import lock_key
from orchestrator.errors import DatabaseError
from orchestrator.journal.journal import Journal, default_url
from tests.command_line import FIRST, SECOND, THIRD, Project, assert_error, statuses, tenant_of
from tests.projects import ACCOUNTS, make_project, until
from tests.servers import PostgresServer, execute, fetch

AGREED = ("--yes", "--allow-data-loss")


def rows(url: str, table: str) -> list[tuple[Any, ...]]:
    """What a table holds, in order."""
    return [tuple(row) for row in fetch(url, f"SELECT * FROM {table} ORDER BY 1")]


@pytest.fixture
def fleet(project: Project) -> Project:
    """Two tenants at FIRST, each with rows."""
    project.fleet("acme", "globex")
    project.json("upgrade", FIRST)
    project.execute("INSERT INTO acme.notes VALUES (1), (2); INSERT INTO globex.notes VALUES (7)")
    return project


def beside(project: Project) -> list[str]:
    """Schemas and databases that a restore has left."""
    query = (
        "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'orchestrator%'"
        " UNION SELECT datname FROM pg_database WHERE datname LIKE 'orchestrator%'"
    )
    return [row[0] for row in fetch(project.url, query)]


def test_before_upgrade_and_back(fleet: Project) -> None:
    """upgrade --backup writes a dump, a checksum and a manifest for each tenant; restore RUN puts one back whole."""
    run = fleet.json("upgrade", "--backup", "kept")
    assert statuses(run) == {"acme": "succeeded", "globex": "succeeded"}
    assert sorted(each["tenant"] for each in run["backups"]) == ["acme", "globex"]
    for backup in run["backups"]:
        file = Path(backup["file"])
        manifest = json.loads(Path(f"{file}.json").read_text())
        assert file.parent == fleet.workspace.path / "kept" / run["run"]
        assert sha256(file.read_bytes()).hexdigest() == backup["sha256"] == manifest["sha256"]
        assert (file.stat().st_size, [FIRST]) == (backup["bytes"], manifest["heads"])
        assert (manifest["tenant"], manifest["schema"], manifest["run"]) == (*[backup["tenant"]] * 2, run["run"])
        assert manifest["made_by"].startswith("pg_dump ")
        assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(Path(f"{file}.json").stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert len(list((fleet.workspace.path / "kept" / run["run"]).iterdir())) == 4
    assert fleet.json("runs", "show", run["run"]) == run

    fleet.execute("DELETE FROM acme.notes; INSERT INTO globex.notes VALUES (8, 'new')")
    restored = fleet.json("restore", run["run"], "-t", "acme", *AGREED)
    assert (restored["command"], statuses(restored)) == ("restore", {"acme": "succeeded"})
    acme = tenant_of(restored, "acme")
    assert (acme["from"], acme["to"]) == ([THIRD], [FIRST])
    assert fleet.heads("acme") == [FIRST]
    assert rows(fleet.url, "acme.notes") == [(1,), (2,)]
    assert fetch(fleet.url, "SELECT to_regclass('acme.extras')")[0][0] is None
    assert fleet.heads("globex") == [THIRD]
    assert rows(fleet.url, "globex.notes") == [(7, None), (8, "new")]
    assert beside(fleet) == []
    assert statuses(fleet.json("upgrade")) == {"acme": "succeeded", "globex": "already_current"}


def test_before_downgrade(fleet: Project) -> None:
    """What a downgrade throws away is in the backup."""
    fleet.json("upgrade")
    fleet.execute("UPDATE acme.notes SET body = 'x' || id")
    run = fleet.json("downgrade", FIRST, "-t", "acme", "--backup", "kept", *AGREED)
    assert rows(fleet.url, "acme.notes") == [(1,), (2,)]
    fleet.json("restore", run["run"], "--all", *AGREED)
    assert fleet.heads("acme") == [THIRD]
    assert rows(fleet.url, "acme.notes") == [(1, "x1"), (2, "x2")]


def test_before_rollback(fleet: Project) -> None:
    """A run that is taken back can be had again, with what came in after it."""
    run = fleet.json("upgrade")["run"]
    fleet.execute("UPDATE acme.notes SET body = 'x' || id")
    back = fleet.json("rollback", run, "-t", "acme", "--backup", "kept", *AGREED)
    assert (fleet.heads("acme"), [each["heads"] for each in back["backups"]]) == ([FIRST], [[THIRD]])
    fleet.json("restore", back["run"], "--all", *AGREED)
    assert rows(fleet.url, "acme.notes") == [(1, "x1"), (2, "x2")]


def test_backup_and_one_file(fleet: Project) -> None:
    """`backup` writes the selected tenants, and a dump or its manifest alone is enough to go back."""
    run = fleet.json("backup", "--to", "kept", "-t", "acme")
    assert (run["command"], run["status"], statuses(run)) == ("backup", "succeeded", {"acme": "succeeded"})
    (backup,) = run["backups"]
    for file in (backup["file"], backup["file"] + ".json"):
        fleet.execute("DROP SCHEMA acme CASCADE")
        assert statuses(fleet.json("restore", file, "-t", "acme", *AGREED)) == {"acme": "succeeded"}
        assert rows(fleet.url, "acme.notes") == [(1,), (2,)]
    assert fleet.heads("acme") == [FIRST]
    assert len(fleet.json("backup", "--backup", "kept")["backups"]) == 2


def test_restore_is_asked_for(fleet: Project) -> None:
    """Off a terminal it needs its flags, and a selection; what is missing is an error that touches nothing."""
    run = fleet.json("backup", "--to", "kept")["run"]
    file = str(next((fleet.workspace.path / "kept" / run).glob("acme-*.dump")))
    fleet.execute("DELETE FROM acme.notes")
    assert_error(fleet.run("restore", run, "-t", "acme"), "nobody is there to ask", "--yes --allow-data-loss")
    assert_error(fleet.run("restore", run, "-t", "acme", "--yes"), "--allow-data-loss")
    assert_error(fleet.run("restore", run, *AGREED), "restore needs to be told which tenants")
    assert_error(fleet.run("restore", file, "-t", "globex", *AGREED), "the backup is of acme")
    assert_error(fleet.run("restore", "nothing", "-t", "acme", *AGREED), "no run 'nothing'")
    assert_error(fleet.run("restore", "nothing.json", "-t", "acme", *AGREED), "no backup's manifest")
    assert_error(fleet.run("backup"), "Missing option '--to'")
    assert_error(fleet.run("resume", run), "was a backup", "orchestrator backup --to")
    assert rows(fleet.url, "acme.notes") == []
    assert fleet.heads("acme") == [FIRST]


def test_run_without_backups(fleet: Project) -> None:
    """A run that made none says how to make them."""
    run = fleet.json("upgrade")
    assert run["backups"] == []
    assert_error(fleet.run("restore", run["run"], "-t", "acme", *AGREED), "made no backup", "--backup DIR")
    assert_error(fleet.run("restore", "last", "-t", "acme", *AGREED), "no run has made a backup", "--backup DIR")


def test_changed_file_is_refused(fleet: Project) -> None:
    """One byte of one file is another one: nobody is touched, also not those whose file is whole."""
    run = fleet.json("backup", "--to", "kept")
    file = Path(run["backups"][1]["file"])
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    fleet.execute("DELETE FROM acme.notes")
    assert_error(fleet.run("restore", run["run"], "--all", *AGREED), str(file), "checksum", "nothing was touched")
    assert rows(fleet.url, "acme.notes") == []


def test_tenant_without_a_backup_there(fleet: Project) -> None:
    """A selected tenant that the run has no backup of is blocked, the others are restored."""
    run = fleet.json("backup", "--to", "kept", "-t", "acme")
    fleet.execute("DELETE FROM acme.notes")
    restored = fleet.json("restore", run["run"], "-t", "acme", "-t", "globex", *AGREED, exit_code=1)
    assert statuses(restored) == {"acme": "succeeded", "globex": "blocked"}
    assert tenant_of(restored, "globex")["error"]["type"] == "no_backup"
    assert rows(fleet.url, "acme.notes") == [(1,), (2,)]


async def test_failed_backup_keeps_a_tenant_from_being_migrated(fleet: Project) -> None:
    """A table that somebody has for himself cannot be dumped: its tenant fails untouched, the others go on."""
    blocker = await asyncpg.connect(fleet.url)
    await blocker.execute("BEGIN; LOCK TABLE acme.notes IN ACCESS EXCLUSIVE MODE")
    options = ("--backup", "kept", "--continue-on-error", "--lock-timeout", "200ms")
    run = fleet.json("upgrade", *options, exit_code=1)
    await blocker.close()
    assert statuses(run) == {"acme": "failed", "globex": "succeeded"}
    error = tenant_of(run, "acme")["error"]
    assert error["type"] == "backup"
    assert "waited longer than 0.2 s for a lock" in error["message"]
    assert "held by pid" in error["message"]
    assert fleet.heads("acme") == [FIRST]
    assert [each["tenant"] for each in run["backups"]] == ["globex"]
    assert [file.name[:7] for file in (fleet.workspace.path / "kept" / run["run"]).iterdir()] == ["globex-"] * 2
    resumed = fleet.json("resume")
    assert statuses(resumed) == {"acme": "succeeded", "globex": "succeeded"}
    # Remembered from the run's beginning.
    assert sorted(each["tenant"] for each in resumed["backups"]) == ["acme", "globex"]


async def test_dump_holds_up_nobody_elsewhere(fleet: Project) -> None:
    """While a dump waits for one tenant's table, others' DDL and everybody's rows go on; so they do while it runs."""
    blocker = await asyncpg.connect(fleet.url)
    await blocker.execute("BEGIN; LOCK TABLE acme.notes IN ACCESS EXCLUSIVE MODE")
    other = await asyncpg.connect(fleet.url)
    await other.execute("SET lock_timeout = '1s'")
    waiting = "SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted AND query LIKE 'LOCK%'"
    with fleet.start("backup", "--to", "kept", "--lock-timeout", "30s", "--json") as process:
        await until(lambda: other.fetch(waiting), lambda found: bool(found) or process.poll() is not None)
        await other.execute("ALTER TABLE globex.notes ADD COLUMN more int")
        await other.execute("CREATE TABLE public.shared (id int); DROP TABLE public.shared")
        await blocker.execute("COMMIT")
        out, err = process.communicate(timeout=60)
    await blocker.close()
    await other.close()
    assert process.returncode == 0, err
    assert statuses(json.loads(out)) == {"acme": "succeeded", "globex": "succeeded"}


async def test_locked_tenant(fleet: Project) -> None:
    """Whoever migrates a tenant is waited for, and not for ever; neither command touches it meanwhile."""
    run = fleet.json("backup", "--to", "kept")["run"]
    loaded = orchestrator.load(fleet.workspace.path / "tenants.yaml")
    raw = await asyncpg.connect(fleet.url)
    await raw.execute("SELECT pg_advisory_lock($1)", lock_key(urlsplit(fleet.url).path[1:], "acme"))
    hurry = orchestrator.Execution(lock_wait=0)
    kept = fleet.workspace.path / "kept"
    assert (await orchestrator.backup(loaded, kept, execution=hurry)).summary == {"succeeded": 1, "locked": 1}
    result = await orchestrator.restore(loaded, run, everyone=True, execution=hurry)
    await raw.close()
    assert {each.tenant: each.status.value for each in result.tenants} == {"acme": "locked", "globex": "succeeded"}


def test_what_refers_to_the_tenant_from_outside(fleet: Project) -> None:
    """Another schema's foreign key or view would stay with what is replaced: refused, and nothing is touched."""
    run = fleet.json("backup", "--to", "kept")["run"]
    fleet.execute("CREATE TABLE public.marks (note int REFERENCES acme.notes); CREATE VIEW seen AS TABLE globex.notes")
    fleet.execute("DELETE FROM acme.notes")
    restored = fleet.json("restore", run, "--all", *AGREED, exit_code=1)
    assert statuses(restored) == {"acme": "failed", "globex": "failed"}
    assert "marks_note_fkey" in tenant_of(restored, "acme")["error"]["message"]
    assert "seen" in tenant_of(restored, "globex")["error"]["message"]
    assert rows(fleet.url, "acme.notes") == []
    assert rows(fleet.url, "public.seen") == [(7,)]


def test_a_dump_that_cannot_be_restored_changes_nothing(fleet: Project) -> None:
    """It needs a table outside that is gone: the transaction is rolled back, and the tenant is what it was."""
    fleet.execute("CREATE TABLE public.plans (id int PRIMARY KEY); CREATE TABLE acme.uses (plan int REFERENCES plans)")
    run = fleet.json("backup", "--to", "kept", "-t", "acme")["run"]
    fleet.execute("DROP TABLE acme.uses; DROP TABLE public.plans; INSERT INTO acme.notes VALUES (3)")
    restored = fleet.json("restore", run, "-t", "acme", *AGREED, exit_code=1)
    assert "plans" in tenant_of(restored, "acme")["error"]["message"]
    assert rows(fleet.url, "acme.notes") == [(1,), (2,), (3,)]
    assert beside(fleet) == []


def test_extension_in_the_tenants_schema(fleet: Project) -> None:
    """pg_dump of one schema leaves it out, and what it leaves out is not called a backup."""
    fleet.execute("CREATE EXTENSION citext SCHEMA acme")
    run = fleet.json("backup", "--to", "kept", exit_code=1)
    assert statuses(run) == {"acme": "failed", "globex": "succeeded"}
    assert "citext" in tenant_of(run, "acme")["error"]["message"]


def test_kept(fleet: Project) -> None:
    """--keep leaves what is replaced under another name, which no source by pattern takes for a tenant."""
    run = fleet.json("backup", "--to", "kept", "-t", "acme")["run"]
    fleet.execute("INSERT INTO acme.notes VALUES (3)")
    told = [fleet.run("restore", run, "-t", "acme", "--keep", *AGREED).stderr for _ in range(2)]
    first, second = beside(fleet)
    assert all(
        sum(f"acme: what it was before is in schema {name}\n" in text for text in told) == 1 for name in (first, second)
    )
    assert sorted([len(rows(fleet.url, f"{first}.notes")), len(rows(fleet.url, f"{second}.notes"))]) == [2, 3]
    fleet.workspace.write(
        "tenants.yaml", f'servers: {{main: {{url: "{fleet.url}"}}}}\nsources: [{{schemas: "*", server: main}}]\n'
    )
    assert {each["tenant"] for each in fleet.json("tenants", "list")["tenants"]} == {"acme", "globex", "public"}


def test_a_restored_tenant_is_not_partial_any_more(project: Project) -> None:
    """What a step outside transactions left is gone with the tables that it was left in."""
    project.fleet("acme")
    project.json("upgrade", THIRD)
    project.execute("INSERT INTO acme.notes VALUES (1, 'same'), (2, 'same')")
    index = "op.create_index('ix_body', 'notes', ['body'], unique=True, postgresql_concurrently=True)"
    body = f"with op.get_context().autocommit_block(): {index}"
    project.revision("d4d4d4d4d4d4", THIRD, body)
    run = project.json("upgrade", "--backup", "kept", exit_code=1)
    assert statuses(run) == {"acme": "partial"}
    project.json("restore", run["run"], "--all", *AGREED)
    assert fetch(project.url, "SELECT 1 FROM pg_indexes WHERE indexname = 'ix_body'") == []
    assert project.json("status")["summary"] == {"behind": 1}


def test_names(project: Project) -> None:
    """Ids and schemas that mean something to a shell, to patterns, to SQL, to a file system."""
    names = [
        'a"b',
        "a'b",
        "A*b",
        "a.b",
        "..",
        "-t",
        "a/b",
        "$$;x",
        "日本",
        "a\\b",
        "a|b",
        "a:b",
        "%(id)s",
        "a?b",
        "a b",
    ]
    server = json.dumps({"main": {"url": project.url}})
    tenants = json.dumps([{"id": name} for name in names], ensure_ascii=False)
    project.workspace.write("tenants.yaml", f"servers: {server}\ndefaults: {{server: main}}\ntenants: {tenants}\n")
    project.json("upgrade", FIRST, "--provision")
    quoted = {name: '"' + name.replace('"', '""') + '"' for name in names}
    project.execute("".join(f"INSERT INTO {quoted[name]}.notes VALUES ({at});" for at, name in enumerate(names)))
    run = project.json("backup", "--to", "kept")
    assert set(statuses(run).values()) == {"succeeded"}, run["causes"]
    assert len({backup["file"] for backup in run["backups"]}) == len(names)
    project.execute("".join(f"DELETE FROM {quoted[name]}.notes;" for name in names))
    restored = project.json("restore", run["run"], "--all", *AGREED)
    assert set(statuses(restored).values()) == {"succeeded"}, restored["causes"]
    for at, name in enumerate(names):
        assert rows(project.url, f"{quoted[name]}.notes") == [(at,)]
    assert beside(project) == []


async def test_database_of_its_own(project: Project, make_database: Any, pg: PostgresServer) -> None:
    """Restored beside the live one and swapped by name, though others are connected; what belongs to it is kept."""
    url = make_database()
    name = urlsplit(url).path[1:]
    project.fleet(f"{{id: acme, isolation: database, database: {name}}}", schemas=False)
    project.json("upgrade", FIRST)
    execute(url, "INSERT INTO notes VALUES (1); CREATE SEQUENCE counted START 41; SELECT nextval('counted')")
    execute(
        pg.url,
        f'ALTER DATABASE {name} SET search_path = public, "Odd \'one"; REVOKE ALL ON DATABASE {name} FROM PUBLIC',
    )
    execute(pg.url, f"ALTER DATABASE {name} SET work_mem = '5MB'; COMMENT ON DATABASE {name} IS 'it''s'")
    belongs = (
        "SELECT datacl, datconnlimit, shobj_description(d.oid, 'pg_database'), datcollate, setconfig FROM pg_database d"
        f" LEFT JOIN pg_db_role_setting ON setdatabase = d.oid WHERE datname = '{name}'"
    )
    before = fetch(pg.url, belongs)
    run = project.json("upgrade", "--backup", "kept")
    execute(url, "INSERT INTO notes VALUES (2, 'new')")
    connected = await asyncpg.connect(url)
    restored = project.json("restore", run["run"], "--all", *AGREED)
    assert statuses(restored) == {"acme": "succeeded"}
    assert (rows(url, "notes"), fetch(url, "SELECT nextval('counted')")) == ([(1,)], [(42,)])
    assert fetch(pg.url, belongs) == before
    assert beside(project) == []
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await connected.execute("SELECT 1")
    await connected.close(timeout=1)

    execute(pg.url, f"DROP DATABASE {name} WITH (FORCE)")
    file = run["backups"][0]["file"]
    assert statuses(project.json("restore", file, "-t", "acme", *AGREED)) == {"acme": "succeeded"}
    assert rows(url, "notes") == [(1,)]


def test_database_that_two_tenants_share(project: Project) -> None:
    """A dump of the whole database would take the other one back, too."""
    project.fleet("{id: whole, isolation: database}", "acme", schemas=False)
    name = urlsplit(project.url).path[1:]
    project.workspace.write(
        "tenants.yaml",
        f'servers: {{main: {{url: "{project.url}"}}}}\ndefaults: {{server: main}}\n'
        f"tenants: [{{id: whole, isolation: database, database: {name}}}, {{id: acme, database: {name}}}]\n",
    )
    project.execute("CREATE SCHEMA acme")
    project.json("upgrade")
    run = project.json("backup", "--to", "kept", "-t", "whole")["run"]
    restored = project.json("restore", run, "-t", "whole", *AGREED, exit_code=1)
    assert "acme is in it, too" in tenant_of(restored, "whole")["error"]["message"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_sqlite(tmp_path: Path, mode: str) -> None:
    """A file in use is copied, and put back under connections that stay; a missing one is made again."""
    server = {"files": {"url": f"sqlite:///{tmp_path / 'data'}"}}
    tenants = json.dumps({"servers": server, "defaults": {"server": "files", "isolation": "file"}, "tenants": ["acme"]})
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": "op.execute('CREATE TABLE more (id int)')"}, tenants)
    asyncio.run(project.upgrade("r1"))
    (file,) = (path for path in (tmp_path / "data").iterdir() if not path.name.startswith("."))
    with closing(sqlite3.connect(file, isolation_level=None)) as live:
        live.execute(f"PRAGMA journal_mode = {mode}")
        live.execute("INSERT INTO accounts VALUES (1), (2)")
        run = asyncio.run(project.upgrade(execution=orchestrator.Execution(backup=tmp_path / "kept")))
        assert run.summary == {"succeeded": 1}, run.as_json()
        live.execute("DELETE FROM accounts")
        result = asyncio.run(orchestrator.restore(project.fleet, run.run.id, everyone=True))
        assert result.summary == {"succeeded": 1}, result.as_json()
        assert live.execute("SELECT id FROM accounts ORDER BY 1").fetchall() == [(1,), (2,)]
        assert live.execute("SELECT name FROM sqlite_master WHERE name = 'more'").fetchall() == []
        assert live.execute("PRAGMA journal_mode").fetchone() == (mode,)
    for path in (tmp_path / "data").glob(f"{file.name}*"):
        path.unlink()
    asyncio.run(orchestrator.restore(project.fleet, run.backups[0]["file"], tenants=["acme"]))
    with closing(sqlite3.connect(file)) as live:
        assert live.execute("SELECT version_num FROM alembic_version").fetchall() == [("r1",)]
    assert not list((tmp_path / "data").glob(".*restoring*"))


def test_listed_in_the_journal(fleet: Project) -> None:
    """An event for each backup, with all that finds and checks it, and one for each restore."""
    run = fleet.json("backup", "--to", "kept", "-t", "acme")
    restored = fleet.json("restore", run["run"], "-t", "acme", *AGREED)

    async def events(run_id: str, kind: str) -> list[Any]:
        root = fleet.workspace.path
        journal = await Journal.open(default_url(root), root=root, read_only=True)
        found = await journal.events(run_id, kind=kind)
        await journal.close()
        return [(event.tenant, event.detail) for event in found]

    ((tenant, detail),) = asyncio.run(events(run["run"], "backup"))
    assert (tenant, detail["sha256"], detail["heads"]) == ("acme", run["backups"][0]["sha256"], [FIRST])
    ((tenant, detail),) = asyncio.run(events(restored["run"], "restore"))
    assert (tenant, detail["file"], detail["left"]) == ("acme", run["backups"][0]["file"], None)


def test_directory_that_cannot_be_written(fleet: Project) -> None:
    """Found before the run begins: nothing is touched."""
    fleet.workspace.write("taken", "a file")
    assert_error(fleet.run("upgrade", "--backup", "taken"), "cannot be written into", "taken")
    assert_error(fleet.run("backup", "--to", "taken/more"), "cannot be written into")
    assert fleet.heads("acme") == [FIRST]


def test_older_pg_dump(fleet: Project, tmp_path: Path) -> None:
    """The first on PATH that is new enough is taken; with none at all nothing is touched, and the hint says what."""
    old = tmp_path / "old"
    old.mkdir()
    for name in ("pg_dump", "pg_restore", "psql"):
        (old / name).write_text('#!/bin/sh\necho "pg_dump (PostgreSQL) 9.6.24"\n')
        (old / name).chmod(0o755)
    path = f"{old}{os.pathsep}{os.environ['PATH']}"
    run = fleet.json("backup", "--to", "kept", env={"PATH": path})
    assert statuses(run) == {"acme": "succeeded", "globex": "succeeded"}
    with pytest.raises(DatabaseError, match="99 or newer") as refused:
        server_binaries.find_client(99)
    assert "postgresql-client-99" in (refused.value.hint or "")


def test_second_backup_of_a_resumed_run(project: Project) -> None:
    """A run that goes on where it failed half-way saves that, too; restoring it means its beginning."""
    project.fleet("acme")
    project.json("upgrade", FIRST)
    project.execute("CREATE TABLE acme.extras (id int)")
    run = project.json("upgrade", "--backup", "kept", exit_code=1)
    assert project.heads("acme") == [SECOND]
    project.execute("DROP TABLE acme.extras")
    resumed = project.json("resume")
    assert [each["heads"] for each in resumed["backups"]] == [[FIRST], [SECOND]]
    assert len({each["file"] for each in resumed["backups"]}) == 2
    project.json("restore", run["run"], "--all", *AGREED)
    assert project.heads("acme") == [FIRST]


async def test_restore_waits_for_no_lock_for_ever(project: Project) -> None:
    """A foreign key to a table that all tenants share locks that: a restore gives up, and nobody queues for long."""
    project.fleet("acme", more="policy: {retries: 0}\n")
    project.json("upgrade", FIRST)
    project.execute(
        "CREATE TABLE public.plans (id int PRIMARY KEY); CREATE TABLE acme.uses (plan int REFERENCES plans)"
    )
    run = project.json("backup", "--to", "kept")["run"]
    project.execute("INSERT INTO acme.notes VALUES (3)")
    blocker = await asyncpg.connect(project.url)
    await blocker.execute("BEGIN; LOCK TABLE public.plans IN ROW EXCLUSIVE MODE")
    restored = project.json("restore", run, "--all", "--lock-timeout", "200ms", *AGREED, exit_code=1)
    await blocker.close()
    assert "lock timeout" in tenant_of(restored, "acme")["error"]["message"]
    assert rows(project.url, "acme.notes") == [(3,)]


#: In the place of pg_dump: writes down when it begins and when it has ended.
COUNTED = """#!/bin/sh
case "$*" in *--version*) exec {program} "$@";; esac
echo 1 >> {seen}
{program} "$@"
code=$?
echo -1 >> {seen}
exit $code
"""


def test_no_more_dumps_at_once_than_the_server_takes(project: Project, tmp_path: Path) -> None:
    """max_concurrency bounds the programs as it bounds migrations, whatever --jobs says."""
    names = [f"t{number}" for number in range(8)]
    project.fleet(*names)
    tenants = project.workspace.path / "tenants.yaml"
    tenants.write_text(tenants.read_text().replace("main: {url: ", "main: {max_concurrency: 2, url: "))
    project.json("upgrade", FIRST)
    major = int(fetch(project.url, "SHOW server_version_num")[0][0]) // 10000
    bindir = server_binaries.find_client(major).bindir
    (tmp_path / "bin").mkdir()
    for name in ("pg_dump", "pg_restore", "psql"):
        shim = tmp_path / "bin" / name
        shim.write_text(COUNTED.format(program=bindir / name, seen=tmp_path / "seen"))
        shim.chmod(0o755)
    path = {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    for command in (("backup", "--to", "kept"), ("upgrade", "--backup", "kept")):
        (tmp_path / "seen").write_text("")
        assert project.json(*command, "--jobs", "32", env=path)["summary"] == {"succeeded": 8}
        steps = [int(line) for line in (tmp_path / "seen").read_text().split()]
        assert (len(steps), max(accumulate(steps))) == (16, 2)
