"""Run a plan: wave after wave, as many tenants at once as their servers allow, each one's fate written down."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from orchestrator.databases.failures import describe
from orchestrator.fleet.hooks import Moment
from orchestrator.fleet.tenant import Tenant
from orchestrator.fleet.waves import OnFailure
from orchestrator.journal.records import AttemptRecord, EventRecord
from orchestrator.migration.attempt import ALEMBIC, Migrator, Outcome, Work
from orchestrator.migration.replay import Transcript, migrate
from orchestrator.migration.scope import StepDone
from orchestrator.rollout.cohorts import Cohort, Cohorts
from orchestrator.rollout.gates import Gates
from orchestrator.rollout.hooks import HookRefused, Hooks
from orchestrator.rollout.onboarding import Reception
from orchestrator.rollout.plan import Plan, PlannedTenant, PlannedWave
from orchestrator.rollout.result import fingerprint, tenant_document
from orchestrator.rollout.revisions import Revisions
from orchestrator.rollout.share import CUT_OFF, MOVED_BETWEEN, Share
from orchestrator.rollout.steps import LeftPartial, Steps
from orchestrator.rollout.stop import Stop
from orchestrator.rollout.watching import Observer, Recorder
from orchestrator.rollout.waves import WaveState
from orchestrator.rollout.workers import until_done
from orchestrator.statuses import FAILURES, TenantStatus

#: Seconds before a tenant is tried again: the first pause and the longest; each is spread by chance, so that tenants
#: which failed together do not come back together.
_BACKOFF = (0.1, 5.0)

#: Kind of the event that tells what a tenant looked like before and after.
SHAPE = "shape"
#: Types of errors that are found after the last commit, and that the journal's steps do not tell.
_LEFT_WRONG = frozenset({"shape"})


@dataclass(slots=True)
class Run:
    """One run of one plan."""

    id: str
    plan: Plan
    migrator: Migrator
    recorder: Recorder
    observer: Observer
    stop: Stop
    #: Tenants at once on each physical server, by server name to (identity, cap).
    budgets: Mapping[str, tuple[str, int]]
    #: Who goes alike.
    cohorts: Cohorts
    #: Which files revisions are applied from.
    revisions: Revisions
    #: What is done outside transactions.
    steps: Steps
    #: What stands between the waves.
    gates: Gates
    #: What is called before and after waves and tenants.
    hooks: Hooks
    #: Tenants at once over all.
    jobs: int
    #: Times a tenant is tried again after a failure that may pass.
    retries: int
    #: The run stops when so many tenants have failed for one cause; ``None`` for whatever the budgets say.
    same_cause: int | None = None
    #: Receives tenants that are new; ``None`` where none are.
    reception: Reception | None = None
    #: Look at every tenant that goes through Alembic, too, and write down what it looked like.
    shapes: bool = False
    #: What the run had done to a tenant before it was carried on, by tenant id.
    earlier: Mapping[str, AttemptRecord] = field(default_factory=dict)
    attempts: dict[str, AttemptRecord] = field(default_factory=dict)
    _serial: asyncio.Lock = field(default_factory=asyncio.Lock)
    #: By wave; counted as they come, because it is asked for before every tenant.
    _failures: Counter[str] = field(default_factory=Counter)
    #: By what failures of one cause have in common.
    _causes: Counter[str] = field(default_factory=Counter)

    async def execute(self) -> tuple[AttemptRecord, ...]:
        """Do it.

        Returns:
            How every tenant of the plan ended, in the plan's order. Nothing is left pending or running.
        """
        try:
            for wave in self.plan.waves:
                if self.stop.draining or not await self._may_follow(wave):
                    break
        finally:
            # Also when whoever called is cancelled: the journal says of every tenant how it ended.
            for wave in self.plan.waves:
                for planned in wave.tenants:
                    if planned.tenant.id not in self.attempts:
                        self._settle_unstarted(planned, wave)
        return tuple(self.attempts[planned.tenant.id] for planned in self.plan.tenants)

    async def _may_follow(self, wave: PlannedWave) -> bool:
        """Carry out a wave and close it. Returns whether the next one may start."""
        pending = [each.tenant.id for each in wave.tenants if each.verdict is TenantStatus.PENDING]
        if pending:
            try:
                await self.hooks.before(Moment.BEFORE_WAVE, {"wave": wave.name, "tenants": pending})
            except HookRefused as refused:
                await self.gates.failed(wave, refused.message)
                return False
        await self._execute_wave(wave)
        if self.stop.draining:
            return False
        passed = await self._closed(wave)
        if not self.stop.draining:
            await self.hooks.after(Moment.AFTER_WAVE, self._ended(wave, passed), self.recorder)
        goes_on = passed or (wave.settings.on_failure is OnFailure.CONTINUE and not self._is_broken())
        return goes_on and not self.stop.draining

    async def _closed(self, wave: PlannedWave) -> bool:
        """Whether the wave is as it should be."""
        if self._may_go_on(wave):
            return await self.gates.passed(wave, {**self.earlier, **self.attempts})
        if self._is_broken():
            await self.gates.failed(wave, f"{max(self._causes.values())} tenants failed for one cause")
        elif self.gates.asked_for:
            await self.gates.failed(wave, f"{self._failures[wave.name]} of {wave.size} tenants failed")
        return False

    def _ended(self, wave: PlannedWave, passed: bool) -> dict[str, Any]:
        """What is told of a wave that is over."""
        members = [each for each in {**self.earlier, **self.attempts}.values() if each.wave == wave.name]
        return {
            "wave": wave.name,
            "state": (WaveState.DONE if passed else WaveState.FAILED).value,
            "tenants": [each.tenant for each in members],
            "summary": Counter(each.status.value for each in members),
        }

    async def _execute_wave(self, wave: PlannedWave) -> None:
        over_all = asyncio.Semaphore(min(self.jobs, wave.settings.jobs or self.jobs))
        waiting: dict[str, deque[PlannedTenant]] = defaultdict(deque)
        for planned in wave.tenants:
            if planned.verdict is TenantStatus.PENDING:
                waiting[self.budgets[planned.tenant.server][0]].append(planned)
            else:
                # Left partial by an earlier run: that is nobody's failure now, and the others go on.
                left = planned.verdict is TenantStatus.PARTIAL
                self._note(self._foreseen(wave, planned), counts=not left)
        workers = [
            asyncio.create_task(self._work(wave, queue, over_all))
            for identity, queue in waiting.items()
            for _ in range(min(self._cap(identity), len(queue)))
        ]
        await until_done(workers, self.stop)

    async def _work(self, wave: PlannedWave, queue: deque[PlannedTenant], over_all: asyncio.Semaphore) -> None:
        while queue:
            async with over_all:
                # Looked at only when a place is free: in between, another tenant may have used up the budget.
                if not queue or self.stop.draining or not self._may_go_on(wave):
                    return
                await self._migrate(wave, queue.popleft())

    async def _migrate(self, wave: PlannedWave, planned: PlannedTenant) -> None:
        foreseen = self._foreseen(wave, planned)
        attempt = replace(foreseen, status=TenantStatus.RUNNING, to_heads=None, started_at=datetime.now(UTC))
        self._note(attempt)
        try:
            await self.hooks.before(Moment.BEFORE_TENANT, {"wave": wave.name, "tenant": planned.tenant.id})
            if planned.serial:
                async with self._serial:
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
            self._note(replace(attempt, status=status, error=error, finished_at=datetime.now(UTC)))
            raise
        self._note(attempt)
        self.revisions.reached(attempt)
        if Moment.AFTER_TENANT in self.hooks.declared:
            await self.hooks.after(Moment.AFTER_TENANT, {"wave": wave.name, **tenant_document(attempt)}, self.recorder)

    async def _tried(self, attempt: AttemptRecord, planned: PlannedTenant) -> AttemptRecord:
        """Try, and try again while what went wrong may pass by itself."""
        tenant = planned.tenant
        work = Work.of(self.migrator.history, self.plan.command, planned.target)
        share = self._share(planned)
        lost = False
        total_ms = 0.0
        for number in range(1, self.retries + 2):
            cohort = self.cohorts.of(planned) if number == 1 else None
            outcome = _left_before(await self._attempt(tenant, replace(work, number=number), cohort))
            self.steps.end(tenant.id, outcome)
            total_ms += outcome.duration_ms
            if outcome.before is not None:
                # Somebody else may move it between two tries.
                self._look_for_others(planned, share, outcome.before)
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
            self.recorder.record_event(EventRecord(self.id, tenant.id, datetime.now(UTC), SHAPE, detail=detail))

    async def _shape(self, tenant: Tenant) -> str | None:
        """Fingerprint of what the tenant holds; ``None`` where it holds nothing, or could not be read."""
        database, table = self.migrator.databases[tenant.server], self.migrator.loop.version_table
        return (await database.fingerprints([tenant], table)).get(tenant.id)

    def _may_go_on(self, wave: PlannedWave) -> bool:
        return not self._is_broken() and wave.budget.allows(self._failures[wave.name], wave.size)

    def _is_broken(self) -> bool:
        """So many tenants have failed for one cause that the others would, too."""
        return self.same_cause is not None and max(self._causes.values(), default=0) >= self.same_cause

    def _cap(self, identity: str) -> int:
        # Two declarations of one physical server: the more careful one holds.
        return min(cap for name, cap in self.budgets.values() if name == identity)

    def _settle_unstarted(self, planned: PlannedTenant, wave: PlannedWave) -> None:
        earlier = self.earlier.get(planned.tenant.id)
        if earlier is not None and earlier.status in FAILURES and planned.verdict is TenantStatus.PENDING:
            # Not reached this time: what went wrong the last time still stands.
            self._note(earlier)
            return
        attempt = self._foreseen(wave, planned)
        if attempt.status in (TenantStatus.PENDING, TenantStatus.FAILED):
            attempt = replace(attempt, status=TenantStatus.NOT_STARTED)
        self._note(attempt)

    def _foreseen(self, wave: PlannedWave, planned: PlannedTenant) -> AttemptRecord:
        """What the plan already says of a tenant, and what an earlier part of the run did to it."""
        earlier = self.earlier.get(planned.tenant.id)
        share = self._share(planned)
        if planned.heads is not None:
            self._look_for_others(planned, Share.of(earlier), planned.heads)
        status = planned.verdict
        if status is TenantStatus.ALREADY_CURRENT and earlier is not None and earlier.status in CUT_OFF and share.moved:
            # The run was killed between this tenant's commit and the note of it.
            status = TenantStatus.SUCCEEDED
        elif planned.heads is None and share.moved and share.left is None:
            # It may have been migrated before the run was cut off, and cannot be asked now.
            status = TenantStatus.UNKNOWN
        elif status is TenantStatus.ALREADY_CURRENT and _left_wrong(earlier, planned):
            assert earlier is not None
            return earlier
        return AttemptRecord(
            self.id,
            planned.tenant.id,
            wave.name,
            status,
            share.start if share.start is not None or earlier is None else earlier.from_heads,
            share.left,
            attempts=0 if earlier is None else earlier.attempts,
            path=ALEMBIC if status is TenantStatus.SUCCEEDED else None,
            error=planned.failure.as_json() if planned.failure is not None else None,
        )

    def _share(self, planned: PlannedTenant) -> Share:
        """What the run had done to the tenant before the plan was made."""
        share = Share.of(self.earlier.get(planned.tenant.id))
        return share if planned.heads is None else share.found(planned.heads)

    def _look_for_others(self, planned: PlannedTenant, share: Share, heads: tuple[str, ...]) -> None:
        """Note where somebody else has moved the tenant on since the run left it: a rollback must know."""
        if share.is_mixed(self.migrator.history.graph, heads, planned.goal):
            detail = {"left": None if share.left is None else list(share.left), "found": list(heads)}
            event = EventRecord(self.id, planned.tenant.id, datetime.now(UTC), MOVED_BETWEEN, detail=detail)
            self.recorder.record_event(event)

    def _note(self, attempt: AttemptRecord, *, counts: bool = True) -> None:
        self.attempts[attempt.tenant] = attempt
        if counts and attempt.wave is not None and attempt.status in FAILURES:
            self._failures[attempt.wave] += 1
            if attempt.error is not None:
                self._causes[fingerprint(attempt.error, attempt.tenant)] += 1
        self.recorder.record(attempt)
        self.observer.tenant(attempt)

    def _stepped(self, tenant: str, step: StepDone) -> None:
        self.recorder.record_event(
            EventRecord(self.id, tenant, datetime.now(UTC), "revision", step.revision, step.direction, step.duration_ms)
        )
        self.observer.step(tenant, step)

    def _not_replayed(self, tenant: str | None, reason: str | dict[str, str]) -> None:
        """Note why one tenant, or revisions (by revision) for all of a kind, went through Alembic."""
        self.recorder.record_event(
            EventRecord(self.id, tenant, datetime.now(UTC), "not_replayed", detail={"reason": reason})
        )

    def _retry(self, tenant: str, number: int, outcome: Outcome) -> None:
        detail = {"try": number, "error": outcome.failure.as_json() if outcome.failure is not None else None}
        self.recorder.record_event(EventRecord(self.id, tenant, datetime.now(UTC), "retry", detail=detail))


def _left_wrong(earlier: AttemptRecord | None, planned: PlannedTenant) -> bool:
    """The revision is through and what it made is not right: the version table cannot tell, and has not moved since."""
    if earlier is None or earlier.error is None:
        return False
    return earlier.error.get("type") in _LEFT_WRONG and earlier.to_heads == planned.heads


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


def pending(run: str, plan: Plan) -> list[AttemptRecord]:
    """The rows a run begins with: one for each tenant, in order."""
    return [
        AttemptRecord(run, planned.tenant.id, wave.name, TenantStatus.PENDING, planned.heads)
        for wave in plan.waves
        for planned in wave.tenants
    ]
