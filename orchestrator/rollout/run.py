"""Run a plan: wave after wave, as long as failures are within the budget, each tenant's fate written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.fleet.hooks import Moment
from orchestrator.fleet.waves import OnFailure
from orchestrator.journal.records import AttemptRecord
from orchestrator.rollout.executor import Executor
from orchestrator.rollout.foresight import Foresight
from orchestrator.rollout.gates import Gates
from orchestrator.rollout.hooks import HookRefused, Hooks
from orchestrator.rollout.plan import Plan, PlannedTenant, PlannedWave
from orchestrator.rollout.result import fingerprint
from orchestrator.rollout.revisions import Revisions
from orchestrator.rollout.stop import Stop
from orchestrator.rollout.watching import Observer, Recorder
from orchestrator.rollout.waves import WaveState
from orchestrator.statuses import FAILURES, TenantStatus


@dataclass(slots=True)
class Run:
    """One run of one plan."""

    id: str
    plan: Plan
    recorder: Recorder
    observer: Observer
    stop: Stop
    #: Attempts the tenants of a wave.
    executor: Executor
    #: What is known of a tenant without attempting it.
    foresight: Foresight
    #: Which files revisions are applied from.
    revisions: Revisions
    #: What stands between the waves.
    gates: Gates
    #: What is called before and after waves.
    hooks: Hooks
    #: The run stops when so many tenants have failed for one cause; ``None`` for whatever the budgets say.
    same_cause: int | None = None
    #: What the run had done to a tenant before it was carried on, by tenant id.
    earlier: Mapping[str, AttemptRecord] = field(default_factory=dict)
    #: Attempts that failed in this part of the run before another process took it over: they count.
    through: Sequence[AttemptRecord] = ()
    attempts: dict[str, AttemptRecord] = field(default_factory=dict)
    #: By wave; counted as they come, because it is asked for before every tenant.
    _failures: Counter[str] = field(default_factory=Counter)
    #: By what failures of one cause have in common.
    _causes: Counter[str] = field(default_factory=Counter)

    async def execute(self) -> tuple[AttemptRecord, ...]:
        """Do it.

        Returns:
            How every tenant of the plan ended, in the plan's order. Nothing is left pending or running.
        """
        for attempt in self.through:
            self._note(attempt, written=True)
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
        todo = []
        for planned in wave.tenants:
            if planned.verdict is TenantStatus.PENDING:
                todo.append(planned)
            else:
                # Left partial by an earlier run: that is nobody's failure now, and the others go on.
                left = planned.verdict is TenantStatus.PARTIAL
                self._note(self.foresight.attempt(wave.name, planned), counts=not left)
        if todo:
            await self.executor.carry_out(wave, todo, self)

    def may_start(self, wave: PlannedWave) -> bool:
        """See :class:`~orchestrator.rollout.executor.Ledger`."""
        return not self.stop.draining and self._may_go_on(wave)

    def failures(self, wave: PlannedWave) -> int:
        """See :class:`~orchestrator.rollout.executor.Ledger`."""
        return self._failures[wave.name]

    def note(self, attempt: AttemptRecord) -> None:
        """See :class:`~orchestrator.rollout.executor.Ledger`."""
        self._note(attempt)

    def hear(self, attempt: AttemptRecord) -> None:
        """See :class:`~orchestrator.rollout.executor.Ledger`."""
        self._note(attempt, written=True)

    def _may_go_on(self, wave: PlannedWave) -> bool:
        return not self._is_broken() and wave.budget.allows(self._failures[wave.name], wave.size)

    def _is_broken(self) -> bool:
        """So many tenants have failed for one cause that the others would, too."""
        return self.same_cause is not None and max(self._causes.values(), default=0) >= self.same_cause

    def _settle_unstarted(self, planned: PlannedTenant, wave: PlannedWave) -> None:
        earlier = self.earlier.get(planned.tenant.id)
        if earlier is not None and earlier.status in FAILURES and planned.verdict is TenantStatus.PENDING:
            # Not reached this time: what went wrong the last time still stands.
            self._note(earlier)
            return
        attempt = self.foresight.attempt(wave.name, planned)
        if attempt.status in (TenantStatus.PENDING, TenantStatus.FAILED):
            attempt = replace(attempt, status=TenantStatus.NOT_STARTED)
        self._note(attempt)

    def _note(self, attempt: AttemptRecord, *, counts: bool = True, written: bool = False) -> None:
        known = self.attempts.get(attempt.tenant)
        self.attempts[attempt.tenant] = attempt
        # Told by another process, one failure may be told twice.
        new = known is None or (known.status, known.attempts) != (attempt.status, attempt.attempts)
        if counts and new and attempt.wave is not None and attempt.status in FAILURES:
            self._failures[attempt.wave] += 1
            if attempt.error is not None:
                self._causes[fingerprint(attempt.error, attempt.tenant)] += 1
        if not written:
            self.recorder.record(attempt)
        self.observer.tenant(attempt)
        self.revisions.reached(attempt)


def pending(run: str, plan: Plan) -> list[AttemptRecord]:
    """The rows a run begins with: one for each tenant, in order."""
    return [
        AttemptRecord(run, planned.tenant.id, wave.name, TenantStatus.PENDING, planned.heads)
        for wave in plan.waves
        for planned in wave.tenants
    ]
