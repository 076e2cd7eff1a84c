"""How an attempt on a tenant ended, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.databases.failures import Failure, describe
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.directory import History
from orchestrator.history.position import Position
from orchestrator.migration.outside import Outside, ways_on, what_stayed
from orchestrator.migration.scope import Progress, StepDone
from orchestrator.migration.work import Work, named
from orchestrator.statuses import TenantStatus

#: How a tenant was migrated: through Alembic, by what was recorded on others, or one after the other.
ALEMBIC, REPLAY, MIXED = "alembic", "replay", "mixed"
#: Of a tenant that there is nothing to do for any more.
GONE = Failure("gone", "it was taken out of the fleet meanwhile")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended."""

    status: TenantStatus
    #: Heads read under the lock before anything was done; ``None`` when it did not come to that.
    before: tuple[str, ...] | None = None
    #: Heads read again at the end; ``None`` when they could not be.
    after: tuple[str, ...] | None = None
    failure: Failure | None = None
    steps: tuple[StepDone, ...] = ()
    duration_ms: float = 0.0
    #: How the steps were run: ``alembic``, ``replay`` or ``mixed``.
    path: str = ALEMBIC
    #: What was done outside any transaction, if anything was.
    outside: Outside | None = None
    #: Names of indexes that it has left invalid.
    invalid: tuple[str, ...] = ()


def verified(
    history: History, work: Work, before: tuple[str, ...], after: tuple[str, ...], progress: Progress
) -> Outcome:
    """How a migration that raised nothing ended: by what the tenant itself says.

    Args:
        history: the shared directory.
        work: what was to be done.
        before: heads as they were.
        after: heads as they were read again.
        progress: what Alembic has told.
    """
    if work.command == "stamp" and progress.heads is None and before == after:
        return Outcome(TenantStatus.ALREADY_CURRENT, before, after)
    if progress.heads is None:
        failure = Failure(
            "not_run",
            "revisions are pending, and env.py ran none of them",
            hint="migrate() in env.py must call context.run_migrations() inside context.begin_transaction()",
        )
    elif progress.heads != after:
        failure = Failure(
            "not_committed",
            f"Alembic reported {named(progress.heads)}, and the tenant's version table says {named(after)}",
            hint="migrate() in env.py must leave its transaction to context.begin_transaction()",
        )
    elif progress.running or work.is_left_over(history, after, len(progress.done)):
        failure = Failure(
            "not_finished",
            f"env.py ended without an error before {work.end} was reached: the tenant is at {named(after)}",
            revision=progress.revision,
            hint="migrate() in env.py must let errors through",
        )
    else:
        return Outcome(TenantStatus.SUCCEEDED, before, after)
    return Outcome(TenantStatus.FAILED, before, after, failure)


def partial(failure: Failure, tenant: Tenant, progress: Progress, invalid: tuple[str, ...] = ()) -> Failure:
    """``failure`` with what stays of the revision that was running, and with the ways on."""
    outside = progress.outside
    if outside is None:
        return replace(failure, passing=False)
    broken = f"invalid now, and to be dropped or reindexed first: {', '.join(invalid)}" if invalid else None
    parts = (
        ways_on(tenant.id, outside.revision, outside.direction),
        what_stayed(outside.stayed, outside.count),
        broken,
        failure.hint,
    )
    return replace(failure, passing=False, hint="; ".join(part for part in parts if part))


def left_invalid(now: Mapping[str, int], progress: Progress) -> tuple[str, ...]:
    """Names of invalid indexes that are this attempt's doing.

    New ones, those that another index had the name of, and those that it has sent a statement about: IF NOT EXISTS
    takes the one that an earlier try left for what it was to make.
    """
    before, sent = progress.invalid_before, progress.sent_outside
    ours = (
        name
        for name, identity in now.items()
        if before.get(name) != identity or any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for text in sent)
    )
    return tuple(sorted(ours))


def invalid_indexes(names: tuple[str, ...]) -> Failure:
    """Why a tenant with these is not done."""
    return Failure(
        "invalid_index",
        f"CREATE INDEX CONCURRENTLY did not finish, and left what no query uses: {', '.join(names)}",
        hint=f"mend the rows it stumbled over, then: REINDEX INDEX CONCURRENTLY {names[0]}",
    )


def blocked(here: Position) -> Failure:
    """Why a tenant must not be touched, as a failure to report."""
    assert here.problem is not None
    return replace(describe(here.problem), type=here.kind or "blocked")
