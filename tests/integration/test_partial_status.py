"""``status`` tells of tenants that a step outside any transaction left half done."""

from __future__ import annotations

import json
from pathlib import Path

import orchestrator
from orchestrator.statuses import TenantStatus
from tests.projects import ACCOUNTS, Project, make_project, schemas
from tests.servers import execute
from tests.workspace import Workspace

#: Fails on tenant `a` alone, after what the block has committed.
BLOCK = """
    with op.get_context().autocommit_block():
        op.execute("CREATE TABLE IF NOT EXISTS inside (id int)")
    op.execute("SELECT 1 / (SELECT count(*) FROM accounts)")
"""


async def states(project: Project) -> dict[str, TenantStatus]:
    """Every tenant's state, as ``status`` reads it."""
    report = await orchestrator.status(project.fleet)
    return {each.tenant.id: each.state for each in report.tenants}


async def half_done(path: Path, database: str) -> Project:
    """A fleet whose one tenant ended partial."""
    project = make_project(path, {"r1": ACCOUNTS, "r2": BLOCK}, schemas(database, "a"))
    await project.upgrade()
    return project


async def test_a_partial_tenant_is_told_from_one_that_is_behind(tmp_path: Path, database: str) -> None:
    """The version table says only that a revision is pending; the error of the run that left it is shown."""
    project = await half_done(tmp_path, database)

    report = await orchestrator.status(project.fleet)

    (tenant,) = report.as_json()["tenants"]
    assert (tenant["state"], tenant["pending"], tenant["error"]["revision"]) == ("partial", 1, "r2")


async def test_the_command_to_go_on_does_go_on(tmp_path: Path, database: str) -> None:
    """A plain resume leaves a partial tenant alone: the command that is shown for its cause does not."""
    project = await half_done(tmp_path, database)
    execute(database, "INSERT INTO a.accounts VALUES (1)")
    workspace = Workspace(project.path)
    (cause,) = json.loads(workspace.run("runs", "show", "last", "--json").stdout)["causes"]
    shown = workspace.run("resume")
    assert (shown.returncode, f"go on with: {cause['retry']}" in shown.stdout) == (1, True), shown

    program, *arguments = cause["retry"].split()
    done = workspace.run(*arguments)

    assert (program, done.returncode) == ("orchestrator", 0), done
    assert await states(project) == {"a": TenantStatus.CURRENT}


async def test_a_tenant_that_was_finished_is_partial_no_more(tmp_path: Path, database: str) -> None:
    """Neither after the resume nor after a downgrade brings it to the same heads again."""
    project = await half_done(tmp_path, database)
    execute(database, "INSERT INTO a.accounts VALUES (1)")

    await orchestrator.resume(project.fleet, execution=orchestrator.Execution(retry_partial=True))
    assert await states(project) == {"a": TenantStatus.CURRENT}

    await orchestrator.downgrade(project.fleet, "r1", tenants=["a"])
    assert await states(project) == {"a": TenantStatus.BEHIND}


async def test_a_tenant_stamped_elsewhere_is_not_partial(tmp_path: Path, database: str) -> None:
    """The journal explains only what the version table still bears out."""
    project = await half_done(tmp_path, database)
    execute(database, "DELETE FROM a.alembic_version")

    assert await states(project) == {"a": TenantStatus.BEHIND}


async def test_a_broken_journal_does_not_stop_status(tmp_path: Path, database: str) -> None:
    """The databases decide; without the journal the tenant is merely behind."""
    project = await half_done(tmp_path, database)
    for file in (tmp_path / ".orchestrator").glob("journal.db*"):
        file.write_bytes(b"not a database, but long enough to be looked at" * 100)

    assert await states(project) == {"a": TenantStatus.BEHIND}
