"""What a worker has of one run, from its first chunk on: the fleet as it is here, open servers, what was recorded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from orchestrator.actions.attempting import cohorts_of
from orchestrator.actions.distributing.jobs import ChunkJob
from orchestrator.actions.onboarding.welcoming import Arrivals, expected
from orchestrator.actions.project import Project, read_project
from orchestrator.actions.servers import opened_servers
from orchestrator.errors import HistoryError
from orchestrator.fleet.load import load
from orchestrator.fleet.tenant import Tenant
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import RunRecord
from orchestrator.rollout.onboarding import Asked


class OtherDirectory(HistoryError):
    """The shared directory here is no longer the one that this worker began with, or not the run's."""


class Muster:
    """Make one with :meth:`open`, end it with :meth:`close`."""

    def __init__(self, path: Path, record: RunRecord, project: Project, asked: Asked | None, job: ChunkJob) -> None:
        self.record = record
        self.project = project
        #: What the run does for tenants that are new.
        self.asked = asked
        #: One recording of a kind is enough for all chunks of this worker.
        self.cohorts = cohorts_of(project, job.execution)
        #: Revisions that keep state in the process.
        self.serial = asyncio.Lock()
        self._path = path
        self._opened = AsyncExitStack()
        #: Tenants at once that chunks here may have, by server name.
        self._widths: Counter[str] = Counter()
        self._reading = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path, journal: Journal, job: ChunkJob) -> Muster:
        """Read the fleet and the directory anew, and run env.py.

        Args:
            path: tenants.yaml.
            journal: opened.
            job: the first chunk of a run.

        Raises:
            OtherDirectory: the directory is not the run's.
            OrchestratorError: one of them cannot be read.
        """
        fleet = load(path, may_be_empty=True)
        async with AsyncExitStack() as stack:
            servers = await stack.enter_async_context(opened_servers(fleet))
            project = await read_project(fleet, servers)
            if project.history.digest != job.digest:
                raise OtherDirectory(
                    f"the shared directory here is {project.history.digest[:12]}, and run {job.run} is of "
                    f"{job.digest[:12]}",
                    hint="put the same files there, and start the worker again",
                )
            record, asked = await journal.run(job.run), None
            if record.command == "onboard":
                arriving = await expected(project, fleet, Arrivals.of(record))
                project, asked = arriving.project, arriving.asked
            muster = cls(path, record, project, asked, job)
            muster._opened = stack.pop_all()
        return muster

    async def tenants(self, names: Sequence[str]) -> Mapping[str, Tenant]:
        """Those of ``names`` that the fleet has here, by id; where one is missing, the fleet is read again."""
        wanted = set(names)
        async with self._reading:
            found = {tenant.id: tenant for tenant in self.project.fleet.tenants if tenant.id in wanted}
            if len(found) < len(wanted) and self.asked is None:
                fleet = load(self._path, may_be_empty=True)
                servers = self.project.servers
                servers.reread(fleet)
                self.project = replace(self.project, fleet=await servers.fleet())
                found = {tenant.id: tenant for tenant in self.project.fleet.tenants if tenant.id in wanted}
        return found

    @asynccontextmanager
    async def at_work(self, job: ChunkJob, servers: Collection[str]) -> AsyncIterator[None]:
        """Use ``servers``; afterwards no more connections are left open than other chunks here may use.

        One that waits here for the next tenant would count on the server beside those of other workers.
        """
        for server in servers:
            self._widths[server] += job.width
            self.project.databases[server].limit_connections(self._widths[server])
        try:
            yield
        finally:
            for server in servers:
                self._widths[server] -= job.width
                database = self.project.databases[server]
                database.limit_connections(max(1, self._widths[server]))
                await database.close(self._widths[server])

    async def close(self) -> None:
        """End every connection."""
        await self._opened.aclose()
