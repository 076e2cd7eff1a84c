"""What tenants are held against: one of nobody's that the shared directory makes, or a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.actions.project import Project
from orchestrator.actions.scratch import bring, scratch_tenant
from orchestrator.databases.definitions import Definition
from orchestrator.databases.failures import Failure
from orchestrator.errors import DatabaseError, OrchestratorError
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.chains import chains
from orchestrator.rollout.sightings import Kind, Sighting

_Heads = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """What a tenant at certain heads should look like."""

    heads: _Heads
    digest: str
    definitions: Sequence[Definition] = field(repr=False)


@dataclass(slots=True)
class References:
    """Made by the shared directory, one scratch tenant at a time.

    The first one of each kind is begun while tenants are still being looked at: most are where the first one is, and
    dropping a database makes the server write out all that is pending, which takes seconds where it is busy.
    """

    project: Project
    #: What else is compared: comments, owners.
    also: frozenset[str] = frozenset()
    _begun: dict[Kind, tuple[_Heads, asyncio.Task[dict[_Heads, Reference | Failure]]]] = field(default_factory=dict)
    #: A scratch tenant is migrated by Alembic, whose globals two of them would have to share.
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def begin(self, sighting: Sighting) -> None:
        """Begin with where this tenant is, unless one of its kind was seen before it."""
        heads = sighting.reading.heads
        known = sighting.digest is not None and not self.project.history.graph.unknown(heads)
        if known and sighting.kind is not None and sighting.kind not in self._begun:
            task = asyncio.create_task(self._made(sighting.tenant, [heads]))
            self._begun[sighting.kind] = (heads, task)

    async def made(self, kind: Kind, like: Tenant, places: Iterable[_Heads]) -> dict[_Heads, Reference | Failure]:
        """A reference for each place, or why there is none.

        Args:
            kind: of the tenants that are to be compared.
            like: one of them; scratch tenants are made beside it.
            places: sets of heads, all of them known to the directory.
        """
        found: dict[_Heads, Reference | Failure] = {}
        if kind in self._begun:
            found = await self._begun[kind][1]
        return {**found, **await self._made(like, [heads for heads in places if heads not in found])}

    async def close(self) -> None:
        """End what is still under way, and see scratch tenants dropped."""
        tasks = [task for _, task in self._begun.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _made(self, like: Tenant, places: Iterable[_Heads]) -> dict[_Heads, Reference | Failure]:
        found: dict[_Heads, Reference | Failure] = {}
        for line in chains(self.project.history.graph, places):
            async with self._turn:
                try:
                    # One tenant of nobody's passes all places that are on one line.
                    async with scratch_tenant(self.project, like, "base") as scratch:
                        for heads in line:
                            found[heads] = await self._brought(scratch, heads)
                except OrchestratorError as error:
                    hint = f"{error.hint or 'mend that'}; or take a tenant that is right: drift --against TENANT"
                    failure = Failure("no_reference", error.message, hint=hint)
                    found = {**dict.fromkeys(line, failure), **found}
        return found

    async def _brought(self, scratch: Tenant, heads: _Heads) -> Reference:
        if heads:
            # Together: from one of two branches, no path leads to the other.
            await bring(self.project, scratch, ",".join(heads))
        database, table = self.project.databases[scratch.server], self.project.loop.version_table
        graph = self.project.history.graph
        readings, shapes = await database.look([scratch], table, self.also)
        arrived = readings[scratch.id].heads
        if graph.unknown(arrived) or graph.closure(arrived) != graph.closure(heads):
            led = ", ".join(arrived) or "base"
            raise DatabaseError(f"the revisions lead an empty tenant to {led}, not to {', '.join(heads) or 'base'}")
        return await reference_of(self.project, scratch, heads, shapes.get(scratch.id), self.also)


async def reference_of(
    project: Project, tenant: Tenant, heads: _Heads, digest: str | None, also: frozenset[str]
) -> Reference:
    """A tenant as a reference.

    Raises:
        DatabaseError: it cannot be read.
    """
    found = await project.databases[tenant.server].definitions([tenant], also)
    if digest is None or tenant.id not in found:
        raise DatabaseError(f"what {tenant.id} is to be held for cannot be read", hint="try again")
    return Reference(heads, digest, found[tenant.id])
