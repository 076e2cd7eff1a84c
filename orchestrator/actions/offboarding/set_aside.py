"""What was set aside of a fleet, and what is kept of it."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.actions.project import Project
from orchestrator.databases.asides import Aside
from orchestrator.databases.claims import Marker
from orchestrator.errors import OrchestratorError
from orchestrator.fleet.newcomers import read_newcomers
from orchestrator.fleet.tenant import Isolation, Tenant
from orchestrator.journal.journal import Journal

log = logging.getLogger("orchestrator.offboard")

#: Kinds of the journal's events.
SET_ASIDE, TAKEN_OUT, DROPPED, BACK = "set_aside", "taken_out", "dropped", "brought_back"


async def asides_of(project: Project, journal: Journal) -> list[Aside]:
    """Everything of this fleet that was set aside, oldest first. Servers that do not answer are left out, and told.

    Args:
        project: opened.
        journal: knows directories that no tenant's file is in any more.
    """
    project.servers.connect_all(project.fleet)
    directories = await _directories(project, journal)

    async def ask(name: str) -> Sequence[Aside]:
        database = project.databases[name]
        try:
            return await database.asides(directories[name] if database.dialect == "sqlite" else None)
        except OrchestratorError as error:
            log.warning("server %s: what was set aside there is not known: %s", name, error.message)
            return []

    found = await asyncio.gather(*(ask(name) for name in project.fleet.servers))
    ours = [aside for part in found for aside in part if aside.marker.fleet == project.identity]
    # Two declarations of one server find the same.
    return sorted({(each.name, each.departure.at): each for each in ours}.values(), key=lambda each: each.departure.at)


async def aside_of(project: Project, tenant: Tenant) -> Aside | None:
    """What was set aside of ``tenant``'s place, the last time; ``None`` for nothing."""
    within: list[str | None] = []
    if tenant.file is not None:
        within = [str(Path(tenant.file).parent)]
    elif tenant.schema is not None:
        within = [tenant.database]
    found = await project.databases[tenant.server].asides(within)
    ours = Marker(project.identity, tenant.id)
    was = place_name(project, tenant)
    mine = [each for each in found if each.marker.is_of(ours) and each.departure.was == was]
    return max(mine, key=lambda each: each.departure.at, default=None)


async def taken_out_since(journal: Journal, moment: datetime) -> frozenset[str]:
    """Ids of the tenants that the fleet has forgotten since then, and that nobody has brought back.

    Args:
        journal: opened.
        moment: timezone aware.
    """
    out, back = [
        {
            event.tenant: event.at
            for event in await journal.events(None, kind=kind)
            if event.at > moment and event.tenant
        }
        for kind in (TAKEN_OUT, BACK)
    ]
    return frozenset(tenant for tenant, at in out.items() if tenant not in back or back[tenant] < at)


async def now(project: Project, aside: Aside) -> Aside | None:
    """The same as it is by now; ``None`` where it is gone."""
    tenant = aside.tenant
    within: list[str | None] = [str(Path(aside.departure.was).parent)] if tenant.file is not None else [tenant.database]
    found = await project.databases[tenant.server].asides(within if tenant.isolation is not Isolation.DATABASE else ())
    return next((each for each in found if each.name == aside.name), None)


def place_name(project: Project, tenant: Tenant) -> str:
    """The name that a tenant's schema or database has, or its file's path."""
    name = tenant.file or tenant.schema or tenant.database or project.databases[tenant.server].default_database
    assert name is not None, "a database has a name"
    return name


def newcomer(project: Project, entry: Mapping[str, Any], origin: str) -> Tenant:
    """The tenant that an entry means which was kept.

    Args:
        project: opened.
        entry: its keys.
        origin: where that is from, for people.

    Raises:
        ConfigurationError: it means none, or one that clashes with others by now.
    """
    (found,) = read_newcomers(project.fleet, [entry], origin).newcomers
    return found.tenant


async def forget_steps(journal: Journal, tenant: str) -> None:
    """What a tenant was left half done in is gone with it; another one of its id has nothing of that."""
    for step, _ in await journal.open_steps(tenant):
        journal.record_step(replace(step, done_at=datetime.now(UTC)))


def marked(aside: Aside, **changes: Any) -> Marker:
    """Its mark, with changes to what it says of the departure."""
    return replace(aside.marker, departure=replace(aside.departure, **changes))


async def _directories(project: Project, journal: Journal) -> dict[str, list[str]]:
    """Where files may have been set aside, by server: beside those that there are, and where the journal says."""
    found: dict[str, list[str]] = defaultdict(list)
    for tenant in project.fleet.tenants:
        if tenant.file is not None:
            found[tenant.server].append(str(Path(tenant.file).parent))
    files = [name for name in project.fleet.servers if project.databases[name].dialect == "sqlite"]
    if files:
        for event in await journal.events(None, kind=SET_ASIDE):
            if event.detail is not None and event.detail.get("server") in files:
                found[event.detail["server"]].append(str(Path(event.detail["was"]).parent))
    for name in files:
        if not project.fleet.servers[name].own:
            usual = newcomer(project, {"id": "orchestrator", "server": name, "isolation": "file"}, "a look")
            found[name].append(str(Path(usual.file or "").parent))
    return found
