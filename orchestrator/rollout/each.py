"""Do one thing to each tenant, as many at once as their servers allow: backups and restores, which have no waves."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from orchestrator.databases.failures import Failure, describe
from orchestrator.errors import MayPass, OrchestratorError, TenantLocked, Unprovisioned
from orchestrator.journal.records import AttemptRecord
from orchestrator.rollout.plan import SINGLE_WAVE, Plan, PlannedTenant
from orchestrator.rollout.stop import Stop
from orchestrator.rollout.watching import Observer, Recorder
from orchestrator.rollout.workers import until_done
from orchestrator.statuses import TenantStatus

#: Seconds before a tenant is tried again: the first pause and the longest.
_BACKOFF = (0.1, 5.0)


@dataclass(frozen=True, slots=True)
class Done:
    """What was done to one tenant."""

    #: Heads before and after; ``None`` where nobody could read them.
    before: tuple[str, ...] | None
    after: tuple[str, ...] | None


@dataclass(slots=True)
class Each:
    """One run that does the same to each of its tenants, and goes on whatever fails."""

    id: str
    plan: Plan
    #: What is done; raises an OrchestratorError where it could not be.
    act: Callable[[PlannedTenant], Awaitable[Done]]
    recorder: Recorder
    observer: Observer
    stop: Stop
    #: Tenants at once on each physical server, by server name to (identity, cap).
    budgets: Mapping[str, tuple[str, int]]
    #: Tenants at once over all.
    jobs: int
    #: Times a tenant is tried again after a failure that may pass.
    retries: int
    attempts: dict[str, AttemptRecord] = field(default_factory=dict)

    async def execute(self) -> tuple[AttemptRecord, ...]:
        """Do it.

        Returns:
            How every tenant ended, in the plan's order. Nothing is left pending or running.
        """
        waiting: dict[str, deque[PlannedTenant]] = defaultdict(deque)
        for planned in self.plan.tenants:
            if planned.verdict is TenantStatus.PENDING:
                waiting[self.budgets[planned.tenant.server][0]].append(planned)
            else:
                self._note(self._begun(planned))
        over_all = asyncio.Semaphore(self.jobs)
        workers = [
            asyncio.create_task(self._work(queue, over_all))
            for identity, queue in waiting.items()
            for _ in range(min(self._cap(identity), len(queue)))
        ]
        try:
            await until_done(workers, self.stop)
        finally:
            for planned in self.plan.tenants:
                if planned.tenant.id not in self.attempts:
                    self._note(replace(self._begun(planned), status=TenantStatus.NOT_STARTED))
        return tuple(self.attempts[planned.tenant.id] for planned in self.plan.tenants)

    async def _work(self, queue: deque[PlannedTenant], over_all: asyncio.Semaphore) -> None:
        while queue:
            async with over_all:
                if not queue or self.stop.draining:
                    return
                await self._do(queue.popleft())

    async def _do(self, planned: PlannedTenant) -> None:
        attempt = replace(self._begun(planned), status=TenantStatus.RUNNING, started_at=datetime.now(UTC))
        self._note(attempt)
        started = time.perf_counter()
        try:
            attempt = await self._tried(attempt, planned)
        except BaseException:
            self._note(replace(attempt, status=TenantStatus.INTERRUPTED, finished_at=datetime.now(UTC)))
            raise
        took = (time.perf_counter() - started) * 1000
        self._note(replace(attempt, duration_ms=took, finished_at=datetime.now(UTC)))

    async def _tried(self, attempt: AttemptRecord, planned: PlannedTenant) -> AttemptRecord:
        for number in range(1, self.retries + 2):
            attempt = replace(attempt, attempts=number, error=None)
            try:
                done = await self.act(planned)
            except Exception as error:
                failure = describe(error)
                attempt = replace(attempt, status=_status(error), error=failure.as_json())
                if number > self.retries or not _may_pass(error, failure):
                    return attempt
            else:
                return replace(
                    attempt, status=TenantStatus.SUCCEEDED, from_heads=done.before, to_heads=done.after, error=None
                )
            await asyncio.sleep(random.uniform(0.5, 1) * min(_BACKOFF[0] * 2 ** (number - 1), _BACKOFF[1]))
        return attempt

    def _begun(self, planned: PlannedTenant) -> AttemptRecord:
        error = planned.failure.as_json() if planned.failure is not None else None
        wave, heads = SINGLE_WAVE, planned.heads
        return AttemptRecord(self.id, planned.tenant.id, wave, planned.verdict, heads, heads, error=error)

    def _note(self, attempt: AttemptRecord) -> None:
        self.attempts[attempt.tenant] = attempt
        self.recorder.record(attempt)
        self.observer.tenant(attempt)

    def _cap(self, identity: str) -> int:
        # Two declarations of one physical server: the more careful one holds.
        return min(cap for name, cap in self.budgets.values() if name == identity)


def _status(error: Exception) -> TenantStatus:
    if isinstance(error, TenantLocked):
        return TenantStatus.LOCKED
    return TenantStatus.BLOCKED if isinstance(error, Unprovisioned) else TenantStatus.FAILED


def _may_pass(error: Exception, failure: Failure) -> bool:
    if isinstance(error, MayPass):
        return error.passing
    return failure.passing and isinstance(error, OrchestratorError)
