"""Take in a tenant that is there already: compare its shape with what the shared directory makes, and stamp it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from orchestrator.actions.project import Project
from orchestrator.actions.scratch import scratch_tenant
from orchestrator.databases.failures import Failure, describe
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.tenant import Tenant
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.outcome import Outcome
from orchestrator.migration.work import Work
from orchestrator.statuses import TenantStatus

#: Server, target, and whether there is a version table.
_Key = tuple[str, tuple[str, ...], bool]


@dataclass(slots=True)
class Adoption:
    """Adopts tenants; what they are compared with is made once for all that are alike."""

    project: Project
    _references: dict[_Key, asyncio.Task[str | None]] = field(default_factory=dict)

    async def adopt(self, tenant: Tenant, work: Work) -> Outcome:
        """Stamp ``tenant`` where its shape is that of the revision it is thought to be at.

        That is what its version table says; one that has none is compared with the target.

        Args:
            tenant: its place is there.
            work: to which target.
        """
        project = self.project
        database, table = project.databases[tenant.server], project.loop.version_table
        reading = (await database.read([tenant], table))[tenant.id]
        if reading.failure is not None:
            return Outcome(TenantStatus.FAILED, failure=reading.failure)
        heads = reading.heads
        target = heads or project.history.resolve(work.target)
        try:
            shape = (await database.fingerprints([tenant], table)).get(tenant.id)
            reference = await self._reference(tenant, target, versioned=bool(heads))
        except OrchestratorError as error:
            return Outcome(TenantStatus.FAILED, heads, heads, describe(error))
        if shape is None or shape != reference:
            return Outcome(TenantStatus.BLOCKED, heads, heads, _other_shape(tenant, target))
        if heads:
            return Outcome(TenantStatus.ALREADY_CURRENT, heads, heads)
        stamp = Work.of(project.history, "stamp", target[0] if len(target) == 1 else "heads")
        migrator = Migrator(project.fleet, project.history, project.loop, project.databases)
        return await migrator.attempt(tenant, stamp)

    async def _reference(self, tenant: Tenant, target: Sequence[str], *, versioned: bool) -> str | None:
        key = (tenant.server, tuple(target), versioned)
        if key not in self._references:
            self._references[key] = asyncio.create_task(self._made(tenant, target, versioned=versioned))
        return await asyncio.shield(self._references[key])

    async def _made(self, like: Tenant, target: Sequence[str], *, versioned: bool) -> str | None:
        database, table = self.project.databases[like.server], self.project.loop.version_table
        # A tenant's own branches come one after the other.
        async with scratch_tenant(self.project, replace(like, target="heads"), *target) as scratch:
            if not versioned:
                await _drop_version_table(self.project, scratch, table)
            return (await database.fingerprints([scratch], table)).get(scratch.id)


async def _drop_version_table(project: Project, tenant: Tenant, table: str) -> None:
    migrator = Migrator(project.fleet, project.history, project.loop, project.databases)
    quoted = '"' + table.replace('"', '""') + '"'
    async with (
        project.databases[tenant.server].session(tenant, "orchestrator scratch", migrator.limits(tenant)) as session,
        session.connection.begin(),
    ):
        await session.connection.exec_driver_sql(f"DROP TABLE {quoted}")


def _other_shape(tenant: Tenant, target: Sequence[str]) -> Failure:
    return Failure(
        "shape",
        f"what {tenant.place} holds is not what the directory makes at {', '.join(target)}",
        hint="compare it with a tenant that is there (pg_dump --schema-only), mend it, then adopt it;"
        " one that is at an earlier revision: alembic stamp it first",
    )
