"""Queries of those who look on while others write: what of a run is new, how it stands, what it did to some tenants."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.journal.reading import many_attempts
from orchestrator.journal.records import AttemptRecord
from orchestrator.journal.rows import attempt_record, select_attempts
from orchestrator.journal.tables import attempts, runs
from orchestrator.statuses import RunStatus

#: Transaction numbers of rows have 32 bits, those of snapshots 64: the younger of two is less than half a turn ahead.
_YOUNGER = text(
    "((orchestrator_attempts.xmin::text::bigint - (CAST(:mark AS bigint) & 4294967295) + 4294967296) & 4294967295)"
    " < 2147483648"
)


async def attempts_of(connection: AsyncConnection, run: str, tenants: Collection[str]) -> list[AttemptRecord]:
    """What a run did to some tenants, in no order."""
    query = select_attempts().where(attempts.c.run == run, attempts.c.tenant.in_(list(tenants)))
    return [attempt_record(row) for row in await connection.execute(query)]


async def mark(connection: AsyncConnection) -> str | None:
    """A moment: the oldest transaction that is under way (see the section on snapshots in PostgreSQL's manual).

    What is not seen yet comes from younger ones. ``None`` on SQLite, which has no such numbers.
    """
    if connection.dialect.name != "postgresql":
        return None
    found: str | None = await connection.scalar(text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text"))
    return found


async def changed_attempts(
    connection: AsyncConnection, run: str, since: str | None
) -> tuple[str | None, list[AttemptRecord]]:
    """A run's attempts that were written since a mark, those included that were being written then, and a new mark.

    Args:
        connection: of the journal.
        run: its id.
        since: the mark of the last time; ``None`` for all there are.
    """
    query = select_attempts().where(attempts.c.run == run).order_by(attempts.c.finished_at, attempts.c.tenant)
    # Before, and in a transaction of its own: what ends in between is read, and read again the next time.
    new = await mark(connection)
    await connection.rollback()
    if since is not None:
        query = query.where(_YOUNGER.bindparams(mark=int(since)))
    return new, await many_attempts(connection, query)


async def turn(connection: AsyncConnection, run: str, status: RunStatus, was: RunStatus) -> None:
    """Have a run that goes on stand as ``status`` if it stands as ``was``: what others asked for is left as it is."""
    here = runs.c.id == run, runs.c.finished_at.is_(None), runs.c.status == was.value
    await connection.execute(update(runs).where(*here).values(status=status.value))
