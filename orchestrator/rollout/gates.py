"""What stands between one wave and the next: its checks, its bake, somebody's approval. All of it is journaled."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from orchestrator.fleet.waves import Approval
from orchestrator.journal.records import AttemptRecord
from orchestrator.rollout.checks import Verdict
from orchestrator.rollout.plan import PlannedWave
from orchestrator.rollout.stop import CutOff, Stop
from orchestrator.rollout.watching import Observer, Recorder
from orchestrator.rollout.waves import WaveRecord, WaveState
from orchestrator.statuses import RunStatus


@dataclass(slots=True)
class Gates:
    """Closes each wave, and says whether the next one may begin."""

    run: str
    recorder: Recorder
    observer: Observer
    stop: Stop
    #: Carries out a wave's checks.
    check: Callable[[PlannedWave, Mapping[str, AttemptRecord]], Coroutine[Any, Any, Verdict]]
    #: How the run's waves stand, by name; to begin with, how they stood when it was carried on.
    records: dict[str, WaveRecord] = field(default_factory=dict)
    #: Whether there are waves that somebody has asked for.
    asked_for: bool = True
    #: The wave that nothing follows in this run.
    last: str | None = None
    #: Somebody has approved what waits for it.
    approved: bool = False

    async def passed(self, wave: PlannedWave, attempts: Mapping[str, AttemptRecord]) -> bool:
        """Check ``wave``, let it bake, check it again, ask for approval.

        Args:
            wave: its tenants are through, within its budget.
            attempts: how the run's tenants stand, by id.

        Returns:
            Whether the next wave may begin. If not, its record says why, or :attr:`Stop.asked`.
        """
        before = self.records.get(wave.name)
        if before is None and not self.asked_for:
            return True
        if before is not None and before.state is WaveState.DONE:
            # Closed by an earlier part of the run; somebody that had failed within its budget was tried again.
            return True
        waiting = before is not None and before.state is WaveState.WAITING
        if not waiting and not await self._bake(wave, attempts, before):
            return False
        # Nobody has to let anything begin where no wave follows; an approval is for what waited when it was given.
        needed = wave.settings.approve is Approval.MANUAL and wave.name != self.last
        if needed and not (waiting and self.approved):
            if not waiting:
                await self.note(WaveRecord(wave.name, WaveState.WAITING))
            self.stop.request(RunStatus.PAUSED)
            return False
        await self.note(WaveRecord(wave.name, WaveState.DONE))
        return True

    async def failed(self, wave: PlannedWave, reason: str, refused: Mapping[str, str] | None = None) -> None:
        """``wave`` is not as it should be."""
        await self.note(WaveRecord(wave.name, WaveState.FAILED, reason=reason, refused=refused or None))

    async def note(self, record: WaveRecord) -> None:
        """Write down how a wave stands; on disk when this returns, where the journal can be written."""
        self.records[record.name] = record
        self.recorder.record_event(record.event(self.run))
        await self.recorder.flush(durable=True)
        self.observer.wave(record)

    async def _bake(self, wave: PlannedWave, attempts: Mapping[str, AttemptRecord], before: WaveRecord | None) -> bool:
        """The checks, and the time in between; a bake that was begun before a restart is not begun again."""
        baking = before is not None and before.state is WaveState.BAKING
        if not baking and not await self._checked(wave, attempts):
            return False
        if not wave.settings.bake:
            return True
        until = before.until if before is not None and baking else None
        if until is None:
            until = datetime.now(UTC) + timedelta(seconds=wave.settings.bake)
        await self.note(WaveRecord(wave.name, WaveState.BAKING, until))
        if await self._stopped_before(until):
            return False
        return await self._checked(wave, attempts)

    async def _stopped_before(self, until: datetime) -> bool:
        while (left := (until - datetime.now(UTC)).total_seconds()) > 0:
            # Looked at again once in a while: the wall clock may be set, and a machine may sleep.
            if await self.stop.within(min(left, 60.0)):
                return True
        return self.stop.draining

    async def _checked(self, wave: PlannedWave, attempts: Mapping[str, AttemptRecord]) -> bool:
        if not wave.settings.verify:
            return True
        try:
            verdict = await self.stop.unless_cut(self.check(wave, attempts))
        except CutOff:
            return False
        if verdict.reason is not None:
            await self.failed(wave, verdict.reason, verdict.refused)
        return verdict.reason is None
