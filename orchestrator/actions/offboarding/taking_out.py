"""Take one tenant out: save it, set its place aside, let the fleet forget it, and drop what is to be dropped.

In this order, because each step may be the last of a killed process, and the same command has to find the tenant: the
fleet lists it until its place is set aside, and that bears a mark. Nothing is dropped that the fleet still lists, and
nothing without its archive where one was asked for: the mark says which that is, and it is looked at again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.actions.each import limits_of
from orchestrator.actions.execution import Execution
from orchestrator.actions.offboarding.set_aside import (
    DROPPED,
    SET_ASIDE,
    TAKEN_OUT,
    aside_of,
    forget_steps,
    marked,
    place_name,
)
from orchestrator.actions.onboarding.registrar import Registrar
from orchestrator.actions.project import Project
from orchestrator.databases.archives import checksum, read, verify
from orchestrator.databases.asides import Aside, Leave, Leaving
from orchestrator.databases.claims import Holds, Marker
from orchestrator.databases.departures import Departure, Stage
from orchestrator.errors import BackupError, DatabaseError, OnboardingError
from orchestrator.fleet.shortest import kept_entry
from orchestrator.fleet.tenant import Tenant
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import EventRecord
from orchestrator.rollout.backups import BACKUP, Backups
from orchestrator.rollout.each import Done
from orchestrator.rollout.plan import PlannedTenant


@dataclass(frozen=True, slots=True)
class TakingOut:
    """One run that takes tenants out."""

    project: Project
    journal: Journal
    registrar: Registrar
    run: str
    execution: Execution
    #: Makes the archives; ``None`` where none are asked for.
    backups: Backups | None
    #: What is set aside is dropped at once.
    drop: bool
    #: From when on it may be dropped; ``None`` for not before somebody says so.
    until: datetime | None
    #: Ids of the tenants that the fleet lists.
    listed: frozenset[str]

    async def take_out(self, planned: PlannedTenant) -> Done:
        """Do it, or what an earlier call has left to do."""
        tenant = planned.tenant
        found = await self.project.databases[tenant.server].found(tenant)
        aside = await aside_of(self.project, tenant) if found.holds is Holds.MISSING else None
        if aside is not None and not await self._is_saved(aside):
            await self._back_for_its_archive(aside)
            aside = None
            found = await self.project.databases[tenant.server].found(tenant)
        if aside is None and found.holds is not Holds.MISSING:
            aside = await self._set_aside(tenant, found.marker)
        elif aside is None:
            await self._require_saved_before(tenant)
        if aside is not None and self.drop and self.project.fleet.servers[tenant.server].own:
            # Once the fleet has forgotten the tenant, it has forgotten the way to its server, too.
            await self._drop(aside)
            aside = None
        if tenant.id in self.listed:
            await self.registrar.unregister(tenant)
            self._note(tenant, TAKEN_OUT, entry=kept_entry(tenant, self.project.fleet))
        if aside is not None:
            await (self._drop(aside) if self.drop else self._settle(aside))
        return Done(planned.heads, () if self.drop else planned.heads)

    async def _set_aside(self, tenant: Tenant, marker: Marker | None) -> Aside:
        departure = Departure(
            was=place_name(self.project, tenant),
            at=datetime.now(UTC).isoformat(),
            until=None if self.until is None else self.until.isoformat(),
            entry=kept_entry(tenant, self.project.fleet),
        )
        ours = (marker or Marker(self.project.identity, tenant.id)).handed_over()
        leave = Leave(
            marker=replace(ours, departure=departure),
            run=self.run,
            limits=limits_of(self.project, self.execution, tenant),
            lock_wait=self.execution.lock_wait,
            dumped=self.backups is not None,
            dropped=self.drop,
        )
        async with self.project.databases[tenant.server].set_aside(tenant, leave) as leaving:
            if self.backups is not None:
                archive = await self._saved(self.backups, tenant, leaving)
                leaving.marker = replace(leave.marker, departure=replace(departure, archive=archive))
        aside = await aside_of(self.project, tenant)
        if aside is None:
            raise OnboardingError(f"{tenant.place} was set aside, and somebody else has gone on with it")
        detail = {"server": tenant.server, "was": departure.was, "name": aside.name, "until": departure.until}
        self._note(tenant, SET_ASIDE, **detail, archive=aside.departure.archive)
        return aside

    async def _saved(self, backups: Backups, tenant: Tenant, leaving: Leaving) -> dict[str, str]:
        """Write the archive, and read it again: nothing is taken away before it is known to be whole."""
        table = self.project.loop.version_table
        reading = (await self.project.databases[tenant.server].read([leaving.tenant], table))[tenant.id]
        if reading.failure is not None:
            raise DatabaseError(reading.failure.message, hint=reading.failure.hint)
        # An earlier try may have made one, and somebody may have written since.
        backups.made.pop(tenant.id, None)
        limits = limits_of(self.project, self.execution, tenant)
        await backups.make(tenant, reading.heads, table, limits, leaving.tenant)
        detail = backups.made[tenant.id].detail
        assert detail is not None
        await asyncio.to_thread(lambda: verify(*read(Path(detail["file"]))))
        return {"file": detail["file"], "sha256": detail["sha256"]}

    async def _is_saved(self, aside: Aside) -> bool:
        """Whether its archive, where one is asked for, is there and is what it was."""
        return (
            self.backups is None
            or aside.departure.stage is Stage.DROPPING
            or await _is_whole(aside.departure.archive or {})
        )

    async def _back_for_its_archive(self, aside: Aside) -> None:
        tenant = aside.tenant
        if tenant.id not in self.listed:
            raise OnboardingError(
                "it was set aside before, and its archive was not asked for then, or is not there any more",
                hint=f"bring it back first: orchestrator offboard {tenant.id} --undo; or leave --archive out",
            )
        await self.project.databases[tenant.server].bring_back(aside, self.execution.lock_wait)

    async def _require_saved_before(self, tenant: Tenant) -> None:
        """There is nothing of it any more: where an archive is asked for, an earlier call has to have made it."""
        if self.backups is None:
            return
        for event in reversed(await self.journal.events(None, tenant.id, BACKUP)):
            if event.detail is not None and await _is_whole(event.detail):
                return
        raise BackupError(f"there is no {tenant.place} to save", hint="leave --archive out to have it forgotten")

    async def _settle(self, aside: Aside) -> None:
        """The fleet has let it go: what is left is a matter of days."""
        until = None if self.until is None else self.until.isoformat()
        if aside.departure.stage is Stage.ASIDE and until is None:
            return
        if aside.departure.stage is Stage.DROPPING:
            raise OnboardingError(
                "it is being dropped, and some of it may be gone",
                hint=f"orchestrator offboard {aside.tenant.id} --drop ends that",
            )
        marker = marked(aside, stage=Stage.ASIDE, until=until or aside.departure.until)
        await self.project.databases[aside.tenant.server].remark(aside, marker, self.execution.lock_wait)

    async def _drop(self, aside: Aside) -> None:
        limits = limits_of(self.project, self.execution, aside.tenant)
        await self.project.databases[aside.tenant.server].drop_aside(aside, limits, self.execution.lock_wait)
        await forget_steps(self.journal, aside.tenant.id)
        self._note(aside.tenant, DROPPED, name=aside.name, was=aside.departure.was, archive=aside.departure.archive)

    def _note(self, tenant: Tenant, kind: str, **detail: Any) -> None:
        self.journal.record_event(EventRecord(self.run, tenant.id, datetime.now(UTC), kind, detail=detail))


async def _is_whole(archive: Any) -> bool:
    """Whether a file comes to its checksum."""
    file = archive.get("file")
    if file is None:
        return False
    with suppress(OSError):
        return bool(await asyncio.to_thread(checksum, Path(file)) == archive["sha256"])
    return False
