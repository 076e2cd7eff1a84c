"""What stands between one wave and the next: budgets, checks, bakes, approvals; pausing and cancelling a run."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import orchestrator
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.stopping import cancel, pause
from orchestrator.errors import UsageError
from orchestrator.fleet.tenant import Limits
from orchestrator.rollout.result import RunResult
from orchestrator.rollout.stop import Stop
from orchestrator.statuses import RunStatus
from tests.projects import ACCOUNTS, Project, make_project, schemas, statuses, tables, until
from tests.servers import execute, fetch
from tests.workspace import Workspace

TENANTS = ["a", "b", "c", "d", "e", "f"]
#: Leaves a row for each time that it is committed.
BODY = f"{ACCOUNTS}\nop.execute('INSERT INTO public.seen SELECT current_schema()')"
CANARY: dict[str, Any] = {"name": "canary", "count": 1}


def project_of(path: Path, url: str, *waves: dict[str, Any], body: str = BODY, **policy: Any) -> Project:
    """Six tenants in ``waves`` and the rest, with one revision."""
    execute(url, "CREATE TABLE public.seen (tenant text)")
    keys = {"waves": list(waves)} if waves else {}
    return make_project(path, {"r1": body}, schemas(url, *TENANTS, policy={"retries": 0, **policy}, **keys))


def seen(url: str) -> list[str]:
    """Tenants that were migrated, in order."""
    return [row[0] for row in fetch(url, "SELECT tenant FROM public.seen")]


def waves(result: RunResult) -> dict[str, str]:
    """How each wave stands that is through."""
    return {wave.name: wave.state.value for wave in result.waves}


async def shown(project: Project) -> dict[str, str]:
    """What the journal says of the last run's waves."""
    return waves(await orchestrator.show_run(project.fleet, "last"))


async def test_one_after_the_other(tmp_path: Path, database: str) -> None:
    """Each wave is through before the next one begins, in its own order, and so many at once as it may."""
    project = project_of(
        tmp_path,
        database,
        {"name": "first", "select": {"tenants": ["d", "b", "f"]}, "jobs": 1, "order": "name"},
        {"name": "second", "count": 1},
    )

    result = await project.upgrade()

    assert seen(database)[:4] == ["b", "d", "f", "a"]
    assert (result.run.status, waves(result)) == ("succeeded", dict.fromkeys(["first", "second", "rest"], "done"))
    assert await shown(project) == waves(result)


async def test_waves_on_the_command_line(tmp_path: Path, database: str) -> None:
    """--waves takes the place of those of tenants.yaml, also when the run is carried on."""
    check = {"sql": "SELECT false"}
    project = project_of(tmp_path, database, {"name": "all of them", "percent": 100, "verify": check})

    result = await project.upgrade(execution=Execution(waves="1,50%"))

    assert {wave: [each.tenant for each in result.tenants if each.wave == wave] for wave in waves(result)} == {
        "1": ["a"],
        "50%": ["b", "c", "d"],
        "rest": ["e", "f"],
    }


@pytest.mark.parametrize("given", ["", "0", "1,x", "101%", "1,1", "rest"])
async def test_waves_that_are_none(tmp_path: Path, database: str, given: str) -> None:
    """Anything else is refused before anything is touched."""
    project = project_of(tmp_path, database)
    with pytest.raises(UsageError, match="--waves"):
        await project.upgrade(execution=Execution(waves=given))


#: A check that is met, one that is not, and what the reason says.
CHECKS: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "sql": (
        {"sql": "SELECT count(*) = 0 FROM accounts WHERE 'a%' LIKE '%b'"},
        {"sql": "SELECT current_schema() <> 'a'"},
        "verify refused 1 of 1 tenants (a: it is False)",
    ),
    "error": ({"sql": "SELECT 1"}, {"sql": "SELECT nothing"}, 'column "nothing" does not exist'),
    "null": ({"sql": "SELECT true"}, {"sql": "SELECT NULL"}, "it is None"),
    "writing": ({"sql": "SELECT true"}, {"sql": "DELETE FROM accounts RETURNING true"}, "read-only transaction"),
    "command": (
        {"command": f"""{sys.executable} -c "import json, sys; assert json.load(sys.stdin)['tenants'] == ['a']" """},
        {"command": "echo not today; exit 3"},
        "exit code 3: not today",
    ),
    "python": ({"python": "checks:fine"}, {"python": "checks:refuses"}, "verify checks:refuses returned None"),
    "async": ({"python": "checks:fine"}, {"python": "checks:raises"}, "RuntimeError: not today"),
    "missing": ({"python": "checks:fine"}, {"python": "checks:fin"}, "has no `fin`"),
}
MODULE = """
def fine(wave):
    return wave["wave"] == "canary" and wave["tenants"] == ["a"] and wave["command"] == "upgrade"

def refuses(wave):
    pass

async def raises(wave):
    raise RuntimeError("not today")
"""


@pytest.mark.parametrize("kind", CHECKS)
async def test_verify(tmp_path: Path, database: str, kind: str) -> None:
    """A wave that a check turns down ends the run; what was migrated stays. Once the check is met, resume goes on."""
    fine, refusing, reason = CHECKS[kind]
    project = project_of(tmp_path, database, {**CANARY, "verify": [fine, refusing]})
    sys.modules.pop("checks", None)
    (tmp_path / "checks.py").write_text(MODULE)

    result = await project.upgrade()

    assert (result.run.status, result.satisfied, waves(result)) == ("failed", False, {"canary": "failed"})
    assert statuses(result) == {"a": "succeeded", **dict.fromkeys(TENANTS[1:], "not_started")}
    assert result.held_up is not None
    assert reason in str(result.held_up)
    assert await shown(project) == {"canary": "failed"}

    (tmp_path / "tenants.yaml").write_text(
        schemas(database, *TENANTS, policy={"retries": 0}, waves=[{**CANARY, "verify": fine}])
    )
    result = await orchestrator.resume(project.fleet)

    assert (result.run.status, waves(result)) == ("succeeded", {"canary": "done", "rest": "done"})
    assert sorted(seen(database)) == TENANTS


async def test_the_last_wave_is_verified_too(tmp_path: Path, database: str) -> None:
    """A run whose tenants are all done has not succeeded while a check says no, and resume asks again."""
    check = {"sql": "SELECT to_regclass('public.fine') IS NOT NULL"}
    project = project_of(tmp_path, database, {"name": "all", "percent": 100, "verify": check})

    result = await project.upgrade()
    assert (result.run.status, set(statuses(result).values())) == ("failed", {"succeeded"})

    assert (await orchestrator.resume(project.fleet)).run.status == "failed"
    execute(database, "CREATE TABLE public.fine ()")
    assert (await orchestrator.resume(project.fleet)).run.status == "succeeded"
    assert (await orchestrator.resume(project.fleet)).run.status == "succeeded"


async def test_approval(tmp_path: Path, database: str) -> None:
    """The run pauses after a wave until somebody approves; each approval lets one wave begin."""
    second = {"name": "second", "count": 2, "approve": "manual"}
    project = project_of(tmp_path, database, {**CANARY, "approve": "manual"}, second)

    result = await project.upgrade()
    assert (result.run.status, result.satisfied, waves(result)) == ("paused", False, {"canary": "waiting"})
    assert result.retry == f"orchestrator resume {result.run.id} --approve"

    result = await orchestrator.resume(project.fleet)
    assert (result.run.status, len(seen(database))) == ("paused", 1)

    result = await orchestrator.resume(project.fleet, execution=Execution(approve=True))
    assert (result.run.status, waves(result)) == ("paused", {"canary": "done", "second": "waiting"})
    assert len(seen(database)) == 3

    result = await orchestrator.resume(project.fleet, execution=Execution(approve=True))
    assert (result.run.status, waves(result)["rest"]) == ("succeeded", "done")
    assert sorted(seen(database)) == TENANTS


def on_the_command_line(project: Project, *arguments: str) -> subprocess.Popen[str]:
    """The real command, under way."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *arguments],
        cwd=project.path,
        env=Workspace.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_killed_while_it_bakes(tmp_path: Path, database: str) -> None:
    """Killed and resumed, a bake ends when it would have ended, and nobody is migrated twice."""
    project = project_of(tmp_path, database, {**CANARY, "bake": "4s"})
    process = on_the_command_line(project, "upgrade", "--provision")
    await until(lambda: _shown_or_nothing(project), lambda found: found == {"canary": "baking"})
    process.kill()
    process.communicate()
    left = await orchestrator.show_run(project.fleet, "last")
    assert (left.run.status, seen(database)) == ("interrupted", ["a"])
    until_then = left.waves[0].until
    assert until_then is not None

    result = await orchestrator.resume(project.fleet)

    assert (result.run.id, result.run.status) == (left.run.id, "succeeded")
    second = min(each.started_at for each in result.tenants if each.wave == "rest" and each.started_at)
    assert until_then <= second
    assert (second - until_then).total_seconds() < 2
    assert sorted(seen(database)) == TENANTS


async def test_checked_again_after_the_bake(tmp_path: Path, database: str) -> None:
    """What goes wrong while it bakes keeps the next wave from beginning."""
    check = {"sql": "SELECT to_regclass('public.broken') IS NULL"}
    project = project_of(tmp_path, database, {**CANARY, "bake": "500ms", "verify": check})
    running = asyncio.create_task(project.upgrade())
    await until(lambda: _shown_or_nothing(project), lambda found: found == {"canary": "baking"})
    execute(database, "CREATE TABLE public.broken ()")

    result = await running

    assert (result.run.status, waves(result), seen(database)) == ("failed", {"canary": "failed"}, ["a"])


async def _shown_or_nothing(project: Project) -> dict[str, str]:
    try:
        return await shown(project)
    except orchestrator.OrchestratorError:
        return {}


async def test_interrupted_while_it_bakes(tmp_path: Path, database: str) -> None:
    """Ctrl-C ends a bake at once, with the journal complete."""
    project = project_of(tmp_path, database, {**CANARY, "bake": "1h"})
    process = on_the_command_line(project, "upgrade", "--provision")
    await until(lambda: _shown_or_nothing(project), lambda found: found == {"canary": "baking"})
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert "wave canary: through; it bakes until " in err
    assert "wave canary: through; it bakes until " in out
    assert (await orchestrator.show_run(project.fleet, "last")).run.status == "interrupted"


async def test_killed_before_its_wave_was_closed(tmp_path: Path, database: str) -> None:
    """All tenants of a wave were through and the process died: its checks are still made before the next one begins."""
    project = project_of(tmp_path, database, {**CANARY, "verify": "SELECT false"})
    assert (await project.upgrade()).run.status == "failed"
    execute_journal(project, "DELETE FROM orchestrator_events WHERE kind = 'wave'")

    result = await orchestrator.resume(project.fleet)

    assert (result.run.status, waves(result), seen(database)) == ("failed", {"canary": "failed"}, ["a"])


def execute_journal(project: Project, sql: str) -> None:
    """Change the journal behind everybody's back."""
    import sqlite3

    with sqlite3.connect(project.path / ".orchestrator" / "journal.db") as connection:
        connection.execute(sql)
    connection.close()


FAILING = f"{BODY}\nop.execute(\"SELECT 1 / (current_schema() NOT IN ('a', 'c', 'd'))::int\")"


@pytest.mark.parametrize(
    ("then", "done"),
    [("stop", []), ("continue", ["b", "e", "f"])],
)
async def test_on_failure(tmp_path: Path, database: str, then: str, done: list[str]) -> None:
    """A wave over its budget ends the run, or only itself."""
    wave = {**CANARY, "on_failure": then}
    project = project_of(tmp_path, database, wave, body=FAILING, max_failures="50%")

    result = await project.upgrade(execution=Execution(jobs=1))

    assert waves(result)["canary"] == "failed"
    assert result.run.status == "failed"
    assert sorted(seen(database)) == done


async def test_breaker(tmp_path: Path, database: str) -> None:
    """So many failures for one cause end the run, whatever the budget would allow; --continue-on-error means it."""
    project = project_of(tmp_path, database, body=FAILING, max_failures="100%", same_cause=2)

    result = await project.upgrade(execution=Execution(jobs=1))
    assert (result.run.status, result.summary) == ("failed", {"succeeded": 1, "failed": 2, "not_started": 3})

    result = await project.upgrade(execution=Execution(jobs=1, continue_on_error=True))
    assert result.summary == {"succeeded": 2, "already_current": 1, "failed": 3}


async def test_share_of_the_whole_wave(tmp_path: Path, database: str) -> None:
    """Carried on, a budget in percent is one of all the wave's tenants, not only of those that are left."""
    project = project_of(tmp_path, database, body=FAILING, max_failures="40%")
    await project.upgrade(execution=Execution(jobs=1))
    left = await orchestrator.show_run(project.fleet, "last")
    assert left.summary == {"succeeded": 1, "failed": 3, "not_started": 2}

    # 3 of 5 would be over 40 % at the third failure; 2 of 6 are not, and the third is.
    result = await orchestrator.resume(project.fleet, execution=Execution(jobs=1))
    assert result.summary["failed"] == 3


GATED = BODY + '\nop.execute("SELECT pg_advisory_xact_lock(42)")'


@pytest.mark.parametrize(("ask", "status"), [(pause, "paused"), (cancel, "cancelled")])
async def test_from_another_terminal(tmp_path: Path, database: str, ask: Any, status: str) -> None:
    """A run under way is paused or cancelled by another process: what it is at is finished, nothing else begins."""
    project = project_of(tmp_path, database, body=GATED, lock_timeout="60s")
    holder = await asyncpg.connect(database)
    await holder.execute("SELECT pg_advisory_lock(42)")
    stop = Stop()
    execution = Execution(jobs=1, limits=Limits(lock_timeout=60.0))
    running = asyncio.create_task(project.upgrade(execution=execution, watch=Watch(stop=stop)))
    at_work = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
    await until(lambda: holder.fetchval(at_work), bool)
    asked = await ask(project.fleet, "last")
    assert (await orchestrator.show_run(project.fleet, asked.id)).run.status == status
    with pytest.raises(UsageError, match="still going"):
        await orchestrator.resume(project.fleet)
    await until(_now(lambda: stop.draining), bool)
    await holder.close()

    result = await running

    assert (result.run.status, len(seen(database))) == (status, 1)
    assert result.summary == {"succeeded": 1, "not_started": 5}
    if status == "paused":
        assert (await orchestrator.resume(project.fleet)).run.status == "succeeded"
    else:
        with pytest.raises(UsageError, match="was cancelled"):
            await orchestrator.resume(project.fleet)


def _now(value: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    async def asked() -> Any:
        return value()

    return asked


async def test_nothing_to_pause_or_cancel(tmp_path: Path, database: str) -> None:
    """A run that has ended is refused; one that was interrupted can still be cancelled."""
    project = project_of(tmp_path, database, {**CANARY, "verify": "SELECT false"})
    await project.upgrade()

    with pytest.raises(UsageError, match="not under way"):
        await pause(project.fleet, "last")
    assert (await cancel(project.fleet, "last")).id
    with pytest.raises(UsageError, match=r"has ended \(cancelled\): there is nothing to cancel"):
        await cancel(project.fleet, "last")
    now = datetime.now(UTC)
    ended = (await orchestrator.show_run(project.fleet, "last")).run.finished_at
    assert ended is not None
    assert ended < now


MANUAL = {"approve": "manual"}


async def approve(project: Project, **options: Any) -> RunResult:
    """``orchestrator resume --approve``."""
    return await orchestrator.resume(project.fleet, execution=Execution(approve=True, **options))


async def test_an_approval_is_for_what_waits(tmp_path: Path, database: str) -> None:
    """A wave that was approved is not asked about again, also where one of its tenants is tried again each time."""
    canary = {**CANARY, **MANUAL, "max_failures": 1}
    middle = {"name": "middle", "count": 1, **MANUAL}
    project = project_of(tmp_path, database, canary, middle, body=FAILING)

    assert waves(await project.upgrade()) == {"canary": "waiting"}
    assert waves(await approve(project)) == {"canary": "done", "middle": "waiting"}
    found = await approve(project)

    assert waves(found)["middle"] == "done"
    assert statuses(found)["c"] == "failed"


async def test_nothing_waits_for_approval(tmp_path: Path, database: str) -> None:
    """Nobody approves in advance."""
    project = project_of(tmp_path, database, {**CANARY, **MANUAL, "verify": "SELECT false"})
    await project.upgrade()

    with pytest.raises(UsageError, match=r"no wave of run .* waits for approval"):
        await approve(project)
    assert seen(database) == ["a"]


async def test_approval_is_not_got_round(tmp_path: Path, database: str) -> None:
    """Carried on for one wave alone, that one is still not the run's last."""
    project = project_of(tmp_path, database, {**CANARY, **MANUAL})
    await project.upgrade()

    result = await orchestrator.resume(project.fleet, execution=Execution(wave="canary"))
    assert (result.run.status, waves(result)) == ("paused", {"canary": "waiting"})
    assert (await orchestrator.resume(project.fleet)).run.status == "paused"
    assert seen(database) == ["a"]


@pytest.mark.parametrize("wave", [MANUAL, {"verify": "SELECT false"}], ids=["waiting", "failed"])
async def test_a_wave_that_nobody_asks_for_any_more(tmp_path: Path, database: str, wave: dict[str, str]) -> None:
    """Taken out of tenants.yaml, it holds up nobody."""
    project = project_of(tmp_path, database, {**CANARY, **wave})
    await project.upgrade()
    (tmp_path / "tenants.yaml").write_text(schemas(database, *TENANTS, waves=[{"name": "other", "count": 1}]))

    result = await orchestrator.resume(project.fleet)

    assert (result.run.status, result.satisfied) == ("succeeded", True)
    assert (await shown(project))["canary"] == "done"


async def test_asked_too_late(tmp_path: Path, database: str) -> None:
    """A run that is paused while its last tenant is migrated has simply ended."""
    project = project_of(tmp_path, database, body=GATED)
    holder = await asyncpg.connect(database)
    await holder.execute("SELECT pg_advisory_lock(42)")
    stop = Stop()
    patient = Execution(limits=Limits(lock_timeout=60.0))
    running = asyncio.create_task(project.upgrade(tenants=["a"], execution=patient, watch=Watch(stop=stop)))
    await until(lambda: holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"), bool)
    stop.request(RunStatus.PAUSED)
    await holder.close()

    assert (await running).run.status == "succeeded"


def test_what_a_stop_is_called() -> None:
    """To cancel is final; of several signals the second cuts off, also where somebody has paused the run before."""
    stop = Stop()
    stop.request(RunStatus.PAUSED)
    stop.request()
    assert (stop.asked, stop.at_once.is_set()) == (RunStatus.INTERRUPTED, False)
    stop.request(RunStatus.CANCELLED)
    stop.request()
    assert (stop.asked, stop.at_once.is_set()) == (RunStatus.CANCELLED, True)


async def test_cancelled_and_then_killed(tmp_path: Path, database: str) -> None:
    """A run that was to be cancelled is cancelled, whatever became of its process."""
    project = project_of(tmp_path, database, {**CANARY, "bake": "1h"})
    process = on_the_command_line(project, "upgrade", "--provision")
    await until(lambda: _shown_or_nothing(project), lambda found: found == {"canary": "baking"})
    process.send_signal(signal.SIGSTOP)
    await cancel(project.fleet, "last")
    process.kill()
    process.communicate()

    assert (await orchestrator.show_run(project.fleet, "last")).run.status == "cancelled"
    with pytest.raises(UsageError, match="was cancelled"):
        await orchestrator.resume(project.fleet)


async def test_the_breaker_says_so(tmp_path: Path, database: str) -> None:
    """Why it stopped is told, also where nobody has asked for waves."""
    project = project_of(tmp_path, database, body=FAILING, max_failures="100%", same_cause=2)
    result = await project.upgrade(execution=Execution(jobs=1))

    assert str(result.held_up) == "wave all: 2 tenants failed for one cause"


BOTH_WAYS = """
def upgrade():
    op.create_table("accounts", sa.Column("id", sa.Integer, primary_key=True))
    op.execute("SELECT 1 / (current_schema() <> 'b')::int")

def downgrade():
    op.drop_table("accounts")
"""


async def test_a_wave_that_failed_goes_back(tmp_path: Path, database: str) -> None:
    """What was changed in it goes back by a run of its own, nobody else is touched, and the way on is a new run."""
    first = {"name": "first", "count": 3, "max_failures": 0, "on_failure": "rollback", "bake": "1h"}
    project = project_of(tmp_path, database, {"name": "canary", "select": {"tenants": ["f"]}}, first, body=BOTH_WAYS)

    result = await project.upgrade(execution=Execution(jobs=1))

    assert (result.run.status, result.satisfied) == ("failed", False)
    assert statuses(result)["b"] == "failed"
    wave = result.held_up
    assert wave is not None
    back = await orchestrator.show_run(project.fleet, "last")
    assert (wave.name, wave.rolled_back) == ("first", back.run.id)
    assert (back.run.command, statuses(back)) == ("rollback", {"a": "succeeded"})
    assert (tables(database, "a"), tables(database, "f")) == ({"alembic_version"}, {"accounts", "alembic_version"})
    assert str(wave).endswith(f"; taken back by run {back.run.id}")
    assert result.retry == "orchestrator upgrade"
    with pytest.raises(UsageError, match="was taken back by run"):
        await orchestrator.resume(project.fleet, result.run.id)


async def test_killed_while_it_was_taken_back(tmp_path: Path, database: str) -> None:
    """Which run takes the wave back is known before that begins: it is resumed, unless it never began."""
    first = {"name": "first", "count": 3, "max_failures": 0, "on_failure": "rollback"}
    project = project_of(tmp_path, database, first, body=BOTH_WAYS)
    result = await project.upgrade(execution=Execution(jobs=1))
    (back,) = [wave.rolled_back for wave in result.waves]

    def journal(statement: str) -> None:
        with closing(sqlite3.connect(tmp_path / ".orchestrator" / "journal.db")) as file, file:
            file.execute(statement, (back,))

    journal("UPDATE orchestrator_runs SET status = 'interrupted' WHERE id = ?")
    with pytest.raises(UsageError, match=f"run {back}, which is interrupted") as refused:
        await orchestrator.resume(project.fleet, result.run.id)
    assert refused.value.hint == f"take back what is left of it: orchestrator resume {back}"

    journal("DELETE FROM orchestrator_runs WHERE id = ?")
    journal("DELETE FROM orchestrator_attempts WHERE run = ?")
    again = await orchestrator.resume(project.fleet, result.run.id, execution=Execution(jobs=1))
    (wave,) = again.waves
    assert (again.run.id, wave.rolled_back == back) == (result.run.id, False)
    assert (await orchestrator.show_run(project.fleet, str(wave.rolled_back))).run.status == "succeeded"


async def test_a_wave_that_cannot_be_taken_back(tmp_path: Path, database: str) -> None:
    """What the run did is told all the same, and why it is still there."""
    first = {"name": "first", "count": 1, "verify": "SELECT false", "on_failure": "rollback"}
    project = project_of(tmp_path, database, first, body=BOTH_WAYS)
    text = (tmp_path / "tenants.yaml").read_text()
    refusing = f"""{sys.executable} -c "import json, sys; sys.exit(json.load(sys.stdin)['command'] == 'rollback')" """
    (tmp_path / "tenants.yaml").write_text(json.dumps({**json.loads(text), "hooks": {"before_run": refusing}}))

    result = await project.upgrade()

    assert (result.run.status, statuses(result)["a"]) == ("failed", "succeeded")
    assert "it could not be taken back: before_run hook" in str(result.held_up)
    assert (await orchestrator.show_run(project.fleet, result.run.id)).waves == result.waves
    assert tables(database, "a") == {"accounts", "alembic_version"}
