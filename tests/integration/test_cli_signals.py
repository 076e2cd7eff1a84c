"""Runs that are told to stop, or die: what was done stays, what was not is known, and resume carries on."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import asyncpg
import pytest

from tests.command_line import SECOND, THIRD, Project, assert_error, statuses, tenant_of
from tests.projects import held, until, waiting_backend

#: The advisory lock at which every tenant's THIRD waits while the test holds it.
GATE = 42
TENANTS = ("acme", "globex", "initech", "soylent")
#: Seconds for what must happen soon.
SOON = 30


@pytest.fixture
def gated(project: Project) -> Project:
    """Four tenants, and a THIRD that makes its table and then waits at the gate, in one transaction."""
    project.fleet(*TENANTS)
    steps = "op.create_table('extras', sa.Column('id', sa.Integer)); op.execute('SELECT pg_advisory_xact_lock(42)')"
    project.revision(THIRD, SECOND, steps, "op.drop_table('extras')")
    return project


@asynccontextmanager
async def upgrading(project: Project, *command: str) -> AsyncIterator[Process]:
    """``orchestrator upgrade --jobs 2 --json``, or another command, under way; dead at the end in any case."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator", *(command or ("upgrade",)), "--jobs", "2", "--json",
        cwd=project.workspace.path, env=project.workspace.environment(), stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def told(process: Process, part: str) -> None:
    """Read the process's stderr up to a line with ``part`` in it."""
    async with asyncio.timeout(SOON):
        while part not in (line := (await process.stderr.readline()).decode()):
            assert line, f"ended without a word of {part!r}"


async def ended(process: Process) -> tuple[int, str]:
    """The exit code, and what is on stdout."""
    async with asyncio.timeout(SOON):
        out, _ = await process.communicate()
    return process.returncode, out.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_once_drains(gated: Project, number: signal.Signals, code: int) -> None:
    """The first signal: running tenants finish, no other starts, the journal says so, and resume does the rest."""
    async with upgrading(gated) as process:
        async with held(gated.url, GATE) as gate:
            await waiting_backend(gate, 2)
            process.send_signal(number)
            await told(process, "no new tenant starts")
        exit_code, out = await ended(process)
    document = json.loads(out)
    assert (exit_code, document["status"]) == (code, "interrupted")
    assert statuses(document) == dict(zip(TENANTS, ["succeeded"] * 2 + ["not_started"] * 2, strict=True))
    assert [gated.heads(tenant) for tenant in TENANTS] == [[THIRD], [THIRD], [], []]
    assert gated.json("runs", "show", "last") == document
    resumed = gated.json("resume")
    assert (resumed["run"], resumed["status"], resumed["summary"]) == (document["run"], "succeeded", {"succeeded": 4})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_twice_cuts_off(gated: Project, number: signal.Signals, code: int) -> None:
    """The second signal: running tenants are cut off, their transaction is gone, nothing is left open anywhere."""
    async with held(gated.url, GATE) as gate:
        async with upgrading(gated) as process:
            await waiting_backend(gate, 2)
            process.send_signal(number)
            await told(process, "no new tenant starts")
            process.send_signal(number)
            exit_code, out = await ended(process)
        document = json.loads(out)
        assert (exit_code, document["status"]) == (code, "interrupted")
        assert statuses(document) == dict(zip(TENANTS, ["interrupted"] * 2 + ["not_started"] * 2, strict=True))
        assert [gated.heads(tenant) for tenant in TENANTS] == [[SECOND], [SECOND], [], []]
        assert gated.json("runs", "show", "last") == document
        # Nobody waits at the gate any more: what was cut off does not work on behind our back.
        await until(lambda: _waiting(gate), lambda waiting: waiting == 0)
    resumed = gated.json("resume")
    assert (resumed["run"], resumed["status"], resumed["summary"]) == (document["run"], "succeeded", {"succeeded": 4})
    assert [gated.heads(tenant) for tenant in TENANTS] == [[THIRD]] * 4


async def test_killed(gated: Project) -> None:
    """kill -9 in the middle: the run is shown as what it is, interrupted, and resume carries it on."""
    async with upgrading(gated) as process:
        async with held(gated.url, GATE) as gate:
            await waiting_backend(gate, 2)
            process.kill()
            assert (await ended(process))[0] == -signal.SIGKILL
        left = gated.json("runs", "show", "last")
        assert left["status"] == "interrupted"
        assert set(statuses(left).values()) <= {"running", "pending"}
    resumed = gated.json("resume")
    assert (resumed["run"], resumed["status"], resumed["summary"]) == (left["run"], "succeeded", {"succeeded": 4})
    assert [gated.heads(tenant) for tenant in TENANTS] == [[THIRD]] * 4
    assert [run["status"] for run in gated.json("runs", "list")["runs"]] == ["succeeded"]


async def test_rollback_killed(gated: Project) -> None:
    """kill -9 in the middle of a rollback: resume takes back what is left, to each tenant's own heads."""
    gated.json("upgrade", SECOND, "-t", "acme", "-t", "initech")
    up = gated.json("upgrade")
    down = "op.execute('SELECT pg_advisory_xact_lock(42)'); op.drop_table('extras')"
    gated.revision(THIRD, SECOND, "op.create_table('extras', sa.Column('id', sa.Integer))", down)
    agreed = ("--yes", "--allow-data-loss", "--accept-edited", THIRD)
    async with upgrading(gated, "rollback", up["run"], *agreed) as process:
        async with held(gated.url, GATE) as gate:
            await waiting_backend(gate, 2)
            process.kill()
            assert (await ended(process))[0] == -signal.SIGKILL
        left = gated.json("runs", "show", "last")
        assert (left["command"], left["status"]) == ("rollback", "interrupted")
        assert [gated.heads(tenant) for tenant in TENANTS] == [[THIRD]] * 4
    resumed = gated.json("resume")
    assert (resumed["run"], resumed["command"], resumed["status"]) == (left["run"], "rollback", "succeeded")
    assert resumed["summary"] == {"succeeded": 4}
    assert [gated.heads(tenant) for tenant in TENANTS] == [[SECOND], [], [SECOND], []]


async def test_rollback_of_a_killed_run(gated: Project) -> None:
    """What a killed run had done goes back, also where it could not write down that it had; what it had not, stays."""
    gated.json("upgrade", SECOND)
    async with upgrading(gated) as process, held(gated.url, GATE) as gate:
        await waiting_backend(gate, 2)
        going = gated.run("rollback", "last", "--yes", "--allow-data-loss")
        process.kill()
        await ended(process)
    assert_error(going, "still going", "stop it first")
    left = gated.json("runs", "show", "last")
    # The one whose commit nobody has seen any more.
    gated.execute(f"CREATE TABLE initech.extras (id int); UPDATE initech.alembic_version SET version_num = '{THIRD}'")
    assert set(statuses(left).values()) <= {"running", "pending"}

    # And one that another run has done what this one was to do to: that is not this one's to take back.
    gated.json("upgrade", "-t", "globex")

    back = gated.json("rollback", left["run"], "--yes", "--allow-data-loss")

    assert statuses(back) == {"initech": "succeeded"}
    assert [gated.heads(tenant) for tenant in TENANTS] == [[SECOND], [THIRD], [SECOND], [SECOND]]


async def test_resume_while_alive(gated: Project) -> None:
    """A run whose process is at work cannot be resumed: the error names the process; nothing is touched."""
    async with upgrading(gated) as process:
        async with held(gated.url, GATE) as gate:
            await waiting_backend(gate, 2)
            refused = await asyncio.to_thread(gated.run, "resume")
            assert_error(refused, "still going", f"process {process.pid}", "orchestrator runs show")
        assert (await ended(process))[0] == 0
    assert [gated.heads(tenant) for tenant in TENANTS] == [[THIRD]] * 4


async def test_tenant_locked_by_another(gated: Project) -> None:
    """A tenant that another process migrates is `locked` after --lock-wait, uses no failure budget, and names who."""
    # One long wait at the gate: between the short ones of the ladder the tenant's lock is free.
    async with upgrading(gated, "upgrade", "--lock-timeout", "0") as process:
        async with held(gated.url, GATE) as gate:
            await waiting_backend(gate, 2)
            first_run = gated.json("runs", "list")["runs"][0]["run"]
            arguments = ("upgrade", "-t", "acme", "-t", "globex", "--lock-wait", "0", "--jobs", "1")
            document = await asyncio.to_thread(lambda: gated.json(*arguments, exit_code=1))
        assert (await ended(process))[0] == 0
    assert statuses(document) == {"acme": "locked", "globex": "locked"}
    assert f"orchestrator {first_run} acme" in tenant_of(document, "acme")["error"]["message"]
    assert gated.json("resume")["summary"] == {"already_current": 2}


def test_cut_off_after_the_last_tenant(gated: Project) -> None:
    """A run that died between its last tenant and its end has nothing left: resume writes that down."""
    document = gated.json("upgrade")
    with closing(sqlite3.connect(gated.journal)) as journal, journal:
        journal.execute(
            "UPDATE orchestrator_runs"
            " SET status = 'running', finished_at = NULL, actor_host = 'gone', heartbeat_at = NULL"
        )
    assert gated.json("runs", "show", "last")["status"] == "interrupted"
    resumed = gated.json("resume")
    assert (resumed["status"], resumed["tenants"]) == ("succeeded", document["tenants"])
    assert gated.json("runs", "show", "last") == resumed


async def test_interrupted_reading(gated: Project) -> None:
    """Ctrl-C while tenants are read: exit code 130, one document, no traceback."""
    gated.json("upgrade", SECOND)
    connection = await asyncpg.connect(gated.url)
    try:
        await connection.execute("BEGIN; LOCK TABLE acme.alembic_version IN ACCESS EXCLUSIVE MODE")
        process = gated.start("status", "--json")
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'acme.alembic_version'::regclass"
        await until(lambda: connection.fetchval(query), lambda waiting: waiting == 1)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.to_thread(process.communicate, timeout=SOON)
    finally:
        await connection.close()
    assert process.returncode == 130
    assert json.loads(out)["error"]["type"] == "Interrupted"
    assert err.strip() == "error: interrupted"


async def _waiting(gate: asyncpg.Connection) -> int:
    return await gate.fetchval(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
