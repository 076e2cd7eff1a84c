"""Workers that are killed, one or all, and the engine's server that goes down: the run ends right all the same."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

import orchestrator
from orchestrator.actions.execution import Execution
from orchestrator.journal.records import AttemptRecord
from orchestrator.rollout.result import RunResult
from orchestrator.statuses import RunStatus
from tests.projects import Project, held, statuses, until
from tests.servers import PostgresServer, execute, fetch
from tests.workers import GATE, Worker, sampled, start_worker, steered_project, tenants, workers

#: Tenants at once on each server, and how many tenants each has.
CAP, EACH = 2, 60
DBOS = Execution(executor="dbos")
#: Seconds in which others have to have taken up what a killed worker was at.
TAKEN_UP = 5.0


def two_servers(project: Project, url: str, other: str, **keys: Any) -> list[str]:
    """As the engine sees them: one server by two names, with a database each. All tenants take a moment."""
    execute(
        other, "".join(f"CREATE TABLE public.{name} (tenant text);" for name in ("seen", "gated", "slow", "broken"))
    )
    names: dict[str, list[str]] = {"one": [], "two": []}
    for server, place in (("one", url), ("two", other)):
        names[server] = [f"{server}{number:03}" for number in range(EACH)]
        rows = ", ".join(f"('{name}')" for name in names[server])
        execute(place, f"INSERT INTO public.slow VALUES {rows}")
    servers = {
        "one": {"url": url, "max_concurrency": CAP},
        "two": {"url": other.replace("127.0.0.1", "localhost"), "max_concurrency": CAP},
    }
    entries = [{"id": name, "server": server} for server, listed in names.items() for name in listed]
    tenants(project, url, *entries, servers=servers, defaults={}, **keys)
    return [name for listed in names.values() for name in listed]


async def done(project: Project) -> dict[str, AttemptRecord]:
    """Tenants that are through, by id."""
    found = (await orchestrator.show_run(project.fleet, "last")).tenants
    return {each.tenant: each for each in found if each.status == "succeeded"}


async def begun(project: Project, count: int) -> dict[str, AttemptRecord]:
    """The same once there are so many of them."""

    async def look() -> dict[str, AttemptRecord]:
        return await done(project) if fetch_runs(project) else {}

    found: dict[str, AttemptRecord] = await until(look, lambda found: len(found) >= count)
    return found


def fetch_runs(project: Project) -> bool:
    """Whether there is a run."""
    assert project.fleet.journal is not None
    return bool(fetch(project.fleet.journal, "SELECT FROM orchestrator_runs"))


def assert_done(result: RunResult, names: list[str], *places: str) -> None:
    """All succeeded, each was migrated once, and nothing is left in the engine but the run itself."""
    assert result.run.status is RunStatus.SUCCEEDED, result.as_json()
    assert statuses(result) == dict.fromkeys(names, "succeeded")
    rows = [row[0] for place in places for row in fetch(place, "SELECT tenant FROM public.seen")]
    assert sorted(rows) == sorted(names)


def controller(crew: list[Worker]) -> Worker:
    """The worker that has the run as a whole."""
    return next(worker for worker in crew if worker.has_said("begun"))


def at_work(crew: list[Worker], journal: str) -> Worker:
    """One that has a chunk, stopped in the middle of it."""
    taken = "SELECT executor_id FROM orchestrator_engine.workflow_status WHERE status = 'PENDING'"
    for worker in cycle(crew):
        worker.process.send_signal(signal.SIGSTOP)
        if f"slot-{worker.slot}" in {row[0] for row in fetch(journal, taken)}:
            return worker
        worker.process.send_signal(signal.SIGCONT)
    raise AssertionError


@dataclass(frozen=True, slots=True)
class Halfway:
    """A run on three workers, with some tenants through."""

    project: Project
    crew: list[Worker]
    #: The journal's database, which is the engine's, too.
    journal: str
    names: list[str]
    places: tuple[str, str]
    running: asyncio.Task[RunResult]
    #: Who was through by then.
    before: dict[str, AttemptRecord]
    #: The most connections that each database had at once.
    most: dict[str, int]

    async def ended(self) -> RunResult:
        """How it ends: all done, nobody twice, no server with more than its share."""
        result = await self.running
        assert_done(result, self.names, *self.places)
        after = {each.tenant: each.started_at for each in result.tenants}
        assert {name: after[name] for name in self.before} == {n: each.started_at for n, each in self.before.items()}
        assert self.most == {urlsplit(place).path[1:]: CAP for place in self.places}
        return result


@asynccontextmanager
async def halfway(path: Path, make_database: Callable[..., str]) -> AsyncIterator[Halfway]:
    """Begin such a run."""
    journal, places = make_database(), (make_database(), make_database())
    project = steered_project(path, places[0])
    names = two_servers(project, *places, journal=journal)
    with workers(project, 3) as crew:
        async with sampled(journal) as most:
            running = asyncio.create_task(project.upgrade(execution=DBOS))
            yield Halfway(project, crew, journal, names, places, running, await begun(project, 10), most)


async def test_one_of_three(tmp_path: Path, make_database: Callable[..., str]) -> None:
    """kill -9: what it was at is taken up within 5 s, nothing else is done again, and no server gets too much."""
    async with halfway(tmp_path, make_database) as run:
        victim = at_work([worker for worker in run.crew if worker is not controller(run.crew)], run.journal)
        victim.kill()
        killed = time.monotonic()
        left = [worker for worker in run.crew if worker is not victim]

        async def told() -> bool:
            return any(worker.has_said(f"the worker in slot {victim.slot} is gone") for worker in left)

        await until(told, bool)
        took = time.monotonic() - killed
        await run.ended()
    assert took < TAKEN_UP


async def test_the_one_that_has_the_run(tmp_path: Path, make_database: Callable[..., str]) -> None:
    """Another one carries the run on; whoever looks on sees it to its end."""
    async with halfway(tmp_path, make_database) as run:
        victim = controller(run.crew)
        victim.kill()
        result = await run.ended()
        others = [worker for worker in run.crew if worker is not victim]
        assert any(worker.has_said("carried on, whose worker is gone") for worker in others)
    assert {each.attempts for each in result.tenants} == {1}


async def test_in_a_rollback(tmp_path: Path, database: str) -> None:
    """Whoever takes the run over carries on the very run that takes its wave back: there is no other, and it ends."""
    project = steered_project(tmp_path, database)
    wave = {"name": "all of them", "percent": 100, "on_failure": "rollback"}
    tenants(project, database, "a", "b", "c", waves=[wave])
    execute(database, "INSERT INTO public.broken VALUES ('c'); INSERT INTO public.gated VALUES ('c')")
    back = "SELECT id, status FROM orchestrator_runs WHERE command = 'rollback'"
    waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'a.accounts'::regclass"
    with workers(project, 2) as crew:
        async with held(database, GATE) as gate, held(database, GATE + 1) as reader:
            running = asyncio.create_task(project.upgrade(execution=replace(DBOS, replay=False)))
            await begun(project, 2)
            # What is to be dropped is in use when the wave goes back.
            await reader.execute("BEGIN; LOCK TABLE a.accounts IN ACCESS SHARE MODE")
            await gate.execute(f"SELECT pg_advisory_unlock({GATE})")
            await until(lambda: reader.fetch(waiting), bool)
            (before,) = fetch(database, back)
            victim = controller(crew)
            victim.kill()
            (other,) = [worker for worker in crew if worker is not victim]
            await asyncio.to_thread(other.hear, "carried on, whose worker is gone")
        result = await running

    assert result.run.status is RunStatus.FAILED
    assert [each.rolled_back for each in result.waves] == [before["id"]]
    assert [tuple(row) for row in fetch(database, back)] == [(before["id"], "succeeded")]
    taken_back = await orchestrator.show_run(project.fleet, before["id"])
    assert {each.tenant: each.to_heads for each in taken_back.tenants} == {"a": (), "b": (), "c": ()}


async def test_all_of_them_in_a_bake(tmp_path: Path, database: str) -> None:
    """The bake ends when it was to end: it is neither cut short nor begun again."""
    project = steered_project(tmp_path, database)
    tenants(project, database, "a", "b", "c", waves=[{"name": "canary", "count": 1, "bake": "12s"}])
    with workers(project, 2) as crew:
        running = asyncio.create_task(project.upgrade(execution=DBOS))

        async def baking() -> list[Any]:
            if not fetch_runs(project):
                return []
            return (await orchestrator.show_run(project.fleet, "last")).waves  # type: ignore[return-value]

        (wave,) = await until(baking, bool)
        for worker in crew:
            worker.kill()
        with workers(project, 2):
            result = await running

    assert_done(result, ["a", "b", "c"], database)
    assert wave.until is not None
    canary, *rest = result.tenants
    starts = [each.started_at for each in rest if each.started_at is not None]
    assert min(starts) >= wave.until
    assert min(starts) < wave.until + timedelta(seconds=10)
    assert canary.attempts == 1
    assert {each.until for each in result.waves if each.name == "canary" and each.until} <= {wave.until}


async def test_the_server_goes_down(
    tmp_path: Path, pg: PostgresServer, database: str, second_pg: PostgresServer
) -> None:
    """The engine's server ends all backends and recovers, as after -m immediate: workers end, and new ones go on."""
    journal = second_pg.create_database()
    project = steered_project(tmp_path, database)
    names = [f"t{number:03}" for number in range(EACH)]
    execute(database, f"INSERT INTO public.slow VALUES {', '.join(f'({name!r})' for name in names)}")
    servers = {"main": {"url": database, "max_concurrency": CAP}}
    tenants(project, database, *names, servers=servers, journal=journal)
    with workers(project, 2) as crew:
        running = asyncio.create_task(project.upgrade(execution=DBOS))
        await begun(project, 10)
        (backend,) = fetch(
            journal, "SELECT pid FROM pg_stat_activity WHERE application_name ~ '^orchestrator worker' LIMIT 1"
        )
        os.kill(backend[0], signal.SIGKILL)
        assert [worker.ended() for worker in crew] == [1, 1]
        assert all(worker.has_said("the connection that holds this worker's slot is lost") for worker in crew)

    async def answers() -> bool:
        try:
            await (await asyncpg.connect(journal)).close()
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    await until(answers, bool)
    restarted = [start_worker(project), start_worker(project)]
    try:
        result = await running
    finally:
        for worker in restarted:
            worker.kill()
    assert_done(result, names, database)
