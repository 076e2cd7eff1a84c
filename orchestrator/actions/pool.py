"""pool fill, pool drop: databases that are ready before anybody comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.actions.onboarding.desk import Desk, onboarding
from orchestrator.actions.project import opened_project
from orchestrator.databases.connect import connect
from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.problems import suggestion


@dataclass(frozen=True, slots=True)
class Filled:
    """The pool of one server, as a command has left it."""

    server: str
    #: Databases that whoever comes next can take; ``None`` where that is not known.
    ready: int | None = None
    #: How many of them were made now.
    made: int = 0
    #: How many were dropped: old, altered since they were made, or more than are to be kept.
    dropped: int = 0
    #: Why it is not as it should be; ``None`` where it is.
    error: str | None = None
    #: What to type next.
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Pools:
    """The document of ``pool fill --json`` and ``pool drop --json``."""

    #: Databases that are to be ready on each server.
    size: int
    servers: tuple[Filled, ...]

    @property
    def satisfied(self) -> bool:
        """Whether all is as it was asked for."""
        return all(each.error is None for each in self.servers)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"size": self.size, "servers": [asdict(each) for each in self.servers]}


async def fill_pools(fleet: Fleet, servers: Iterable[str] = ()) -> Pools:
    """Have as many databases ready as ``onboarding: pool: size`` says; what they are copied from is made first.

    Args:
        fleet: as loaded from tenants.yaml, with ``may_be_empty`` where it may be.
        servers: names of those to fill; all that speak PostgreSQL where none is named.

    Returns:
        What became of each server's; one that fails keeps none of the others from being filled.

    Raises:
        UsageError: no pool is asked for in tenants.yaml, or a server is none that could have one.
        OrchestratorError: the directory, env.py, a source or the journal cannot be read.
    """
    size = fleet.onboarding.pool
    if not size:
        raise UsageError(
            f"{fleet.path.name} asks for no pool",
            hint="onboarding: {pool: {size: 10}} does; what is left of an earlier one goes by: orchestrator pool drop",
        )
    chosen = await asyncio.to_thread(_chosen, fleet, tuple(servers))
    async with onboarding(fleet, refill=False) as desk:
        return Pools(size, tuple([await _filled(desk, name) for name in chosen]))


async def drop_pools(fleet: Fleet, servers: Iterable[str] = ()) -> Pools:
    """Drop every database that is ready for this fleet; the next tenants are copied when they come.

    Args:
        fleet: as loaded from tenants.yaml, with ``may_be_empty`` where it may be.
        servers: names of those to look at; all that speak PostgreSQL where none is named.

    Returns:
        How many were dropped on each server.

    Raises:
        UsageError: a server is none that could have a pool.
        OrchestratorError: the directory, env.py or a source cannot be read.
    """
    chosen = await asyncio.to_thread(_chosen, fleet, tuple(servers))
    async with opened_project(fleet) as project:
        project.servers.connect_all(fleet)
        found = []
        for name in chosen:
            try:
                dropped = await project.databases[name].drop_pool(project.identity)
                found.append(Filled(name, ready=0, dropped=dropped))
            except OrchestratorError as error:
                found.append(Filled(name, error=error.message, hint=error.hint))
        return Pools(fleet.onboarding.pool, tuple(found))


async def _filled(desk: Desk, name: str) -> Filled:
    try:
        found = await desk.prepare(server=name, isolation="database")
    except OrchestratorError as error:
        return Filled(name, error=error.message, hint=error.hint)
    if found.stock is None:
        why = "; ".join(found.closed.values()) or "nothing is kept that could be copied"
        return Filled(name, error=f"server {name}: no database can be made ready: {why}")
    return Filled(name, found.stock.ready, found.stock.made, found.stock.dropped)


def _chosen(fleet: Fleet, asked: tuple[str, ...]) -> list[str]:
    """Names of the servers that are meant."""
    declared = {name: server for name, server in fleet.servers.items() if not server.own}
    for name in asked:
        if name not in declared:
            raise UsageError(f"there is no server `{name}`", hint=suggestion(name, declared))
        if connect(declared[name]).dialect != "postgresql":
            raise UsageError(
                f"server {name} has files, and files need no pool: they are copied as fast as they are renamed",
                hint="leave it out",
            )
    return list(asked) or [name for name, server in declared.items() if connect(server).dialect == "postgresql"]
