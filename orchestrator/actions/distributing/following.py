"""Look on while workers carry a run out: what the journal says is new, and in the end what they say it came to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from orchestrator.actions.distributing.given import Given, given, opened_engine
from orchestrator.actions.distributing.place import Place
from orchestrator.actions.execution import Watch
from orchestrator.actions.going import waiting
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.runs import result_of
from orchestrator.engine.client import OPEN as NOT_OVER
from orchestrator.engine.client import Engine, Standing
from orchestrator.errors import JournalError, OrchestratorError
from orchestrator.fleet.fleet import Fleet
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import AttemptRecord
from orchestrator.rollout.result import RunResult
from orchestrator.rollout.waiting import Waiting
from orchestrator.rollout.waves import EVENT as WAVE_EVENT
from orchestrator.rollout.waves import WaveRecord, waves_of
from orchestrator.statuses import OPEN, RunStatus

#: Seconds between two looks: at least, as a multiple of what a look takes, and at most.
_LOOK = (0.25, 4.0, 3.0)
#: Seconds that the journal's server may be away.
_PATIENCE = 300.0

log = logging.getLogger("orchestrator.run")


class EndedByError(OrchestratorError):
    """A worker could not carry the run out: what it said."""


@dataclass(frozen=True, slots=True)
class Underway:
    """A run that somebody begins to watch: see :class:`~orchestrator.rollout.watching.Beginning`."""

    command: str
    requested: str | None
    target: tuple[str, ...]
    waves: tuple[str, ...]
    tenants: tuple[str, ...]


async def follow_run(fleet: Fleet, name: str, watch: Watch) -> RunResult:
    """Look on until a run that workers have is over; one that has ended is given back at once.

    Args:
        fleet: says where the journal is.
        name: the run's id, an unambiguous start of it, or ``last``.
        watch: who looks on; where it is stopped, the run goes on without it.

    Raises:
        JournalError: no such run.
        OrchestratorError: what the workers could not carry it out for.
    """
    async with opened_journal(fleet, read_only=True) as journal:
        result = await result_of(journal, name)
        run = result.run
        # A part of another run ends before that one: the engine does not say when.
        if run.executor is None or run.finished_at is not None or run.given_as != run.id:
            return await _until_finished(journal, result, watch)
        async with opened_engine(Place.of(fleet)) as engine:
            watch.observer.started(_underway(result), run.id)
            return await followed(journal, engine, await given(engine, run.id), watch, {})


async def followed(
    journal: Journal, engine: Engine, run: Given, watch: Watch, earlier: Mapping[str, AttemptRecord]
) -> RunResult:
    """Tell the observer what happens until the run is over.

    Args:
        journal: opened.
        engine: opened.
        run: given out.
        watch: who looks on; where it is stopped, the run goes on without it.
        earlier: attempts that are not to be told of, by tenant id.
    """

    said: Waiting | None = None

    async def is_over() -> bool:
        nonlocal said
        standing = (await asyncio.to_thread(engine.standings, [run.id])).get(run.id)
        if standing in NOT_OVER:
            now = await waiting(journal, await journal.run(run.run))
            # Where others are there, one of them takes it over; that nobody is yet, was said when it was given out.
            left = standing is Standing.TAKEN and now is not None and not await asyncio.to_thread(engine.workers)
            if now is None:
                said = None
            elif now != said and (left or now.behind is not None):
                log.warning("run %s %s%s", run.run, now, f"\n  hint: {now.way_on(run.run)}" if left else "")
                said = now
        return standing not in NOT_OVER

    if not await _watched(journal, run.run, watch, earlier, is_over):
        return await result_of(journal, run.run)
    standing = (await asyncio.to_thread(engine.standings, [run.id])).get(run.id)
    ended: dict[str, Any] | None = None
    if standing is Standing.DONE:
        ended = (await asyncio.to_thread(engine.result, run.id)).get("error")
    elif standing in (Standing.BROKEN, Standing.GIVEN_UP):
        ended = {"message": f"run {run.run} broke in the worker that had it", "hint": "see what the workers have ended"}
    if ended is not None:
        raise EndedByError(ended["message"], hint=ended["hint"])
    return await result_of(journal, run.run)


async def _until_finished(journal: Journal, result: RunResult, watch: Watch) -> RunResult:
    """The same of a run that one process carries out."""
    run = result.run
    if run.status is not RunStatus.RUNNING:
        return result

    async def is_over() -> bool:
        return (await result_of(journal, run.id)).run.status is not RunStatus.RUNNING

    watch.observer.started(_underway(result), run.id)
    await _watched(journal, run.id, watch, {}, is_over)
    return await result_of(journal, run.id)


def _underway(result: RunResult) -> Underway:
    run = result.run
    waves = tuple(dict.fromkeys(attempt.wave or "" for attempt in result.tenants))
    tenants = tuple(attempt.tenant for attempt in result.tenants)
    return Underway(run.command, run.requested_target, run.target, waves, tenants)


async def _watched(
    journal: Journal,
    run: str,
    watch: Watch,
    earlier: Mapping[str, AttemptRecord],
    is_over: Callable[[], Awaitable[bool]],
) -> bool:
    """Whether it is over; otherwise somebody has had enough of looking on."""
    from sqlalchemy.exc import DBAPIError

    mark: str | None = None
    told: dict[str, AttemptRecord] = dict(earlier)
    waves: dict[str, WaveRecord] = {}
    away: float | None = None
    while True:
        began = monotonic()
        try:
            # Before what has happened is read: nothing is to come after it.
            over = await is_over()
            mark, changed = await journal.changes(run, mark)
            stands = waves_of(await journal.events(run, kind=WAVE_EVENT))
            away = None
        except (JournalError, DBAPIError) as error:
            if away is None:
                log.warning("the run goes on, and cannot be looked at just now: %s", str(error).partition("\n")[0])
                away = began
            if began - away > _PATIENCE:
                raise
            over, changed, stands = False, [], waves
        for attempt in changed:
            if attempt.status not in OPEN and told.get(attempt.tenant) != attempt:
                told[attempt.tenant] = attempt
                watch.observer.tenant(attempt)
        for record in stands.values():
            if waves.get(record.name) != record:
                watch.observer.wave(record)
        waves = stands
        if over:
            return True
        pause = min(_LOOK[2], max(_LOOK[0], _LOOK[1] * (monotonic() - began)))
        if await watch.stop.within(pause):
            return False
