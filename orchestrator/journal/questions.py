"""What the journal is asked: runs, attempts, events, and what they say about tenants and revisions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.journal import following, reading
from orchestrator.journal.last_seen import LastSeen, last_seen
from orchestrator.journal.records import AttemptRecord, EventRecord, RevisionRecord, RunRecord, Spread, StepRecord
from orchestrator.journal.store import Store
from orchestrator.statuses import ASKED, RunStatus, TenantStatus


class Questions(ABC):
    """The half of :class:`~orchestrator.journal.journal.Journal` that reads."""

    def __init__(self, store: Store, *, exists: bool) -> None:
        #: False for a journal opened for reading that nobody has written yet; it reads as empty.
        self.exists = exists
        self._store = store

    @abstractmethod
    async def flush(self, *, durable: bool = False) -> bool:
        """Write everything recorded so far: it counts when the journal is asked."""

    async def run(self, name: str) -> RunRecord:
        """The run that ``name`` means.

        Args:
            name: an id, a beginning that no other id has, or ``last``.

        Raises:
            JournalError: there is none, or there are several.
        """
        if not self.exists:
            raise reading.no_runs()
        async with self._reading() as connection:
            return await reading.find_run(connection, name)

    async def find(self, id: str) -> RunRecord | None:
        """The run with this very id; ``None`` where there is none."""
        async with self._reading() as connection:
            return await reading.run_by_id(connection, id)

    async def last_run(self, commands: Sequence[str] | None = None, *, without: Sequence[str] = ()) -> RunRecord | None:
        """The run that started last, of those that carried out one of ``commands`` where given; not of ``without``."""
        if not self.exists:
            return None
        async with self._reading() as connection:
            return await reading.last_run(connection, commands, without)

    async def last_run_with(self, kind: str) -> RunRecord | None:
        """The run that started last, of those that an event of ``kind`` happened in."""
        if not self.exists:
            return None
        async with self._reading() as connection:
            return await reading.last_run_with(connection, kind)

    async def runs_before(self, run: RunRecord, command: str, limit: int = 20) -> list[RunRecord]:
        """The last runs of ``command`` that had ended when ``run`` began, newest first; so many at most."""
        if not self.exists:
            return []
        async with self._reading() as connection:
            return await reading.runs_before(connection, run, command, limit)

    async def runs(self, limit: int = 50, tenant: str | None = None) -> list[tuple[RunRecord, dict[TenantStatus, int]]]:
        """The newest runs, newest first, each with how many tenants have which status.

        Args:
            limit: runs at most.
            tenant: only runs that this tenant was selected in; only it is counted then.
        """
        if not self.exists:
            return []
        async with self._reading() as connection:
            return await reading.list_runs(connection, limit, tenant)

    async def attempts(self, run_id: str) -> list[AttemptRecord]:
        """The run's attempts in the order given when it started; tenants that joined later come last."""
        if not self.exists:
            return []
        async with self._reading() as connection:
            return await reading.list_attempts(connection, run_id)

    async def attempts_on(self, tenant: str, run_ids: Collection[str]) -> list[AttemptRecord]:
        """What some runs did to one tenant, in no order."""
        if not self.exists:
            return []
        async with self._reading() as connection:
            return await reading.attempts_on(connection, tenant, run_ids)

    async def changes_after(self, run: RunRecord) -> list[tuple[RunRecord, AttemptRecord]]:
        """What other runs did to their tenants after ``run`` began, oldest first; without those that did nothing."""
        async with self._reading() as connection:
            return await reading.changes_after(connection, run)

    async def events(self, run_id: str | None, tenant: str | None = None, kind: str | None = None) -> list[EventRecord]:
        """The run's events, or those of all runs; of one tenant and of one kind where given, as they happened."""
        if not self.exists:
            return []
        async with self._reading() as connection:
            return await reading.list_events(connection, run_id, tenant, kind)

    async def asked(self, run_id: str) -> RunStatus | None:
        """What a run under way here was asked to end as by another process; ``None`` while nobody did."""
        async with self._store.reading() as connection:
            status = await reading.status_of(connection, run_id)
        return status if status in ASKED else None

    async def standing(self, run_id: str) -> RunStatus | None:
        """How a run stands that others carry out, who may be about to end it; ``None`` for one that is not there."""
        async with self._store.reading() as connection:
            return await reading.status_of(connection, run_id)

    async def attempts_of(self, run_id: str, tenants: Collection[str]) -> list[AttemptRecord]:
        """What a run did to some tenants, in no order."""
        async with self._reading() as connection:
            return await following.attempts_of(connection, run_id, tenants)

    async def beside(self, query: str) -> list[Sequence[Any]]:
        """What ``query`` finds in tables that others keep in the journal's database.

        Raises:
            JournalError: they are not there, or may not be read.
        """
        async with self._store.reading() as connection:
            return [tuple(row) for row in await connection.exec_driver_sql(query)]

    async def mark(self) -> str | None:
        """For :meth:`changes`: from now on."""
        async with self._store.reading() as connection:
            return await following.mark(connection)

    async def changes(self, run_id: str, mark: str | None) -> tuple[str | None, list[AttemptRecord]]:
        """What was written of a run's attempts since ``mark``, and the mark for the next time.

        Args:
            run_id: the run.
            mark: ``None`` the first time.
        """
        async with self._store.reading() as connection:
            return await following.changed_attempts(connection, run_id, mark)

    async def open_steps(self, tenant: str | None = None) -> list[tuple[StepRecord, RunRecord | None]]:
        """Steps outside transactions that nobody has seen the end of, of one tenant where given, each with its run."""
        if not self.exists or self._store.is_earlier:
            return []
        async with self._reading() as connection:
            return await reading.open_steps(connection, tenant)

    async def revisions(self) -> list[RevisionRecord]:
        """The files that revisions were applied from, in the order they were met."""
        if not self.exists or self._store.is_earlier:
            return []
        async with self._reading() as connection:
            return await reading.list_revisions(connection)

    async def last_seen(self, tenants: Collection[str]) -> dict[str, LastSeen]:
        """Where runs saw each of ``tenants`` last, by tenant id; without those that no run has seen."""
        if not self.exists:
            return {}
        async with self._reading() as connection:
            return await last_seen(connection, tenants)

    async def commit_of(self, run_id: str) -> str | None:
        """The commit that was checked out when a run began; ``None`` where that is not known."""
        if not self.exists:
            return None
        async with self._reading() as connection:
            return await reading.commit_of(connection, run_id)

    async def mean_durations(self, direction: str) -> dict[str, float]:
        """Milliseconds that each revision took on average over all runs, by revision.

        Args:
            direction: ``upgrade`` or ``downgrade``.
        """
        if not self.exists:
            return {}
        async with self._reading() as connection:
            return await reading.mean_durations(connection, direction)

    async def spreads(self, direction: str) -> dict[str, Spread]:
        """How long each revision took over all runs, from tenant to tenant, by revision.

        Args:
            direction: ``upgrade`` or ``downgrade``.
        """
        if not self.exists:
            return {}
        async with self._reading() as connection:
            return await reading.spreads(connection, direction)

    async def long_tenants(self) -> dict[str, float]:
        """Milliseconds that tenants took in one of the last runs, at most, by id; without those who were quick."""
        async with self._reading() as connection:
            return await reading.long_tenants(connection)

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        await self.flush()
        async with self._store.reading() as connection:
            yield connection
