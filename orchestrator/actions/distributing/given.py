"""A run's workflows in the engine: one for each time that it was given to workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

from orchestrator.actions.distributing.place import Place
from orchestrator.engine.client import OPEN, Engine, Standing
from orchestrator.engine.looking import workflow_id
from orchestrator.engine.slots import GRACE
from orchestrator.fleet.fleet import Fleet
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import RunRecord
from orchestrator.rollout.waves import EVENT as WAVE_EVENT
from orchestrator.rollout.waves import WaveState, waves_of


@asynccontextmanager
async def opened_engine(place: Place) -> AsyncIterator[Engine]:
    """The engine, opened and closed off the event loop.

    Raises:
        OrchestratorError: DBOS is not installed, or its database cannot be used.
    """
    opening = Engine.opened(place.url, place.masked)
    engine = await asyncio.to_thread(opening.__enter__)
    try:
        yield engine
    finally:
        await asyncio.to_thread(opening.__exit__, None, None, None)


@dataclass(frozen=True, slots=True)
class Given:
    """How a run stands with the engine."""

    run: str
    #: The last time it was given out; 0 for never.
    time: int
    standing: Standing | None

    @property
    def is_open(self) -> bool:
        """Workers have it, or will."""
        return self.standing in OPEN

    @property
    def id(self) -> str:
        """The workflow of the last time."""
        return workflow_id(self.run, self.time)

    @property
    def next_id(self) -> str:
        """The workflow of the next time."""
        return workflow_id(self.run, self.time + 1)


async def given(engine: Engine, run: str) -> Given:
    """How ``run`` stands with the engine."""
    time, standing = 0, None
    while True:
        id = workflow_id(run, time + 1)
        found = (await asyncio.to_thread(engine.standings, [id])).get(id)
        if found is None:
            return Given(run, time, standing)
        time, standing = time + 1, found


async def waiting_wave(journal: Journal, run: str) -> str | None:
    """The wave of ``run`` that waits for somebody's approval."""
    waves = waves_of(await journal.events(run, kind=WAVE_EVENT))
    return next((wave.name for wave in waves.values() if wave.state is WaveState.WAITING), None)


async def taken_back(
    fleet: Fleet, run: RunRecord, parts: Collection[str], lost: bool, end: Callable[[], Awaitable[None]]
) -> None:
    """Take ``run`` back unless a worker has it, or will find it in the hands of one that is gone.

    Args:
        fleet: says where the engine is.
        run: as the journal had it; what it is to end as has been asked for there.
        parts: ids of the runs that its chunks are of.
        lost: the worker that had it is gone, as far as one look can tell.
        end: writes into the journal that it has ended.
    """
    async with opened_engine(Place.of(fleet)) as engine:
        now = await given(engine, run.given_as)
        if now.standing is Standing.TAKEN and not (lost and await _is_deserted(engine)):
            return
        # First: whoever looks on reads there how it has ended, as soon as it is no longer in the queue.
        await end()
        if now.is_open and now.run == run.id:
            await asyncio.to_thread(engine.cancel, [now.id])
            # Whoever has taken it in this very moment finds what it was asked to end as.
        if now.standing is Standing.TAKEN:
            for part in parts:
                found = await asyncio.to_thread(engine.under, f"{part}:")
                # A worker that comes would go on with them, beside whoever carries the run on.
                await asyncio.to_thread(engine.cancel, [id for id, standing in found.items() if standing in OPEN])


async def _is_deserted(engine: Engine) -> bool:
    """Whether no worker is there at all: one that was would take up what another has left.

    Looked at twice: all their locks are free for a moment when the server has been started anew.
    """
    if await asyncio.to_thread(engine.workers):
        return False
    await asyncio.sleep(GRACE)
    return not await asyncio.to_thread(engine.workers)
