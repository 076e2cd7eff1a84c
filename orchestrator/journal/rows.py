"""Records to rows of the journal's tables, and back."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from sqlalchemy import Row, Select, Text, cast, select

from orchestrator.journal.encoding import masked, moment
from orchestrator.journal.records import Actor, AttemptRecord, EventRecord, RevisionRecord, RunRecord, StepRecord
from orchestrator.journal.tables import attempts
from orchestrator.statuses import RunStatus, TenantStatus

#: Looked up, which takes a fraction of what making one does.
_STATUSES = {status.value: status for status in TenantStatus}


def run_row(run: RunRecord) -> dict[str, Any]:
    """``run`` as a row of the runs table."""
    return {
        "id": run.id,
        "command": run.command,
        "target": run.target,
        "requested_target": run.requested_target,
        "status": run.status,
        "started_at": moment(run.started_at),
        "finished_at": moment(run.finished_at),
        "actor_user": run.actor.user,
        "actor_host": run.actor.host,
        "actor_pid": run.actor.pid,
        "actor_process_started": run.actor.process_started,
        "actor_git_commit": run.actor.git_commit,
        "directory_digest": run.directory_digest,
        "options": masked(run.options),
        "heartbeat_at": moment(run.heartbeat_at),
    }


def run_record(row: Row[Any]) -> RunRecord:
    """The run that ``row`` of the runs table holds."""
    return RunRecord(
        id=row.id,
        command=row.command,
        target=tuple(row.target),
        requested_target=row.requested_target,
        status=RunStatus(row.status),
        started_at=row.started_at,
        finished_at=row.finished_at,
        actor=Actor(
            user=row.actor_user,
            host=row.actor_host,
            pid=row.actor_pid,
            process_started=row.actor_process_started,
            git_commit=row.actor_git_commit,
        ),
        directory_digest=row.directory_digest,
        options=row.options,
        heartbeat_at=row.heartbeat_at,
    )


def attempt_row(attempt: AttemptRecord, position: int | None = None) -> dict[str, Any]:
    """``attempt`` as a row of the attempts table, ``position`` being its place in the run."""
    return {
        "run": attempt.run,
        "tenant": attempt.tenant,
        "position": position,
        "wave": attempt.wave,
        "status": attempt.status,
        "from_heads": attempt.from_heads,
        "to_heads": attempt.to_heads,
        "attempts": attempt.attempts,
        "duration_ms": attempt.duration_ms,
        "path": attempt.path,
        "error": masked(attempt.error),
        "started_at": moment(attempt.started_at),
        "finished_at": moment(attempt.finished_at),
    }


def select_attempts() -> Select[Any]:
    """A query for rows that :func:`attempt_record` reads.

    Heads stay text, for a hundred thousand attempts have the same. Cast by the database: asyncpg would decode JSON.
    """
    heads = (attempts.c.from_heads, attempts.c.to_heads)
    read = (column for column in attempts.c if column is not attempts.c.position)
    return select(*(cast(column, Text) if column in heads else column for column in read))


@lru_cache(maxsize=1000)
def heads_in(text: str) -> tuple[str, ...]:
    """Heads as they stand in a column, taken apart."""
    return tuple(json.loads(text))


def attempt_record(row: Row[Any]) -> AttemptRecord:
    """The attempt that a row of :func:`select_attempts` holds."""
    values: Any = row
    # In the table's order, not by name: that takes half as long, and a run may have a hundred thousand of them.
    run, tenant, wave, status, before, after, tried, duration_ms, path, error, started_at, finished_at = values
    return AttemptRecord(
        run,
        tenant,
        wave,
        _STATUSES[status],
        None if before is None else heads_in(before),
        None if after is None else heads_in(after),
        tried,
        duration_ms,
        path,
        error,
        started_at,
        finished_at,
    )


def event_row(event: EventRecord, writer: str, number: int) -> dict[str, Any]:
    """``event`` as a row of the events table, ``number`` being its place among those of ``writer``."""
    return {
        "run": event.run,
        "writer": writer,
        "number": number,
        "tenant": event.tenant,
        "at": moment(event.at),
        "kind": event.kind,
        "revision": event.revision,
        "direction": event.direction,
        "duration_ms": event.duration_ms,
        "detail": masked(event.detail),
    }


def event_record(row: Row[Any]) -> EventRecord:
    """The event that ``row`` of the events table holds."""
    return EventRecord(
        run=row.run,
        tenant=row.tenant,
        at=row.at,
        kind=row.kind,
        revision=row.revision,
        direction=row.direction,
        duration_ms=row.duration_ms,
        detail=row.detail,
    )


def step_row(step: StepRecord) -> dict[str, Any]:
    """``step`` as a row of the steps table."""
    detail = {
        "stayed": step.stayed,
        "count": step.count,
        "current": step.current,
        "invalid_before": step.invalid_before,
        "invalid": step.invalid,
        "looked": step.looked,
    }
    return {
        "tenant": step.tenant,
        "run": step.run,
        "revision": step.revision,
        "direction": step.direction,
        "heads": step.heads,
        "detail": masked(detail),
        "error": masked(step.error),
        "begun_at": moment(step.begun_at),
        "done_at": moment(step.done_at),
    }


def step_record(row: Row[Any]) -> StepRecord:
    """The step that ``row`` of the steps table holds."""
    detail = row.detail
    return StepRecord(
        tenant=row.tenant,
        run=row.run,
        revision=row.revision,
        direction=row.direction,
        heads=tuple(tuple(heads) for heads in row.heads),
        begun_at=row.begun_at,
        stayed=tuple(detail["stayed"]),
        count=detail["count"],
        current=detail["current"],
        invalid_before=tuple(detail["invalid_before"]),
        invalid=tuple(detail["invalid"]),
        looked=detail["looked"],
        error=row.error,
        done_at=row.done_at,
    )


def revision_row(revision: RevisionRecord) -> dict[str, Any]:
    """``revision`` as a row of the revisions table."""
    return {
        "revision": revision.revision,
        "checksum": revision.checksum,
        "first_run": revision.first_run,
        "at": moment(revision.at),
        "applied_at": moment(revision.applied_at),
    }


def revision_record(row: Row[Any]) -> RevisionRecord:
    """The file that ``row`` of the revisions table tells of."""
    return RevisionRecord(row.revision, row.checksum, row.first_run, row.at, row.applied_at)
