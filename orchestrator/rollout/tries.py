"""How one tenant of a run is tried: in the way that its cohort goes, and again while that may help."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from orchestrator.databases.failures import describe
from orchestrator.fleet.hooks import Moment
from orchestrator.fleet.tenant import Tenant
from orchestrator.journal.records import AttemptRecord, EventRecord
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.outcome import ALEMBIC, Outcome
from orchestrator.migration.replay import Transcript, migrate
from orchestrator.migration.scope import StepDone
from orchestrator.migration.work import Work
from orchestrator.rollout.cohorts import Cohort, Cohorts
from orchestrator.rollout.foresight import Foresight
from orchestrator.rollout.hooks import HookRefused, Hooks
from orchestrator.rollout.onboarding import Reception
from orchestrator.rollout.plan import PlannedTenant
from orchestrator.rollout.result import tenant_document
from orchestrator.rollout.steps import LeftPartial, Steps
from orchestrator.rollout.watching import Observer, Recorder
from orchestrator.statuses import TenantStatus

#: Seconds before a tenant is tried again: the first pause and the longest; each is spread by chance, so that tenants
#: which failed together do not come back together.
_BACKOFF = (0.1, 5.0)

#: Kind of the event that tells what a tenant looked like before and after.
SHAPE = "shape"


@dataclass(slots=True)
class Tries:
    """Of one run, or of the part of it that is done in this process."""

    run: str
    #: As in :class:`~orchestrator.rollout.planning.Request`.
    command: str
    migrator: Migrator
    recorder: Recorder
    observer: Observer
    #: Who goes alike.
    cohorts: Cohorts
    #: What is done outside transactions.
    steps: Steps
    #: What is called before and after tenants.
    hooks: Hooks
    foresight: Foresight
    #: Times a tenant is tried again after a failure that may pass.
    retries: int
    #: Receives tenants that are new; ``None`` where none are.
    reception: Reception | None = None
    #: Look at every tenant that goes through Alembic, too, and write down what it looked like.
    shapes: bool = False
    #: Held by the tenant whose revisions keep state in the process.
    serial: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def carry_out(self, wave: str, planned: PlannedTenant, note: Callable[[AttemptRecord], None]) -> None:
        """Try one tenant until it is through.

        Args:
            wave: name of the wave it goes in.
            planned: whom, and from where to where.
            note: told of the attempt as it begins and as it ends.
        """
        foreseen = self.foresight.attempt(wave, planned)
        attempt = replace(foreseen, status=TenantStatus.RUNNING, to_heads=None, started_at=datetime.now(UTC))
        note(attempt)
        try:
            await self.hooks.before(Moment.BEFORE_TENANT, {"wave": wave, "tenant": planned.tenant.id})
            if planned.serial:
                async with self.serial:
                    attempt = await self._tried(attempt, planned)
            else:
                attempt = await self._tried(attempt, planned)
        except HookRefused as refused:
            failure = describe(refused).as_json()
            # As it was read: the tenant was not touched.
            attempt = replace(foreseen, status=TenantStatus.FAILED, error=failure, started_at=attempt.started_at)
            attempt = replace(attempt, finished_at=datetime.now(UTC))
        except BaseException:
            left = self.steps.cut_off(planned.tenant.id)
            status = TenantStatus.INTERRUPTED if left is None else TenantStatus.PARTIAL
            error = None if left is None else left.as_json()
            note(replace(attempt, status=status, error=error, finished_at=datetime.now(UTC)))
            raise
        note(attempt)
        if Moment.AFTER_TENANT in self.hooks.declared:
            await self.hooks.after(Moment.AFTER_TENANT, {"wave": wave, **tenant_document(attempt)}, self.recorder)

    async def _tried(self, attempt: AttemptRecord, planned: PlannedTenant) -> AttemptRecord:
        """Try, and try again while what went wrong may pass by itself."""
        tenant = planned.tenant
        work = Work.of(self.migrator.history, self.command, planned.target)
        share = self.foresight.share(planned)
        lost = False
        total_ms = 0.0
        for number in range(1, self.retries + 2):
            cohort = self.cohorts.of(planned) if number == 1 else None
            outcome = _left_before(await self._attempt(tenant, replace(work, number=number), cohort))
            self.steps.end(tenant.id, outcome)
            total_ms += outcome.duration_ms
            if outcome.before is not None:
                # Somebody else may move it between two tries.
                self.foresight.look_for_others(planned, share, outcome.before)
                share = share.found(outcome.before)
            lost = lost or outcome.status is TenantStatus.UNKNOWN
            cut_short = outcome.status is TenantStatus.PARTIAL and outcome.after is None
            unseen = outcome.status is TenantStatus.UNKNOWN or cut_short
            share = share.ended(outcome.before, outcome.after, unseen=unseen)
            # Also while no new tenant starts: this one has, and its first tries wait for a lock only a moment.
            if number > self.retries or not _may_pass(outcome, lost):
                break
            self._retry(tenant.id, number, outcome)
            await asyncio.sleep(random.uniform(0.5, 1) * min(_BACKOFF[0] * 2 ** (number - 1), _BACKOFF[1]))
        status = outcome.status
        if status is TenantStatus.ALREADY_CURRENT and share.moved and share.start != outcome.after:
            # A commit whose answer was lost had gone through after all, or others did the rest.
            status = TenantStatus.SUCCEEDED
        elif lost and outcome.after is None:
            status = TenantStatus.UNKNOWN
        return replace(
            attempt,
            status=status,
            from_heads=share.start if share.start is not None else planned.heads,
            # Not reached this time: it is where the run's earlier tries or parts have left it.
            to_heads=share.left if share.moved and outcome.after is None else outcome.after,
            attempts=attempt.attempts + number,
            duration_ms=total_ms,
            path=outcome.path if outcome.steps or status is TenantStatus.SUCCEEDED else None,
            error=outcome.failure.as_json() if outcome.failure is not None else None,
            finished_at=datetime.now(UTC),
        )

    async def _attempt(self, tenant: Tenant, work: Work, cohort: Cohort | None) -> Outcome:
        """Try once, in the way that the tenant's cohort goes."""

        def stepped(step: StepDone) -> None:
            self._stepped(tenant.id, step)

        keep = self.steps.keeper(tenant.id)
        if self.reception is not None:
            return await self.reception.attempt(tenant, work, stepped, keep)
        way = await cohort.join() if cohort is not None else None
        if cohort is None or way is None:
            was = await self._shape(tenant) if self.shapes else None
            done = await self.migrator.attempt(tenant, work, stepped, keep=keep)
            if was is not None and done.status is TenantStatus.SUCCEEDED:
                self._seen(tenant, was, await self._shape(tenant))
            return done
        if isinstance(way, Transcript):
            refused = partial(self._not_replayed, tenant.id)
            replay = partial(migrate, self.migrator, tenant, work, way, stepped, refused, keep)
            return await (self._looked_at(tenant, cohort, replay) if cohort.is_sampled() else replay())
        outcome = None
        try:
            before = await self._shape(tenant)
            outcome = await self.migrator.attempt(tenant, work, stepped, way, keep)
        finally:
            # Before it is looked at again: the others wait for what it was sent, not for what it looks like.
            if cohort.leave(way, outcome) and cohort.reasons:
                self._not_replayed(None, dict(cohort.reasons))
        with cohort.looking():
            after = await self._shape(tenant)
            cohort.note_shape(before, after)
        if outcome.status is TenantStatus.SUCCEEDED:
            self._seen(tenant, before, after)
        return outcome

    async def _looked_at(self, tenant: Tenant, cohort: Cohort, replay: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Replay a tenant, and see that it looks as one that went through Alembic does."""
        before = await self._shape(tenant)
        outcome = await replay()
        if outcome.status is not TenantStatus.SUCCEEDED or outcome.path == ALEMBIC:
            return outcome
        after = await self._shape(tenant)
        await cohort.looked()
        failure = cohort.judge_shape(before, after)
        if failure is None:
            self._seen(tenant, before, after)
        return outcome if failure is None else replace(outcome, status=TenantStatus.FAILED, failure=failure)

    def _seen(self, tenant: Tenant, before: str | None, after: str | None) -> None:
        """Keep what a tenant looked like: a rollback of this run compares with it."""
        if before is not None and after is not None:
            detail = {"before": before, "after": after}
            self.recorder.record_event(EventRecord(self.run, tenant.id, datetime.now(UTC), SHAPE, detail=detail))

    async def _shape(self, tenant: Tenant) -> str | None:
        """Fingerprint of what the tenant holds; ``None`` where it holds nothing, or could not be read."""
        database, table = self.migrator.databases[tenant.server], self.migrator.loop.version_table
        return (await database.fingerprints([tenant], table)).get(tenant.id)

    def _stepped(self, tenant: str, step: StepDone) -> None:
        at = datetime.now(UTC)
        self.recorder.record_event(
            EventRecord(self.run, tenant, at, "revision", step.revision, step.direction, step.duration_ms)
        )
        self.observer.step(tenant, step)

    def _not_replayed(self, tenant: str | None, reason: str | dict[str, str]) -> None:
        """Note why one tenant, or revisions (by revision) for all of a kind, went through Alembic."""
        self.recorder.record_event(
            EventRecord(self.run, tenant, datetime.now(UTC), "not_replayed", detail={"reason": reason})
        )

    def _retry(self, tenant: str, number: int, outcome: Outcome) -> None:
        detail = {"try": number, "error": outcome.failure.as_json() if outcome.failure is not None else None}
        self.recorder.record_event(EventRecord(self.run, tenant, datetime.now(UTC), "retry", detail=detail))


def _left_before(outcome: Outcome) -> Outcome:
    """Refused under the tenant's lock, because another process had been killed in the middle of the step meanwhile."""
    left = outcome.failure is not None and outcome.failure.type == LeftPartial.__name__
    return replace(outcome, status=TenantStatus.PARTIAL) if left else outcome


def _may_pass(outcome: Outcome, lost: bool) -> bool:
    failure = outcome.failure
    if failure is None or outcome.status not in (TenantStatus.FAILED, TenantStatus.UNKNOWN):
        return False
    # Once a connection was lost in mid-work, not reaching the server is part of the same trouble.
    return failure.passing or failure.lost or (lost and failure.type == "unreachable")
