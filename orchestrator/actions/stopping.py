"""Pause and cancel a run from another terminal: asked for in the journal, heeded by whoever carries the run out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

from orchestrator.actions.going import is_lost
from orchestrator.actions.journals import opened_journal
from orchestrator.errors import JournalError, UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import RunRecord, alive
from orchestrator.rollout.stop import Stop
from orchestrator.rollout.waves import EVENT as WAVE_EVENT
from orchestrator.rollout.waves import waves_of, with_rollbacks
from orchestrator.statuses import RunStatus, TenantStatus

#: Seconds between two looks whether somebody has asked.
_LOOK = 1.0


async def pause(fleet: Fleet, run: str) -> RunRecord:
    """Have a run end once the tenants that it is at are through; ``resume`` carries it on.

    Args:
        fleet: says where the journal is.
        run: its id, an unambiguous start of it, or ``last``.

    Raises:
        JournalError: no such run.
        UsageError: no process carries it out.
    """
    async with opened_journal(fleet) as journal:
        record = await journal.run(run)
        if record.finished_at is not None or not alive(record, datetime.now(UTC)):
            raise UsageError(
                f"run {record.id} is not under way: there is nothing to pause",
                hint=f"look at it with: orchestrator runs show {record.id}",
            )
        await journal.ask(record.id, RunStatus.PAUSED)
        await _without_workers(fleet, journal, record, RunStatus.PAUSED)
        return record


async def cancel(fleet: Fleet, run: str) -> RunRecord:
    """The same for good: tenants that it has not begun stay as they are, and it cannot be resumed.

    A run that nobody carries out is cancelled at once.

    Raises:
        JournalError: no such run.
        UsageError: it has come to its end.
    """
    async with opened_journal(fleet) as journal:
        record = await journal.run(run)
        if record.status in (RunStatus.SUCCEEDED, RunStatus.CANCELLED):
            raise UsageError(
                f"run {record.id} has ended ({record.status.value}): there is nothing to cancel",
                hint=f"look at it with: orchestrator runs show {record.id}",
            )
        if record.finished_at is None and alive(record, datetime.now(UTC)):
            await journal.ask(record.id, RunStatus.CANCELLED)
            await _without_workers(fleet, journal, record, RunStatus.CANCELLED)
        else:
            await journal.finish_run(record.id, RunStatus.CANCELLED, record.finished_at or datetime.now(UTC))
        return record


async def _without_workers(fleet: Fleet, journal: Journal, record: RunRecord, status: RunStatus) -> None:
    """End a run that was given to workers, and that none of them has begun, or has any more."""
    if record.executor is None:
        return
    from orchestrator.actions.distributing.given import taken_back

    waves = waves_of(await journal.events(record.id, kind=WAVE_EVENT)).values()
    parts = with_rollbacks(record.id, waves)
    lost = await is_lost(journal, record)
    await taken_back(fleet, record, parts, lost, lambda: ended_as(journal, record.id, status))


async def ended_as(journal: Journal, run: str, status: RunStatus) -> None:
    """Write down that a run has ended before it came to its end by itself; nobody carries it out."""
    now = datetime.now(UTC)
    for attempt in await journal.attempts(run):
        if attempt.status is TenantStatus.PENDING:
            journal.record(replace(attempt, status=TenantStatus.NOT_STARTED))
        elif attempt.status is TenantStatus.RUNNING:
            journal.record(replace(attempt, status=TenantStatus.INTERRUPTED, finished_at=now))
    await journal.finish_run(run, status, now)


@asynccontextmanager
async def heeding(journal: Journal, run: str, stop: Stop) -> AsyncIterator[None]:
    """Look into the journal meanwhile whether somebody wants the run to end."""

    async def look() -> None:
        while True:
            await asyncio.sleep(_LOOK)
            # One that cannot be read says so by itself, and the run goes on.
            with suppress(JournalError):
                asked = await journal.asked(run)
                if asked is not None and asked is not stop.asked:
                    stop.request(asked)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.wait({looking})
