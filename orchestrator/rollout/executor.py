"""The executor port: who attempts the tenants of a wave. Waves, budgets, bakes and pauses stay with the run."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.journal.records import AttemptRecord
from orchestrator.rollout.plan import PlannedTenant, PlannedWave
from orchestrator.rollout.stop import Stop
from orchestrator.rollout.tries import Tries
from orchestrator.rollout.workers import until_done


class Ledger(Protocol):
    """What an executor asks the run, and tells it."""

    def may_start(self, wave: PlannedWave) -> bool:
        """Whether another tenant of ``wave`` may be begun: to be asked before each."""
        ...

    def failures(self, wave: PlannedWave) -> int:
        """How many tenants of ``wave`` have failed so far."""
        ...

    def note(self, attempt: AttemptRecord) -> None:
        """A tenant's attempt has come so far: it is counted, told and written down."""
        ...

    def hear(self, attempt: AttemptRecord) -> None:
        """The same of an attempt that another process has made, and written down itself."""
        ...


class Executor(Protocol):
    """Attempts tenants, each at most once for each call, never more at once on a server than its budget."""

    async def carry_out(self, wave: PlannedWave, todo: Sequence[PlannedTenant], ledger: Ledger) -> None:
        """Attempt the tenants of one wave.

        Returns when nobody is being attempted any more: all of ``todo`` are through, or no more may be begun.

        Args:
            wave: theirs.
            todo: those to be attempted, in the order in which to begin.
            ledger: told of every change; asked before anybody is begun.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalExecutor:
    """Attempts them in this process, as many at once on each server as its budget says."""

    tries: Tries
    #: Tenants at once on each physical server, by server name to (identity, cap).
    budgets: Mapping[str, tuple[str, int]]
    #: Tenants at once over all.
    jobs: int
    stop: Stop

    async def carry_out(self, wave: PlannedWave, todo: Sequence[PlannedTenant], ledger: Ledger) -> None:
        """See :class:`Executor`; cut off when the run is to stop at once."""
        over_all = asyncio.Semaphore(min(self.jobs, wave.settings.jobs or self.jobs))
        waiting: dict[str, deque[PlannedTenant]] = defaultdict(deque)
        for planned in todo:
            waiting[self.budgets[planned.tenant.server][0]].append(planned)
        workers = [
            asyncio.create_task(self._work(wave, queue, over_all, ledger))
            for identity, queue in waiting.items()
            for _ in range(min(self._cap(identity), len(queue)))
        ]
        await until_done(workers, self.stop)

    async def _work(
        self, wave: PlannedWave, queue: deque[PlannedTenant], over_all: asyncio.Semaphore, ledger: Ledger
    ) -> None:
        while queue:
            async with over_all:
                # Looked at only when a place is free: in between, another tenant may have used up the budget.
                if not queue or not ledger.may_start(wave):
                    return
                await self.tries.carry_out(wave.name, queue.popleft(), ledger.note)

    def _cap(self, identity: str) -> int:
        # Two declarations of one physical server: the more careful one holds.
        return min(cap for name, cap in self.budgets.values() if name == identity)
