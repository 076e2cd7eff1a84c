"""A rollback takes back what its run did, and nothing that anybody else did before, between or after."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from tests.projects import ALL, Project, held, make_project, one, schemas, statuses, tables, until, waiting_backend
from tests.replays import EMPTY
from tests.rollbacks import GATE, LINE, cut_off, gate, heads, table
from tests.servers import execute

FOUR = {**LINE, "r4": table("r4")}
#: What stands in the way of r2 and of r3.
NO_R2, NO_R3 = "CREATE TABLE a.r2 ()", "CREATE TABLE a.r3 ()"
#: A r3 by hand, as its revision makes it.
R3_BY_HAND = """
    CREATE TABLE a.r3 (id serial PRIMARY KEY, body text); CREATE INDEX ix_r3 ON a.r3 (body);
    UPDATE a.alembic_version SET version_num = 'r3'
"""


@pytest.fixture
def database(shared_database: str) -> str:
    """Address of an empty database."""
    execute(shared_database, EMPTY)
    return shared_database


async def begun(path: Path, url: str) -> Project:
    """A project whose tenants a and b are at r1."""
    project = make_project(path, FOUR, schemas(url, "a", "b"))
    await project.upgrade("r1")
    return project


async def test_moved_before_the_resume(tmp_path: Path, database: str) -> None:
    """Where the run failed, another one moved the tenant, and the resumed run moved it on, only the last goes back."""
    project = await begun(tmp_path, database)
    execute(database, NO_R2)
    first = await project.upgrade("r3", execution=ALL)
    execute(database, "DROP TABLE a.r2")
    await project.upgrade("r2", tenants=["a"])
    done = await orchestrator.resume(project.fleet, first.run.id)
    assert (one(done, "a")["from"], one(done, "a")["to"]) == (["r2"], ["r3"])

    back = await orchestrator.rollback(project.fleet, first.run.id)

    assert statuses(back) == {"a": "succeeded", "b": "succeeded"}
    assert await heads(project) == {"a": ("r2",), "b": ("r1",)}


@pytest.mark.parametrize("by_hand", [True, False], ids=["by hand", "by a run"])
async def test_done_by_others_before_the_resume(tmp_path: Path, database: str, by_hand: bool) -> None:
    """A tenant that the run failed at, and found at its target when it was resumed, is not the run's to take back."""
    project = await begun(tmp_path, database)
    execute(database, NO_R2)
    first = await project.upgrade("r3", execution=ALL)
    if by_hand:
        execute(database, f"ALTER TABLE a.r2 ADD id int; {R3_BY_HAND}")
    else:
        execute(database, "DROP TABLE a.r2")
        await project.upgrade("r3", tenants=["a"])
    done = await orchestrator.resume(project.fleet, first.run.id)
    assert (one(done, "a")["status"], one(done, "a")["from"]) == ("already_current", ["r3"])

    back = await orchestrator.rollback(project.fleet, first.run.id, to_before=True)

    assert statuses(back) == {"b": "succeeded"}
    assert await heads(project) == {"a": ("r3",), "b": ("r1",)}


@pytest.mark.parametrize("target", ["r3", "r4"])
async def test_moved_between_two_parts(tmp_path: Path, database: str, target: str) -> None:
    """What came by hand between two parts of a run, on top of what the run did, is taken along only when told to."""
    project = await begun(tmp_path, database)
    execute(database, NO_R3)
    first = await project.upgrade(target, tenants=["a"])
    assert one(first, "a")["to"] == ["r2"]
    execute(database, f"DROP TABLE a.r3; {R3_BY_HAND}")
    await orchestrator.resume(project.fleet, first.run.id)

    back = await orchestrator.rollback(project.fleet, first.run.id)
    assert await heads(project) == {"a": (target,), "b": ("r1",)}
    along = await orchestrator.rollback(project.fleet, first.run.id, to_before=True)

    assert statuses(back) == {"a": "blocked"}
    assert one(back, "a")["error"]["type"] == "moved_on"
    assert "between two parts of run" in one(back, "a")["error"]["message"]
    assert "--to-before" in one(back, "a")["error"]["hint"]
    assert statuses(along) == {"a": "succeeded"}
    assert (await heads(project))["a"] == ("r1",)


async def test_locked_by_whom_it_was_moved(tmp_path: Path, database: str) -> None:
    """A run that found a tenant locked did nothing to it: whoever held the lock, begun before it, moved it."""
    project = await begun(tmp_path, database)
    gate(project, "r2")
    async with held(database, GATE) as key:
        holder = asyncio.create_task(project.upgrade("r3", tenants=["a"]))
        await waiting_backend(key)
        late = await project.upgrade("r3", tenants=["a"], execution=Execution(lock_wait=0.0))
        assert statuses(late) == {"a": "locked"}
    assert statuses(await holder) == {"a": "succeeded"}

    back = await orchestrator.rollback(project.fleet, late.run.id, to_before=True)

    assert statuses(back) == {}
    assert (await heads(project))["a"] == ("r3",)


async def test_cut_off_while_it_waits_for_whom_it_was_moved(tmp_path: Path, database: str) -> None:
    """A run that is cut off while it waits for a tenant's lock did nothing to it, also where the other began before."""
    project = await begun(tmp_path, database)
    gate(project, "r2")
    async with held(database, GATE) as key:
        holder = asyncio.create_task(project.upgrade("r3", tenants=["a"]))
        await waiting_backend(key)
        late = asyncio.create_task(project.upgrade("r3", tenants=["a"]))
        first = (await orchestrator.list_runs(project.fleet)).runs[0][0].id
        shown = await until(
            lambda: orchestrator.show_run(project.fleet, "last"),
            lambda run: run.run.id != first and statuses(run) == {"a": "running"},
        )
        late.cancel()
        await asyncio.gather(late, return_exceptions=True)
    assert statuses(await holder) == {"a": "succeeded"}

    back = await orchestrator.rollback(project.fleet, shown.run.id)

    assert statuses(back) == {}
    assert (await heads(project))["a"] == ("r3",)


async def test_locked_when_it_is_resumed(tmp_path: Path, database: str) -> None:
    """What the first part of a run did goes back, though its second part did not come to the tenant."""
    project = await begun(tmp_path, database)
    execute(database, NO_R3)
    first = await project.upgrade("r3", tenants=["a"])
    execute(database, "DROP TABLE a.r3")
    gate(project, "r3")
    async with held(database, GATE) as key:
        other = asyncio.create_task(project.upgrade("r3", tenants=["a"]))
        await waiting_backend(key)
        done = await orchestrator.resume(project.fleet, first.run.id, execution=Execution(lock_wait=0.0))
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
    assert (one(done, "a")["status"], one(done, "a")["to"]) == ("locked", ["r2"])

    back = await orchestrator.rollback(project.fleet, first.run.id)

    assert statuses(back) == {"a": "succeeded"}
    assert (await heads(project))["a"] == ("r1",)


@pytest.mark.parametrize("resumed", [True, False], ids=["resumed", "left"])
async def test_cut_off_before_anything(tmp_path: Path, database: str, resumed: bool) -> None:
    """A run that was cut off before it changed a tenant, which later runs led to where it is, takes nothing back."""
    project = await begun(tmp_path, database)
    first = await cut_off(project, database, "r2")
    await project.upgrade("r4", tenants=["a"])
    if resumed:
        done = await orchestrator.resume(project.fleet, first.run.id)
        assert statuses(done) == {"a": "already_current"}

    back = await orchestrator.rollback(project.fleet, first.run.id, to_before=True)

    assert statuses(back) == {}
    assert (await heads(project))["a"] == ("r4",)


@pytest.mark.parametrize("resumed", [True, False], ids=["resumed", "left"])
async def test_cut_off_in_the_middle(tmp_path: Path, database: str, resumed: bool) -> None:
    """What a run had done when it was cut off goes back; where a later run went on from there, only when told to."""
    project = await begun(tmp_path, database)
    first = await cut_off(project, database, "r3")
    later = await project.upgrade("r4" if resumed else "r3", tenants=["a"])
    if resumed:
        await orchestrator.resume(project.fleet, first.run.id)

    back = await orchestrator.rollback(project.fleet, first.run.id)
    assert statuses(back) == {"a": "blocked"}
    assert later.run.id in one(back, "a")["error"]["message"]

    await orchestrator.rollback(project.fleet, later.run.id)
    assert (await heads(project))["a"] == ("r2",)


async def test_cut_off_and_touched_since(tmp_path: Path, database: str) -> None:
    """Where a later run took a cut-off tenant back, and it stands further again, nobody can say whose work that is."""
    project = await begun(tmp_path, database)
    first = await cut_off(project, database, "r3")
    await project.downgrade("r1", tenants=["a"])
    execute(database, "CREATE TABLE a.r2 (); UPDATE a.alembic_version SET version_num = 'r2'")

    back = await orchestrator.rollback(project.fleet, first.run.id)

    assert statuses(back) == {"a": "blocked"}
    assert tables(database, "a") == {"alembic_version", "r1", "r2"}


async def test_cut_off_and_nobody_else(tmp_path: Path, database: str) -> None:
    """What a run had done when it was cut off goes back, also by a second rollback where the first stopped half way."""
    project = await begun(tmp_path, database)
    first = await cut_off(project, database, "r4")
    execute(database, "CREATE VIEW a.mine AS SELECT * FROM a.r2")
    half = await orchestrator.rollback(project.fleet, first.run.id)
    assert (statuses(half), one(half, "a")["to"]) == ({"a": "failed"}, ["r2"])
    execute(database, "DROP VIEW a.mine")

    back = await orchestrator.rollback(project.fleet, first.run.id)

    assert statuses(back) == {"a": "succeeded"}
    assert tables(database, "a") == {"alembic_version", "r1"}


async def test_cut_off_and_out_of_reach(tmp_path: Path, database: str) -> None:
    """A tenant that cannot be asked when the run is resumed stays unknown; what the run had done goes back later."""
    project = await begun(tmp_path, database)
    first = await cut_off(project, database, "r3")
    server, _, name = database.rpartition("/")
    # Another address would be another place, and the run no longer this fleet's.
    execute(f"{server}/postgres", f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    try:
        done = await orchestrator.resume(project.fleet, first.run.id)
    finally:
        execute(f"{server}/postgres", f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert (statuses(done), one(done, "a")["error"]["type"]) == ({"a": "unknown"}, "unreachable")

    back = await orchestrator.rollback(project.fleet, first.run.id)

    assert statuses(back) == {"a": "succeeded"}
    assert (await heads(project))["a"] == ("r1",)


async def test_done_again_by_a_later_run(tmp_path: Path, database: str) -> None:
    """What was taken back and done again by a later run is that run's, though heads are as the first one left them."""
    project = await begun(tmp_path, database)
    first = await project.upgrade("r3")
    await orchestrator.rollback(project.fleet, first.run.id)
    second = await project.upgrade("r3", tenants=["a"])

    back = await orchestrator.rollback(project.fleet, first.run.id)

    assert statuses(back) == {"a": "blocked", "b": "already_current"}
    assert f"run {second.run.id} (upgrade) came after" in one(back, "a")["error"]["message"]
    assert (await heads(project))["a"] == ("r3",)
    assert statuses(await orchestrator.rollback(project.fleet, second.run.id)) == {"a": "succeeded"}


async def test_made_again_by_a_later_run(tmp_path: Path, database: str) -> None:
    """A tenant that was dropped and made again under its old name and place is not the one that the run changed."""
    project = await begun(tmp_path, database)
    first = await project.upgrade("r3")
    execute(database, "DROP SCHEMA a CASCADE")
    again = await project.upgrade("r3", tenants=["a"])

    back = await orchestrator.rollback(project.fleet, first.run.id)

    assert statuses(back) == {"a": "blocked", "b": "succeeded"}
    assert again.run.id in one(back, "a")["error"]["message"]
    assert tables(database, "a") == {"alembic_version", "r1", "r2", "r3"}


async def test_half_back_and_forward_before_its_turn(tmp_path: Path, database: str) -> None:
    """Who is half way back when the rollback is planned, and moved on before its turn, is left alone."""
    gated = {**LINE, "r2": table("r2", down=f'op.execute("SELECT pg_advisory_xact_lock({GATE})")')}
    project = make_project(tmp_path, gated, schemas(database, "a", "b"))
    await project.upgrade("r1")
    up = await project.upgrade("r3")
    await project.downgrade("r2", tenants=["a", "b"])
    async with held(database, GATE) as key:
        running = asyncio.create_task(
            orchestrator.rollback(project.fleet, up.run.id, execution=Execution(jobs=1, replay=False))
        )
        await waiting_backend(key)
        assert (await project.upgrade("r3", tenants=["b"])).satisfied

    assert statuses(await running) == {"a": "succeeded", "b": "blocked"}
    assert (await heads(project))["b"] == ("r3",)


@pytest.mark.parametrize("by_hand", [True, False], ids=["by hand", "by a run"])
async def test_moved_before_the_rollback_is_resumed(tmp_path: Path, database: str, by_hand: bool) -> None:
    """A rollback that stopped half way does not take along, when resumed, what the tenant was given in between."""
    project = await begun(tmp_path, database)
    first = await project.upgrade("r3", tenants=["a"])
    execute(database, "CREATE VIEW a.mine AS SELECT * FROM a.r2")
    back = await orchestrator.rollback(project.fleet, first.run.id)
    assert one(back, "a")["to"] == ["r2"]
    if by_hand:
        execute(database, R3_BY_HAND)
    else:
        await project.upgrade("r3", tenants=["a"])
    execute(database, "DROP VIEW a.mine")

    done = await orchestrator.resume(project.fleet, back.run.id)

    assert statuses(done) == {"a": "blocked"}
    assert one(done, "a")["error"]["type"] == "moved_on"
    assert (await heads(project))["a"] == ("r3",)


async def test_taken_back_otherwise_before_the_rollback_is_resumed(tmp_path: Path, database: str) -> None:
    """What a rollback failed at, and others took back and did again, is theirs when the rollback is resumed."""
    project = await begun(tmp_path, database)
    first = await project.upgrade("r3", tenants=["a"])
    execute(database, "CREATE VIEW a.mine AS SELECT * FROM a.r3")
    back = await orchestrator.rollback(project.fleet, first.run.id)
    execute(database, "DROP VIEW a.mine")
    await project.downgrade("r1", tenants=["a"])
    again = await project.upgrade("r3", tenants=["a"])

    done = await orchestrator.resume(project.fleet, back.run.id)

    assert statuses(done) == {"a": "blocked"}
    assert again.run.id in one(done, "a")["error"]["message"]
    assert f"orchestrator rollback {first.run.id} -t a" in one(done, "a")["error"]["hint"]
    assert (await heads(project))["a"] == ("r3",)


async def test_of_a_run_in_two_parts(tmp_path: Path, database: str) -> None:
    """A run that was resumed, with nobody else about, goes back as a whole: to where its first part began."""
    project = await begun(tmp_path, database)
    execute(database, NO_R3)
    first = await project.upgrade("r4", execution=ALL)
    execute(database, "DROP TABLE a.r3")
    done = await orchestrator.resume(project.fleet, first.run.id)
    assert (one(done, "a")["from"], one(done, "a")["to"]) == (["r1"], ["r4"])

    back = await orchestrator.rollback(project.fleet, first.run.id)

    assert statuses(back) == {"a": "succeeded", "b": "succeeded"}
    assert await heads(project) == {"a": ("r1",), "b": ("r1",)}


async def test_of_a_run_whose_wave_was_taken_back(tmp_path: Path, database: str) -> None:
    """After on_failure: rollback, whose wave is back is there already; once a later run moved it, it is that run's."""
    waves = [{"name": "first", "count": 1}, {"name": "second", "count": 2, "on_failure": "rollback"}]
    project = make_project(tmp_path, FOUR, schemas(database, "a", "b", "c", waves=waves))
    await project.upgrade("r1", execution=Execution(waves="100%"))
    execute(database, "CREATE TABLE c.r2 ()")
    up = await project.upgrade("r2", execution=Execution(jobs=1))
    assert [wave.rolled_back is not None for wave in up.waves] == [False, True]
    assert await heads(project) == {"a": ("r2",), "b": ("r1",), "c": ("r1",)}
    await project.upgrade("r2", tenants=["b"])

    back = await orchestrator.rollback(project.fleet, up.run.id)

    assert statuses(back) == {"a": "succeeded", "b": "blocked"}
    assert await heads(project) == {"a": ("r1",), "b": ("r2",), "c": ("r1",)}
