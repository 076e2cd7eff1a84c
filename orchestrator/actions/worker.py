"""worker: take part in distributed runs, until told to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from orchestrator.actions.distributing.chunking import attempt_chunk, fail_chunk, until_written
from orchestrator.actions.distributing.controlling import carry_out
from orchestrator.actions.distributing.given import opened_engine
from orchestrator.actions.distributing.jobs import ChunkJob
from orchestrator.actions.distributing.muster import Muster, OtherDirectory
from orchestrator.actions.distributing.place import Place, queues_of
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.project import opened_project
from orchestrator.engine.client import Engine
from orchestrator.engine.queues import PLACES, Queues
from orchestrator.engine.runtime import Slot, launch
from orchestrator.engine.slots import DEFAULT_SLOTS
from orchestrator.engine.surely import surely
from orchestrator.errors import JournalError, OrchestratorError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.load import load
from orchestrator.journal.journal import Journal
from orchestrator.rollout.stop import Stop
from orchestrator.statuses import RunStatus

#: Seconds between two looks whether a run is to end, and whether runs wait for other workers than this one.
_LOOK, _LOOK_FOR_OTHERS = 1.0, 5.0
#: Seconds between two batches that a worker writes into the journal, at least: there may be hundreds of workers, and at
#: a chunk's end all of it is written at once anyway.
_FLUSH_INTERVAL = 0.5
#: A run that stands like this begins nobody more.
_ENDING = frozenset({RunStatus.PAUSED, RunStatus.CANCELLED, RunStatus.FAILED, RunStatus.INTERRUPTED})

#: A run, and which time that it was given to workers.
_Part = tuple[str, str]

log = logging.getLogger("orchestrator.worker")


@dataclass(slots=True)
class Worker:
    """What one worker is at."""

    path: Path
    engine: Engine
    journal: Journal
    queues: Queues
    #: Told to end: nothing more is begun.
    stop: Stop
    #: The run whose chunks are attempted here, as it was met; carried on later, it is met anew.
    _musters: dict[_Part, Muster] = field(default_factory=dict)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: Of each chunk under way.
    _stops: dict[_Part, set[Stop]] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)
    #: What was opened for it. Held for as long as the process lives: let go of, all of it would be closed by the way.
    _opened: AsyncExitStack | None = None

    @property
    def chunks(self) -> int:
        """How many are under way."""
        return sum(len(stops) for stops in self._stops.values())

    async def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """A run as a whole."""
        try:
            return await carry_out(load(self.path, may_be_empty=True), self.engine, self.journal, self.queues, job)
        except OtherDirectory as error:
            self._leave(error)
            # Not given back as done: with the end of this process, a worker that has the right directory gets it.
            await asyncio.Event().wait()
            raise

    async def chunk(self, job: dict[str, Any]) -> dict[str, Any]:
        """A chunk of one."""
        run, stop = str(job["run"]), Stop()
        part = run, str(job["part"])
        stops = self._stops.setdefault(part, set())
        stops.add(stop)
        try:
            if self.stop.draining or await self._is_ending(run):
                return {"attempted": 0}
            return await self._attempted(job, stop)
        finally:
            await until_written(self.journal)
            stops.discard(stop)
            if not stops:
                self._stops.pop(part, None)

    async def _attempted(self, job: dict[str, Any], stop: Stop) -> dict[str, Any]:
        while True:
            try:
                began = monotonic()
                muster = await self._muster(ChunkJob.from_json(job))
                ready = monotonic()
                done = await attempt_chunk(muster, self.journal, job, stop)
                times = ready - began, monotonic() - ready
                log.debug("chunk %s: %s attempted, ready after %.2f s, %.2f s", job["id"], done["attempted"], *times)
                return done
            except OtherDirectory as error:
                self._leave(error)
                return {"attempted": 0}
            except JournalError as error:
                log.warning("%s; tried again", error.message)
                await asyncio.sleep(_LOOK)
                job = {**job, "again": True}
            except OrchestratorError as error:
                log.warning("chunk %s: %s\n  hint: %s", job["id"], error.message, error.hint)
                failed = partial(fail_chunk, self.journal, ChunkJob.from_json(job), error)
                await surely(failed, log)
                return {"attempted": 0}

    def _leave(self, error: OtherDirectory) -> None:
        """Take no more: whatever comes next would end the same way."""
        log.warning("%s\n  hint: %s", error.message, error.hint)
        self.stop.request()

    async def _muster(self, job: ChunkJob) -> Muster:
        async with self._opening:
            part = job.run, job.part
            if part not in self._musters:
                # One run at a time: of the others nothing is needed any more.
                for other in [other for other in self._musters if other not in self._stops]:
                    await self._musters.pop(other).close()
                self._musters[part] = await Muster.open(self.path, self.journal, job)
            return self._musters[part]

    async def _is_ending(self, run: str) -> bool:
        while True:
            try:
                return await self.journal.standing(run) in _ENDING
            except JournalError as error:
                log.warning("%s; asked again", error.message)
                await asyncio.sleep(_LOOK)

    async def heed(self) -> None:
        """Look from time to time whether runs are to end, and begin nobody more of those."""
        while True:
            await asyncio.sleep(_LOOK)
            for (run, _), stops in list(self._stops.items()):
                with suppress(JournalError):
                    going = [stop for stop in stops if not stop.draining]
                    if going and await self.journal.standing(run) in _ENDING:
                        log.info("run %s is about to end: no new tenant starts", run)
                        for stop in going:
                            stop.request(RunStatus.PAUSED)

    async def look_for_others(self) -> None:
        """Say of runs that wait for workers with another directory or version that they are not taken here."""
        while True:
            with suppress(Exception):
                waiting = await asyncio.to_thread(self.engine.waiting_runs, self.queues.all_runs)
                for run, queue in waiting.items():
                    if queue != self.queues.runs and run not in self._said:
                        self._said.add(run)
                        log.warning(
                            "run %s waits for workers with directory and version %s; here are %s: it is not taken",
                            run,
                            queue.removeprefix(self.queues.all_runs),
                            self.queues.runs.removeprefix(self.queues.all_runs),
                        )
            await asyncio.sleep(_LOOK_FOR_OTHERS)

    async def drained(self) -> None:
        """Let tenants that are being attempted finish; cut them off when told twice."""
        for stops in self._stops.values():
            for stop in stops:
                stop.request()
        while self.chunks:
            await asyncio.sleep(0.05)
            if self.stop.at_once.is_set():
                for stops in self._stops.values():
                    for stop in stops:
                        stop.at_once.set()


async def work(
    fleet: Fleet, *, slots: int = DEFAULT_SLOTS, stop: Stop | None = None, said: Callable[[str], None] = log.info
) -> None:
    """Take part in the runs of ``fleet`` until ``stop`` is requested and what is under way is through.

    The process has to end then, at once and without cancelling what is left: a run as a whole that it has is carried on
    by another worker.

    Args:
        fleet: as loaded from tenants.yaml.
        slots: workers that there may be, on all machines together.
        stop: ends it.
        said: told what it is about to do.

    Raises:
        ConfigurationError: DBOS is not installed, or the journal is a file.
        UsageError: all slots are taken.
        OrchestratorError: fleet, directory or journal cannot be used.
    """
    stop = stop or Stop()
    place = Place.of(fleet)
    # What is opened is not closed in the end: see above. What cannot be opened is.
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(opened_engine(place))
        journal = await stack.enter_async_context(opened_journal(fleet))
        journal.flush_interval = _FLUSH_INTERVAL
        async with opened_project(fleet) as project:
            queues, servers = queues_of(project), len(project.fleet.servers)
        await asyncio.to_thread(engine.register, queues, (), servers)
        slot = await asyncio.to_thread(Slot.take, place.url, queues, slots)
        worker = Worker(fleet.path, engine, journal, queues, stop)
        names = [queues.runs, *(queues.chunks(places) for places in PLACES)]
        runtime = launch(place.url, slot, names, worker.run, worker.chunk, engine)
        looking = [asyncio.create_task(worker.heed()), asyncio.create_task(worker.look_for_others())]
        worker._opened = stack.pop_all()
    said(f"worker in slot {slot.number}: directory {queues.digest}, version {queues.version}, {servers} servers")
    while not stop.draining:
        await stop.within(3600.0)
    runtime.stop_taking()
    await worker.drained()
    for task in looking:
        task.cancel()
    await until_written(journal)
