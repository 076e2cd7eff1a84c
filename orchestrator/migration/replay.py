"""Migrate a tenant by what was recorded on others of its kind, and through Alembic where that may not be."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from orchestrator.databases.failures import describe
from orchestrator.databases.postgresql.concurrently import LEADING
from orchestrator.databases.postgresql.script import REFUSED, Step
from orchestrator.fleet.tenant import Tenant
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.outcome import MIXED, REPLAY, Outcome
from orchestrator.migration.outside import Keep
from orchestrator.migration.recording import Recorded
from orchestrator.migration.scope import StepDone
from orchestrator.migration.stand_in import NotReplayed, check_env
from orchestrator.migration.work import Work
from orchestrator.statuses import TenantStatus

#: What the guards before the first statement say, for people.
_NOT_BEGUN = {
    "database": "the connection leads to another database",
    "locked": "another migration of this tenant is under way",
    "moved": "the tenant is no longer where it was when the run was planned",
}


class _CutShort(NotReplayed):
    """The server refused in the middle: what had been committed by then stays."""


#: Ends of a part that has not even read the tenant's heads, where it has none before.
_NOT_REACHED = frozenset({TenantStatus.FAILED, TenantStatus.LOCKED, TenantStatus.BLOCKED})
#: A statement that may run a function, as its first word tells.
_RUNS_CODE = re.compile(LEADING + r"(?:DO|SELECT|WITH)\b", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Transcript:
    """How tenants of one kind get from their heads to their target, as two of them did."""

    transactions: tuple[Recorded, ...]
    #: What env.py configured Alembic with.
    options: Mapping[str, Any]

    @property
    def replayable(self) -> bool:
        """Whether any of it is."""
        return any(each.reason is None for each in self.transactions)

    @property
    def decides_shape(self) -> bool:
        """Whether tenants that were of one shape are of one shape again afterwards.

        Not where part of the way goes through Alembic, or where code in the database may look at rows before it decides
        what to make (``DO $$ IF EXISTS (...) THEN ALTER TABLE ...``).
        """
        return not any(
            each.reason is not None or any(_RUNS_CODE.match(statement) for statement in each.step.statements)
            for each in self.transactions
        )

    @property
    def reasons(self) -> dict[str, str]:
        """Why a revision is not replayed, by revision."""
        return {
            revision: each.reason
            for each in self.transactions
            if each.reason is not None
            for revision in each.step.revisions
        }

    def parts(self) -> Iterable[tuple[bool, tuple[Step, ...]]]:
        """The way in parts: those to be replayed (true) and those to go through Alembic (false)."""
        for replayable, part in groupby(self.transactions, key=lambda each: each.reason is None):
            yield replayable, tuple(each.step for each in part)


async def migrate(
    migrator: Migrator,
    tenant: Tenant,
    work: Work,
    transcript: Transcript,
    listener: Callable[[StepDone], None],
    refused: Callable[[str], None],
    keep: Keep | None = None,
) -> Outcome:
    """Do ``work`` on ``tenant`` as ``transcript`` says; like :meth:`Migrator.attempt`, it raises only cancellation.

    Args:
        migrator: what all tenants of the run share.
        tenant: whom; its heads are thought to be those that the transcript begins with.
        work: what.
        transcript: how.
        listener: told of each revision when it is through.
        refused: told why, when something that was to be replayed went through Alembic instead.
        keep: writes down what is about to be done outside any transaction.
    """
    started = time.perf_counter()
    outcomes: list[Outcome] = []
    for replayable, steps in transcript.parts():
        if not replayable:
            revisions = sum(len(step.revisions) for step in steps)
            outcomes.append(await migrator.attempt(tenant, work.limited(revisions), listener, keep=keep))
        else:
            try:
                outcomes.append(await _replay(migrator, tenant, work, transcript, steps))
            except NotReplayed as error:
                refused(str(error))
                rest = await migrator.attempt(tenant, work, listener, keep=keep)
                if isinstance(error, _CutShort):
                    for before in _committed(steps, rest, work.direction):
                        outcomes.append(before)
                        _tell(listener, before)
                outcomes.append(rest)
                break
            _tell(listener, outcomes[-1])
        if outcomes[-1].status is not TenantStatus.SUCCEEDED:
            break
    return replace(combined(outcomes), duration_ms=(time.perf_counter() - started) * 1000)


async def _replay(
    migrator: Migrator, tenant: Tenant, work: Work, transcript: Transcript, steps: Sequence[Step]
) -> Outcome:
    check_env(migrator.history, migrator.loop, tenant, work.options, transcript.options)
    database = migrator.databases[tenant.server]
    started = time.perf_counter()
    try:
        if migrator.makes(tenant):
            await database.provision(tenant)
        await database.replay(
            tenant,
            steps,
            migrator.loop.version_table,
            migrator.connection_name(tenant),
            migrator.limits(tenant, work.number),
        )
    except Exception as error:
        failure = describe(error)
        if failure.lost:
            # What was committed is known only from reading again: the next try does, through Alembic.
            return Outcome(TenantStatus.UNKNOWN, steps[0].before, failure=failure, path=REPLAY)
        raise _refusal(failure.message) from error
    return _replayed(steps, (time.perf_counter() - started) * 1000, work.direction)


def _refusal(message: str) -> NotReplayed:
    word = message.rpartition(REFUSED)[2].strip('"')
    # A later step's guard may say "moved", too; nobody but who disregards the lock can have moved the tenant by then.
    return NotReplayed(_NOT_BEGUN[word]) if word in _NOT_BEGUN else _CutShort(message)


def _replayed(steps: Sequence[Step], duration_ms: float | None, command: str) -> Outcome:
    revisions = [revision for step in steps for revision in step.revisions]
    # All went in one message: what each took for itself is known only when there was one.
    each = duration_ms if len(revisions) == 1 else None
    done = tuple(StepDone(revision, command, each) for revision in revisions)
    return Outcome(TenantStatus.SUCCEEDED, steps[0].before, steps[-1].after, steps=done, path=REPLAY)


def _committed(steps: Sequence[Step], rest: Outcome, command: str) -> list[Outcome]:
    """What a replay had committed before it failed, judged by the heads that Alembic found."""
    ends = [step.after for step in steps]
    if rest.before not in ends:
        return []
    return [_replayed(steps[: ends.index(rest.before) + 1], None, command)]


def _tell(listener: Callable[[StepDone], None], outcome: Outcome) -> None:
    for step in outcome.steps:
        listener(step)


def combined(outcomes: Sequence[Outcome]) -> Outcome:
    """One tenant's parts as one outcome: it began where the first did, and ended as the last."""
    if len(outcomes) == 1:
        return outcomes[0]
    paths = {outcome.path for outcome in outcomes if outcome.steps}
    path = MIXED if len(paths) > 1 else paths.pop() if paths else outcomes[-1].path
    steps = tuple(step for outcome in outcomes for step in outcome.steps)
    status = outcomes[-1].status
    if status is TenantStatus.ALREADY_CURRENT and len(outcomes) > 1:
        # Somebody else did the rest meanwhile; the first part was done here.
        status = TenantStatus.SUCCEEDED
    outside = next((outcome.outside for outcome in reversed(outcomes) if outcome.outside is not None), None)
    after = outcomes[-1].after
    if after is None and outcomes[-1].before is None and status in _NOT_REACHED:
        # The last part did not come to the tenant: it is where the one before has left it.
        after = outcomes[-2].after
    return replace(
        outcomes[-1], status=status, before=outcomes[0].before, after=after, steps=steps, path=path, outside=outside
    )
