"""The fleet's servers while a use case talks to them: who is there, where everybody stands.

Nothing here imports SQLAlchemy or Alembic. Importing those takes as long as a small fleet's whole run, and PostgreSQL
servers can answer meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module

from orchestrator.actions.sources import read_sources
from orchestrator.databases.connect import connect
from orchestrator.databases.port.database import Database
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.selection import Selection
from orchestrator.fleet.sources import DatabaseSource, SchemaSource, SqlSource
from orchestrator.fleet.tenant import Tenant
from orchestrator.rollout.inventory import Inventory, take_inventory

#: How a caller of the Python API may say whom: patterns as after ``-t``, or a whole selection.
Tenants = Sequence[str] | Selection

#: Sources that a server answers.
_ASKED = (SqlSource, SchemaSource, DatabaseSource)
#: What Alembic calls the version table where env.py says nothing else; what env.py says is known only later.
VERSION_TABLE = "alembic_version"


def selection_of(tenants: Tenants) -> Selection:
    """Patterns as a selection."""
    return tenants if isinstance(tenants, Selection) else Selection(patterns=tuple(tenants))


@dataclass(frozen=True, slots=True)
class Ahead:
    """An inventory that was begun before anybody asked for it."""

    tenants: tuple[Tenant, ...]
    inventory: Inventory


class Servers:
    """Use :func:`opened_servers`."""

    def __init__(self, fleet: Fleet, ahead: Tenants | None) -> None:
        #: By server name: those that a source asks, and once the fleet is read those that have a tenant.
        self.databases: dict[str, Database] = {}
        self._disconnecting: asyncio.Task[None] | None = None
        #: Another run is going to follow on the same connections.
        self.kept = False
        #: Whether no other thread imports anything.
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._may_overlap = all(isinstance(source, _ASKED) for source in fleet.sources)
        # Now, and not in the task: what an adapter imports is there before another thread imports anything.
        self._connect(fleet, [source.server for source in fleet.sources if isinstance(source, _ASKED)])
        self._connect(fleet, [tenant.server for tenant in fleet.tenants])
        self._fleet = asyncio.create_task(self._read(fleet))
        self._ahead = None if ahead is None else asyncio.create_task(self._look_ahead(selection_of(ahead)))

    async def imported(self, *modules: str) -> None:
        """Import ``modules``, beside the event loop where nothing else is imported meanwhile.

        Two threads that import one package in different order may each see it half done (CPython prefers that to a
        deadlock). So for a fleet with SQLite files, or with sources that are the user's own code, nobody is asked
        before all is imported.
        """
        if self._may_overlap and all(each.dialect == "postgresql" for each in self.databases.values()):
            self._quiet.clear()
            try:
                await asyncio.to_thread(_import, modules)
            finally:
                self._quiet.set()
        else:
            _import(modules)

    async def fleet(self) -> Fleet:
        """The fleet with every source read.

        Raises:
            OrchestratorError: a source cannot be read, or names what is no tenant.
        """
        return await self._fleet

    async def inventory(self, tenants: Sequence[Tenant], version_table: str) -> Inventory:
        """Where ``tenants`` stand; read only once when that was begun ahead."""
        if self._ahead is not None:
            ahead, self._ahead = await self._ahead, None
            if ahead.tenants == tuple(tenants) and version_table == VERSION_TABLE:
                return ahead.inventory
        return await take_inventory(tenants, self.databases, version_table)

    async def budgets(
        self, fleet: Fleet, tenants: Sequence[Tenant], connections: int = 1
    ) -> dict[str, tuple[str, int]]:
        """See :meth:`~orchestrator.actions.project.Project.budgets`."""
        most = {tenant.server: fleet.servers[tenant.server].max_concurrency for tenant in tenants}
        # An address may run a command to get its secret: never on the event loop.
        identities = await asyncio.gather(*(asyncio.to_thread(self.identity, name) for name in most))
        free = await asyncio.gather(*(self._free_connections(name, cap) for name, cap in most.items()))
        budgets = {
            name: (identity, min(cap, max(1, left // (4 * connections))))
            for (name, cap), identity, left in zip(most.items(), identities, free, strict=True)
        }
        for name, (_, cap) in budgets.items():
            self.databases[name].limit_connections(cap)
        return budgets

    def identity(self, name: str) -> str:
        """What tells a server from others; its name where its address cannot be read."""
        try:
            return self.databases[name].identity
        except OrchestratorError:
            # Its tenants will say so, and nobody else's are concerned.
            return name

    async def _free_connections(self, name: str, cap: int) -> int:
        try:
            free = await self.databases[name].free_connections()
        except OrchestratorError:
            # It cannot be reached: its tenants will say so.
            free = None
        return 4 * cap if free is None else free

    def connect(self, fleet: Fleet) -> None:
        """Have a connection to come for every server that a tenant of ``fleet`` is on."""
        self._connect(fleet, [tenant.server for tenant in fleet.tenants])

    def connect_all(self, fleet: Fleet) -> None:
        """Have a connection to come for every server of ``fleet``, also where it has no tenant any more."""
        self._connect(fleet, list(fleet.servers))

    def reread(self, fleet: Fleet) -> None:
        """Begin to read ``fleet``, which has the servers of the one that was read before, and its sources."""
        self._connect(fleet, [source.server for source in fleet.sources if isinstance(source, _ASKED)])
        self._fleet = asyncio.create_task(self._read(fleet))

    def disconnect(self) -> None:
        """Begin to close every connection: a backend that has seen many tables takes its time to go."""
        if self.kept:
            return
        self._disconnecting = asyncio.create_task(self._disconnect())

    async def close(self) -> None:
        """End what is under way, and every connection."""
        tasks = [task for task in (self._fleet, self._ahead) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._disconnecting is not None:
            await self._disconnecting
        await self._disconnect()

    async def _disconnect(self) -> None:
        await asyncio.gather(*(database.close() for database in self.databases.values()))

    async def _read(self, fleet: Fleet) -> Fleet:
        whole = await read_sources(fleet, self.databases)
        names = [tenant.server for tenant in whole.tenants]
        if not self.databases.keys() >= set(names):
            # Servers that only a source has named: they may be of another dialect.
            await self._quiet.wait()
        self._connect(whole, names)
        return whole

    def _connect(self, fleet: Fleet, names: Sequence[str]) -> None:
        for name in dict.fromkeys(names):
            if name not in self.databases:
                self.databases[name] = connect(fleet.servers[name])

    async def _look_ahead(self, selection: Selection) -> Ahead:
        tenants = selection.choose((await self._fleet).tenants)
        return Ahead(tenants, await take_inventory(tenants, self.databases, VERSION_TABLE))


@asynccontextmanager
async def opened_servers(fleet: Fleet, ahead: Tenants | None = None) -> AsyncIterator[Servers]:
    """The servers of ``fleet``, whose sources are being read from now on; all connections are closed at the end.

    Args:
        fleet: as loaded from tenants.yaml.
        ahead: whose heads to read at once, before anybody asks for them; ``None`` for nobody's.
    """
    servers = Servers(fleet, ahead)
    try:
        yield servers
    finally:
        await servers.close()


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        import_module(module)
