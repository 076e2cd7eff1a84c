"""restore --register: tenants that the fleet does not have any more, from their backups into the fleet again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.actions.onboarding.registrar import Registrar
from orchestrator.actions.project import Project
from orchestrator.actions.restoring.found_backups import Listed
from orchestrator.databases.archives import read
from orchestrator.databases.claims import Claim, Holds, Marker
from orchestrator.databases.dumping import Restoring
from orchestrator.databases.failures import Failure, describe
from orchestrator.errors import BackupError, OnboardingError, OrchestratorError
from orchestrator.fleet.newcomers import read_newcomers
from orchestrator.fleet.selection import Selection, meaning
from orchestrator.fleet.tenant import Tenant


@dataclass(slots=True)
class Returning:
    """Those of one restore that are to be in the fleet again.

    Their places are missing, or bear this fleet's mark: an earlier call was cut off. The entry in the fleet comes last.
    """

    registrar: Registrar
    #: Their ids.
    ids: set[str] = field(default_factory=set)

    async def join(self, project: Project, selection: Selection, listed: Mapping[str, Listed]) -> Project:
        """The project, with those in it that ``selection`` means and that only a backup has.

        Raises:
            BackupError: a backup does not say where in the fleet its tenant was.
            ConfigurationError: that is another tenant's by now.
        """
        present = {tenant.id for tenant in project.fleet.tenants}
        named = meaning(selection.patterns, present | listed.keys())
        by_hand = selection.listed or ()
        meant = [id for id in listed if id not in present and (selection.is_empty or id in by_hand or named(id))]
        entries = []
        for id in meant:
            _, manifest = await asyncio.to_thread(read, listed[id].file)
            if manifest.entry.get("id") != id:
                raise BackupError(
                    f"the backup of {id} does not say how the fleet had it",
                    hint="write it down in tenants.yaml, then restore it without --register",
                )
            entries.append(dict(manifest.entry))
        if not entries:
            return project
        self.ids.update(meant)
        return project.joined_by(read_newcomers(project.fleet, entries, "the backup").fleet)

    async def taken(self, project: Project, tenants: Sequence[Tenant]) -> dict[str, Failure]:
        """Whose place is somebody else's by now, by id."""
        found: dict[str, Failure] = {}
        for tenant in tenants:
            if tenant.id in self.ids:
                try:
                    await self._require_free(project, tenant)
                except OrchestratorError as error:
                    kind = "taken" if isinstance(error, OnboardingError) else describe(error).type
                    found[tenant.id] = Failure(kind, error.message, hint=error.hint)
        return found

    async def begin(self, project: Project, tenant: Tenant, lock_wait: float) -> None:
        """Look once more; a file gets a mark beside it, as it has no comment in it."""
        if tenant.id not in self.ids:
            return
        await self._require_free(project, tenant)
        if tenant.file is not None:
            claim = Claim(Marker(project.identity, tenant.id, fresh=True))
            await project.databases[tenant.server].claim(tenant, claim, lock_wait)

    async def end(self, project: Project, work: Restoring) -> None:
        """It is restored: write it down."""
        tenant = work.tenant
        if tenant.id not in self.ids:
            return
        await self.registrar.register(tenant)
        database = project.databases[tenant.server]
        async with database.session(tenant, work.application, work.limits) as session, session.connection.begin():
            await session.mark(Marker(project.identity, tenant.id))

    async def _require_free(self, project: Project, tenant: Tenant) -> None:
        found = await project.databases[tenant.server].found(tenant)
        if found.marker is not None and found.marker.is_of(Marker(project.identity, tenant.id)):
            return
        if found.holds is not Holds.MISSING:
            raise OnboardingError(
                f"{tenant.place} is there, and nothing says that it is this tenant's",
                hint="look whose it is; a tenant that the fleet does not have is restored where nothing is",
            )
