"""Slots: a worker holds one for life, by an advisory lock, and is known to the engine by its number.

The engine hands the work of a dead worker to others only when somebody says that it is dead. The server knows: the lock
of a process that is gone is free. But it is free, too, right after the server was started anew, while its holder lives;
so it has to be free twice, and some time has to pass in which the holder finds out and ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.engine.queues import SCHEMA

if TYPE_CHECKING:
    import psycopg

#: First key of the locks: the bytes of "orch".
NAMESPACE = int.from_bytes(b"orch")
#: Workers that there may be, unless somebody says otherwise.
DEFAULT_SLOTS = 256
#: Seconds between two looks at one's own lock, and at those of the others.
LOOK = 0.5
#: Seconds that pass from the first time a slot was seen free until its work is given to others: its holder looks
#: several times meanwhile.
GRACE = 2.0
_PREFIX = "slot-"

_LOCKS = f"""
    locktype = 'advisory' AND classid = {NAMESPACE} AND objsubid = 2 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
#: Slot, directory and version of those who are there.
WORKERS = f"""
    SELECT objid::int, substr(application_name, length('orchestrator worker ') + 1), client_addr::text
    FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE {_LOCKS} ORDER BY 1
"""
#: Of a workflow's row: its worker is gone. Any role may look at the locks.
LOST = f"""
    coalesce(status = 'PENDING' AND starts_with(executor_id, '{_PREFIX}') AND executor_id NOT IN (
        SELECT '{_PREFIX}' || objid FROM pg_locks WHERE {_LOCKS}
    ), false)
"""
_TAKEN_BY = f"SELECT DISTINCT executor_id FROM {SCHEMA}.workflow_status WHERE status = 'PENDING'"


@dataclass(frozen=True, slots=True)
class Worker:
    """One that is there."""

    slot: int
    #: See :attr:`~orchestrator.engine.queues.Queues.mark`.
    mark: str
    #: ``None`` over a socket.
    address: str | None


def executor_of(slot: int) -> str:
    """What the engine calls the worker in a slot."""
    return f"{_PREFIX}{slot}"


def slot_of(executor: str) -> int | None:
    """The slot of one of the engine's executors; ``None`` where it has none."""
    number = executor.removeprefix(_PREFIX)
    return int(number) if executor.startswith(_PREFIX) and number.isdecimal() else None


def take(connection: psycopg.Connection[Any], count: int) -> int | None:
    """Take the first slot that is free; ``None`` where all are taken.

    Args:
        connection: in autocommit mode; it holds the slot as long as it is open.
        count: how many there are.
    """
    for slot in range(1, count + 1):
        if _try(connection, slot):
            return slot
    return None


def has_work(connection: psycopg.Connection[Any], slot: int) -> bool:
    """Whether the engine believes that somebody in ``slot`` is at work."""
    return executor_of(slot) in _at_work(connection)


@dataclass(slots=True)
class Reaper:
    """Finds slots whose worker is gone with work in its hands, and has the work given to others."""

    own: int
    #: Has the engine give out again what an executor has taken.
    recover: Callable[[str], None]
    #: When a slot was first seen free, and how often it has been since, by slot.
    _free: dict[int, tuple[float, int]] = field(default_factory=dict)

    def look(self, connection: psycopg.Connection[Any], now: float) -> list[int]:
        """Look once.

        Args:
            connection: in autocommit mode.
            now: seconds of a clock that only goes forwards.

        Returns:
            Slots whose work was given to others.
        """
        suspects = {slot for name in _at_work(connection) if (slot := slot_of(name)) is not None and slot != self.own}
        free = suspects - _held(connection) if suspects else set()
        self._free = {slot: seen for slot, seen in self._free.items() if slot in free}
        reaped = []
        for slot in sorted(free):
            since, times = self._free.get(slot, (now, 0))
            self._free[slot] = since, times + 1
            if times + 1 >= 2 and now - since >= GRACE and self._reap(connection, slot):
                reaped.append(slot)
        return reaped

    def _reap(self, connection: psycopg.Connection[Any], slot: int) -> bool:
        # Held meanwhile: whoever came into the slot just now would have his own work given to others.
        if not _try(connection, slot):
            return False
        try:
            self.recover(executor_of(slot))
        finally:
            connection.execute("SELECT pg_advisory_unlock(%s, %s)", (NAMESPACE, slot))
        del self._free[slot]
        return True


def _try(connection: psycopg.Connection[Any], slot: int) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (NAMESPACE, slot)).fetchone()
    return row is not None and bool(row[0])


def _held(connection: psycopg.Connection[Any]) -> set[int]:
    return {int(row[0]) for row in connection.execute(WORKERS.encode()).fetchall()}


def _at_work(connection: psycopg.Connection[Any]) -> set[str]:
    return {str(row[0]) for row in connection.execute(_TAKEN_BY.encode()).fetchall()}
