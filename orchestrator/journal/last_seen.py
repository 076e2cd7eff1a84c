"""Where each tenant stood when a run saw it last: what its version table should still say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import Text, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.journal.records import RunRecord
from orchestrator.journal.rows import heads_in, run_record
from orchestrator.journal.tables import attempts, events, runs
from orchestrator.statuses import SATISFIED

#: Kinds of the events that say where tenants are: ``detail`` has each one's database, schema and file by its id,
#: by the address of its server.
_PLACES = ("places", "places_seen")

#: Address of the server, database, schema, file.
Whereabouts: TypeAlias = tuple[str, str | None, str | None, str | None]

#: As the journal spells them.
_SATISFIED = frozenset(status.value for status in SATISFIED)

#: Runs that look at no tenant's heads but to write them beside a copy.
_NOT_ASKED = ("backup",)
#: A run that has not ended is still at work, or was killed at most so long after its last heartbeat: one that is
#: carried on keeps the old one for a moment.
_UNENDED = timedelta(days=1)
#: Tenants that are named in a query; of more of them, all rows are read.
_NAMED = 1000
#: Runs in one query, at most: SQLite takes 32,766 values.
_MOST_RUNS = 1000


@dataclass(frozen=True, slots=True)
class Unclear:
    """An attempt that nobody saw the end of: it may have moved its tenant from its first heads towards its target."""

    run: RunRecord
    from_heads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LastSeen:
    """The last heads that a run has left a tenant at, or has found to be right."""

    heads: tuple[str, ...]
    #: The run's id.
    run: str
    #: When it saw them; of a tenant that had nothing to do, when the run began.
    at: datetime
    #: Where the tenant's tables were then; ``None`` where the journal does not say.
    place: Whereabouts | None = None
    #: What may have moved the tenant since.
    since: tuple[Unclear, ...] = ()


@dataclass(frozen=True, slots=True)
class _Run:
    id: str
    began: datetime
    #: Nothing of it is younger.
    ended: datetime


@dataclass(slots=True)
class _Sweep:
    """Runs looked through from the newest end to the oldest, until no older one can have seen a tenant later."""

    tenants: set[str]
    best: dict[str, tuple[datetime, str, str]] = field(default_factory=dict)
    unclear: dict[str, list[tuple[datetime, str, str]]] = field(default_factory=dict)

    def open(self, ended: datetime) -> set[str]:
        """Tenants that a run which ended at ``ended``, or before, may have seen last."""
        best = self.best
        return {tenant for tenant in self.tenants if tenant not in best or best[tenant][0] < ended}

    def take(self, row: Sequence[Any], run: _Run) -> None:
        _, tenant, status, start, end, at = row
        if tenant not in self.tenants:
            return
        at = at or run.began
        if end is None:
            if start is not None:
                self.unclear.setdefault(tenant, []).append((at, run.id, start))
        elif status in _SATISFIED or start != end:
            found = self.best.get(tenant)
            if found is None or found[0] < at:
                self.best[tenant] = (at, run.id, end)


async def last_seen(connection: AsyncConnection, tenants: Collection[str]) -> dict[str, LastSeen]:
    """What the journal's runs know of where ``tenants`` stand, by tenant id; without those that no run has seen.

    Only what ended well counts, and what moved a tenant: that a run which was not meant to touch a tenant has read
    something there explains nothing. A few queries, whatever the number of tenants; those for a fleet that is migrated
    as a whole read the last run alone.
    """
    sweep = _Sweep(set(tenants))
    newest_first = await _runs(connection)
    at, size = 0, 1
    while at < len(newest_first):
        part = newest_first[at : at + size]
        wanted = sweep.open(part[0].ended)
        if at == 1 and wanted:
            # Those that no run has ever meant are not looked for through years of runs.
            sweep.tenants -= wanted - await _known(connection, wanted) - sweep.unclear.keys()
            wanted &= sweep.tenants
        if not wanted:
            break
        by_id = {run.id: run for run in part}
        for row in await _attempts(connection, by_id, wanted):
            sweep.take(row, by_id[row[0]])
        at, size = at + size, min(2 * size, _MOST_RUNS)
    return await _complete(connection, sweep)


async def _runs(connection: AsyncConnection) -> list[_Run]:
    columns = (runs.c.id, runs.c.started_at, runs.c.finished_at, runs.c.heartbeat_at)
    found = [
        _Run(id, began, ended or max(beat or began, began) + _UNENDED)
        for id, began, ended, beat in await connection.execute(
            select(*columns).where(runs.c.command.not_in(_NOT_ASKED))
        )
    ]
    return sorted(found, key=lambda run: (run.ended, run.began, run.id), reverse=True)


async def _known(connection: AsyncConnection, tenants: Collection[str]) -> set[str]:
    known: set[str] = set()
    for part in _parts(sorted(tenants), _NAMED):
        known.update(await connection.scalars(select(attempts.c.tenant).distinct().where(attempts.c.tenant.in_(part))))
    return known


async def _attempts(
    connection: AsyncConnection, ids: Collection[str], tenants: Collection[str]
) -> Sequence[Sequence[Any]]:
    # Heads stay text: thousands of tenants have the same. Cast by the database: asyncpg would decode JSON by itself.
    query = select(
        attempts.c.run,
        attempts.c.tenant,
        attempts.c.status,
        cast(attempts.c.from_heads, Text),
        cast(attempts.c.to_heads, Text),
        func.coalesce(attempts.c.finished_at, attempts.c.started_at, type_=attempts.c.finished_at.type),
    ).where(attempts.c.run.in_(list(ids)))
    if len(tenants) <= _NAMED:
        query = query.where(attempts.c.tenant.in_(list(tenants)))
    return (await connection.execute(query)).all()


async def _complete(connection: AsyncConnection, sweep: _Sweep) -> dict[str, LastSeen]:
    """What the sweep has found, with the runs that are not known to have ended, and with places."""
    later = {
        tenant: [(run, start) for at, run, start in found if tenant in sweep.best and at >= sweep.best[tenant][0]]
        for tenant, found in sweep.unclear.items()
    }
    records: dict[str, RunRecord] = {}
    for part in _parts(sorted({run for found in later.values() for run, _ in found}), _MOST_RUNS):
        for row in await connection.execute(select(runs).where(runs.c.id.in_(part))):
            records[row.id] = run_record(row)
    places = await _places(connection, {run for _, run, _ in sweep.best.values()})
    nowhere: dict[str, Whereabouts] = {}
    found = {
        tenant: LastSeen(heads_in(end), run, at, places.get(run, nowhere).get(tenant))
        for tenant, (at, run, end) in sweep.best.items()
    }
    for tenant, unended in later.items():
        if unended:
            since = tuple(Unclear(records[id], heads_in(start)) for id, start in unended)
            found[tenant] = replace(found[tenant], since=since)
    return found


async def _places(connection: AsyncConnection, ids: Collection[str]) -> dict[str, dict[str, Whereabouts]]:
    found: dict[str, dict[str, Whereabouts]] = {}
    for part in _parts(sorted(ids), _MOST_RUNS):
        query = select(events.c.run, events.c.detail).where(events.c.run.in_(part), events.c.kind.in_(_PLACES))
        # A run that was carried on, or joined, has said it more than once.
        for run, detail in await connection.execute(query.order_by(events.c.at)):
            for server, tenants in detail.items():
                here = {tenant: (server, *place) for tenant, place in tenants.items()}
                found.setdefault(run, {}).update(here)
    return found


def _parts(values: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (values[start : start + size] for start in range(0, len(values), size))
