"""How a run stands whose process, or whose workers, may be gone: the journal says what was last written down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from orchestrator.engine.looking import AT_WORK, OPEN_RUNS, OpenRun, open_runs
from orchestrator.errors import JournalError
from orchestrator.fleet.fleet import Fleet
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import RunRecord, alive, process_is_there
from orchestrator.rollout.waiting import Waiting
from orchestrator.rollout.waves import EVENT as WAVE_EVENT
from orchestrator.rollout.waves import WaveState, waves_of
from orchestrator.statuses import RunStatus


async def is_going(journal: Journal, run: RunRecord) -> bool:
    """Whether somebody carries ``run`` out, or will.

    Args:
        journal: opened.
        run: as it was read from there; where it was given to workers, the engine is asked whether it has it.
    """
    return _is_going(run, await _open_runs(journal, [run]))


async def is_surely_going(fleet: Fleet, journal: Journal, run: RunRecord) -> bool:
    """The same for whoever would carry ``run`` on: where the engine's tables cannot be read, the engine is opened.

    Args:
        fleet: says where the engine is.
        journal: opened.
        run: as it was read from there.

    Raises:
        OrchestratorError: nobody can say whether workers have it.
    """
    there = await _open_runs(journal, [run])
    if there is None and run.executor is not None and run.finished_at is None:
        return await _engine_has(fleet, run.given_as) or process_is_there(run, datetime.now(UTC))
    return _is_going(run, there)


async def at_work(journal: Journal, runs: Iterable[RunRecord]) -> frozenset[str]:
    """Ids of those of ``runs`` that somebody is at just now: what they have left half done may still come to its end.

    One that workers have goes on as soon as one of them is there; until then, nobody is at its tenants.

    Args:
        journal: opened.
        runs: as they were read from there.
    """
    unended = {run.id: run for run in runs if run.finished_at is None}
    now = datetime.now(UTC)
    local = {run.id for run in unended.values() if run.executor is None and alive(run, now)}
    distributed = {run.id: run.given_as for run in unended.values() if run.executor is not None}
    if not distributed:
        return frozenset(local)
    try:
        there = {str(id) for (id,) in await journal.beside(AT_WORK)}
    except JournalError:
        # Who may read the journal need not have rights on the engine's tables; in doubt, they are left alone.
        return frozenset(local | distributed.keys())
    return frozenset(local | {id for id, given_as in distributed.items() if {id, given_as} & there})


async def is_lost(journal: Journal, run: RunRecord) -> bool:
    """Whether the worker that had ``run`` as a whole is gone, and no other one has taken it over."""
    there = await _open_runs(journal, [run])
    return any(each.run == run.given_as and each.lost for each in there or ())


async def as_they_are(journal: Journal, runs: Sequence[RunRecord]) -> list[RunRecord]:
    """``runs``, of which those that nobody carries out any more are interrupted; ``resume`` sees it the same way."""
    there = await _open_runs(journal, runs)

    def as_it_is(run: RunRecord) -> RunRecord:
        gone = run.status is not RunStatus.CANCELLED and run.finished_at is None and not _is_going(run, there)
        return replace(run, status=RunStatus.INTERRUPTED) if gone else run

    return [as_it_is(run) for run in runs]


async def waiting(journal: Journal, run: RunRecord) -> Waiting | None:
    """What ``run`` waits for that was given to workers; ``None`` where one is at it, or nobody knows."""
    there = await _open_runs(journal, [run])
    own = next((each for each in there or () if each.run == run.id), None)
    if there is None or own is None or (own.taken and not own.lost):
        return None
    if own.lost:
        return Waiting()
    before = next(each for each in there if each.queue == own.queue)
    if before == own:
        return Waiting()
    waves = waves_of(await journal.events(before.run, kind=WAVE_EVENT))
    baking = next((wave for wave in waves.values() if wave.state is WaveState.BAKING), None)
    return Waiting(before.run) if baking is None else Waiting(before.run, baking.name, baking.until)


async def _open_runs(journal: Journal, runs: Sequence[RunRecord]) -> tuple[OpenRun, ...] | None:
    """The runs that the engine has; ``None`` where it need not or cannot be asked."""
    if not any(run.executor is not None and run.finished_at is None for run in runs):
        return None
    try:
        return open_runs(await journal.beside(OPEN_RUNS))
    except JournalError:
        # Who may read the journal need not have rights on the engine's tables.
        return None


async def _engine_has(fleet: Fleet, run: str) -> bool:
    # Not above: they ask here how runs stand.
    from orchestrator.actions.distributing.given import given, opened_engine
    from orchestrator.actions.distributing.place import Place
    from orchestrator.engine.client import explained

    place = Place.of(fleet)
    async with opened_engine(place) as engine:
        with explained(place.masked):
            return (await given(engine, run)).is_open


def _is_going(run: RunRecord, there: Sequence[OpenRun] | None) -> bool:
    now = datetime.now(UTC)
    if run.finished_at is not None:
        return False
    if run.executor is None or there is None:
        return alive(run, now)
    # Not there yet, it is about to be given out by the process that has planned it; or that one was killed.
    return any(each.run == run.given_as for each in there) or process_is_there(run, now)
