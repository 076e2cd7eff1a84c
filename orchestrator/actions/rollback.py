"""rollback: put the tenants that a run changed back to the heads that each of them had before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from orchestrator.actions.another_fleet import require_same_name
from orchestrator.actions.earlier import Earlier
from orchestrator.actions.execute import FORWARD, guarded, run_plan
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.going import is_going
from orchestrator.actions.journals import opened_journal
from orchestrator.actions.places import (
    Place,
    back_there,
    blocked_elsewhere,
    known_places,
    moved_places,
    places_of,
)
from orchestrator.actions.plan import PlanReport, report_on
from orchestrator.actions.project import Project, opened_project
from orchestrator.actions.rolling_back.shapes import OPTION, shapes_before
from orchestrator.actions.servers import Tenants, selection_of
from orchestrator.databases.answers import Reading
from orchestrator.databases.failures import Failure
from orchestrator.errors import SelectionError, UsageError
from orchestrator.fleet.fleet import Fleet
from orchestrator.history.graph import Graph
from orchestrator.history.way_back import WayBack
from orchestrator.journal.journal import Journal
from orchestrator.journal.records import Actor, AttemptRecord, RunRecord, new_run_id
from orchestrator.rollout.plan import Plan, PlannedTenant
from orchestrator.rollout.planning import Request
from orchestrator.rollout.result import RunResult
from orchestrator.rollout.share import (
    MOVED_BETWEEN,
    Change,
    added,
    by_tenant,
    closure_of_known,
    led,
    left_at,
    may_have_moved,
)
from orchestrator.statuses import RunStatus, TenantStatus


@dataclass(frozen=True, slots=True)
class Taken:
    """A run that is to be taken back, as the journal has it."""

    run: RunRecord
    #: What it did to the tenants that it changed, or may have changed, by tenant id.
    changed: Mapping[str, AttemptRecord]
    #: What later runs did to a tenant, oldest first, by tenant id.
    later: Mapping[str, Sequence[Change]]
    #: Tenants that somebody else has moved on between two parts of the run.
    mixed: frozenset[str]
    #: Where the run met its tenants, by tenant id.
    places: Mapping[str, frozenset[Place]]

    def way(self, graph: Graph, tenant: str, heads: tuple[str, ...], *, to_before: bool) -> WayBack:
        """From where to where a tenant at ``heads`` goes back."""
        attempt = self.changed[tenant]
        goal = attempt.from_heads or ()
        if to_before or graph.unknown(heads):
            return WayBack(heads, goal)
        if tenant in self.mixed or self._is_of_others(graph, tenant, heads):
            return WayBack(goal, goal)
        left = left_at(attempt)
        # Its process was killed, or lost the tenant: as long as nobody came after it, whatever is between where it
        # began and where it was going is its work.
        end = tuple(sorted({*goal, *self.run.target})) if left is None else left
        if graph.unknown(end) or not graph.closure(heads) <= graph.closure(end):
            return WayBack(end if left is not None else goal, goal)
        # Not from the run's end: who comes between now and the tenant's turn is not to be taken along.
        return WayBack(heads, goal)

    def is_untouched(self, tenant: str, heads: tuple[str, ...]) -> bool:
        """The run did not get so far as to write down what it did to this tenant, and has done nothing."""
        attempt, later = self.changed[tenant], self.later.get(tenant, ())
        return left_at(attempt) is None and (heads == attempt.from_heads or led(later, attempt.from_heads, heads))

    def _is_of_others(self, graph: Graph, tenant: str, heads: tuple[str, ...]) -> bool:
        """Whether something that the tenant has now, and had not before the run, came by later runs."""
        attempt, later = self.changed[tenant], self.later.get(tenant, ())
        if left_at(attempt) is None and not all(self._took_back(run) for run, _ in later):
            return True
        now = graph.closure(heads) - closure_of_known(graph, attempt.from_heads or ())
        return bool(now & added(graph, later))

    def _took_back(self, run: RunRecord) -> bool:
        return run.command == "rollback" and run.requested_target == self.run.id


async def rollback(
    fleet: Fleet,
    run: str,
    *,
    tenants: Tenants = (),
    to_before: bool = False,
    execution: Execution = Execution(),  # noqa: B008  frozen
    watch: Watch | None = None,
) -> RunResult:
    """Take ``run`` back, as a run of its own. Asks nothing: the caller has.

    Each tenant that it changed goes back to its own heads before it, revision by revision in reverse order. One that
    has moved on since is ``blocked``.

    Args:
        fleet: as loaded from tenants.yaml.
        run: the id of an upgrade, an unambiguous start of one, or ``last``.
        tenants: ids or globs, or a :class:`Selection`: only those of the tenants that the run changed.
        to_before: take along what later runs have done to these tenants.
        execution: how many at once, and how many may fail.
        watch: who looks on and may stop it.

    Raises:
        JournalError: no such run.
        SelectionError: the run changed none of the tenants selected.
        UsageError: the run is no upgrade, or is still going.
        OrchestratorError: other bad input; nothing was touched.
    """
    return await take_back(fleet, run, new_run_id(), tenants, to_before=to_before, execution=execution, watch=watch)


async def take_back(
    fleet: Fleet,
    run: str,
    id: str,
    tenants: Tenants = (),
    *,
    to_before: bool = False,
    execution: Execution,
    watch: Watch | None = None,
) -> RunResult:
    """The same, as the run ``id``: a new one's, which may be written down before it begins."""
    async with opened_journal(fleet) as journal, opened_project(fleet) as project:
        taken = await _taken(journal, fleet, run)
        request, made = await _plan(project, taken, tenants, to_before, execution)
        plan, files = await guarded(project, journal, made, execution)
        shapes = await shapes_before(project, journal, taken.run, taken.changed, plan)
        record = RunRecord(
            id=id,
            command="rollback",
            target=plan.target,
            requested_target=taken.run.id,
            status=RunStatus.RUNNING,
            started_at=datetime.now(UTC),
            finished_at=None,
            actor=Actor.current(fleet.root),
            directory_digest=project.history.digest,
            options={
                "fixed": dict(request.fixed),
                "to_before": to_before,
                "select": selection_of(tenants).as_json(),
                "waves": execution.waves,
                OPTION: shapes,
                **execution.recorded(id),
            },
        )
        gone = {} if not selection_of(tenants).is_empty else await _gone(project, record.id, taken)
        before = Earlier(gone)
        return await run_plan(project, journal, record, plan, files, request, execution, watch or Watch(), before)


async def run_to_take_back(fleet: Fleet, run: str) -> str:
    """The id of the run that ``run`` means. Reads only.

    Args:
        fleet: as loaded from tenants.yaml.
        run: as for the command.

    Raises:
        JournalError: no such run.
    """
    async with opened_journal(fleet, read_only=True) as journal:
        return (await journal.run(run)).id


async def plan_rollback(
    fleet: Fleet,
    run: str,
    *,
    tenants: Tenants = (),
    to_before: bool = False,
    execution: Execution = Execution(),  # noqa: B008  frozen
    sql: bool = False,
) -> PlanReport:
    """Say what :func:`rollback` would do. Reads only.

    Args:
        fleet: as loaded from tenants.yaml.
        run: as for the command.
        tenants: as for the command.
        to_before: as for the command.
        execution: as for the command; says which wave, and how many may fail.
        sql: render each cohort's SQL, on the example of one of its tenants.

    Raises:
        OrchestratorError: as the command does.
    """
    async with opened_project(fleet) as project:
        async with opened_journal(fleet, read_only=True) as journal:
            taken = await _taken(journal, fleet, run)
        _, made = await _plan(project, taken, tenants, to_before, execution)
        return await report_on(project, made, execution, sql=sql)


async def _taken(journal: Journal, fleet: Fleet, name: str) -> Taken:
    run = await journal.run(name)
    require_same_name(fleet, run, "orchestrator downgrade REV -t TENANT")
    if run.command == "onboard":
        raise UsageError(
            f"run {run.id} has onboarded its tenants: there is nothing that they were before",
            hint="take them out with: orchestrator offboard; one that was cut off: orchestrator onboard TENANT --undo",
        )
    if run.command not in FORWARD:
        raise UsageError(f"run {run.id} is a {run.command}, and only an upgrade can be rolled back", hint=_instead(run))
    if await is_going(journal, run):
        by = "workers have it" if run.executor is not None else f"process {run.actor.pid} on {run.actor.host}"
        raise UsageError(f"run {run.id} is still going: {by}", hint=f"stop it first: orchestrator runs pause {run.id}")
    changed = {attempt.tenant: attempt for attempt in await journal.attempts(run.id) if may_have_moved(attempt)}
    mixed = frozenset(event.tenant for event in await journal.events(run.id, kind=MOVED_BETWEEN) if event.tenant)
    later = by_tenant(await journal.changes_after(run))
    return Taken(run, changed, later, mixed, await known_places(journal, run.id))


def _instead(run: RunRecord) -> str:
    if run.command == "stamp":
        return "it has run nothing; say again where the tenants are: orchestrator stamp REV -t TENANT"
    return f"forward again goes: orchestrator upgrade REV -t TENANT, with REV from: orchestrator runs show {run.id}"


async def _plan(
    project: Project, taken: Taken, tenants: Tenants, to_before: bool, execution: Execution
) -> tuple[Request, Plan]:
    """Read where the tenants stand that the run changed, and decide what goes back."""
    chosen = [tenant for tenant in project.choose(tenants) if tenant.id in taken.changed]
    if not chosen and not selection_of(tenants).is_empty:
        raise SelectionError(
            f"run {taken.run.id} changed none of the selected tenants",
            hint=f"see whom it did change: orchestrator runs show {taken.run.id}",
        )
    found = await project.inventory(chosen)
    moved = await moved_places(project, taken.places, chosen)
    graph = project.history.graph
    chosen = [
        tenant for tenant in chosen if tenant.id in moved or not _untouched(taken, tenant.id, found.readings[tenant.id])
    ]
    ways = {
        tenant.id: str(taken.way(graph, tenant.id, found.readings[tenant.id].heads, to_before=to_before))
        for tenant in chosen
    }
    request = Request(
        "rollback", taken.run.id, False, execution.budget, execution.wave, ways, waves=execution.listed_waves
    )
    plan = project.plan_of(request, chosen, found)
    explained = plan.judged(lambda each: _explained(each, taken, graph))
    return request, blocked_elsewhere(explained, moved, back_there)


def _untouched(taken: Taken, tenant: str, reading: Reading) -> bool:
    return reading.failure is None and taken.is_untouched(tenant, reading.heads)


def _explained(each: PlannedTenant, taken: Taken, graph: Graph) -> PlannedTenant:
    """``each``, with what moved it on and what to do about that, where it is blocked for that."""
    if each.failure is None or each.failure.type != "moved_on" or each.heads is None:
        return each
    tenant, run = each.tenant, taken.run
    runs = [after for after, _ in taken.later.get(tenant.id, ())]
    by = " and ".join(f"run {after.id} ({after.command})" for after in runs)
    since = f"{by} came after run {run.id}" if runs else f"something that the journal does not know came after {run.id}"
    if tenant.id in taken.mixed:
        since = f"{by or 'something that the journal does not know'} came between two parts of run {run.id}"
    left = left_at(taken.changed[tenant.id])
    was = "was cut off before it wrote down where it left it" if left is None else f"left it at {_names(left)}"
    message = f"{since}: the tenant is at {_names(each.heads)}, the run {was}"
    if graph.closure(each.goal) <= graph.closure(each.heads):
        first = next((after for after in reversed(runs) if after.command in FORWARD), None)
        ways = [f"orchestrator rollback {first.id} -t {tenant.id}"] if first else []
        ways.append(f"take what came after it along: orchestrator rollback {run.id} -t {tenant.id} --to-before")
        hint = ", or ".join(ways)
    else:
        hint = "it was taken further back than the run began; forward again: " + " && ".join(
            f"orchestrator upgrade {head} -t {tenant.id}" for head in each.goal
        )
    return replace(each, failure=replace(each.failure, message=message, hint=hint))


async def _gone(project: Project, run: str, taken: Taken) -> dict[str, AttemptRecord]:
    """Tenants that the run changed and that the fleet no longer has: nothing can be done for them."""
    there = {tenant.id for tenant in project.fleet.tenants}
    gone = [
        attempt
        for tenant, attempt in taken.changed.items()
        if tenant not in there and (attempt.to_heads is not None or attempt.started_at is not None)
    ]
    if not gone:
        return {}
    # One that was only given another name is still there, and was left as the run made it.
    now = {frozenset({place}): tenant for tenant, place in (await places_of(project, project.fleet.tenants)).items()}
    return {
        attempt.tenant: AttemptRecord(
            run,
            attempt.tenant,
            None,
            TenantStatus.SKIPPED,
            None,
            None,
            error=_gone_error(attempt, now.get(taken.places.get(attempt.tenant, frozenset()))).as_json(),
        )
        for attempt in gone
    }


def _gone_error(attempt: AttemptRecord, successor: str | None) -> Failure:
    if successor is None:
        return Failure("gone", "no longer in the fleet")
    to = " and ".join(attempt.from_heads or ("base",))
    return Failure(
        "gone",
        f"no longer in the fleet: its place is tenant {successor}'s now, which was not taken back",
        hint=f"it was at {to} before the run; go there with: orchestrator downgrade REV -t {successor}",
    )


def _names(heads: Sequence[str]) -> str:
    return ", ".join(heads) or "base"
