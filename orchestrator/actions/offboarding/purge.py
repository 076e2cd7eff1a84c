"""offboard --purge: drop what was set aside long enough."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.actions.each import limits_of, looked_at, new_run, run_each
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.offboarding.set_aside import DROPPED, asides_of, forget_steps, now, place_name
from orchestrator.actions.project import Project, opened_project
from orchestrator.databases.answers import Reading
from orchestrator.databases.asides import Aside
from orchestrator.databases.failures import Failure
from orchestrator.errors import OnboardingError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.tenant import Tenant
from orchestrator.journal.records import EventRecord
from orchestrator.rollout.each import Done
from orchestrator.rollout.plan import PlannedTenant
from orchestrator.rollout.result import RunResult


@dataclass(frozen=True, slots=True)
class SetAside:
    """What was set aside of a fleet, for people who decide what becomes of it."""

    #: What may be dropped now.
    due: tuple[Aside, ...]
    #: What may not be dropped yet, or not before somebody says so.
    kept: tuple[Aside, ...]


async def list_set_aside(fleet: Fleet) -> SetAside:
    """Find what was set aside of this fleet. Reads only.

    Args:
        fleet: as loaded from tenants.yaml.

    Raises:
        OrchestratorError: the project or the journal cannot be read.
    """
    async with opened_project(fleet) as project, opened_journal(fleet, read_only=True) as journal:
        moment = datetime.now(UTC)
        found = await asides_of(project, journal)
        due = tuple(each for each in found if each.departure.is_due(moment))
        return SetAside(due, tuple(each for each in found if not each.departure.is_due(moment)))


async def purge(
    fleet: Fleet,
    *,
    names: Collection[str] | None = None,
    execution: Execution = Execution(),  # noqa: B008  frozen
    watch: Watch | None = None,
) -> RunResult:
    """Drop what was set aside of this fleet and whose day has come; asks nothing.

    Args:
        fleet: as loaded from tenants.yaml.
        names: only what is called that now (see :func:`list_set_aside`); ``None`` for all that is due.
        execution: ``jobs``, ``lock_wait`` and ``limits`` count.
        watch: who looks on and may stop it.

    Returns:
        What ``orchestrator offboard --purge --json`` prints, as an object.

    Raises:
        OrchestratorError: bad input; nothing was touched.
    """
    async with opened_project(fleet) as project, opened_journal(fleet) as journal:
        moment = datetime.now(UTC)
        found = [each for each in await asides_of(project, journal) if each.departure.is_due(moment)]
        # Of a tenant that came back and left again, each call drops the one that left first.
        due = {each.tenant.id: each for each in reversed(found) if names is None or each.name in names}
        listed = {(each.id, each.server, place_name(project, each)) for each in project.fleet.tenants}
        ids = {each.id for each in project.fleet.tenants}
        record = new_run(project, "purge", {"flags": ["--purge"], "tenants": []})

        def judge(tenant: Tenant, _: Reading) -> Failure | None:
            return _still_listed(due[tenant.id], listed)

        async def act(planned: PlannedTenant) -> Done:
            aside = await now(project, due[planned.tenant.id])
            if aside is not None:
                await _drop(project, aside, execution)
                if aside.tenant.id not in ids:
                    await forget_steps(journal, aside.tenant.id)
                detail = {"name": aside.name, "was": aside.departure.was, "archive": aside.departure.archive}
                event = EventRecord(record.id, planned.tenant.id, datetime.now(UTC), DROPPED, detail=detail)
                journal.record_event(event)
            return Done(None, ())

        plan = await looked_at(project, [each.tenant for each in due.values()], judge)
        return await run_each(project, journal, record, plan, act, execution, watch or Watch())


async def _drop(project: Project, aside: Aside, execution: Execution) -> None:
    if not aside.departure.is_due(datetime.now(UTC)):
        raise OnboardingError(f"{aside.name} is not to be dropped any more: somebody has changed that")
    limits = limits_of(project, execution, aside.tenant)
    await project.databases[aside.tenant.server].drop_aside(aside, limits, execution.lock_wait)


def _still_listed(aside: Aside, listed: Collection[tuple[str, str, str]]) -> Failure | None:
    """Somebody has written the tenant down again by hand: this is all that there is of it."""
    tenant = aside.tenant
    if (tenant.id, tenant.server, aside.departure.was) not in listed:
        return None
    return Failure(
        "listed",
        f"the fleet has this tenant in {tenant.place}, which is what was set aside",
        hint=f"orchestrator offboard {tenant.id} --undo brings it back; orchestrator offboard {tenant.id} takes it out",
    )
