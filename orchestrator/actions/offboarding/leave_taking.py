"""Who must not be taken out: what belongs to others, what nobody knows to be a tenant, what cannot be let go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.actions.project import Project
from orchestrator.actions.restoring.neighbours import neighbours
from orchestrator.databases.answers import Reading
from orchestrator.databases.claims import Found, Holds, Marker
from orchestrator.databases.failures import Failure, describe
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.sources import DatabaseSource, SchemaSource, SqlSource
from orchestrator.fleet.tenant import Tenant

#: Places that are looked at at once.
_AT_ONCE = 32
#: Type of the failure of whoever is another's, or nobody's.
_NOT_OURS = "not_ours"


@dataclass(frozen=True, slots=True)
class Refusals:
    """What was seen of tenants that are to be taken out."""

    project: Project
    found: Mapping[str, Found | Failure]
    #: Others who are in a database or file that is to go whole, by tenant id.
    shared: Mapping[str, Failure]
    #: They are to be dropped at once.
    drop: bool

    @classmethod
    async def of(cls, project: Project, tenants: Sequence[Tenant], *, drop: bool) -> Refusals:
        """Look at them."""
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def look(tenant: Tenant) -> Found | Failure:
            try:
                async with at_once:
                    return await project.databases[tenant.server].found(tenant)
            except OrchestratorError as error:
                return describe(error)

        seen = await asyncio.gather(*(look(tenant) for tenant in tenants))
        found = {tenant.id: each for tenant, each in zip(tenants, seen, strict=True)}
        whole = [tenant for tenant in tenants if tenant.schema is None and _is_there(found[tenant.id])]
        tables = {tenant.id: (project.loop.version_table,) for tenant in whole}
        return cls(project, found, await neighbours(project, whole, tables, "it has"), drop)

    def judge(self, tenant: Tenant, reading: Reading) -> Failure | None:
        """Why ``tenant`` is not to be touched; ``None`` where it may be taken out."""
        found = self.found.get(tenant.id)
        if found is None:
            return None  # set aside before: its mark said whose it is
        if isinstance(found, Failure):
            return found
        return (
            self._not_let_go(tenant)
            or self.shared.get(tenant.id)
            or (None if found.holds is Holds.MISSING else self._not_ours(tenant, found, reading))
        )

    def _not_let_go(self, tenant: Tenant) -> Failure | None:
        source = self.project.fleet.origins.get(tenant.id)
        if source is not None and not isinstance(source, SchemaSource | DatabaseSource):
            if not isinstance(source, SqlSource):
                return Failure("source", f"it is from {source}, which has no way to take it out", hint=_LIST_IT)
            if source.unregister is None:
                hint = "give it `unregister:`, the statement that takes a tenant out"
                return Failure("source", f"it is from {source}, which has no way to take it out", hint=hint)
        if self.project.fleet.servers[tenant.server].own and not self.drop:
            return Failure(
                "own_server",
                "it has a server of its own, which the fleet forgets with it: nobody would find what was set aside",
                hint="declare the server under `servers:` in tenants.yaml; or drop it at once: --archive DIR --drop",
            )
        if tenant.schema == "public":
            return Failure("public", "it is in schema public, which every database has", hint="take it out by hand")
        return None

    def _not_ours(self, tenant: Tenant, found: Found, reading: Reading) -> Failure | None:
        marker, place = found.marker, tenant.place
        if marker is not None:
            if marker.is_of(Marker(self.project.identity, tenant.id)):
                return None
            return Failure(
                _NOT_OURS,
                f"{place} belongs to tenant {marker.tenant} of fleet {marker.fleet}",
                hint="offboard it there; this fleet's tenants.yaml names a place that is not its own",
            )
        unknown = self.project.history.graph.unknown(reading.heads)
        if unknown:
            what = f"its version table says {', '.join(unknown)}, which the directory does not have"
        elif not reading.heads and found.holds is Holds.FULL:
            what = "it holds tables, and no version table that says they are of this directory"
        else:
            return None
        return Failure(
            _NOT_OURS,
            f"nothing says that {place} is this fleet's: {what}",
            hint="look at it; `orchestrator stamp REV -t TENANT` says that it is at REV of the directory",
        )


_LIST_IT = "list it in tenants.yaml, or in a source with `unregister:`, and take it out of this one"


def _is_there(found: Found | Failure) -> bool:
    return isinstance(found, Found) and found.holds is not Holds.MISSING
