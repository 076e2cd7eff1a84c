"""What a restore does to steps outside transactions: a tenant is as half done afterwards as it was in its backup."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from orchestrator.actions.restoring.found_backups import Found
from orchestrator.errors import JournalError
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import StepRecord


@dataclass(slots=True)
class RestoredSteps:
    """The steps of one tenant that is being restored."""

    journal: Journal
    tenant: str
    backup: Found
    #: What the journal had before; ``None`` for nothing open.
    _before: StepRecord | None = None
    _begun: bool = False

    async def begin(self) -> None:
        """What is half done in the backup is on disk in the journal before it is in the tenant, whose lock is held.

        A kill in between leaves a tenant called partial that is not: better than the other way round.

        Raises:
            JournalError: it could not be written; nothing was touched.
        """
        if self.backup.step is None:
            return
        self._before = await self._open()
        self._begun = True
        self.journal.record_step(self.backup.step)
        if not await self.journal.flush(durable=True):
            self._put_back()
            raise JournalError(
                "the backup has a half-done revision in it, and the journal, which has to know of that first, cannot "
                "be written; nothing was touched",
                hint="see the journal's own message above, mend that, then restore again",
            )

    async def undo(self) -> None:
        """The tenant is what it was; unless somebody has gone on with it, so is the journal."""
        step = await self._open() if self._begun else None
        ours = self.backup.step
        if step is not None and ours is not None and (step.run, step.begun_at) == (ours.run, ours.begun_at):
            self._put_back()

    async def end(self) -> None:
        """The tenant is what its backup has. What was begun later is gone; what was begun before is in it."""
        step = await self._open()
        if self.backup.step is None and step is not None and step.begun_at > self.backup.manifest.created:
            self.journal.record_step(replace(step, done_at=datetime.now(UTC)))

    def _put_back(self) -> None:
        if self.backup.step is not None:
            self.journal.record_step(self._before or replace(self.backup.step, done_at=datetime.now(UTC)))

    async def _open(self) -> StepRecord | None:
        return next((step for step, _ in await self.journal.open_steps(self.tenant)), None)
