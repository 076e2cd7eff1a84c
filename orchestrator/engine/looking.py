"""Which runs the engine has, as its table says to who reads the journal's database; DBOS is not needed for that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.engine.queues import RUN, SCHEMA
from orchestrator.engine.slots import LOST

#: Runs that workers have, or will; in the order in which they are taken.
OPEN_RUNS = f"""
    SELECT workflow_uuid, status = 'PENDING', queue_name, {LOST} FROM {SCHEMA}.workflow_status
    WHERE name = '{RUN}' AND status IN ('ENQUEUED', 'PENDING')
    ORDER BY status = 'PENDING' DESC, created_at, workflow_uuid
"""
#: Ids of the runs that a worker is at, as a whole or at a chunk of it, who is there.
AT_WORK = f"""
    SELECT DISTINCT split_part(split_part(workflow_uuid, ':', 1), '+', 1) FROM {SCHEMA}.workflow_status
    WHERE status = 'PENDING' AND NOT {LOST}
"""
#: Between a run's id and the time that it was given out, from the second time on.
_TIMES = "+"


@dataclass(frozen=True, slots=True)
class OpenRun:
    """One that is to be done."""

    run: str
    #: A worker has it, or had when it died.
    taken: bool
    #: Of those of one queue, workers do one at a time.
    queue: str
    #: The worker that had it is gone, and no other one has taken it over.
    lost: bool


def workflow_id(run: str, time: int) -> str:
    """What the engine calls a run that was given out so often: the first time, by the run's own id."""
    return run if time <= 1 else f"{run}{_TIMES}{time}"


def open_runs(rows: Iterable[Sequence[Any]]) -> tuple[OpenRun, ...]:
    """What :data:`OPEN_RUNS` has found."""
    return tuple(
        OpenRun(str(id).partition(_TIMES)[0], bool(taken), str(queue), bool(lost)) for id, taken, queue, lost in rows
    )
