"""Killed outside any transaction, and killed with the journal lost: the real command line on a real server."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.command_line import SECOND, THIRD, Project, assert_error, statuses, tenant_of
from tests.projects import held, until, waiting_backend
from tests.workspace import Workspace

GATE = 42
#: Cannot be run twice; stops at the gate in the middle of the block.
GATED = """op.execute("CREATE TABLE before_block (id int)")
    with op.get_context().autocommit_block():
        op.execute("CREATE TABLE inside (id int)")
        op.execute("SELECT pg_advisory_xact_lock(42)")
        op.execute("CREATE TABLE never (id int)")"""


@pytest.fixture
def project(workspace: Workspace, database: str) -> Project:
    """A small history and an empty database."""
    return Project.create(workspace, database)


@asynccontextmanager
async def stopped_in_block(project: Project, end: signal.Signals = signal.SIGKILL) -> AsyncIterator[None]:
    """An upgrade of ``acme`` that was ended in the middle of its block; its backend is gone, too."""
    process = await asyncio.create_subprocess_exec(
        "env", "--default-signal=INT", sys.executable, "-m", "orchestrator", "upgrade", "-t", "acme",
        cwd=project.workspace.path, env=project.workspace.environment(), stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    async with held(project.url, GATE) as gate:
        await waiting_backend(gate)
        process.send_signal(end)
        if end is not signal.SIGKILL:
            # Two at once would be taken for one.
            while b"no new tenant starts" not in (line := await process.stderr.readline()):
                assert line
            process.send_signal(end)
        await process.communicate()
        theirs = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'orchestrator %'"
        await until(lambda: gate.fetch(theirs), lambda rows: not rows)
    yield


async def test_killed_in_a_block(project: Project) -> None:
    """kill -9: the tenant is partial with what was under way, nobody runs it again unasked, and the others go on."""
    project.fleet("acme", "globex")
    project.revision(THIRD, SECOND, GATED)
    async with stopped_in_block(project):
        pass

    told = tenant_of(project.json("status"), "acme")
    assert (told["state"], told["heads"], told["pending"]) == ("partial", [SECOND], 1)
    assert told["error"]["statement"] == "SELECT pg_advisory_xact_lock(42)"
    assert "CREATE TABLE before_block (id int); CREATE TABLE inside (id int)" in told["error"]["message"]

    planned = project.json("plan")
    assert [(each["tenant"], each["state"]) for each in planned["blocked"]] == [("acme", "partial")]

    resumed = project.json("resume", exit_code=1)
    assert statuses(resumed) == {"acme": "partial"}
    assert "orchestrator resume --retry-partial" in tenant_of(resumed, "acme")["error"]["hint"]
    upgraded = project.json("upgrade", exit_code=1)
    assert statuses(upgraded) == {"acme": "partial", "globex": "succeeded"}
    assert project.heads("acme") == [SECOND]

    project.execute("DROP TABLE acme.before_block; DROP TABLE acme.inside")
    assert statuses(project.json("resume", "--retry-partial")) == {"acme": "succeeded", "globex": "succeeded"}
    assert tenant_of(project.json("status"), "acme")["state"] == "current"


async def test_mended_by_hand_and_stamped(project: Project) -> None:
    """A stamp says that it is done; going back to the same heads later does not make it partial again."""
    project.fleet("acme")
    project.revision(THIRD, SECOND, GATED, "op.execute('DROP TABLE before_block, inside, never')")
    async with stopped_in_block(project):
        project.execute("CREATE TABLE acme.never (id int)")
    assert statuses(project.json("stamp", THIRD, "-t", "acme")) == {"acme": "succeeded"}
    project.json("downgrade", SECOND, "-t", "acme", "--yes", "--allow-data-loss")
    assert tenant_of(project.json("status"), "acme")["state"] == "behind"
    assert statuses(project.json("upgrade")) == {"acme": "succeeded"}


@pytest.mark.parametrize(
    "body", [GATED, "op.execute('COMMIT')\n    op.execute('SELECT pg_advisory_xact_lock(42)')"], ids=["block", "commit"]
)
async def test_cut_off_by_a_second_signal(project: Project, body: str) -> None:
    """Interrupted outside a transaction is partial, in the journal of that very run."""
    project.fleet("acme", more="policy: {lock_timeout: 60s}\n")
    project.revision(THIRD, SECOND, body)
    async with stopped_in_block(project, signal.SIGINT):
        pass
    shown = project.json("runs", "show", "last")
    assert (shown["status"], statuses(shown)) == ("interrupted", {"acme": "partial"})
    assert "orchestrator resume --retry-partial" in tenant_of(shown, "acme")["error"]["hint"]
    assert statuses(project.json("resume", exit_code=1)) == {"acme": "partial"}


async def test_killed_while_an_index_is_made(project: Project) -> None:
    """Nobody saw how it ended: status looks, and names the invalid index beside what was under way."""
    project.fleet("acme")
    project.json("upgrade")
    fourth = "d4d4d4d4d4d4"
    body = "with op.get_context().autocommit_block(): op.execute('CREATE INDEX CONCURRENTLY ix ON notes (body)')"
    project.revision(fourth, THIRD, body)
    writer = await asyncpg.connect(project.url)
    await writer.execute("BEGIN; INSERT INTO acme.notes VALUES (1)")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator", "upgrade",
        cwd=project.workspace.path, env=project.workspace.environment(), stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    observer = await asyncpg.connect(project.url)
    made = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'"
    await until(lambda: observer.fetch(made), bool)
    process.kill()
    await process.communicate()
    theirs = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'orchestrator %'"
    await until(lambda: observer.fetch(theirs), lambda rows: not rows)
    await writer.close()
    await observer.close()
    error = tenant_of(project.json("status"), "acme")["error"]
    assert error["statement"] == "CREATE INDEX CONCURRENTLY ix ON notes (body)"
    assert error["hint"].startswith("invalid now, and to be dropped or reindexed first: ix;")


async def test_exit_code_and_result_of_a_run_without_its_journal(project: Project) -> None:
    """What it did is told as ever, exit code 0; that the journal lacks it stands on stderr."""
    project.fleet("acme")
    project.revision(THIRD, SECOND, "op.execute('SELECT pg_advisory_xact_lock(42)')")
    async with held(project.url, 42) as gate:
        with project.start("upgrade", "--json") as process:
            await waiting_backend(gate)
            project.journal.write_bytes(b"")
            await gate.execute("SELECT pg_advisory_unlock_all()")
            out, err = await asyncio.to_thread(process.communicate, timeout=60)
    assert (process.returncode, tenant_of(json.loads(out), "acme")["status"]) == (0, "succeeded"), err
    assert "not in the journal: 1 attempts" in err
    assert "Traceback" not in err


async def test_removed_after_a_kill(project: Project) -> None:
    """No journal, no run to resume; upgrade reads the databases and does what is left, no more."""
    project.fleet("acme", "globex")
    project.revision(THIRD, SECOND, "op.execute('SELECT pg_advisory_xact_lock(42)')")
    project.json("upgrade", SECOND, "-t", "acme")
    async with held(project.url, 42) as gate:
        with project.start("upgrade") as process:
            await waiting_backend(gate)
            process.send_signal(signal.SIGKILL)
    shutil.rmtree(project.journal.parent)
    assert_error(project.run("resume"), "no run", "orchestrator upgrade")
    assert project.json("upgrade")["summary"] == {"succeeded": 2}
