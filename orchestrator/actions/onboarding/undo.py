"""onboard --undo: take away what an onboarding left that did not end, and nothing else."""

from __future__ import annotations

import logging
import shlex

from orchestrator.actions.each import looked_at, new_run, run_each
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.onboarding.desk import Entry, entries_of
from orchestrator.actions.onboarding.registrar import Registrar
from orchestrator.actions.project import read_project
from orchestrator.actions.servers import opened_servers
from orchestrator.databases.answers import Reading
from orchestrator.databases.claims import Found, Holds, Marker
from orchestrator.databases.failures import Failure
from orchestrator.errors import OnboardingError, StillListed
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.newcomers import read_newcomers
from orchestrator.fleet.tenant import Tenant
from orchestrator.rollout.each import Done
from orchestrator.rollout.plan import PlannedTenant
from orchestrator.rollout.result import RunResult

log = logging.getLogger("orchestrator.onboard")


async def undo(
    fleet: Fleet,
    *newcomers: Entry,
    origin: str = "the call",
    expand: bool = True,
    execution: Execution = Execution(),  # noqa: B008  frozen
    watch: Watch | None = None,
) -> RunResult:
    """Take away the places of tenants whose onboarding did not end.

    Args:
        fleet: as loaded.
        newcomers: as they were given to ``onboard``.
        origin: where they are from, for messages.
        expand: as in ``onboard``.
        execution: ``jobs`` and ``lock_wait`` count.
        watch: who looks on.

    Returns:
        A run: a tenant is ``succeeded`` when nothing of it is left, ``failed`` where it was not to be touched.

    Raises:
        OrchestratorError: bad input; nothing was touched.
    """
    async with opened_servers(fleet) as servers, opened_journal(fleet) as journal:
        given = read_newcomers(await servers.fleet(), entries_of(newcomers), origin, expand=expand)
        project = (await read_project(fleet, servers)).joined_by(given.fleet)
        registrar = Registrar(project, fleet)

        def judge(_: Tenant, __: Reading) -> Failure | None:
            return None

        async def act(planned: PlannedTenant) -> Done:
            tenant = planned.tenant
            database, ours = project.databases[tenant.server], Marker(project.identity, tenant.id)

            async def still() -> bool:
                # Under its lock: an onboarding that was under way may have handed it over meanwhile.
                listed = await registrar.lists(tenant)
                _require_unfinished(tenant, await database.found(tenant), ours, listed=listed)
                return True

            await still()
            if (await database.found(tenant)).holds is Holds.MISSING:
                log.warning(
                    "%s: there was nothing to undo: %s is not there, and the fleet does not list it",
                    tenant.id,
                    tenant.place,
                )
            await database.drop(tenant, execution.lock_wait, still)
            return Done(planned.heads, ())

        record = new_run(project, "undo", {"newcomers": [each.tenant.id for each in given.newcomers]})
        plan = await looked_at(project, [each.tenant for each in given.newcomers], judge)
        return await run_each(project, journal, record, plan, act, execution, watch or Watch())


def _require_unfinished(tenant: Tenant, found: Found, ours: Marker, *, listed: bool) -> None:
    """Make sure that what is there was made by an onboarding of this tenant, and not handed over.

    Raises:
        OnboardingError: it was not.
    """
    marker = found.marker
    if marker is None and found.holds is Holds.MISSING:
        if not listed:
            return
        raise OnboardingError(
            f"there is no {tenant.place}, and the fleet lists it", hint="take its entry out of the fleet by hand"
        )
    if marker is not None and not marker.is_of(ours):
        raise OnboardingError(f"{tenant.place} belongs to tenant {marker.tenant} of fleet {marker.fleet}")
    if listed:
        raise StillListed(
            f"the fleet lists it by now, and somebody may be using {tenant.place}",
            hint="finish it by the same command without --undo, or take it out with: "
            + shlex.join(["orchestrator", "offboard", tenant.id]),
        )
    if marker is None or not marker.fresh:
        raise OnboardingError(
            f"nothing says that an onboarding of it was cut off; {tenant.place} is left alone",
            hint="a tenant of the fleet is taken out with: orchestrator offboard",
        )
    if marker.found:
        raise OnboardingError(
            f"{tenant.place} was there before it was onboarded, and was empty then",
            hint="finish it by the same command without --undo, or drop it yourself",
        )
