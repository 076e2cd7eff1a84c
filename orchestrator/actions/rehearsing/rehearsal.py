"""The clones of one rehearsal, one after the other: a server is not to have more than one to carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from orchestrator.actions.execution import Execution
from orchestrator.actions.project import Project, migrating
from orchestrator.actions.rehearsing.choosing import Picked
from orchestrator.actions.rehearsing.clones import Clones
from orchestrator.actions.rehearsing.containing import words_of
from orchestrator.actions.rehearsing.passes import Passes
from orchestrator.databases.cloning import Cloning
from orchestrator.databases.failures import describe
from orchestrator.errors import DatabaseError
from orchestrator.fleet.tenant import Tenant
from orchestrator.history.position import position
from orchestrator.migration.attempt import Migrator
from orchestrator.rollout.plan import PlannedTenant
from orchestrator.rollout.rehearsal import CloneRehearsed

_ONE_TRANSACTION = (
    "env.py puts all revisions into one transaction: each lock is held until the last of them is done, and told so;"
    " transaction_per_migration=True ends that"
)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """How tenants are rehearsed."""

    project: Project
    #: The run's id.
    run: str
    how: Clones
    execution: Execution
    #: Whether the seam was proved.
    concurrent: bool
    #: Told of each step, for people.
    told: Callable[[str], None]

    async def clones(self, picked: Sequence[Picked]) -> list[CloneRehearsed]:
        """Rehearse each of ``picked``."""
        found = []
        for each in picked:
            self.told(f"{each.planned.tenant.id} ({', '.join(each.reasons)}): cloning")
            found.append(await self.one(each.planned, each.reasons, self.how, f"{each.planned.tenant.id}: "))
        return found

    async def empty(self, like: PlannedTenant) -> CloneRehearsed | None:
        """The same revisions without a row: what of the time does not depend on how large a tenant is.

        ``None`` where that cannot be had; the estimate does without it.
        """
        self.told("an empty clone: what the revisions take without rows")
        bare = Clones(schema_only=True, down=self.how.down, allow_outside=self.how.allow_outside)
        found = await self.one(like, ("empty",), bare, "empty: ")
        return found if found.failure is None else None

    async def one(self, planned: PlannedTenant, reasons: tuple[str, ...], how: Clones, prefix: str) -> CloneRehearsed:
        """Rehearse one tenant; whatever goes wrong is in the result."""
        tenant = planned.tenant
        result = CloneRehearsed(tenant.id, reasons, planned.heads or ())
        migrator = self._migrator()
        cloning = Cloning(
            application=f"orchestrator {self.run} {tenant.id}",
            limits=migrator.limits(tenant),
            version_table=self.project.loop.version_table,
            heads=planned.heads or (),
            words=words_of(self.project, planned.path),
            schema_only=how.schema_only,
            generated=how.rows if how.schema_only else None,
            template=how.template,
            allow_outside=how.allow_outside,
        )
        database = self.project.databases[tenant.server]
        try:
            async with database.clone(tenant, cloning) as clone, database.meter(clone.tenant) as meter:
                self.told(f"{prefix}cloned by {clone.way} in {clone.took:.1f} s")
                result = replace(
                    result, way=clone.way, took=clone.took, bytes=clone.bytes, notes=(*result.notes, *clone.notes)
                )
                there = await self._as_cloned(planned, clone.tenant)
                one_transaction = len(there.path) > len(self.project.history.transactions(there.path)) == 1
                if one_transaction:
                    result = replace(result, notes=(*result.notes, _ONE_TRANSACTION))
                passes = Passes(
                    self.project,
                    migrator,
                    there,
                    clone,
                    meter,
                    how.down,
                    how.allow_outside,
                    one_transaction,
                    lambda step: self.told(f"{prefix}{step}"),
                )
                with migrating(migrator):
                    result = await passes.run(result)
        except Exception as error:
            # Whatever a driver raises of a clone is about that clone.
            result = replace(result, failure=result.failure or describe(error))
        return result

    async def _as_cloned(self, planned: PlannedTenant, clone: Tenant) -> PlannedTenant:
        """``planned`` as the clone has it: the tenant may have been migrated since it was read."""
        reading = (await self.project.databases[clone.server].read([clone], self.project.loop.version_table))[clone.id]
        if reading.failure is not None:
            raise DatabaseError(f"the clone cannot be read: {reading.failure.message}")
        here = position(self.project.history, "upgrade", reading.heads, planned.target)
        return replace(planned, heads=reading.heads, path=here.path)

    def _migrator(self) -> Migrator:
        return Migrator(
            self.project.fleet,
            self.project.history,
            self.project.loop,
            self.project.databases,
            application=f"orchestrator {self.run}",
            asked=self.execution.limits,
            concurrent=self.concurrent,
        )
