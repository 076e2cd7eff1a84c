"""The journal's tables. Without a schema of their own, but with a prefix: they may live in a shared database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, Column, DateTime, Float, Index, Integer, MetaData, Table, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

#: Holds the revision of the journal's own Alembic history.
VERSION_TABLE = "orchestrator_journal_version"


class Moment(TypeDecorator[datetime]):
    """A point in time. UTC in the database, timezone aware in Python, also where the database knows no zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: Any) -> Callable[[Any], datetime | None] | None:
        """asyncpg gives moments in UTC, with their zone: there is nothing to do, a hundred thousand times."""
        return None if dialect.name == "postgresql" else super().result_processor(dialect, coltype)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _json() -> JSON:
    return JSON(none_as_null=True)


def _required(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, nullable=False)


metadata = MetaData()

runs = Table(
    "orchestrator_runs",
    metadata,
    Column("id", Text(), primary_key=True),
    _required("command", Text()),
    _required("target", _json()),
    _required("requested_target", Text()),
    _required("status", Text()),
    _required("started_at", Moment()),
    Column("finished_at", Moment()),
    _required("actor_user", Text()),
    _required("actor_host", Text()),
    _required("actor_pid", Integer()),
    Column("actor_process_started", Text()),
    Column("actor_git_commit", Text()),
    Column("directory_digest", Text()),
    _required("options", _json()),
    Column("heartbeat_at", Moment()),
    Index("orchestrator_runs_started_at", "started_at"),
)

# No foreign keys: a batch must never be refused because of one row in it.

attempts = Table(
    "orchestrator_attempts",
    metadata,
    Column("run", Text(), primary_key=True),
    Column("tenant", Text(), primary_key=True),
    #: Place in the order given when the run started; null for a tenant that joined later.
    Column("position", Integer()),
    Column("wave", Text()),
    _required("status", Text()),
    Column("from_heads", _json()),
    Column("to_heads", _json()),
    _required("attempts", Integer()),
    Column("duration_ms", Float()),
    Column("path", Text()),
    Column("error", _json()),
    Column("started_at", Moment()),
    Column("finished_at", Moment()),
    Index("orchestrator_attempts_tenant", "tenant"),
)

events = Table(
    "orchestrator_events",
    metadata,
    Column("run", Text(), primary_key=True),
    #: With ``number``: which open journal wrote it, and as its how-many-eth event. A batch whose COMMIT got no answer
    #: is written again, and must not appear twice.
    Column("writer", Text(), primary_key=True),
    Column("number", Integer(), primary_key=True, autoincrement=False),
    Column("tenant", Text()),
    _required("at", Moment()),
    _required("kind", Text()),
    Column("revision", Text()),
    Column("direction", Text()),
    Column("duration_ms", Float()),
    Column("detail", _json()),
)

#: The last step of each tenant that was taken outside any transaction.
steps = Table(
    "orchestrator_steps",
    metadata,
    Column("tenant", Text(), primary_key=True),
    _required("run", Text()),
    _required("revision", Text()),
    _required("direction", Text()),
    _required("heads", _json()),
    _required("detail", _json()),
    Column("error", _json()),
    _required("begun_at", Moment()),
    Column("done_at", Moment()),
)

#: The files that revisions were applied from.
revisions = Table(
    "orchestrator_revisions",
    metadata,
    Column("revision", Text(), primary_key=True),
    Column("checksum", Text(), primary_key=True),
    _required("first_run", Text()),
    _required("at", Moment()),
    #: Null while a run only meant to apply it.
    Column("applied_at", Moment()),
)
