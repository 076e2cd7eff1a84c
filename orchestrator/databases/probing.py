"""Asking one tenant, read-only, whether its rows stand against what is about to be run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from orchestrator.databases.failures import Failure, describe
from orchestrator.databases.port.database import Session

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

#: Offending rows that are counted; a tenant that has more is told as such.
COUNTED = 1000
#: Rows that are shown of a tenant.
_SHOWN = 5
#: SQLSTATEs of a table, column, schema, function or type that is not there.
_MISSING = frozenset({"42P01", "42703", "3F000", "42883", "42704"})

#: insufficient_privilege, of the class of what does not fit.
_NO_RIGHT = "42501"


class ProbeKind(StrEnum):
    """What is looked for."""

    #: A query of the revision's own ``preflight``.
    OWN = "own"
    #: NULLs in a column that is to be NOT NULL.
    NOT_NULL = "not_null"
    #: Rows in a table that is to get a column without a value for them.
    NO_DEFAULT = "no_default"
    #: Keys that are there more than once.
    UNIQUE = "unique"
    #: Rows whose foreign key leads nowhere.
    FOREIGN_KEY = "foreign_key"
    #: Rows that break a CHECK.
    CHECK = "check"
    #: Values that a narrower type does not hold.
    TYPE = "type"


@dataclass(frozen=True, slots=True)
class Probe:
    """One question to a tenant."""

    revision: str
    kind: ProbeKind
    #: What is asked about, for people: ``invoices.total_cents``; of an own check, its query.
    subject: str
    #: What an offending row means, for people.
    message: str
    #: Returns the offending rows, or keys.
    sql: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What one tenant said to one probe."""

    #: Offending rows or keys; more than :data:`COUNTED` of them are told as one more than that.
    rows: int = 0
    #: Some of them as text, where they were asked for.
    values: tuple[str, ...] = ()
    #: Why the probe has nothing to look at there; ``None`` where it has.
    missing: str | None = None
    #: Why there is no answer; ``None`` where there is one.
    failure: Failure | None = None


async def ask(session: Session, dialect: str, probes: Sequence[Probe], *, values: bool) -> list[Answer]:
    """Put ``probes`` to a tenant, each in a transaction that cannot write.

    Args:
        session: in the tenant's scope; its timeouts hold.
        dialect: the server's.
        probes: in order.
        values: show some of the offending rows.

    Returns:
        One answer for each probe; an error is its own probe's.
    """
    answers: list[Answer] = []
    for probe in probes:
        try:
            answers.append(await _ask(session.connection, dialect, probe, values))
        except Exception as error:
            answers.append(_not_answered(probe, describe(error)))
        finally:
            if not session.connection.closed:
                await session.connection.rollback()
    return answers


async def _ask(connection: AsyncConnection, dialect: str, probe: Probe, values: bool) -> Answer:
    await connection.exec_driver_sql(_READ_ONLY[dialect])
    # A comment at the end of the query would swallow the parenthesis. The query is the operator's own, or made of
    # identifiers by the one function for them.
    offending = f"({probe.sql}\n) AS offending"
    counted = f"SELECT count(*) FROM (SELECT 1 FROM {offending} LIMIT {COUNTED + 1}) AS counted"
    rows = (await connection.exec_driver_sql(counted)).scalar_one()
    if not rows or not values:
        return Answer(rows)
    shown = await connection.exec_driver_sql(f"SELECT * FROM {offending} LIMIT {_SHOWN}")
    return Answer(rows, tuple(", ".join(map(str, row)) for row in shown))


#: SQLite's holds until it is taken back, and the connection is closed after the last probe.
_READ_ONLY = {"postgresql": "SET TRANSACTION READ ONLY", "sqlite": "PRAGMA query_only = ON"}


def _not_answered(probe: Probe, failure: Failure) -> Answer:
    """A table that is not there has no rows; that a query made here does not fit a tenant's tables is no finding."""
    missing = failure.sqlstate in _MISSING or failure.message.startswith(("no such table", "no such column"))
    state = failure.sqlstate or ""
    derived = probe.kind is not ProbeKind.OWN and state.startswith("42") and state != _NO_RIGHT
    if missing or derived:
        return Answer(missing=failure.message.partition("\n")[0])
    return Answer(failure=replace(failure, revision=probe.revision))
