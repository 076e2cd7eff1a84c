"""Tenants looked at for ``drift`` while SQLAlchemy and Alembic are still being imported; nothing here imports them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from orchestrator.actions.servers import VERSION_TABLE, Servers
from orchestrator.errors import SelectionError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.nearest import did_you_mean
from orchestrator.fleet.selection import Selection
from orchestrator.fleet.tenant import Tenant
from orchestrator.rollout.sightings import Sighting, take_sightings


class Looking:
    """Use :func:`looking`."""

    def __init__(
        self, servers: Servers, selection: Selection, against: str | None, jobs: int, also: frozenset[str]
    ) -> None:
        #: The tenant that the others are compared with, if it is one.
        self.against = against
        #: What else is compared: comments, owners.
        self.also = also
        #: Ids of those that were selected, in the fleet's order; known once they have been seen.
        self.chosen: dict[str, None] = {}
        self._servers = servers
        self._selection = selection
        self._jobs = jobs
        self._found: list[Sighting] = []
        self._tell: Callable[[Sighting], None] | None = None
        # What env.py calls the version table is known only later.
        self._ahead = asyncio.create_task(self._look(VERSION_TABLE, self._note))

    async def seen(self, version_table: str, tell: Callable[[Sighting], None] = lambda _: None) -> list[Sighting]:
        """All of them; the one to compare with comes first.

        Args:
            version_table: Alembic's.
            tell: told of each at once, while others are still to be looked at.

        Raises:
            OrchestratorError: the selection means nobody, or the sources cannot be read.
        """
        if version_table != VERSION_TABLE:
            await self.close()
            return await self._look(version_table, tell)
        for sighting in self._found:
            tell(sighting)
        self._tell = tell
        return await self._ahead

    async def close(self) -> None:
        """End it."""
        self._ahead.cancel()
        await asyncio.gather(self._ahead, return_exceptions=True)

    def _note(self, sighting: Sighting) -> None:
        if self._tell is None:
            self._found.append(sighting)
        else:
            self._tell(sighting)

    async def _look(self, version_table: str, tell: Callable[[Sighting], None]) -> list[Sighting]:
        fleet = await self._servers.fleet()
        held = [] if self.against is None else [_named(fleet, self.against)]
        chosen = self._selection.choose(fleet.tenants)
        self.chosen = dict.fromkeys(tenant.id for tenant in chosen)
        asked: Sequence[Tenant] = tuple(dict.fromkeys([*held, *chosen]))
        budgets = await self._servers.budgets(fleet, asked)
        return await take_sightings(asked, self._servers.databases, version_table, budgets, self._jobs, tell, self.also)


@asynccontextmanager
async def looking(
    servers: Servers,
    selection: Selection,
    *,
    against: str | None = None,
    jobs: int,
    also: frozenset[str] = frozenset(),
) -> AsyncIterator[Looking]:
    """Look from now on.

    Args:
        servers: opened.
        selection: at whom.
        against: id of one more, whether it is selected or not.
        jobs: connections over all servers, at most.
        also: what else counts of their shape: comments, owners.
    """
    looking = Looking(servers, selection, against, jobs, also)
    try:
        yield looking
    finally:
        await looking.close()


def _named(fleet: Fleet, against: str) -> Tenant:
    by_id = {tenant.id: tenant for tenant in fleet.tenants}
    if against not in by_id:
        near = did_you_mean(against, by_id)
        raise SelectionError(
            f"there is no tenant {against!r} to compare with",
            hint=f"did you mean {near!r}?" if near else "list them with: orchestrator tenants list",
        )
    return by_id[against]
