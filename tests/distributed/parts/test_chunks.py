"""Chunks of a run: how they are given out, and what a worker does with one; with no worker there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

import orchestrator
from orchestrator.actions.distributing.jobs import ChunkJob
from orchestrator.actions.worker import Worker
from orchestrator.engine.client import Standing
from orchestrator.engine.queues import PLACES, SCHEMA
from orchestrator.fleet.fleet import FailureBudget, Wave
from orchestrator.fleet.tenant import Isolation, Tenant
from orchestrator.journal.records import AttemptRecord
from orchestrator.rollout import distributed
from orchestrator.rollout.chunks import Chunk, cut
from orchestrator.rollout.distributed import ChunkExecutor
from orchestrator.rollout.plan import PlannedTenant, PlannedWave
from orchestrator.rollout.stop import Stop
from orchestrator.statuses import TenantStatus
from tests.hands import DBOS, DETACHED, THREE, Hands
from tests.projects import Project, until
from tests.servers import execute, fetch
from tests.workers import tenants


def planned(name: str) -> PlannedTenant:
    """A tenant that is behind."""
    tenant = Tenant(name, "main", Isolation.SCHEMA, name)
    pending = TenantStatus.BEHIND, "heads", ("r2",), ("r2",), TenantStatus.PENDING
    return PlannedTenant(tenant, "postgresql", "18", (), *pending)


def executor(hands: Hands, run: str) -> ChunkExecutor:
    """One that gives out chunks of ``run``."""

    def job(wave: PlannedWave, chunk: Chunk, failures: int) -> Mapping[str, Any]:
        return {"tenants": [each.tenant.id for each in chunk.tenants], "failures": failures, "wave": wave.name}

    async def disconnect() -> None:
        """Nothing is open here."""

    budgets = {"main": ("db:5432", 4)}
    return ChunkExecutor(run, hands.engine, hands.journal, hands.queues, budgets, None, job, disconnect, {})


@dataclass(slots=True)
class Draining:
    """A ledger whose budget is used up as soon as something has been given out, and whose worker dies then."""

    url: str
    #: What becomes of the chunk at each look, beginning with the second.
    becomes: list[str]
    noted: list[AttemptRecord] = field(default_factory=list)

    def may_start(self, wave: PlannedWave) -> bool:
        """The first time."""
        first = not fetch(self.url, f"SELECT FROM {SCHEMA}.workflow_status WHERE name = 'orchestrator.chunk'")
        if not first and self.becomes:
            change = f"UPDATE {SCHEMA}.workflow_status SET status = '{self.becomes.pop(0)}'"
            execute(self.url, f"{change} WHERE name = 'orchestrator.chunk'")
        return first

    def failures(self, wave: PlannedWave) -> int:
        """Of no account."""
        return 0

    def note(self, attempt: AttemptRecord) -> None:
        """Kept."""
        self.noted.append(attempt)

    def hear(self, attempt: AttemptRecord) -> None:
        """The same."""
        self.noted.append(attempt)


class Willing(Draining):
    """One that lets more be begun for ever."""

    def may_start(self, wave: PlannedWave) -> bool:
        """Yes."""
        return True


async def test_a_worker_dies_while_the_run_drains(project: Project, hands: Hands, database: str) -> None:
    """Its chunk, put back into a held queue, is not waited for; whom it was at is told as interrupted."""
    run = (await project.upgrade(execution=DETACHED)).run.id
    (first, *_) = (await hands.shown(run)).tenants
    hands.journal.record(replace(first, status=TenantStatus.RUNNING, attempts=1))
    await hands.journal.flush()
    todo = [planned(name) for name in THREE]
    wave = PlannedWave("all", tuple(todo), FailureBudget(0), Wave("all"))
    ledger = Draining(database, [Standing.TAKEN.value, Standing.QUEUED.value])

    async with asyncio.timeout(20):
        await executor(hands, run).carry_out(wave, todo, ledger)

    assert set(hands.engine.under(f"{run}:").values()) == {Standing.CANCELLED}
    assert [(each.tenant, each.status) for each in ledger.noted] == [("a", TenantStatus.INTERRUPTED)]


async def test_those_who_join_have_chunks_of_their_own(hands: Hands) -> None:
    """Another executor of the same run and wave gives out chunks that the engine does not take for the first one's."""
    wave = PlannedWave("all", (planned("a"),), FailureBudget(0), Wave("all"))
    for one in (executor(hands, "run"), executor(hands, "run")):
        one._waiting = cut(wave.tenants, one.budgets, PLACES)
        await one._give(wave, Draining("", []), None)
    assert len(hands.engine.under("run:all:")) == 2


async def test_queues_are_made_again(project: Project, hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those of the wave are looked into; one that a worker takes away which was taken for dead comes back."""
    monkeypatch.setattr(distributed, "_MADE_AGAIN", 0.1)
    run = (await project.upgrade(execution=DETACHED)).run.id
    todo = [planned(name) for name in THREE]
    wave = PlannedWave("all", tuple(todo), FailureBudget(0), Wave("all"))
    ours = [hands.queues.chunks(1)]

    async def there() -> list[str]:
        return await asyncio.to_thread(hands.engine.queues_of_chunks, hands.queues)

    assert len(await there()) == len(PLACES)
    going = asyncio.create_task(executor(hands, run).carry_out(wave, todo, Willing("", [])))
    try:
        await until(there, lambda names: names == ours)
        await asyncio.to_thread(hands.engine.close, ours)
        await until(there, lambda names: names == ours)
    finally:
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)


def chunk(hands: Hands, run: str, *names: str, part: str | None = None, **tried: int) -> ChunkJob:
    """What a worker is told of a chunk of ``run`` with these tenants."""
    wave = PlannedWave("all", tuple(map(planned, names)), FailureBudget(0), Wave("all"))
    return ChunkJob.of(
        run,
        wave,
        Chunk("db:5432", 1, 1, wave.tenants),
        part=part or run,
        missing=names,
        tried=tried,
        cap=1,
        failures=0,
        same_cause=None,
        provision=True,
        execution=DBOS,
        fresh=not tried,
        digest=hands.digest,
    )


async def test_a_chunk_that_cannot_be_carried_out(project: Project, hands: Hands) -> None:
    """A worker that cannot read its tenants.yaml fails those of its chunk that no worker before was through with."""
    run = (await project.upgrade(execution=DETACHED)).run.id
    first, second, third = (await hands.shown(run)).tenants
    done = replace(first, status=TenantStatus.SUCCEEDED, to_heads=("r2",), attempts=1)
    found = replace(second, status=TenantStatus.ALREADY_CURRENT, to_heads=("r2",))
    under_way = replace(third, status=TenantStatus.RUNNING, started_at=datetime.now(UTC))
    for attempt in (done, found, under_way):
        hands.journal.record(attempt)
    (project.path / "tenants.yaml").write_text("tenants: {")
    worker = Worker(project.path / "tenants.yaml", hands.engine, hands.journal, hands.queues, Stop())

    await worker.chunk({**chunk(hands, run, *THREE).as_json(), "id": f"{run}:all:1", "again": True})

    left = {each.tenant: each for each in await hands.journal.attempts_of(run, THREE)}
    assert (left["a"], left["b"]) == (done, found)
    assert (left["c"].status, left["c"].started_at) == (TenantStatus.FAILED, under_way.started_at)


async def test_a_chunk_with_tenants_that_are_not_here(project: Project, hands: Hands, database: str) -> None:
    """Who was offboarded since is skipped; who is missing here alone has failed, also when it was brought back."""
    await project.upgrade("r1")
    run = (await project.upgrade(execution=DETACHED)).run.id
    whole = project.fleet
    assert (await orchestrator.offboard(whole, tenants=["b", "c"])).satisfied
    assert (await orchestrator.undo_offboarding(project.fleet, tenants=["c"])).satisfied
    tenants(project, database, "other")
    worker = Worker(project.path / "tenants.yaml", hands.engine, hands.journal, hands.queues, Stop())

    await worker.chunk({**chunk(hands, run, *THREE).as_json(), "id": f"{run}:all:1", "again": False})

    found = {each.tenant: (each.status.value, (each.error or {})["type"]) for each in (await hands.shown(run)).tenants}
    assert found == {"a": ("failed", "not_here"), "b": ("skipped", "gone"), "c": ("failed", "not_here")}


async def test_a_chunk_with_tenants_that_were_here(project: Project, hands: Hands, database: str) -> None:
    """A worker that has read its tenants.yaml before asks what became of those whose place is missing now."""
    await project.upgrade("r1")
    run = (await project.upgrade(execution=DETACHED)).run.id
    worker = Worker(project.path / "tenants.yaml", hands.engine, hands.journal, hands.queues, Stop())

    async def attempted(*names: str) -> None:
        job = replace(chunk(hands, run, *names), missing=(), provision=False)
        await worker.chunk({**job.as_json(), "id": f"{run}:all:1", "again": False})

    await attempted("a")
    assert (await orchestrator.offboard(project.fleet, tenants=["c"])).satisfied
    execute(database, "DROP SCHEMA b CASCADE")
    await attempted("b", "c")

    left = (await hands.shown(run)).tenants
    found = {each.tenant: (each.status.value, each.error and each.error["type"]) for each in left}
    assert found == {"a": ("succeeded", None), "b": ("blocked", "gone"), "c": ("skipped", "gone")}


async def test_a_run_given_out_again_is_met_anew(project: Project, hands: Hands, database: str) -> None:
    """A worker reads tenants.yaml again for a run that it knows from an earlier time, and not for each chunk."""
    run = (await project.upgrade(execution=DETACHED)).run.id
    worker = Worker(project.path / "tenants.yaml", hands.engine, hands.journal, hands.queues, Stop())
    before = await worker._muster(chunk(hands, run, "a"))
    assert await worker._muster(chunk(hands, run, "a")) is before
    tenants(project, database, "new")
    now = await worker._muster(chunk(hands, run, "a", part=f"{run}+2"))
    try:
        assert [each.id for each in now.project.fleet.tenants] == ["new"]
        assert list(worker._musters.values()) == [now]
    finally:
        await now.close()
