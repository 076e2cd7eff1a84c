"""What stands between one wave and the next: its checks, its bake, somebody's approval. All of it is journaled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from orchestrator.fleet.waves import Approval
from orchestrator.journal.records import AttemptRecord
from orchestrator.rollout.checks import Verdict
from orchestrator.rollout.plan import PlannedWave
from orchestrator.rollout.stop import Stop
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
    check: Callable[[PlannedWave, Mapping[str, AttemptRecord]], Awaitable[Verdict]]
    #: How the run's waves stand, by name; to begin with, how they stood when it was carried on.
    records: dict[str, WaveRecord] = field(default_factory=dict)
    #: Whether there are waves that somebody has asked for.
    asked_for: bool = True
    #: Somebody has approved whatever wave waits for it.
    approved: bool = False

    async def passed(self, wave: PlannedWave, attempts: Mapping[str, AttemptRecord], *, is_last: bool) -> bool:
        """Check ``wave``, let it bake, check it again, ask for approval.

        Args:
            wave: its tenants are through, within its budget.
            attempts: how the run's tenants stand, by id.
            is_last: no wave follows: nobody has to let it begin.

        Returns:
            Whether the next wave may begin. If not, its record says why, or :attr:`Stop.asked`.
        """
        settings, before = wave.settings, self.records.get(wave.name)
        if not self.asked_for and before is None:
            return True
        waiting = before is not None and before.state is WaveState.WAITING
        if not waiting and not await self._bake(wave, attempts, before):
            return False
        if settings.approve is Approval.MANUAL and not is_last and not self.approved:
            await self.note(WaveRecord(wave.name, WaveState.WAITING))
            self.stop.request(RunStatus.PAUSED)
            return False
        # One approval lets one wave begin.
        self.approved = self.approved and settings.approve is None
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
        checking = asyncio.ensure_future(self.check(wave, attempts))
        cut = asyncio.create_task(self.stop.at_once.wait())
        try:
            await asyncio.wait({checking, cut}, return_when=asyncio.FIRST_COMPLETED)
            if not checking.done():
                return False
            verdict = checking.result()
        finally:
            cut.cancel()
            checking.cancel()
            await asyncio.gather(cut, checking, return_exceptions=True)
        if verdict.reason is not None:
            await self.failed(wave, verdict.reason, verdict.refused)
        return verdict.reason is None
