"""The journal's queries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import JournalError
from orchestrator.journal.records import AttemptRecord, EventRecord, RevisionRecord, RunRecord, Spread, StepRecord
from orchestrator.journal.rows import (
    attempt_record,
    event_record,
    revision_record,
    run_record,
    select_attempts,
    step_record,
)
from orchestrator.journal.tables import attempts, events, revisions, runs, steps
from orchestrator.statuses import RunStatus, TenantStatus

#: Stands for the run that started last.
LAST = "last"

#: Runs looked through for what a mistyped id may have meant.
_SIMILAR_AMONG = 1000
#: Runs named when a shortened id fits several.
_NAMED = 5

#: Attempts that are fetched at once.
_AT_ONCE = 5000

#: Runs of one second are told apart by nothing better than their ids.
_NEWEST_FIRST = (runs.c.started_at.desc(), runs.c.id.desc())

#: Runs whose attempts tell how long a tenant takes.
_LAST_RUNS = 10
#: Milliseconds from which on a tenant takes long: below, the order that the operator wrote is worth more.
_LONG_MS = 10_000


async def last_run(
    connection: AsyncConnection, commands: Sequence[str] | None, without: Sequence[str] = ()
) -> RunRecord | None:
    """The run that started last, of those that carried out one of ``commands``, and none of ``without``."""
    query = select(runs).order_by(*_NEWEST_FIRST).limit(1)
    if commands is not None:
        query = query.where(runs.c.command.in_(commands))
    if without:
        query = query.where(runs.c.command.not_in(without))
    row = (await connection.execute(query)).first()
    return None if row is None else run_record(row)


async def last_run_with(connection: AsyncConnection, kind: str) -> RunRecord | None:
    """The run that started last, of those that have an event of one kind."""
    with_event = runs.c.id.in_(select(events.c.run).where(events.c.kind == kind))
    row = (await connection.execute(select(runs).where(with_event).order_by(*_NEWEST_FIRST).limit(1))).first()
    return None if row is None else run_record(row)


async def runs_before(connection: AsyncConnection, run: RunRecord, command: str, limit: int) -> list[RunRecord]:
    """The last runs of ``command`` that had ended when ``run`` began, newest first; so many at most."""
    earlier = (runs.c.command == command, runs.c.finished_at <= run.started_at)
    query = select(runs).where(*earlier).order_by(*_NEWEST_FIRST).limit(limit)
    return [run_record(row) for row in await connection.execute(query)]


async def find_run(connection: AsyncConnection, name: str) -> RunRecord:
    """The run that ``name`` means: its id, a beginning that no other id has, or ``last``."""
    if name == LAST:
        last = await last_run(connection, None)
        if last is None:
            raise no_runs()
        return last
    beginning = name.strip().lower()
    fits = func.substr(runs.c.id, 1, len(beginning)) == beginning
    query = select(runs).where(fits).order_by((runs.c.id == beginning).desc(), *_NEWEST_FIRST).limit(_NAMED + 1)
    rows = (await connection.execute(query)).all()
    if not rows or not beginning:
        raise await _unknown(connection, beginning)
    if len(rows) > 1 and rows[0].id != beginning:
        raise _ambiguous(name, [row.id for row in rows])
    return run_record(rows[0])


async def run_by_id(connection: AsyncConnection, id: str) -> RunRecord | None:
    """The run with this very id; ``None`` where there is none."""
    row = (await connection.execute(select(runs).where(runs.c.id == id))).first()
    return None if row is None else run_record(row)


async def list_runs(
    connection: AsyncConnection, limit: int, tenant: str | None
) -> list[tuple[RunRecord, dict[TenantStatus, int]]]:
    """The newest runs, newest first, each with how many tenants have which status."""
    query = select(runs).order_by(*_NEWEST_FIRST).limit(limit)
    counts = select(attempts.c.run, attempts.c.status, func.count()).group_by(attempts.c.run, attempts.c.status)
    if tenant is not None:
        query = query.where(runs.c.id.in_(select(attempts.c.run).where(attempts.c.tenant == tenant)))
        counts = counts.where(attempts.c.tenant == tenant)
    found = [run_record(row) for row in await connection.execute(query)]
    summaries: dict[str, dict[TenantStatus, int]] = {run.id: {} for run in found}
    for run, status, count in await connection.execute(counts.where(attempts.c.run.in_(list(summaries)))):
        summaries[run][TenantStatus(status)] = count
    return [(run, summaries[run.id]) for run in found]


async def list_attempts(connection: AsyncConnection, run: str) -> list[AttemptRecord]:
    """The run's attempts in the order given when it started; tenants that joined later come last."""
    query = select_attempts().where(attempts.c.run == run)
    order = (attempts.c.position.is_(None), attempts.c.position, attempts.c.started_at, attempts.c.tenant)
    return await many_attempts(connection, query.order_by(*order))


async def many_attempts(connection: AsyncConnection, query: Select[Any]) -> list[AttemptRecord]:
    """What a query for attempts finds, fetched in parts: each has to be answered in time, however large the fleet."""
    found: list[AttemptRecord] = []
    async with connection.stream(query) as result:
        async for rows in result.partitions(_AT_ONCE):
            found.extend(map(attempt_record, rows))
    return found


async def attempts_on(connection: AsyncConnection, tenant: str, ids: Collection[str]) -> list[AttemptRecord]:
    """What some runs did to one tenant, in no order."""
    query = select_attempts().where(attempts.c.tenant == tenant, attempts.c.run.in_(list(ids)))
    return [attempt_record(row) for row in await connection.execute(query)]


async def status_of(connection: AsyncConnection, run: str) -> RunStatus | None:
    """What the journal says of a run now; ``None`` when it does not know it."""
    status = await connection.scalar(select(runs.c.status).where(runs.c.id == run))
    return None if status is None else RunStatus(status)


async def changes_after(connection: AsyncConnection, run: RunRecord) -> list[tuple[RunRecord, AttemptRecord]]:
    """Attempts of other runs that changed their tenant after ``run`` began, or may have, each with its run.

    One that was never ended counts as going on for as long as its run's process said that it is there.
    """
    begun_earlier = select(runs.c.id).where(runs.c.heartbeat_at > run.started_at)
    unended = attempts.c.finished_at.is_(None) & attempts.c.started_at.is_not(None)
    query = (
        select_attempts()
        .where(
            attempts.c.run != run.id,
            (attempts.c.started_at > run.started_at)
            | (attempts.c.finished_at > run.started_at)
            | (unended & attempts.c.run.in_(begun_earlier)),
        )
        .order_by(attempts.c.started_at, attempts.c.run)
    )
    found = [attempt_record(row) for row in await connection.execute(query)]
    unknown = TenantStatus.UNKNOWN
    found = [attempt for attempt in found if attempt.to_heads != attempt.from_heads or attempt.status is unknown]
    ids = list({attempt.run for attempt in found})
    theirs = {row.id: run_record(row) for row in await connection.execute(select(runs).where(runs.c.id.in_(ids)))}
    return [(theirs[attempt.run], attempt) for attempt in found]


async def list_events(
    connection: AsyncConnection, run: str | None, tenant: str | None, kind: str | None
) -> list[EventRecord]:
    """The run's events in the order they happened; of all runs where none is named."""
    query = select(events).order_by(events.c.at, events.c.writer, events.c.number)
    if run is not None:
        query = query.where(events.c.run == run)
    if tenant is not None:
        query = query.where(events.c.tenant == tenant)
    if kind is not None:
        query = query.where(events.c.kind == kind)
    return [event_record(row) for row in await connection.execute(query)]


async def open_steps(connection: AsyncConnection, tenant: str | None) -> list[tuple[StepRecord, RunRecord | None]]:
    """Steps outside transactions that nobody has seen the end of, each with its run."""
    query = select(steps).where(steps.c.done_at.is_(None)).order_by(steps.c.tenant)
    if tenant is not None:
        query = query.where(steps.c.tenant == tenant)
    found = [step_record(row) for row in await connection.execute(query)]
    query = select(runs).where(runs.c.id.in_([step.run for step in found]))
    theirs = {row.id: run_record(row) for row in await connection.execute(query)} if found else {}
    return [(step, theirs.get(step.run)) for step in found]


async def list_revisions(connection: AsyncConnection) -> list[RevisionRecord]:
    """The files that revisions were applied from, in the order they were met."""
    query = select(revisions).order_by(revisions.c.at, revisions.c.revision, revisions.c.checksum)
    return [revision_record(row) for row in await connection.execute(query)]


async def commit_of(connection: AsyncConnection, run: str) -> str | None:
    """The commit that was checked out when a run began."""
    commit: str | None = await connection.scalar(select(runs.c.actor_git_commit).where(runs.c.id == run))
    return commit


async def mean_durations(connection: AsyncConnection, direction: str) -> dict[str, float]:
    """Milliseconds that each revision took on average, by revision."""
    query = (
        select(events.c.revision, func.avg(events.c.duration_ms))
        .where(events.c.kind == "revision", events.c.direction == direction, events.c.duration_ms.is_not(None))
        .group_by(events.c.revision)
    )
    return {revision: float(mean) for revision, mean in await connection.execute(query)}


async def spreads(connection: AsyncConnection, direction: str) -> dict[str, Spread]:
    """How long each revision took, from tenant to tenant, by revision.

    The nearest-rank percentiles, found by numbering rows: ``percentile_disc`` is PostgreSQL's alone.
    """
    took = events.c.duration_ms
    of_one = (
        select(
            events.c.revision,
            took,
            func.row_number().over(partition_by=events.c.revision, order_by=took).label("place"),
            func.count().over(partition_by=events.c.revision).label("times"),
        )
        .where(events.c.kind == "revision", events.c.direction == direction, took.is_not(None))
        .subquery()
    )
    half, most = (of_one.c.times + 1) // 2, (of_one.c.times * 9 + 9) // 10
    query = select(
        of_one.c.revision,
        func.max(of_one.c.duration_ms).filter(of_one.c.place == half),
        func.max(of_one.c.duration_ms).filter(of_one.c.place == most),
        func.max(of_one.c.times),
    ).group_by(of_one.c.revision)
    return {row[0]: Spread(float(row[1]), float(row[2]), int(row[3])) for row in await connection.execute(query)}


async def long_tenants(connection: AsyncConnection) -> dict[str, float]:
    """Milliseconds that tenants took in one of the last runs, at most, by id; without those who were quick."""
    last = list(await connection.scalars(select(runs.c.id).order_by(*_NEWEST_FIRST).limit(_LAST_RUNS)))
    query = (
        select(attempts.c.tenant, func.max(attempts.c.duration_ms))
        .where(attempts.c.run.in_(last), attempts.c.duration_ms >= _LONG_MS)
        .group_by(attempts.c.tenant)
    )
    return {tenant: float(duration) for tenant, duration in await connection.execute(query)}


def no_runs() -> JournalError:
    """The error for asking for a run while there is none at all."""
    return JournalError("the journal has no run yet", hint="start one: `orchestrator upgrade`")


async def _unknown(connection: AsyncConnection, name: str) -> JournalError:
    ids = list(await connection.scalars(select(runs.c.id).order_by(*_NEWEST_FIRST).limit(_SIMILAR_AMONG)))
    if not ids:
        return no_runs()
    similar = get_close_matches(name, [*ids, LAST], n=3)
    hint = f"did you mean {' or '.join(similar)}? " if similar else ""
    return JournalError(f"no run {name!r} in the journal", hint=f"{hint}`orchestrator runs list` shows them all")


def _ambiguous(name: str, ids: list[str]) -> JournalError:
    more = " and others" if len(ids) > _NAMED else ""
    return JournalError(f"{name!r} fits several runs", hint=f"type more of it: {', '.join(ids[:_NAMED])}{more}")
