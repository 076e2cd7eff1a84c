"""A restore takes nobody else back, takes the right backup, forgets nothing half done, and trusts no file's name."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from orchestrator.errors import BackupError
from orchestrator.rollout.result import RunResult
from tests.projects import ACCOUNTS, Project, files, make_project, one, schemas, statuses
from tests.servers import execute, fetch

#: Leaves a table and fails, for as long as the tenant has no row in `accounts`.
FRAGILE = """
    with op.get_context().autocommit_block():
        op.execute("CREATE TABLE IF NOT EXISTS inside (id int)")
    op.execute("SELECT 1 / (SELECT count(*) FROM accounts)")
"""


async def restored(project: Project, source: Any, *tenants: str) -> RunResult:
    """``orchestrator restore``, of all that it has a backup of where no tenants are named."""
    return await orchestrator.restore(project.fleet, source, tenants=tenants, everyone=not tenants)


def whole_and(url: str, others: dict[str, Any]) -> str:
    """A tenants.yaml with ``whole``, to which the database at ``url`` belongs, and what ``others`` says."""
    name = urlsplit(url).path[1:]
    # The server's own database is another one: nothing but the name leads to the tenant's.
    server = {"url": url.replace(f"/{name}", "/postgres")}
    whole = {"id": "whole", "server": "main", "isolation": "database", "database": name}
    tenants = [whole, *others.pop("tenants", [])]
    return json.dumps({"servers": {"main": server, **others.pop("servers", {})}, "tenants": tenants, **others})


async def saved_whole(path: Path, url: str) -> tuple[Project, str]:
    """A tenant with a database of its own that has been backed up, and its row deleted since; the run."""
    project = make_project(path, {"r1": ACCOUNTS}, whole_and(url, {}))
    await project.upgrade()
    execute(url, "INSERT INTO accounts VALUES (1)")
    run = await orchestrator.backup(project.fleet, path / "kept")
    execute(url, "DELETE FROM accounts")
    return project, run.run.id


def other_way(url: str) -> str:
    """The same server under another host name."""
    parts = urlsplit(url)
    host = "localhost" if parts.hostname == "127.0.0.1" else "127.0.0.1"
    return parts._replace(netloc=f"{parts.username}@{host}:{parts.port}").geturl()


@pytest.mark.parametrize("how", ["listed", "source", "the same database twice"])
async def test_neighbour_by_another_address(tmp_path: Path, database: str, how: str) -> None:
    """A tenant in the same database is found though its server has another name and address, and no table yet."""
    project, run = await saved_whole(tmp_path, database)
    other = {"servers": {"other": {"url": other_way(database)}}}
    execute(database, "CREATE SCHEMA acme")
    more: dict[str, Any] = {
        "listed": {"tenants": [{"id": "acme", "server": "other"}]},
        "source": {"sources": [{"schemas": "ac*", "server": "other"}]},
        "the same database twice": {"tenants": [{"id": "acme", "server": "other", "isolation": "database"}]},
    }[how]
    if how == "the same database twice":
        more["tenants"][0]["database"] = urlsplit(database).path[1:]
    (tmp_path / "tenants.yaml").write_text(whole_and(database, other | more))
    result = await restored(project, run)
    assert statuses(result) == {"whole": "blocked"}
    error = one(result, "whole")["error"]
    assert (error["type"], "acme is in it, too" in error["message"]) == ("shared_database", True)
    assert fetch(database, "SELECT * FROM accounts") == []


async def test_stranger_in_the_database(tmp_path: Path, database: str) -> None:
    """A schema with a version table of its own is somebody's, also where this fleet does not have him."""
    project, run = await saved_whole(tmp_path, database)
    execute(database, "CREATE SCHEMA gone; CREATE TABLE gone.alembic_version (version_num text)")
    result = await restored(project, run)
    assert statuses(result) == {"whole": "blocked"}
    assert "that this fleet does not have: gone" in one(result, "whole")["error"]["message"]
    execute(database, "DROP SCHEMA gone CASCADE; CREATE SCHEMA own; CREATE TABLE own.things (id int)")
    assert statuses(await restored(project, run)) == {"whole": "succeeded"}
    assert fetch(database, "SELECT * FROM accounts") == [(1,)]


async def test_server_that_is_down_holds_up_nobody(
    tmp_path: Path, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A tenant whose server does not answer is told of, where its database has the same name; the restore goes on."""
    project, run = await saved_whole(tmp_path, database)
    name = urlsplit(database).path[1:]
    down = {"down": {"url": f"postgresql://nobody@127.0.0.1:1/{name}"}}
    tenants = [{"id": "acme", "server": "down"}]
    (tmp_path / "tenants.yaml").write_text(whole_and(database, {"servers": down, "tenants": tenants}))
    assert statuses(await restored(project, run)) == {"whole": "succeeded"}
    assert "server down does not answer" in caplog.text
    assert fetch(database, "SELECT * FROM accounts") == [(1,)]


async def test_one_file_of_two_tenants(tmp_path: Path) -> None:
    """A link leads to another tenant's file: what goes back to the one would take the other back, too."""
    project = make_project(tmp_path, {"r1": ACCOUNTS}, files(tmp_path / "data", "a", "b"))
    await project.upgrade()
    run = (await orchestrator.backup(project.fleet, tmp_path / "kept")).run.id
    (tmp_path / "data" / "b.db").unlink()
    (tmp_path / "data" / "b.db").symlink_to("a.db")
    result = await restored(project, run, "a")
    assert statuses(result) == {"a": "blocked"}
    assert "the whole file, and b is in it, too" in one(result, "a")["error"]["message"]


async def half_done(path: Path, url: str) -> tuple[Project, RunResult]:
    """A tenant that an upgrade with backups has left half done, and carried on with backups; it has `inside`."""
    project = make_project(path, {"r1": ACCOUNTS, "r2": FRAGILE}, schemas(url, "a"))
    await project.upgrade("r1")
    first = await project.upgrade(execution=Execution(backup=path / "kept"))
    assert statuses(first) == {"a": "partial"}
    execute(url, "INSERT INTO a.accounts VALUES (1)")
    resumed = await orchestrator.resume(project.fleet, execution=Execution(retry_partial=True))
    assert (resumed.run.id, statuses(resumed)) == (first.run.id, {"a": "succeeded"})
    assert [each["heads"] for each in resumed.backups] == [["r1"], ["r1"]]
    return project, resumed


async def test_first_backup_of_a_resumed_run(tmp_path: Path, database: str) -> None:
    """The state before the run is in the first backup; the second, at the same heads, has half of a revision in it."""
    project, run = await half_done(tmp_path, database)
    assert statuses(await restored(project, run.run.id)) == {"a": "succeeded"}
    assert fetch(database, "SELECT to_regclass('a.inside')") == [(None,)]
    assert (await orchestrator.status(project.fleet)).summary == {"behind": 1}


async def test_half_done_again(tmp_path: Path, database: str) -> None:
    """What was half done in a backup is half done after its restore, though it has been brought to its end since."""
    project, run = await half_done(tmp_path, database)
    assert (await orchestrator.status(project.fleet)).summary == {"current": 1}
    assert statuses(await restored(project, run.backups[1]["file"])) == {"a": "succeeded"}
    assert fetch(database, "SELECT to_regclass('a.inside')::text") == [("a.inside",)]
    assert statuses(await project.upgrade()) == {"a": "partial"}
    # And it is not, once it is where it was before.
    assert statuses(await restored(project, run.backups[0]["file"])) == {"a": "succeeded"}
    execute(database, "INSERT INTO a.accounts VALUES (1)")
    assert statuses(await project.upgrade()) == {"a": "succeeded"}


async def test_begun_before_the_backup(tmp_path: Path, database: str) -> None:
    """A backup of a tenant that is half done does not mend it; also where its manifest is from an earlier release."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": FRAGILE}, schemas(database, "a"))
    assert statuses(await project.upgrade()) == {"a": "partial"}
    run = await orchestrator.backup(project.fleet, tmp_path / "kept")
    manifest = Path(run.backups[0]["file"] + ".json")
    for known in (True, False):
        if not known:
            given = json.loads(manifest.read_text())
            assert given.pop("step")["revision"] == "r2"
            manifest.write_text(json.dumps(given))
        assert statuses(await restored(project, run.run.id)) == {"a": "succeeded"}
        assert (await orchestrator.status(project.fleet)).summary == {"partial": 1}


async def test_failed_restore_leaves_the_journal(tmp_path: Path, database: str) -> None:
    """A restore that could not be done makes nobody half done who was not."""
    project, run = await half_done(tmp_path, database)
    second = run.backups[1]["file"]
    # In the dump's way: it has a view on it.
    execute(database, "CREATE VIEW public.seen AS TABLE a.accounts; DELETE FROM a.alembic_version")
    execute(database, "INSERT INTO a.alembic_version VALUES ('r1')")
    assert statuses(await restored(project, second)) == {"a": "failed"}
    assert statuses(await project.upgrade()) == {"a": "succeeded"}


async def test_only_selected_backups_are_read(tmp_path: Path) -> None:
    """A damaged or missing file of another tenant holds up nobody who is selected."""
    project = make_project(tmp_path, {"r1": ACCOUNTS}, files(tmp_path / "data", "a", "b", "c"))
    await project.upgrade()
    run = await orchestrator.backup(project.fleet, tmp_path / "kept")
    dumps = {each["tenant"]: Path(each["file"]) for each in run.backups}
    Path(f"{dumps['b']}.json").write_text("{")
    Path(f"{dumps['c']}.json").unlink()
    dumps["c"].unlink()
    assert statuses(await restored(project, run.run.id, "a")) == {"a": "succeeded"}
    with pytest.raises(BackupError, match="is no backup's manifest"):
        await restored(project, run.run.id, "a", "b")


async def test_last_is_the_last_with_backups(tmp_path: Path) -> None:
    """Neither a restore nor an upgrade without backups is what `last` means."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": "pass"}, files(tmp_path / "data", "a"))
    await project.upgrade("r1")
    run = await project.upgrade(execution=Execution(backup=tmp_path / "kept"))
    for _ in range(2):
        result = await restored(project, "last")
        assert (statuses(result), one(result, "a")["to"]) == ({"a": "succeeded"}, ["r1"])
        assert result.run.options["source"] == run.run.id
        await project.upgrade()


async def test_files_moved_by_hand(tmp_path: Path) -> None:
    """A renamed dump and manifest still belong together; another tenant's, or an older one, is not taken for it."""
    project = make_project(tmp_path, {"r1": ACCOUNTS}, files(tmp_path / "data", "a", "b"))
    await project.upgrade()
    older = await orchestrator.backup(project.fleet, tmp_path / "kept", tenants=["a"])
    with closing(sqlite3.connect(tmp_path / "data" / "a.db", isolation_level=None)) as live:
        live.execute("INSERT INTO accounts VALUES (1)")
        run = await orchestrator.backup(project.fleet, tmp_path / "kept")
        made = {each["tenant"]: Path(each["file"]) for each in run.backups}
        a, b = made["a"], made["b"]
        old = Path(older.backups[0]["file"])
        live.execute("DELETE FROM accounts")

        # Two in one directory: each name means its own, whatever its manifest says that it was called.
        shutil.copy(old, a.with_name("older.dump"))
        shutil.copy(f"{old}.json", a.with_name("older.dump.json"))
        renamed = a.with_name("renamed.dump")
        a.rename(renamed)
        Path(f"{a}.json").rename(f"{renamed}.json")
        for file in (renamed, Path(f"{renamed}.json")):
            live.execute("DELETE FROM accounts")
            assert statuses(await restored(project, file)) == {"a": "succeeded"}
            assert live.execute("SELECT id FROM accounts").fetchall() == [(1,)]
        assert statuses(await restored(project, a.with_name("older.dump.json"))) == {"a": "succeeded"}
        assert live.execute("SELECT id FROM accounts").fetchall() == []
        # A manifest with another one's dump.
        shutil.copy(old, renamed)
        for file in (renamed, Path(f"{renamed}.json")):
            with pytest.raises(BackupError, match="is not what was written then"):
                await restored(project, file)

        # Where the run's own was, another one is now.
        for taken in (b, old):
            shutil.copy(taken, a)
            shutil.copy(f"{taken}.json", f"{a}.json")
            with pytest.raises(BackupError, match="is not the backup of a that the run made"):
                await restored(project, run.run.id, "a")


async def test_log_of_a_file_that_is_gone(tmp_path: Path) -> None:
    """A write-ahead log without its file is nobody's: what is restored in its place does not get its pages."""
    project = make_project(tmp_path, {"r1": ACCOUNTS}, files(tmp_path / "data", "a"))
    await project.upgrade()
    file, log = tmp_path / "data" / "a.db", tmp_path / "data" / "a.db-wal"
    run = (await orchestrator.backup(project.fleet, tmp_path / "kept")).run.id
    with closing(sqlite3.connect(file, isolation_level=None)) as live:
        live.execute("PRAGMA journal_mode = WAL")
        live.execute("INSERT INTO accounts VALUES (666)")
        left = log.read_bytes()
    file.unlink()
    log.write_bytes(left)
    assert statuses(await restored(project, run)) == {"a": "succeeded"}
    with closing(sqlite3.connect(file)) as live:
        assert live.execute("SELECT * FROM accounts").fetchall() == []
        assert live.execute("PRAGMA integrity_check").fetchone() == ("ok",)
