"""What every executor has to do alike: one suite, once in this process and once by two workers."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

import orchestrator
from orchestrator.actions.execution import Watch
from orchestrator.actions.stopping import cancel, pause
from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.fleet.fleet import FailureBudget
from orchestrator.rollout.result import RunResult
from orchestrator.statuses import RunStatus
from tests.distributed.conftest import Stage
from tests.projects import held, one, until, waiting_backend
from tests.servers import execute, fetch
from tests.workers import GATE

SIX = ("a", "b", "c", "d", "e", "f")
LISTED: dict[str, Any] = {"order": "listed"}


def seen(stage: Stage) -> list[str]:
    """Whom the second revision has been run on and committed, in order."""
    return [row[0].removeprefix(stage.prefix) for row in fetch(stage.url, "SELECT tenant FROM public.seen")]


def waves(result: RunResult) -> dict[str, str]:
    """How each wave stands."""
    return {wave.name: wave.state.value for wave in result.waves}


async def shown(stage: Stage, result: RunResult) -> RunResult:
    """The run as the journal has it."""
    return await orchestrator.show_run(stage.project.fleet, result.run.id)


async def test_upgrade(stage: Stage) -> None:
    """All tenants succeed, from where to where is written down, and what is returned is what the journal has."""
    stage.fleet(*SIX)

    result = await stage.upgrade()

    assert result.run.status is RunStatus.SUCCEEDED
    assert stage.plain(result) == dict.fromkeys(SIX, "succeeded")
    assert {(each.from_heads, each.to_heads, each.wave, each.attempts) for each in result.tenants} == {
        ((), ("r2",), "all", 1)
    }
    assert (await shown(stage, result)).as_json() == result.as_json()
    assert sorted(seen(stage)) == list(SIX)
    events = fetch(
        stage.url, f"SELECT kind, count(*) FROM orchestrator_events WHERE run = '{result.run.id}' GROUP BY 1"
    )
    assert dict(events)["revision"] == 12
    assert stage.plain(await stage.upgrade()) == dict.fromkeys(SIX, "already_current")


async def test_failure_budget(stage: Stage) -> None:
    """No tenant is begun after the failure that was one too many; resume does what was left."""
    stage.fleet(*SIX, waves=[{"name": "one", "percent": 100, **LISTED}])
    stage.steer("broken", "b", "d")

    result = await stage.upgrade(jobs=1, max_failures=FailureBudget(1))

    assert stage.plain(result) == {
        **{"a": "succeeded", "b": "failed", "c": "succeeded", "d": "failed"},
        **{"e": "not_started", "f": "not_started"},
    }
    assert (result.run.status, waves(result)) == (RunStatus.FAILED, {"one": "failed"})
    assert result.causes[0].count == 2

    stage.steer("broken")
    again = await orchestrator.resume(stage.project.fleet, result.run.id, execution=stage.how())

    assert (again.run.status, again.run.id) == (RunStatus.SUCCEEDED, result.run.id)
    assert stage.plain(again) == dict.fromkeys(SIX, "succeeded")
    assert {each.tenant.removeprefix(stage.prefix): each.attempts for each in again.tenants} == {
        **dict.fromkeys(SIX, 1),
        **{"b": 2, "d": 2},
    }


async def test_waves_follow_one_another(stage: Stage) -> None:
    """A wave begins when the one before is through; a failed one ends the run, or the next begins all the same."""
    order = [{"name": "first", "select": {"tenants": stage.name("e", "f")}}, {"name": "second", "count": 1}]
    stage.fleet(*SIX, waves=order)

    result = await stage.upgrade()

    assert waves(result) == {"first": "done", "second": "done", "rest": "done"}
    assert (set(seen(stage)[:2]), seen(stage)[2]) == ({"e", "f"}, "a")

    for name, on_failure, others in (("stop", "stop", "not_started"), ("go", "continue", "succeeded")):
        names = [f"{name}{each}" for each in SIX]
        stage.fleet(*names, waves=[{"name": "first", "count": 1, "on_failure": on_failure}])
        stage.steer("broken", f"{name}a")
        result = await stage.upgrade()
        assert stage.plain(result) == {f"{name}a": "failed", **dict.fromkeys(names[1:], others)}
        assert (result.run.status, waves(result)["first"]) == (RunStatus.FAILED, "failed")


async def test_a_wave_is_taken_back(stage: Stage) -> None:
    """on_failure: rollback: what was done in the wave goes back, as a run of its own."""
    stage.fleet(*SIX, waves=[{"name": "all of them", "percent": 100, "on_failure": "rollback", **LISTED}])
    stage.steer("broken", "c")

    result = await stage.upgrade(jobs=1)

    (wave,) = result.waves
    assert wave.rolled_back is not None
    back = await orchestrator.show_run(stage.project.fleet, wave.rolled_back)
    # c has had its first revision.
    assert stage.plain(back) == dict.fromkeys(("a", "b", "c"), "succeeded")
    assert {each.to_heads for each in back.tenants} == {()}
    assert not fetch(
        stage.url, f"SELECT FROM pg_tables WHERE tablename = 'accounts' AND schemaname ~ '^{stage.prefix}'"
    )


async def test_one_cause(stage: Stage) -> None:
    """The breaker: so many failures of one cause end the run, whatever the budget allows."""
    policy = {"retries": 0, "same_cause": 2, "max_failures": "100%"}
    stage.fleet(*SIX, policy=policy, waves=[{"name": "one", "percent": 100, **LISTED}])
    stage.steer("broken", "a", "c", "e")

    result = await stage.upgrade(jobs=1)

    assert stage.plain(result) == {
        **{"a": "failed", "b": "succeeded", "c": "failed"},
        **dict.fromkeys(("d", "e", "f"), "not_started"),
    }
    assert result.waves[0].reason == "2 tenants failed for one cause"


async def test_checks_bakes_and_approvals(stage: Stage) -> None:
    """A check turns a wave down; a bake is waited for; an approval pauses the run until it is resumed with one."""
    check = {"sql": f"SELECT current_schema() <> '{stage.prefix}a' OR EXISTS (SELECT FROM public.slow)"}
    first = {"name": "first", "count": 1, "verify": check, "bake": "1s", "approve": "manual"}
    stage.fleet("a", "b", waves=[first])

    result = await stage.upgrade()
    assert (result.run.status, waves(result)) == (RunStatus.FAILED, {"first": "failed"})
    assert result.held_up is not None
    assert f"({stage.prefix}a: it is False)" in str(result.held_up)

    stage.steer("slow", "nobody")
    waiting = await orchestrator.resume(stage.project.fleet, result.run.id, execution=stage.how())
    assert (waiting.run.status, waves(waiting)) == (RunStatus.PAUSED, {"first": "waiting"})
    baked = fetch(
        stage.url,
        "SELECT (detail->>'until')::timestamptz - at, (SELECT max(at) FROM orchestrator_events w WHERE w.run = e.run "
        "AND w.detail->>'state' = 'waiting') - at FROM orchestrator_events e WHERE kind = 'wave' "
        f"AND detail->>'state' = 'baking' AND run = '{result.run.id}'",
    )
    assert len(baked) == 1
    assert baked[0][0].total_seconds() == pytest.approx(1, abs=0.2)
    assert baked[0][1] >= baked[0][0]

    done = await orchestrator.resume(stage.project.fleet, result.run.id, execution=stage.how(approve=True))
    assert (done.run.status, waves(done)) == (RunStatus.SUCCEEDED, {"first": "done", "rest": "done"})
    assert stage.plain(done) == {"a": "succeeded", "b": "succeeded"}


@pytest.mark.parametrize("ask", [pause, cancel])
async def test_asked_to_end(stage: Stage, ask: Any) -> None:
    """Paused and cancelled: who is being migrated is finished, nobody else is begun; the paused one goes on later."""
    stage.fleet(*SIX, waves=[{"name": "one", "percent": 100, "jobs": 1, **LISTED}])
    stage.steer("gated", "b")
    async with held(stage.url, GATE) as gate:
        watch = Watch()
        running = asyncio.create_task(stage.upgrade(watch=watch))
        await waiting_backend(gate)
        record = await ask(stage.project.fleet, "last")
        await stage.heeded(watch.stop, record.id)
    result = await running

    asked = RunStatus.PAUSED if ask is pause else RunStatus.CANCELLED
    assert (result.run.id, result.run.status) == (record.id, asked)
    assert stage.plain(result) == {
        **{"a": "succeeded", "b": "succeeded"},
        **dict.fromkeys(("c", "d", "e", "f"), "not_started"),
    }
    if ask is cancel:
        with pytest.raises(UsageError, match="was cancelled"):
            await orchestrator.resume(stage.project.fleet, record.id, execution=stage.how())
        return
    again = await orchestrator.resume(stage.project.fleet, record.id, execution=stage.how())
    assert stage.plain(again) == dict.fromkeys(SIX, "succeeded")
    assert sorted(seen(stage)) == list(SIX)


async def test_seen_while_it_goes_on(stage: Stage) -> None:
    """What has become of a tenant is in the journal while others are still being migrated, and that they are."""
    stage.fleet(*SIX)
    stage.steer("gated", "b")
    there = f"SELECT status FROM orchestrator_attempts WHERE tenant ~ '^{stage.prefix}'"
    async with held(stage.url, GATE) as gate:
        running = asyncio.create_task(stage.upgrade(replay=False))
        so = ["running", *["succeeded"] * 5]
        await until(lambda: gate.fetch(there), lambda rows: sorted(row["status"] for row in rows) == so)
    assert stage.plain(await running) == dict.fromkeys(SIX, "succeeded")


async def test_cancelled_while_it_is_planned(stage: Stage) -> None:
    """What is asked for before the first tenant's turn is heeded as well: nobody is begun."""
    stage.fleet(*SIX)
    stage.steer("broken", "a", "b", "c", "d", "e", "f")
    run = await stage.upgrade()
    stage.steer("broken")
    asks = f"{sys.executable} -m orchestrator runs cancel last"
    stage.fleet(*SIX, hooks={"before_run": [{"command": asks}]})

    again = await orchestrator.resume(stage.project.fleet, run.run.id, execution=stage.how())

    assert again.run.status is RunStatus.CANCELLED
    assert (await shown(stage, again)).run.status is RunStatus.CANCELLED
    assert seen(stage) == []


async def test_back_again(stage: Stage) -> None:
    """Downgrade, and the rollback of a run: each tenant to the heads that it had before."""
    stage.fleet(*SIX)
    await stage.upgrade("r1")
    run = await stage.upgrade()

    back = await orchestrator.rollback(stage.project.fleet, run.run.id, execution=stage.how())
    assert stage.plain(back) == dict.fromkeys(SIX, "succeeded")
    assert {(each.from_heads, each.to_heads) for each in back.tenants} == {(("r2",), ("r1",))}

    down = await orchestrator.downgrade(stage.project.fleet, "-1", everyone=True, execution=stage.how())
    assert {(each.status.value, each.to_heads) for each in down.tenants} == {("succeeded", ())}


async def test_not_attempted(stage: Stage) -> None:
    """Who is blocked, pinned or missing is told without an attempt; the others go on."""
    stage.fleet("a", "b")
    await stage.upgrade()
    execute(stage.url, f"UPDATE {stage.prefix}a.alembic_version SET version_num = 'unheard_of'")
    entries = [{"id": stage.name("pinned")[0], "pin": "r1"}, *stage.name("a", "b", "gone", "new")]
    for name in stage.name("pinned", "new"):
        execute(stage.url, f'CREATE SCHEMA "{name}"')
    from tests.workers import tenants

    tenants(stage.project, stage.url, *entries)
    execution = stage.how()

    result = await orchestrator.upgrade(stage.project.fleet, execution=execution)

    assert stage.plain(result) == {
        **{"pinned": "succeeded", "a": "blocked", "b": "already_current", "gone": "blocked", "new": "succeeded"}
    }
    assert {each.tenant: (each.error or {}).get("type") for each in result.tenants if each.error} == {
        **{stage.name("a")[0]: "unknown_revision", stage.name("gone")[0]: "unprovisioned"}
    }


@pytest.mark.parametrize("provision", [False, True], ids=["as they are", "provision"])
async def test_who_is_taken_out_meanwhile(stage: Stage, provision: bool) -> None:
    """A tenant that is offboarded between the plan and its turn fails nobody's run, and is not made again."""
    names = ("a", "b", "c")
    stage.fleet(*names, waves=[{"name": "first", "count": 1, **LISTED}])
    await stage.upgrade("r1")
    stage.steer("gated", "a")
    async with held(stage.url, GATE) as gate:
        running = asyncio.create_task(stage.upgrade(provision=provision))
        await waiting_backend(gate)
        assert (await orchestrator.offboard(stage.project.fleet, tenants=stage.name("c"))).satisfied
    result = await running

    assert (result.run.status, stage.plain(result)) == (
        RunStatus.SUCCEEDED,
        {"a": "succeeded", "b": "succeeded", "c": "skipped"},
    )
    assert one(result, *stage.name("c"))["error"]["type"] == "gone"
    assert not fetch(stage.url, f"SELECT FROM pg_namespace WHERE nspname = '{stage.prefix}c'")


async def test_who_comes_meanwhile_joins(stage: Stage) -> None:
    """A tenant that comes into the fleet while the run goes on is migrated by it."""
    stage.fleet("a", "b")
    stage.steer("gated", "b")
    async with held(stage.url, GATE) as gate:
        running = asyncio.create_task(stage.upgrade())
        await waiting_backend(gate)
        execute(stage.url, f'CREATE SCHEMA "{stage.prefix}late"')
        stage.fleet("a", "b", "late")
    result = await running
    assert stage.plain(result) == dict.fromkeys(("a", "b", "late"), "succeeded")


async def test_hooks(stage: Stage) -> None:
    """A hook that is called before a tenant keeps it from being touched; one before the run keeps all of it."""
    refuses = f"""{sys.executable} -c "import json, sys; sys.exit(json.load(sys.stdin)['tenant'].endswith('b'))" """
    stage.fleet("a", "b", hooks={"before_tenant": [{"command": refuses}]})
    result = await stage.upgrade(max_failures=FailureBudget(None))
    assert stage.plain(result) == {"a": "succeeded", "b": "failed"}
    assert next(each for each in result.tenants if each.tenant.endswith("b")).to_heads == ()

    stage.fleet("c", hooks={"before_run": [{"command": "echo not today; exit 1"}]})
    with pytest.raises(OrchestratorError, match="not today") as refused:
        await stage.upgrade()
    assert (refused.value.exit_code, seen(stage)) == (2, ["a"])
