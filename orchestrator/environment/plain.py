"""Plain Alembic's commands over the fleet: migrating ones by the orchestrator's own actions, the others one by one."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection

from orchestrator.actions.downgrade import downgrade
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.integrity import EditedRevision
from orchestrator.actions.project import Project, migrating, opened_project
from orchestrator.actions.revising.comparing import leave_out
from orchestrator.actions.stamp import stamp
from orchestrator.actions.upgrade import upgrade
from orchestrator.environment.arguments import ACCEPT, USAGE, Whom, accepted, fleet_file, whom
from orchestrator.environment.narration import Narrator
from orchestrator.errors import DatabaseError, SelectionError
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.load import load
from orchestrator.fleet.tenant import Isolation, Tenant
from orchestrator.migration.attempt import Migrator
from orchestrator.migration.loop import TenantLoop
from orchestrator.migration.scope import Progress
from orchestrator.migration.seam import self_check
from orchestrator.rollout.plan import PlannedTenant
from orchestrator.rollout.planning import Request
from orchestrator.rollout.result import RunResult
from orchestrator.statuses import TenantStatus

#: The functions by which Alembic's commands find their steps (in its command.py), for those that change a database.
_MIGRATING = {"upgrade": "upgrade", "downgrade": "downgrade", "do_stamp": "stamp"}
#: The one of ``alembic current``, which is asked of every tenant.
_CURRENT = "display_version"
#: What to do where the tenant that the models are to be compared with lacks revisions.
_NOT_UP_TO_DATE = (
    "orchestrator revision -m ... --autogenerate needs no tenant; or take one at the head: -x tenant=TENANT before the"
    " command; or bring it there: orchestrator upgrade"
)
#: States in which there is nothing to connect to.
_AWAY = frozenset({TenantStatus.UNREACHABLE, TenantStatus.UNPROVISIONED})


async def carry_out(loop: TenantLoop) -> None:
    """Do what the running Alembic command means, for the tenants that ``-x`` names.

    Raises:
        CommandError: a tenant is not where it was to be.
        OrchestratorError: bad input.
    """
    fleet = load(fleet_file())
    tenants = whom()
    options: Mapping[str, Any] = context._proxy.context_opts  # type: ignore[attr-defined]
    if context.is_offline_mode():
        async with opened_project(fleet, loop) as project:
            await _render(project, tenants, options)
    elif options["fn"].__name__ in _MIGRATING:
        try:
            await _migrate(fleet, loop, tenants, _MIGRATING[options["fn"].__name__], options["destination_rev"])
        except EditedRevision as error:
            # Alembic has no --accept-edited.
            error.hint = "; ".join(f"{each.hint_with(ACCEPT)} before the command" for each in error.edited)
            raise
    else:
        async with opened_project(fleet, loop) as project:
            await _read(project, tenants, options)


async def _migrate(fleet: Fleet, loop: TenantLoop, tenants: Whom, command: str, target: str | tuple[str, ...]) -> None:
    if isinstance(target, tuple):
        if len(target) != 1:
            raise CommandError(f"{command} takes one revision here; run it once for each")
        target = target[0]
    if command != "upgrade" and not tenants.anybody_named:
        raise SelectionError(f"{command} needs to be told which tenants", hint=USAGE)
    selection, watch, everyone = tenants.selection, Watch(Narrator()), tenants.everyone
    how = Execution(accept_edited=accepted())
    if command == "upgrade":
        result = await upgrade(fleet, target, tenants=selection, execution=how, watch=watch, loop=loop)
    elif command == "downgrade":
        result = await downgrade(
            fleet, target, tenants=selection, everyone=everyone, execution=how, watch=watch, loop=loop
        )
    else:
        result = await stamp(fleet, target, tenants=selection, everyone=everyone, execution=how, watch=watch, loop=loop)
    if not result.satisfied:
        raise CommandError(_told(result))


def _told(result: RunResult) -> str:
    summary = ", ".join(f"{count} {status}" for status, count in result.summary.items())
    lines = [f"run {result.run.id}: {summary}"]
    for cause in result.causes:
        lines.append(f"  {cause.count} x {cause.message} (for example {cause.example})")
        lines += [f"      hint: {cause.hint}"] if cause.hint else []
    return "\n".join([*lines, f"  go on with: {result.retry}"])


async def _read(project: Project, tenants: Whom, options: Mapping[str, Any]) -> None:
    """``current`` for every tenant; what compares with the models (``check``, ``revision --autogenerate``) and
    ``show current`` for one reference tenant."""
    chosen = project.choose(tenants.selection)
    plan = await project.plan(Request("upgrade"), chosen)
    by_id = {each.tenant.id: each for each in plan.tenants}
    found = [by_id[tenant.id] for tenant in chosen]
    if options["fn"].__name__ != _CURRENT:
        found = [_reference(found)]
    migrator = Migrator(
        project.fleet, project.history, project.loop, project.databases, "alembic", concurrent=await self_check()
    )
    with migrating(migrator):
        for each in found:
            if len(found) > 1:
                print(f"-- {each.tenant.id}", flush=True)
            if each.state in _AWAY:
                print(f"{each.state}: {each.failure.message if each.failure else ''}", flush=True)
            else:
                try:
                    await _read_one(migrator, each.tenant, options)
                except CommandError as error:
                    if "not up to date" in str(error):
                        raise CommandError(f"tenant {each.tenant.id}: {error}\n  hint: {_NOT_UP_TO_DATE}") from error
                    raise


async def _read_one(migrator: Migrator, tenant: Tenant, options: Mapping[str, Any]) -> None:
    database = migrator.databases[tenant.server]
    others = {each.schema for each in migrator.fleet.tenants}
    async with database.session(tenant, f"alembic {tenant.id}", migrator.limits(tenant)) as session:

        def run(connection: Connection) -> None:
            with migrator.environment(tenant, options, Progress()) as environment:
                leave_out(environment, others - {tenant.schema})
                migrator.loop.migrate(connection, tenant)

        await session.connection.run_sync(run)


def _reference(found: Sequence[PlannedTenant]) -> PlannedTenant:
    """The tenant that models are compared with: one at its target, else the first that can be read."""
    for each in found:
        if each.state is TenantStatus.CURRENT:
            return each
    for each in found:
        if each.state not in _AWAY:
            return each
    raise DatabaseError(
        "no tenant can be read to compare the models with", hint="make one: orchestrator upgrade -t TENANT --provision"
    )


async def _render(project: Project, tenants: Whom, options: Mapping[str, Any]) -> None:
    """SQL without a database: for the tenants that were named, or once with nobody's name in it."""
    chosen: Sequence[Tenant] = [_nobody(project.fleet)]
    if tenants.anybody_named:
        chosen = project.choose(tenants.selection)
    migrator = Migrator(project.fleet, project.history, project.loop, project.databases)
    with migrating(migrator):
        for tenant in chosen:
            if tenants.anybody_named:
                print(f"-- {tenant.id} ({tenant.place})")
                print(migrator.databases[tenant.server].scope_sql(tenant), end="")
            with migrator.environment(tenant, options, Progress()):
                project.loop.migrate(None, tenant)
            sys.stdout.flush()


def _nobody(fleet: Fleet) -> Tenant:
    """A tenant of no name on the first tenant's server: only its dialect is of interest."""
    return replace(fleet.tenants[0], id="offline", isolation=Isolation.DATABASE, schema=None, database=None)
