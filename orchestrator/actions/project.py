"""Everything a use case works with, opened together: fleet with its sources read, directory, env.py's loop, servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from orchestrator.actions.servers import Servers, Tenants, opened_servers, selection_of
from orchestrator.databases.archives import prepare
from orchestrator.databases.port.database import Database
from orchestrator.errors import OrchestratorError, SelectionError, ServerUnreachable
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.directory import History
from orchestrator.journal.journal import DIRECTORY
from orchestrator.migration import seam
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.loop import TenantLoop, load_loop
from orchestrator.rollout.inventory import Inventory
from orchestrator.rollout.plan import Plan
from orchestrator.rollout.planning import Request, make_plan
from orchestrator.rollout.transcripts import Transcripts


@dataclass(frozen=True, slots=True)
class Project:
    """A fleet and its shared directory, ready to be asked or migrated."""

    #: With every source read.
    fleet: Fleet
    history: History
    loop: TenantLoop
    servers: Servers
    #: What actions keep for as long as the project is open, by the action's module.
    kept: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def databases(self) -> Mapping[str, Database]:
        """By server name, for every server that has a tenant."""
        return self.servers.databases

    @property
    def identity(self) -> str:
        """What tells the fleet from others whose tenants are on the same servers."""
        parents = self.history.graph.parents
        roots = sorted(revision for revision in parents if not parents[revision])
        return self.fleet.name or f"with base {', '.join(roots)}"

    def joined_by(self, fleet: Fleet) -> Project:
        """This project with ``fleet``, which has more tenants, in the place of its own."""
        self.servers.connect(fleet)
        return replace(self, fleet=fleet)

    def choose(self, tenants: Tenants) -> tuple[Tenant, ...]:
        """The tenants that a selection means, in the fleet's order."""
        return selection_of(tenants).choose(self.fleet.tenants)

    async def plan(self, request: Request, tenants: Sequence[Tenant]) -> Plan:
        """Read where ``tenants`` stand and decide what ``request`` means for each."""
        return self.plan_of(request, tenants, await self.inventory(tenants))

    async def inventory(self, tenants: Sequence[Tenant]) -> Inventory:
        """Read where ``tenants`` stand."""
        return await self.servers.inventory(tenants, self.loop.version_table)

    def plan_of(self, request: Request, tenants: Sequence[Tenant], found: Inventory) -> Plan:
        """Decide what ``request`` means for each of ``tenants``, from where they were found."""
        return make_plan(request, self.fleet, tenants, found.readings, found.kinds, self.history, date.today())

    async def require_backups(self, directory: Path, tenants: Sequence[Tenant]) -> None:
        """Make sure that ``tenants`` can be backed up into ``directory``.

        Raises:
            OrchestratorError: nothing can be written there, or a server needs programs that are not there.
        """
        await asyncio.to_thread(prepare, directory)
        await self.require_dumping(tenants)

    async def require_dumping(self, tenants: Sequence[Tenant]) -> None:
        """Make sure that the servers of ``tenants`` can be dumped and restored from here.

        Raises:
            DatabaseError: the programs for it are not there, or too old.
        """
        for name in dict.fromkeys(tenant.server for tenant in tenants):
            # One that cannot be reached is a matter of its tenants.
            with suppress(ServerUnreachable):
                await self.databases[name].require_dumping()

    @property
    def transcripts(self) -> Transcripts:
        """What earlier runs recorded."""
        return Transcripts(self.fleet.root / DIRECTORY / "transcripts", self.history.digest)

    async def budgets(self, tenants: Sequence[Tenant], connections: int = 1) -> dict[str, tuple[str, int]]:
        """Each server's physical identity and how many tenants it takes at once, by server name.

        Never more than a quarter of the connections that the server has free now: the application needs the others.

        Args:
            tenants: those to be done.
            connections: how many each of them uses.
        """
        return await self.servers.budgets(self.fleet, tenants, connections)

    def addresses(self, tenants: Sequence[Tenant]) -> dict[str, str]:
        """Host, port and default database of each server that one of ``tenants`` is on, by name."""
        return {name: self._place(name) for name in dict.fromkeys(tenant.server for tenant in tenants)}

    def _place(self, name: str) -> str:
        try:
            database = self.databases[name].default_database
        except OrchestratorError:
            database = None
        return f"{self.servers.identity(name)}/{database or ''}"


@asynccontextmanager
async def opened_project(fleet: Fleet, loop: TenantLoop | None = None) -> AsyncIterator[Project]:
    """Read the directory, env.py and all tenant sources; the servers' connections are closed at the end.

    Args:
        fleet: as loaded from tenants.yaml.
        loop: what env.py passed to ``for_each_tenant``, when it is env.py that asks; otherwise env.py is run.

    Raises:
        OrchestratorError: one of them cannot be read.
    """
    async with opened_servers(fleet) as servers:
        yield await read_project(fleet, servers, loop)


async def read_project(fleet: Fleet, servers: Servers, loop: TenantLoop | None = None) -> Project:
    """The same with servers that are opened already."""
    history = History.beside(fleet.root) if loop is None else History(loop.config)
    loop = loop or load_loop(history)
    return Project(await servers.fleet(), history, loop, servers)


def require_selection(command: str, tenants: Tenants, everyone: bool) -> None:
    """Refuse a command that must not mean the whole fleet by accident.

    Raises:
        SelectionError: nothing was selected, and not everyone was meant.
    """
    if selection_of(tenants).is_empty and not everyone:
        raise SelectionError(
            f"{command} needs to be told which tenants",
            hint=f"orchestrator {command} ... -t TENANT, or --all for the whole fleet",
        )


@contextmanager
def migrating(migrator: Migrator) -> Iterator[None]:
    """Put the seam in place for as long as ``migrator`` is used; nothing to do where tenants go one at a time."""
    if migrator.concurrent:
        with seam.installed():
            yield
    else:
        yield
