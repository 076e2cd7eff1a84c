"""Where tenants are: written down when a run goes forwards, compared when it is taken back.

A name in tenants.yaml may mean another schema, database, file or server by then. What a run did to the old one says
nothing of the new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from orchestrator.actions.project import Project
from orchestrator.databases.failures import Failure
from orchestrator.databases.port.database import Database
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.tenant import Tenant
from orchestrator.journal.encoding import masked
from orchestrator.journal.journal import Journal
from orchestrator.journal.last_seen import Whereabouts
from orchestrator.journal.records import EventRecord
from orchestrator.rollout.plan import Plan, PlannedTenant
from orchestrator.statuses import TenantStatus

#: Kind of the event with the places of all tenants that a run, or a part of it, is about to migrate.
PLACES = "places"
#: Kind of the event with the places of the others that a run has read: ``status`` compares with both.
SEEN = "places_seen"
#: Type of the error of a tenant that is not where the run changed it.
ELSEWHERE = "elsewhere"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tenant's tables are, whatever the tenant and its server are called."""

    #: Host and port of the physical server; empty for files.
    server: str
    database: str | None = None
    schema: str | None = None
    file: str | None = None

    @property
    def parts(self) -> Whereabouts:
        """The same as the journal has it."""
        return (self.server, self.database, self.schema, self.file)

    def __str__(self) -> str:
        if self.file is not None:
            return self.file
        inside = ".".join(part for part in (self.database, self.schema) if part is not None)
        return f"{self.server}/{inside}"


async def places_event(project: Project, run: str, tenants: Sequence[Tenant], kind: str = PLACES) -> EventRecord:
    """Where ``tenants`` are as ``run`` begins with them: one event for all, because a fleet has thousands."""
    return EventRecord(run, None, datetime.now(UTC), kind, detail=_encoded(await places_of(project, tenants)))


async def places_of(project: Project, tenants: Sequence[Tenant]) -> dict[str, Place]:
    """Where ``tenants`` are, by tenant id; those left out whose server's address cannot be read."""
    names = tuple(dict.fromkeys(tenant.server for tenant in tenants if tenant.file is None))
    # An address may run a command to get its secret: never on the event loop.
    read = await asyncio.gather(*(asyncio.to_thread(_address, project.databases[name]) for name in names))
    addresses = dict(zip(names, read, strict=True))
    found: dict[str, Place] = {}
    for tenant in tenants:
        if tenant.file is not None:
            found[tenant.id] = Place("", file=tenant.file)
        elif (address := addresses[tenant.server]) is not None:
            identity, default = address
            found[tenant.id] = Place(identity, tenant.database or default, tenant.schema)
    return found


async def places_as_journaled(project: Project, tenants: Sequence[Tenant]) -> dict[str, Place]:
    """Where ``tenants`` are, by tenant id, as the journal would give it back: with secrets masked."""
    places = await places_of(project, tenants)
    inside = "\n".join(
        {part for place in places.values() for part in (place.database, place.schema, place.file) if part}
    )
    # Asked of all at once: one text is masked in no time, a hundred thousand are not. No part can have a secret that is
    # not found in the whole.
    return places if masked(inside) == inside else dict(_decoded(masked(_encoded(places))))


async def known_places(journal: Journal, run: str, kind: str = PLACES) -> dict[str, frozenset[Place]]:
    """Where ``run`` met its tenants, by tenant id: a run that was resumed may have met one at several places.

    Nothing for runs from before places were written down.
    """
    known: dict[str, frozenset[Place]] = {}
    for event in await journal.events(run, kind=kind):
        for tenant, place in _decoded(event.detail or {}):
            known[tenant] = known.get(tenant, frozenset()) | {place}
    return known


async def moved_places(
    project: Project, known: Mapping[str, frozenset[Place]], tenants: Sequence[Tenant], did: str = "changed"
) -> dict[str, Failure]:
    """Those of ``tenants`` that are not where a run met them, each with what to say of it, by tenant id.

    Args:
        project: opened.
        known: where the run met its tenants; who is not in it is not judged.
        tenants: as the fleet has them now.
        did: what the run did to them there, in a word.
    """
    judged = [tenant for tenant in tenants if tenant.id in known]
    if not judged:
        return {}
    now = await places_as_journaled(project, judged)
    return {
        tenant.id: _failure(known[tenant.id], now.get(tenant.id), did)
        for tenant in judged
        if known[tenant.id] != {now.get(tenant.id)}
    }


def blocked_elsewhere(plan: Plan, moved: Mapping[str, Failure], way: Callable[[PlannedTenant], str | None]) -> Plan:
    """``plan`` without work on tenants in ``moved``; one that gave no connection stays with what it has said.

    Args:
        plan: as made.
        moved: what to say of each who is elsewhere, by tenant id.
        way: what to do where a tenant is meant all the same, if there is something.
    """

    def judged(each: PlannedTenant) -> PlannedTenant:
        failure = moved.get(each.tenant.id)
        if failure is None or each.heads is None:
            return each
        meant = way(each)
        if meant is not None:
            failure = replace(failure, hint=f"{failure.hint}; {meant}")
        return replace(each, verdict=TenantStatus.BLOCKED, failure=failure, path=())

    return plan.judged(judged) if moved else plan


def back_there(each: PlannedTenant) -> str | None:
    """How to take a tenant back where it is now, as far as one command does."""
    if len(each.goal) > 1:
        return None
    to = each.goal[0] if each.goal else "base"
    return f"where it is to go back there all the same: orchestrator downgrade {to} -t {each.tenant.id}"


def _failure(then: frozenset[Place], now: Place | None, did: str) -> Failure:
    here = "where it is now cannot be told" if now is None else f"it is at {now} now"
    return Failure(
        ELSEWHERE,
        f"the run {did} it at {' and at '.join(sorted(map(str, then)))}, and {here}",
        hint="what the run did was done there, and says nothing of what is here",
    )


def _address(database: Database) -> tuple[str, str | None] | None:
    try:
        return database.identity, database.default_database
    except OrchestratorError:
        return None


def _encoded(places: Mapping[str, Place]) -> dict[str, Any]:
    """By server, because it is the same for thousands: tenant id to database, schema, file."""
    document: dict[str, Any] = {}
    for tenant, place in places.items():
        document.setdefault(place.server, {})[tenant] = [place.database, place.schema, place.file]
    return document


def _decoded(document: Mapping[str, Any]) -> Iterable[tuple[str, Place]]:
    for server, tenants in document.items():
        for tenant, (database, schema, file) in tenants.items():
            yield tenant, Place(server, database, schema, file)
