"""offboard --undo: bring tenants back that were set aside."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.actions.each import looked_at, new_run, run_each
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.offboard import typed
from orchestrator.actions.offboarding.set_aside import BACK, asides_of, marked, newcomer, now
from orchestrator.actions.onboarding.belonging import finds_itself
from orchestrator.actions.onboarding.registrar import Registrar
from orchestrator.actions.project import Project, opened_project, require_selection
from orchestrator.actions.servers import Tenants, selection_of
from orchestrator.databases.answers import Reading
from orchestrator.databases.asides import Aside, require_way_back
from orchestrator.databases.departures import Stage
from orchestrator.databases.failures import Failure, describe
from orchestrator.errors import OnboardingError, OrchestratorError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.tenant import Tenant
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import EventRecord
from orchestrator.rollout.each import Done
from orchestrator.rollout.plan import PlannedTenant
from orchestrator.rollout.result import RunResult

log = logging.getLogger("orchestrator.offboard")


async def undo_offboarding(
    fleet: Fleet,
    *,
    tenants: Tenants = (),
    everyone: bool = False,
    execution: Execution = Execution(),  # noqa: B008  frozen
    watch: Watch | None = None,
) -> RunResult:
    """Bring tenants back that were set aside: the fleet has them again, and their places their own names.

    Args:
        fleet: as loaded from tenants.yaml.
        tenants: ids or globs, or a :class:`Selection`, of what was set aside; must select unless ``everyone``.
        everyone: mean all that was set aside.
        execution: ``jobs`` and ``lock_wait`` count.
        watch: who looks on and may stop it.

    Returns:
        A run: a tenant is ``succeeded`` when it is back, or was.

    Raises:
        SelectionError: no selection, or one that matches nothing.
        OrchestratorError: other bad input; nothing was touched.
    """
    require_selection("offboard --undo", tenants, everyone)
    async with opened_project(fleet) as project, opened_journal(fleet) as journal:
        selection = selection_of(tenants)
        asides = {each.tenant.id: each for each in await asides_of(project, journal)}
        # Named one by one, those count that an earlier call has brought back.
        back = [each for each in project.fleet.tenants if each.id in selection.patterns and each.id not in asides]
        chosen = selection.choose([*(each.tenant for each in asides.values()), *back])
        expected, refused = _expected(project, [asides[each.id] for each in chosen if each.id in asides])
        bringing = BringingBack(project, journal, Registrar(project, fleet), fleet, execution, asides)

        def judge(tenant: Tenant, _: Reading) -> Failure | None:
            return refused.get(tenant.id)

        options = {"flags": ["--undo"], "tenants": typed(selection, everyone=everyone)}
        record = new_run(project, "offboard", options)
        plan = await looked_at(project, [expected.get(each.id, each) for each in chosen], judge)

        async def act(planned: PlannedTenant) -> Done:
            return await bringing.bring_back(planned, record.id)

        return await run_each(project, journal, record, plan, act, execution, watch or Watch())


@dataclass(frozen=True, slots=True)
class BringingBack:
    """One run that brings tenants back.

    The fleet has a tenant again before its place has its name: cut off in between, the place bears the mark of one that
    is on its way, of which no empty one is made. A tenant that is found by its place alone goes the other way round.
    """

    project: Project
    journal: Journal
    registrar: Registrar
    #: As loaded, its sources unread.
    declared: Fleet
    execution: Execution
    #: What was set aside, by tenant id.
    asides: dict[str, Aside]

    async def bring_back(self, planned: PlannedTenant, run: str) -> Done:
        """Do it, or what an earlier call has left to do."""
        tenant, wait = planned.tenant, self.execution.lock_wait
        database = self.project.databases[tenant.server]
        asked = self.asides.get(tenant.id)
        aside = None if asked is None else await now(self.project, asked)
        if asked is None:
            log.warning("%s: there was nothing to undo: nothing of it is set aside, and the fleet has it", tenant.id)
        finds_itself_again = finds_itself(self.declared, tenant)
        if aside is not None:
            require_way_back(aside)
            if not finds_itself_again:
                if aside.departure.stage is Stage.ASIDE:
                    await database.remark(aside, marked(aside, stage=Stage.LEAVING), wait)
                    aside = await now(self.project, aside)
                    if aside is None:
                        raise OnboardingError("it was set aside, and somebody else has gone on with it")
                await self.registrar.register(tenant)
            await database.bring_back(aside, wait)
            detail = {"name": aside.name, "was": aside.departure.was}
            self.journal.record_event(EventRecord(run, tenant.id, datetime.now(UTC), BACK, detail=detail))
        if finds_itself_again or aside is None:
            await self.registrar.register(tenant)
        heads = (await database.read([tenant], self.project.loop.version_table))[tenant.id].heads
        return Done(heads, heads)


def _expected(project: Project, asides: Sequence[Aside]) -> tuple[dict[str, Tenant], dict[str, Failure]]:
    """The tenants that are to be in the fleet again, and why some cannot be, by id."""
    expected, refused = {}, {}
    for aside in asides:
        try:
            require_way_back(aside)
            found = newcomer(project, aside.departure.entry, "what was set aside")
            expected[found.id] = found
        except OrchestratorError as error:
            refused[aside.tenant.id] = describe(error)
    return expected, refused
