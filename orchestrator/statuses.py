"""Every status a tenant or a run can have, spelled as the JSON spells them.

A tenant is *read* (``status``, ``plan``) or *attempted* (a run); ``partial`` can be the answer to both::

    read:       unreachable | unprovisioned | unknown_revision | diverged | behind | current | ahead | pinned | partial

    attempt:    pending ─► running ─► succeeded
                   │          ├─────► failed | partial | unknown | interrupted
                   │          ├─────► already_current     (somebody else got there first)
                   │          └─────► locked              (somebody else is there now)
                   ├────────────────► already_current | skipped | blocked | partial   (known beforehand, never started)
                   └────────────────► not_started         (the run stopped before this tenant's turn)

    run:        running ─► succeeded | failed | interrupted | cancelled
                   └─────► paused ─► running
"""

from __future__ import annotations

from enum import StrEnum


class TenantStatus(StrEnum):
    """What a reading or a run's attempt says about one tenant."""

    #: Its heads are the target's.
    CURRENT = "current"
    #: Revisions are pending; also a tenant that exists and has no version table yet (heads ``[]``).
    BEHIND = "behind"
    #: It already has every revision of the asked target, and more.
    AHEAD = "ahead"
    #: Its schema, database or file does not exist.
    UNPROVISIONED = "unprovisioned"
    #: It has a head that the directory does not know.
    UNKNOWN_REVISION = "unknown_revision"
    #: Its heads are not on one path to the target.
    DIVERGED = "diverged"
    #: It stands at the revision that tenants.yaml holds it at.
    PINNED = "pinned"
    #: A step outside any transaction failed: what it had done stays, the version was not moved.
    PARTIAL = "partial"
    #: Its server gave no connection.
    UNREACHABLE = "unreachable"

    #: Selected by the run, not begun.
    PENDING = "pending"
    #: Being migrated now.
    RUNNING = "running"
    #: Migrated, and its heads were read again after the commit.
    SUCCEEDED = "succeeded"
    #: Nothing was left to do.
    ALREADY_CURRENT = "already_current"
    #: The migration failed; the failing transaction was rolled back.
    FAILED = "failed"
    #: Another process holds this tenant's lock.
    LOCKED = "locked"
    #: Not attempted, because what was read forbids it (unknown revision, diverged, unprovisioned).
    BLOCKED = "blocked"
    #: Not attempted, and rightly so (pinned, or ahead of the asked target).
    SKIPPED = "skipped"
    #: The run stopped before this tenant's turn.
    NOT_STARTED = "not_started"
    #: The process was told to stop while this tenant was being migrated.
    INTERRUPTED = "interrupted"
    #: The connection was lost when the answer to COMMIT was due; only reading the heads can tell.
    UNKNOWN = "unknown"


#: Attempts that use up the failure budget.
FAILURES = frozenset({TenantStatus.FAILED, TenantStatus.PARTIAL, TenantStatus.UNKNOWN})
#: Attempts after which all that was asked for this tenant is so.
SATISFIED = frozenset({TenantStatus.SUCCEEDED, TenantStatus.ALREADY_CURRENT, TenantStatus.SKIPPED})
#: Attempts that no process has ended.
OPEN = frozenset({TenantStatus.PENDING, TenantStatus.RUNNING})


class RunStatus(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"


#: What a run that goes on may be asked to end as.
ASKED = frozenset({RunStatus.PAUSED, RunStatus.CANCELLED})


class Severity(StrEnum):
    """How much a finding of ``lint`` weighs."""

    #: Its rule is not looked at.
    OFF = "off"
    #: Told.
    WARNING = "warning"
    #: Told, and the gate answers no.
    ERROR = "error"
