"""``status`` notices what has happened to a version table behind the journal's back."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.status import Narrowed
from orchestrator.errors import JournalError
from orchestrator.journal.records import AttemptRecord
from orchestrator.statuses import RunStatus, TenantStatus
from tests.projects import ACCOUNTS, PROJECTS, Project, files, make_project, schemas
from tests.servers import execute
from tests.workspace import Workspace

#: Fails on whoever has a row.
FAILS = 'op.execute("SELECT 1 / (1 - (SELECT count(*) FROM accounts))")'


async def noticed(project: Project) -> dict[str, str]:
    """What was noticed, by tenant."""
    report = await orchestrator.status(project.fleet)
    return {tenant: notice.kind.value for tenant, notice in report.noticed.items()}


async def migrated(path: Path, database: str, *ids: str) -> Project:
    """Tenants at r2, by a run."""
    project = make_project(path, {"r1": ACCOUNTS, "r2": PROJECTS}, schemas(database, *ids))
    await project.upgrade()
    return project


def write_heads(database: str, schema: str, *heads: str) -> None:
    """Stamp by hand."""
    values = "".join(f"INSERT INTO {schema}.alembic_version VALUES ('{head}');" for head in heads)
    execute(database, f"DELETE FROM {schema}.alembic_version; {values}")


async def test_nothing_is_noticed_of_what_runs_have_done(tmp_path: Path, database: str) -> None:
    """Upgrade, downgrade, rollback, stamp, backup and restore: each explains what the version table says after it."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS}, schemas(database, "a", "b"))
    assert await noticed(project) == {}
    first = await project.upgrade("r1")
    assert await noticed(project) == {}
    saved = await orchestrator.backup(project.fleet, tmp_path / "saved")
    second = await project.upgrade()
    assert await noticed(project) == {}
    await orchestrator.rollback(project.fleet, second.run.id)
    assert await noticed(project) == {}
    await orchestrator.stamp(project.fleet, "r2", everyone=True)
    assert await noticed(project) == {}
    await orchestrator.restore(project.fleet, saved.run.id, tenants=["a"])
    assert await noticed(project) == {}
    await project.downgrade("base", tenants=["a"])
    assert await noticed(project) == {}
    assert first.satisfied


async def test_an_old_backup_and_a_stamp_by_hand_are_noticed(tmp_path: Path, database: str) -> None:
    """Each tenant that was changed is named with what the journal has; the others are not, and runs take note."""
    project = await migrated(tmp_path, database, "back", "empty", "outside", "unknown", "gone", "same")
    run = (await orchestrator.show_run(project.fleet, "last")).run.id
    write_heads(database, "back", "r1")
    execute(database, "DROP TABLE back.projects")
    write_heads(database, "empty")
    write_heads(database, "unknown", "feed")
    execute(database, "DROP SCHEMA gone CASCADE")
    await project.downgrade("r1", tenants=["outside"])
    write_heads(database, "outside", "r2")

    document = (await orchestrator.status(project.fleet)).as_json()

    found = {tenant["tenant"]: tenant["noticed"] for tenant in document["tenants"]}
    kinds = {tenant: notice and notice["kind"] for tenant, notice in found.items()}
    assert kinds == {
        "back": "moved_back",
        "empty": "moved_back",
        "outside": "changed_outside",
        "unknown": "changed_outside",
        "gone": "gone",
        "same": None,
    }
    assert (found["back"]["journal"]["heads"], found["back"]["journal"]["run"]) == (["r2"], run)
    assert datetime.fromisoformat(found["back"]["journal"]["when"]).tzinfo is not None
    assert "orchestrator upgrade -t back" in found["back"]["hint"]
    assert "orchestrator stamp r2 -t outside" in found["outside"]["hint"]

    await project.upgrade(tenants=["back"], provision=False)
    await orchestrator.stamp(project.fleet, "r2", tenants=["outside"])
    assert (await noticed(project)).keys() == {"empty", "unknown", "gone"}


async def test_a_tenant_whose_tables_are_elsewhere_is_noticed(tmp_path: Path, database: str) -> None:
    """The place counts, whatever the version table there says; a run over the new place takes note of it."""
    project = await migrated(tmp_path, database, "a", "b")
    execute(database, "ALTER SCHEMA a RENAME TO a_moved")
    text = schemas(database, "a", "b").replace('{"id": "a"}', '{"id": "a", "schema": "a_moved"}')
    (tmp_path / "tenants.yaml").write_text(text, encoding="utf-8")

    (notice,) = (await orchestrator.status(project.fleet)).noticed.values()
    assert (notice.tenant, notice.kind) == ("a", "elsewhere")
    assert str(notice.place) == f"{notice.was}_moved"

    await orchestrator.upgrade(project.fleet)
    assert await noticed(project) == {}


async def test_a_place_with_a_secret_in_its_name_is_the_same_place(tmp_path: Path, database: str) -> None:
    """The journal has such a name masked; what is masked alike is held to be the same."""
    url = urlsplit(database)
    secret = url._replace(netloc=f"postgres:swordfish9@{url.hostname}:{url.port}").geturl()
    project = make_project(
        tmp_path, {"r1": ACCOUNTS}, schemas(secret, "a").replace('"a"', '"a", "schema": "swordfish9_a"')
    )
    await orchestrator.upgrade(project.fleet, provision=True)

    assert await noticed(project) == {}
    assert "swordfish9" not in (tmp_path / ".orchestrator" / "journal.db").read_bytes().decode(errors="replace")


async def test_a_file_put_back_is_noticed(tmp_path: Path) -> None:
    """SQLite: an old copy of the file in its place."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": PROJECTS}, files(tmp_path / "data", "a", "b"))
    await project.upgrade("r1")
    old = (tmp_path / "data" / "a.db").read_bytes()
    await project.upgrade()
    (tmp_path / "data" / "a.db").write_bytes(old)
    assert await noticed(project) == {"a": "moved_back"}
    report = await orchestrator.status(project.fleet)
    assert str(report.noticed["a"].place) == str(tmp_path / "data" / "a.db")


async def test_a_run_that_only_looked_explains_nothing(tmp_path: Path, database: str) -> None:
    """A tenant that a run found blocked, or backed up, is still not where the last run left it."""
    project = await migrated(tmp_path, database, "a", "b")
    write_heads(database, "a", "feed")
    blocked = await orchestrator.upgrade(project.fleet)
    assert blocked.summary == {"already_current": 1, "blocked": 1}
    await orchestrator.backup(project.fleet, tmp_path / "saved")
    assert await noticed(project) == {"a": "changed_outside"}


async def test_a_failure_half_way_is_explained(tmp_path: Path, database: str) -> None:
    """A run that got to r1 and failed at r2 has left its tenant at r1."""
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, "a", "b"))
    await project.upgrade()
    execute(database, "INSERT INTO a.accounts VALUES (1)")
    make_project(tmp_path / "more", {"r1": ACCOUNTS, "r2": PROJECTS, "r3": FAILS}, "")
    for name in ("r2", "r3"):
        source = tmp_path / "more" / "alembic" / "versions" / f"{name}.py"
        source.rename(tmp_path / "alembic" / "versions" / f"{name}.py")
    result = await orchestrator.upgrade(project.fleet, execution=Execution(continue_on_error=True))
    assert result.summary == {"succeeded": 1, "failed": 1}
    assert await noticed(project) == {}
    write_heads(database, "a", "r1")
    assert await noticed(project) == {"a": "moved_back"}


@pytest.mark.parametrize(
    ("heads", "expected"),
    [(("r2",), {}), (("r3",), {}), (("r1",), {"a": "moved_back"})],
)
async def test_a_killed_run_explains_what_it_may_have_done(
    tmp_path: Path, database: str, heads: tuple[str, ...], expected: dict[str, str]
) -> None:
    """Between where it began and where it was going, whatever is found may be its work; before that, it is not."""
    revisions = {"r1": ACCOUNTS, "r2": PROJECTS, "r3": "pass"}
    project = make_project(tmp_path, revisions, schemas(database, "a"))
    result = await project.upgrade("r2")
    async with opened_journal(project.fleet) as journal:
        killed = replace(
            result.run,
            id="29990101-000000-klldd",
            target=("r3",),
            status=RunStatus.RUNNING,
            started_at=datetime.now(UTC),
            finished_at=None,
            actor=replace(result.run.actor, process_started="long gone", host="elsewhere"),
            heartbeat_at=result.run.started_at.replace(year=2020),
        )
        await journal.start_run(killed, [AttemptRecord(killed.id, "a", "all", TenantStatus.RUNNING, ("r2",))])
    write_heads(database, "a", *heads)
    assert await noticed(project) == expected


async def test_what_is_being_migrated_is_not_noticed(tmp_path: Path, database: str) -> None:
    """As long as a run's process is there, its tenants are its own business."""
    project = await migrated(tmp_path, database, "a", "b")
    result = await orchestrator.show_run(project.fleet, "last")
    async with opened_journal(project.fleet) as journal:
        running = replace(
            result.run, id="29990101-000000-lvngg", status=RunStatus.RUNNING, started_at=datetime.now(UTC),
            finished_at=None, heartbeat_at=None,
        )  # fmt: skip
        await journal.start_run(running, [AttemptRecord(running.id, "a", "all", TenantStatus.RUNNING, ("r2",))])
        write_heads(database, "a")
        write_heads(database, "b")
        assert await noticed(project) == {"b": "moved_back"}


async def test_a_run_carried_on_later_counts_when_it_was(tmp_path: Path, database: str) -> None:
    """An older run that was resumed after a newer one has the last word on the tenants that it then migrated."""
    project = make_project(tmp_path, {"r1": ACCOUNTS, "r2": FAILS}, schemas(database, "a", "b"))
    await project.upgrade("r1")
    execute(database, "INSERT INTO a.accounts VALUES (1)")
    older = await orchestrator.upgrade(project.fleet, tenants=["a"])
    assert older.summary == {"failed": 1}
    await orchestrator.stamp(project.fleet, "base", tenants=["a"])
    await orchestrator.stamp(project.fleet, "r1", tenants=["a"])
    execute(database, "DELETE FROM a.accounts")
    resumed = await orchestrator.resume(project.fleet, older.run.id)
    assert resumed.summary == {"succeeded": 1}
    assert await noticed(project) == {}


async def test_the_journal_is_only_asked_for_what_it_has(tmp_path: Path, database: str) -> None:
    """Many runs of one tenant each, and tenants that none has meant: all are found, by whatever number of queries."""
    ids = [f"t{number}" for number in range(12)]
    project = make_project(tmp_path, {"r1": ACCOUNTS}, schemas(database, *ids, "never"))
    for tenant in ids:
        await project.upgrade(tenants=[tenant])
    async with opened_journal(project.fleet, read_only=True) as journal:
        seen = await journal.last_seen([*ids, "never", "nobody"])
    assert seen.keys() == set(ids)
    assert {each.heads for each in seen.values()} == {("r1",)}
    for tenant in ids:
        write_heads(database, tenant)
    assert (await noticed(project)).keys() == set(ids)


async def test_without_a_journal_nobody_knows_what_is_to_be_noticed(tmp_path: Path, database: str) -> None:
    """No journal, one that is garbage, a file in its directory's place: an error, and never "nothing was noticed"."""
    project = await migrated(tmp_path, database, "a")
    write_heads(database, "a", "r1")
    only = Narrowed(noticed=True)
    report = await orchestrator.status(project.fleet, narrowed=only)
    assert (report.journal_read, [each.tenant.id for each in report.tenants]) == (True, ["a"])
    directory = tmp_path / ".orchestrator"
    for make in (
        lambda: (directory.mkdir(), (directory / "journal.db").write_bytes(b"not a database" * 1000)),
        lambda: directory.write_text("in the way", encoding="utf-8"),
        lambda: None,
    ):
        shutil.rmtree(directory) if directory.is_dir() else directory.unlink(missing_ok=True)
        make()
        with pytest.raises(JournalError) as caught:
            await orchestrator.status(project.fleet, narrowed=only)
        assert (caught.value.exit_code, bool(caught.value.hint)) == (2, True)
        # Who does not ask for it is told that the journal was not read.
        assert (await orchestrator.status(project.fleet)).as_json()["journal_read"] is False


async def test_a_head_before_another_head_is_not_current(tmp_path: Path, database: str) -> None:
    """Alembic refuses to upgrade from there, and its downgrade leaves out what the later one has: only stamp mends."""
    project = await migrated(tmp_path, database, "a")
    write_heads(database, "a", "r1", "r2")
    (found,) = (await orchestrator.status(project.fleet)).tenants
    assert (found.state, found.heads) == (TenantStatus.DIVERGED, ("r1", "r2"))
    assert found.failure is not None
    assert "r1 beside r2" in found.failure.message
    assert (await project.upgrade()).summary == {"blocked": 1}
    assert (await project.downgrade("base", everyone=True)).summary == {"blocked": 1}
    assert (await orchestrator.stamp(project.fleet, "r2", everyone=True)).summary == {"succeeded": 1}
    (found,) = (await orchestrator.status(project.fleet)).tenants
    assert (found.state, found.heads) == (TenantStatus.CURRENT, ("r2",))


async def test_text_names_it_and_says_what_to_do(tmp_path: Path, database: str) -> None:
    """Who is paged reads what is not as it was, since which run, and what to type."""
    project = await migrated(tmp_path, database, "a", "b")
    write_heads(database, "a", "r1")
    shown = _run(project, "status").stdout
    assert "1 tenant not as the journal has it (moved_back):\n  a: back at r1; run " in shown
    assert "hint: find out whether an old backup was restored" in shown
    document = json.loads(_run(project, "status", "--noticed", "--json").stdout)
    assert [tenant["tenant"] for tenant in document["tenants"]] == ["a"]


def _run(project: Project, *args: str) -> subprocess.CompletedProcess[str]:
    return Workspace(project.path).run(*args)
