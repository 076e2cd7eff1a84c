"""Who of a run goes alike: two tenants of a kind are recorded on their way through Alembic, the others are replayed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from orchestrator.databases.port import Database
from orchestrator.history.directory import History
from orchestrator.migration.attempt import Outcome
from orchestrator.migration.recording import Recorded, Recording, compared
from orchestrator.migration.replay import Transcript
from orchestrator.rollout.plan import Kind, Plan, PlannedTenant, kind_of
from orchestrator.statuses import TenantStatus

#: Tenants that have to have gone the same way.
_PROOFS = 2
#: Seconds that a tenant waits for those that are recorded; after that it goes through Alembic itself.
_PATIENCE = 2.0


@dataclass(slots=True)
class Cohort:
    """Tenants of one kind, and what has been found out about their way so far."""

    #: Why a revision must not be replayed, as far as its file tells, by revision.
    impure: Mapping[str, str]
    #: How they go; ``None`` until it is known, and for good when all of them go through Alembic.
    transcript: Transcript | None = None
    settled: bool = False
    _proofs: list[Recording] = field(default_factory=list)
    _recording: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def join(self) -> Transcript | Recording | None:
        """How the next tenant is to go: replayed, recorded (then :meth:`leave`), or neither."""
        while not self.settled:
            if len(self._proofs) + self._recording < _PROOFS:
                self._recording += 1
                return Recording()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._changed.wait()
            except TimeoutError:
                return None
        return self.transcript

    def leave(self, recording: Recording, outcome: Outcome | None) -> None:
        """A recorded tenant is through; only one that succeeded proves anything."""
        self._recording -= 1
        if outcome is not None and outcome.status is TenantStatus.SUCCEEDED and outcome.steps:
            self._proofs.append(recording)
        if len(self._proofs) >= _PROOFS and not self.settled:
            self.transcript = self._transcript()
            self.settled = True
        self._changed.set()
        self._changed = asyncio.Event()

    def _transcript(self) -> Transcript | None:
        one, other = self._proofs
        same = compared(one.transactions, other.transactions)
        reason = one.reason or other.reason or (None if one.options == other.options else "env.py's options differ")
        transactions = tuple(self._judged(each, reason) for each in same)
        made = Transcript(transactions, one.options or {})
        return made if transactions else None

    def _judged(self, recorded: Recorded, reason: str | None) -> Recorded:
        by_text = (self.impure[revision] for revision in recorded.step.revisions if revision in self.impure)
        return replace(recorded, reason=reason or next(by_text, None) or recorded.reason)


class Cohorts:
    """The cohorts of one run.

    Args:
        plan: whom it means; ``None`` where everybody is to go through Alembic.
        history: the shared directory.
        databases: by server name.
    """

    def __init__(self, plan: Plan | None, history: History, databases: Mapping[str, Database]) -> None:
        self._cohorts: dict[Kind, Cohort] = {}
        if plan is None or plan.command == "stamp":
            return
        todo = [each for each in plan.tenants if each.verdict is TenantStatus.PENDING]
        can = [each for each in todo if databases[each.tenant.server].replays]
        self._cohorts = {
            kind: Cohort(impure)
            for kind, count in Counter(kind_of(each) for each in can).items()
            # Recording two is worth it where there is a third, and where anything can come of it.
            if count > _PROOFS and len(impure := history.impurities(kind.path, plan.command)) < len(kind.path)
        }

    def of(self, planned: PlannedTenant) -> Cohort | None:
        """The tenant's cohort; ``None`` where nobody is replayed."""
        return self._cohorts.get(kind_of(planned))
