"""Take in a tenant that is there already: compare its shape with what the shared directory makes, and stamp it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orchestrator.actions.project import Project
from orchestrator.actions.references import Reference, reference_of
from orchestrator.actions.scratch import scratch_tenant
from orchestrator.databases.failures import Failure, describe
from orchestrator.errors import DatabaseError, OrchestratorError
from orchestrator.fleet.ignoring import IgnoreRule
from orchestrator.fleet.tenant import Tenant
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.outcome import Outcome
from orchestrator.migration.work import Work
from orchestrator.rollout.differences import Change, differences
from orchestrator.rollout.telling import told
from orchestrator.statuses import TenantStatus

#: Server, and target.
_Key = tuple[str, tuple[str, ...]]
#: Differences that are told of one tenant.
_TOLD = 3


@dataclass(slots=True)
class Adoption:
    """Adopts tenants; what they are compared with is made once for all that are alike."""

    project: Project
    _references: dict[_Key, asyncio.Task[Reference]] = field(default_factory=dict)

    async def adopt(self, tenant: Tenant, work: Work) -> Outcome:
        """Stamp ``tenant`` where its shape is that of the revision it is thought to be at.

        That is what its version table says; one whose table is empty, or not there, is compared with the target.

        Args:
            tenant: its place is there.
            work: to which target.
        """
        project = self.project
        database, table = project.databases[tenant.server], project.loop.version_table
        readings, shapes = await database.look([tenant], table)
        reading = readings[tenant.id]
        if reading.failure is not None:
            return Outcome(TenantStatus.FAILED, failure=reading.failure)
        heads = reading.heads
        target = heads or project.history.resolve(work.target)
        try:
            reference = await self._reference(tenant, target)
            changes = await self._changes(tenant, shapes.get(tenant.id), reference, versioned=bool(heads))
        except OrchestratorError as error:
            return Outcome(TenantStatus.FAILED, heads, heads, describe(error))
        if changes:
            return Outcome(TenantStatus.BLOCKED, heads, heads, _other_shape(tenant, target, changes))
        if heads:
            return Outcome(TenantStatus.ALREADY_CURRENT, heads, heads)
        stamp = Work.of(project.history, "stamp", target[0] if len(target) == 1 else "heads")
        migrator = Migrator(project.fleet, project.history, project.loop, project.databases)
        return await migrator.attempt(tenant, stamp)

    async def _changes(
        self, tenant: Tenant, shape: str | None, reference: Reference, *, versioned: bool
    ) -> tuple[Change, ...]:
        """In what the tenant differs; a version table that says nothing may be there or not."""
        if shape is not None and shape == reference.digest:
            return ()
        found = (await self.project.databases[tenant.server].definitions([tenant])).get(tenant.id)
        if found is None:
            raise DatabaseError(
                f"what {tenant.place} holds cannot be read", hint="see what is locked in it, and try again"
            )
        rules = () if versioned else (IgnoreRule(table=self.project.loop.version_table),)
        return differences(reference.definitions, found, rules)

    async def _reference(self, tenant: Tenant, target: Sequence[str]) -> Reference:
        key = tenant.server, tuple(target)
        if key not in self._references:
            self._references[key] = asyncio.create_task(self._made(tenant, target))
        return await asyncio.shield(self._references[key])

    async def _made(self, like: Tenant, target: Sequence[str]) -> Reference:
        database, table = self.project.databases[like.server], self.project.loop.version_table
        # A tenant's own branches come one after the other.
        async with scratch_tenant(self.project, replace(like, target="heads"), *target) as scratch:
            _, shapes = await database.look([scratch], table)
            return await reference_of(self.project, scratch, tuple(target), shapes.get(scratch.id), frozenset())


def _other_shape(tenant: Tenant, target: Sequence[str], changes: Sequence[Change]) -> Failure:
    more = f"; and {len(changes) - _TOLD} more" if len(changes) > _TOLD else ""
    return Failure(
        "shape",
        f"what {tenant.place} holds is not what the directory makes at {', '.join(target)}:"
        f" {'; '.join(map(told, changes[:_TOLD]))}{more}",
        hint="mend it, then adopt it; one that is at an earlier revision: alembic stamp it first",
    )
