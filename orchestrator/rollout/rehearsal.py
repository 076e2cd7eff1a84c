"""What a rehearsal found, as the object that the Python API returns and ``--json`` prints. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.databases.failures import Failure
from orchestrator.history.hazards import Hazard
from orchestrator.journal.records import RunRecord
from orchestrator.migration.measured import RevisionMeasured
from orchestrator.rollout.forecast import Range, Takes

#: Kind of the event that keeps a rehearsal's document.
REHEARSAL = "rehearsal"

#: How strong PostgreSQL's locks are, and whom they keep waiting
#: (https://www.postgresql.org/docs/current/explicit-locking.html, table 13.2).
_MODES: Mapping[str, tuple[int, str | None]] = {
    "AccessShareLock": (1, None),
    "RowShareLock": (2, None),
    "RowExclusiveLock": (3, None),
    "ShareUpdateExclusiveLock": (4, None),
    "ShareLock": (5, "writes"),
    "ShareRowExclusiveLock": (6, "writes"),
    "ExclusiveLock": (7, "writes"),
    "AccessExclusiveLock": (8, "reads and writes"),
}


def strength(mode: str) -> int:
    """From 1 to 8; 0 for what is unknown."""
    return _MODES.get(mode, (0, None))[0]


def blocked_by(mode: str) -> str | None:
    """Whom a lock keeps waiting: ``writes``, ``reads and writes``; ``None`` for nobody but other DDL."""
    return _MODES.get(mode, (0, None))[1]


class Back(StrEnum):
    """What came of going back by one revision."""

    #: All is as it was before.
    SAME = "same"
    #: It went back, and something is not as it was.
    DIFFERENT = "different"
    #: Its downgrade() failed.
    FAILED = "failed"
    #: It says itself that there is no way back.
    NONE = "none"
    #: Nobody tried: a later one did not go back, or it was not asked for.
    NOT_TRIED = "not_tried"


@dataclass(frozen=True, slots=True)
class RevisionRehearsed:
    """One revision on one clone."""

    revision: str
    message: str
    up: RevisionMeasured
    down: RevisionMeasured | None = None
    #: Up once more; ``None`` where it did not go back, or not again.
    again: RevisionMeasured | None = None
    back: Back = Back.NOT_TRIED
    #: Why it did not go back.
    failure: Failure | None = None
    #: What is not as it was after going back, a line for each object.
    difference: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """An entry of ``revisions``."""
        return {
            "revision": self.revision,
            "message": self.message,
            "up": measured_as_json(self.up),
            "down": self.down and measured_as_json(self.down),
            "again": self.again and measured_as_json(self.again),
            "back": self.back.value,
            "error": self.failure and self.failure.as_json(),
            "difference": list(self.difference),
        }


@dataclass(frozen=True, slots=True)
class CloneRehearsed:
    """One tenant's clone, up, down and up."""

    tenant: str
    #: Why it was taken: ``largest``, ``oldest``, ``most drifted``, ``named``, ``all``, ``the only one``.
    picked: tuple[str, ...]
    start: tuple[str, ...]
    revisions: tuple[RevisionRehearsed, ...] = ()
    #: ``pg_dump``, ``template`` or ``copy``; ``None`` where there was no clone.
    way: str | None = None
    #: Seconds that making it took, and its size.
    took: float = 0.0
    bytes: int = 0
    #: What went wrong: it could not be cloned, or a revision did not go up.
    failure: Failure | None = None
    #: After the second time up, it looks as after the first; ``None`` where that was not seen.
    again_same: bool | None = None
    #: Why it did not go up again.
    again_failure: Failure | None = None
    #: Tables whose rows are not what they were after going up and all the way back, a line each.
    changed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    #: Why there are no locks, or no write-ahead log, to be told of.
    unseen: tuple[str, ...] = ()
    #: Milliseconds that the last time up took beside its revisions; ``None`` where that was not seen.
    overhead_ms: float | None = None
    #: Revisions that may be sent to others as they were sent here, without Alembic.
    replayable: frozenset[str] = frozenset()

    @property
    def fine(self) -> bool:
        """It went up, all the way back unless a revision says itself that it does not, and up again to the same."""
        tried = all(each.back not in (Back.DIFFERENT, Back.FAILED) for each in self.revisions)
        return self.failure is None and tried and self.again_same is not False

    def as_json(self) -> dict[str, Any]:
        """An entry of ``clones``."""
        return {
            "tenant": self.tenant,
            "picked": list(self.picked),
            "from": list(self.start),
            "ok": self.fine,
            "way": self.way,
            "clone_s": round(self.took, 3),
            "bytes": self.bytes,
            "error": self.failure and self.failure.as_json(),
            "revisions": [each.as_json() for each in self.revisions],
            "again_same": self.again_same,
            "again_error": self.again_failure and self.again_failure.as_json(),
            "changed_rows": list(self.changed),
            "overhead_ms": self.overhead_ms and round(self.overhead_ms, 1),
            "notes": list(self.notes),
            "not_measured": list(self.unseen),
        }


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long the whole run would take."""

    #: Of those tenants whose revisions were all rehearsed.
    takes: tuple[Takes, ...]
    #: ``None`` where there is nobody to tell of.
    time: Range | None
    #: Tenants at once on each physical server.
    caps: Mapping[str, int]
    #: Pending tenants that have a revision to run which no clone has run.
    unknown: int = 0
    #: These revisions.
    not_rehearsed: tuple[str, ...] = ()
    #: Seconds that waves are to bake, which are not part of it.
    bake: float = 0.0
    #: A tenant that is much larger than every clone, and how many times; ``None`` where none is.
    beyond: tuple[str, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """The key ``estimate``."""
        longest = max(self.takes, key=lambda each: each.ms, default=None)
        return {
            **(self.time.as_json() if self.time is not None else {"s": None, "low_s": None, "high_s": None}),
            "tenants": len(self.takes),
            "longest": longest and {"tenant": longest.tenant, "s": round(longest.ms / 1000, 3)},
            "unknown_tenants": self.unknown,
            "not_rehearsed": list(self.not_rehearsed),
            "bake_s": self.bake,
            "beyond": self.beyond and {"tenant": self.beyond[0], "times": round(self.beyond[1], 1)},
        }

    def kept(self) -> dict[str, Any]:
        """What the journal keeps, to be compared with a run."""
        return {"takes": {each.tenant: each.as_json() for each in self.takes}, "caps": dict(self.caps)}


@dataclass(frozen=True, slots=True)
class RehearsalReport:
    """What ``orchestrator rehearse`` found."""

    run: RunRecord
    clones: tuple[CloneRehearsed, ...]
    estimate: Estimate
    #: Tenants that have something pending.
    pending: int = 0
    #: What the revisions say themselves that they throw away.
    losses: tuple[Hazard, ...] = ()
    notes: tuple[str, ...] = ()
    #: Tenants that were selected and gave no answer: what is pending for them is not known.
    not_reached: tuple[str, ...] = ()
    #: Others that were selected, and that an upgrade would leave alone.
    left_alone: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 where every clone went up, down and up as it should, else 1.

        Also 1 where somebody was not reached, or where nothing was rehearsed because those concerned would be left
        alone: nothing says then that the target can be rolled out.
        """
        fine = all(clone.fine for clone in self.clones) and not self.not_reached
        return 0 if fine and (self.clones or not self.left_alone) else 1

    def as_json(self) -> dict[str, Any]:
        """The document of ``rehearse --json`` (see docs/cli.md)."""
        return {
            "run": self.run.id,
            "command": "rehearse",
            "target": list(self.run.target),
            "ok": self.exit_code == 0,
            "pending": self.pending,
            "not_reached": list(self.not_reached),
            "left_alone": list(self.left_alone),
            "clones": [clone.as_json() for clone in self.clones],
            "losses": [
                {"revision": each.revision, "table": each.table, "detail": each.detail, "line": each.line}
                for each in self.losses
            ],
            "estimate": self.estimate.as_json(),
            "notes": list(self.notes),
        }


def measured_as_json(one: RevisionMeasured) -> dict[str, Any]:
    """What was measured of one revision, in one direction."""
    return {
        "duration_ms": round(one.duration_ms, 1),
        "sql_ms": round(one.sql_ms, 1),
        "transaction_ms": round(one.open_ms, 1),
        "locks": [
            {
                "table": lock.table,
                "mode": lock.mode,
                "held_ms": round(lock.held_ms, 1),
                "blocks": blocked_by(lock.mode),
            }
            for lock in sorted(one.locks, key=lambda lock: (-strength(lock.mode), -lock.held_ms, lock.table))
        ],
        "rows_written": dict(one.written),
        "rows_changed": {table: rows for table, rows in one.changed.items() if table},
        "rewritten": [
            {"table": each.table, "index": each.index, "rows": each.rows, "bytes": each.bytes} for each in one.rewritten
        ],
        "wal_bytes": one.wal_bytes,
        "outside_transaction": one.outside,
    }
