"""What is written in one transaction.

A batch goes to the database as one JSON document in one statement and is taken apart there. SQLite does that outside
Python's global lock and PostgreSQL on its server, in one round trip; written row by row, a batch would hold up the
event loop that migrates the tenants.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Table, Text, bindparam, column, func, select, true, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.journal.encoding import to_json
from orchestrator.journal.pending import Pending
from orchestrator.journal.records import AttemptRecord, RunRecord
from orchestrator.journal.rows import attempt_row, event_row, revision_row, run_row, step_row
from orchestrator.journal.tables import Moment, attempts, events, revisions, runs, steps
from orchestrator.statuses import ASKED, RunStatus

#: Characters of a point in time that SQLAlchemy's type for SQLite reads back: all but the offset, which is UTC's.
_MOMENT_LENGTH = len("2026-11-22 21:53:07.123456")

#: Rows of one statement: each has to be answered in time, however large the fleet is.
_AT_ONCE = 5000

_RUN = runs.c.id == bindparam("run")
_BEAT = update(runs).where(_RUN).values(heartbeat_at=bindparam("at"))
_FINISH = update(runs).where(_RUN).values(status=bindparam("to"), finished_at=bindparam("at"))


async def write_start(connection: AsyncConnection, run: RunRecord, selected: Sequence[AttemptRecord]) -> None:
    """Write ``run`` and the attempts on its ``selected`` tenants, which keep this order."""
    await _write(connection, runs, [run_row(run)])
    rows = [attempt_row(attempt, position) for position, attempt in enumerate(selected)]
    for start in range(0, len(rows), _AT_ONCE):
        await _write(connection, attempts, rows[start : start + _AT_ONCE])


async def asked_since(connection: AsyncConnection, run: str, was: RunRecord | None) -> RunStatus | None:
    """What somebody has asked ``run`` to end as; nobody can ask for anything more until the transaction ends.

    Args:
        connection: in a transaction.
        run: its id.
        was: the run as it was read; what it was asked for by then does not count.
    """
    query = select(runs.c.status, runs.c.finished_at).where(runs.c.id == run).with_for_update()
    row = (await connection.execute(query)).first()
    if row is None or row.status not in ASKED or (was is not None and tuple(row) == (was.status, was.finished_at)):
        return None
    return RunStatus(row.status)


async def write_asked(connection: AsyncConnection, run: str, status: RunStatus) -> bool:
    """Ask for a run to end as ``status``; says whether it had not ended yet."""
    asked = update(runs).where(runs.c.id == run, runs.c.finished_at.is_(None)).values(status=status.value)
    return (await connection.execute(asked)).rowcount == 1


async def write_pending(connection: AsyncConnection, pending: Pending) -> None:
    """Write everything in ``pending``; doing so again changes nothing."""
    await _write(connection, attempts, [attempt_row(attempt) for attempt in pending.attempts.values()])
    await _write(connection, events, [event_row(event, pending.writer, n) for n, event in pending.events.items()])
    await _write(connection, steps, [step_row(step) for step in pending.steps.values()])
    await _write(connection, revisions, [revision_row(revision) for revision in pending.revisions.values()])
    if pending.heartbeats:
        await connection.execute(_BEAT, [{"run": run, "at": at} for run, at in pending.heartbeats.items()])
    if pending.finishes:
        finishes = [{"run": run, "to": status.value, "at": at} for run, (status, at) in pending.finishes.items()]
        await connection.execute(_FINISH, finishes)


async def _write(connection: AsyncConnection, table: Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        await connection.execute(_statement(connection.dialect.name, table), {"rows": to_json(rows)})


@cache
def _statement(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Insert the rows of a JSON document; those that are there already get its values, but keep their place."""
    insert = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    source, values = _recordset(table) if dialect == "postgresql" else _json_each(table)
    # Without a WHERE, SQLite takes ON CONFLICT for the beginning of a join condition.
    rows = select(*values).select_from(source).where(true())
    settable: dict[str, ColumnElement[Any]] = {
        name: insert.excluded[name] for name, held in table.columns.items() if not held.primary_key
    }
    if "position" in settable:
        settable["position"] = func.coalesce(table.c.position, insert.excluded.position)
    insert = insert.from_select(table.columns.keys(), rows)
    return insert.on_conflict_do_update(index_elements=list(table.primary_key), set_=settable)


def _recordset(table: Table) -> tuple[FromClause, list[ColumnElement[Any]]]:
    """PostgreSQL: the document's objects as rows, see its manual on json_to_recordset."""
    typed = [column(name, held.type) for name, held in table.columns.items()]
    source = func.json_to_recordset(func.cast(bindparam("rows", type_=Text()), postgresql.JSON)).table_valued(*typed)
    named = source.render_derived(name="row", with_types=True)
    return named, list(named.c)


def _json_each(table: Table) -> tuple[FromClause, list[ColumnElement[Any]]]:
    """SQLite: the document's objects as rows, see https://www.sqlite.org/json1.html."""
    source = func.json_each(bindparam("rows", type_=Text())).table_valued(column("value", Text()))
    values: list[ColumnElement[Any]] = []
    for name, held in table.columns.items():
        value: ColumnElement[Any] = func.json_extract(source.c.value, f"$.{name}")
        values.append(func.substr(value, 1, _MOMENT_LENGTH) if isinstance(held.type, Moment) else value)
    return source, values
