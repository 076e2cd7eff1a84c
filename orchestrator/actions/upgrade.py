"""upgrade: migrate tenants to their target."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.servers import Tenants, opened_servers, selection_of
from orchestrator.errors import UsageError
from orchestrator.fleet.fleet import Fleet

if TYPE_CHECKING:
    from orchestrator.migration.loop import TenantLoop
    from orchestrator.rollout.result import RunResult


async def upgrade(
    fleet: Fleet,
    target: str | None = None,
    *,
    tenants: Tenants = (),
    provision: bool = False,
    execution: Execution = Execution(),  # noqa: B008  frozen
    watch: Watch | None = None,
    loop: TenantLoop | None = None,
    plan: Path | str | None = None,
) -> RunResult:
    """Migrate the selected tenants, all without a selection, and write down what happened to each.

    Tenants that come into the fleet meanwhile join the run.

    Args:
        fleet: as loaded from tenants.yaml.
        target: ``heads``, ``label@head``, a revision, ``+1``; ``None`` for each tenant's own.
        tenants: ids or globs, or a :class:`Selection`.
        provision: make missing schemas, databases and files.
        execution: how many at once, and how many may fail.
        watch: who looks on and may stop it.
        loop: given by env.py when it is plain Alembic that runs.
        plan: a file of ``plan --out`` that says who and to what, in place of ``target``, ``tenants``, ``provision`` and
            the wave.

    Returns:
        What ``orchestrator upgrade --json`` prints, as an object.

    Raises:
        PlanMoved: directory, fleet or tenants are no longer as ``plan`` has them; nothing was touched.
        OrchestratorError: bad input; nothing was touched.
    """
    if plan is not None:
        return await _planned(fleet, Path(plan), target, tenants, provision, execution, watch or Watch(), loop)
    async with opened_servers(fleet, ahead=tenants) as servers:
        await servers.imported("orchestrator.actions.joining", "orchestrator.actions.rolling_back.undoing")
        from orchestrator.actions.execute import execute
        from orchestrator.actions.joining import joined
        from orchestrator.actions.rolling_back.undoing import undone
        from orchestrator.rollout.planning import Request

        request = Request("upgrade", target, provision, execution.budget, execution.wave, waves=execution.listed_waves)
        watch = watch or Watch()
        result = await execute(fleet, request, tenants, execution, watch, loop, servers)
    if execution.handed_over:
        return result
    result = await undone(fleet, result, execution, watch)
    return await joined(fleet, result, request, selection_of(tenants), execution, watch, loop)


async def _planned(
    fleet: Fleet,
    file: Path,
    target: str | None,
    tenants: Tenants,
    provision: bool,
    execution: Execution,
    watch: Watch,
    loop: TenantLoop | None,
) -> RunResult:
    """What a saved plan says, and nobody who has come since."""
    from orchestrator.actions.execute import execute
    from orchestrator.actions.rolling_back.undoing import undone
    from orchestrator.rollout.saved_plan import load_plan

    asked = (execution.wave, execution.waves)
    if target is not None or provision or asked != (None, None) or not selection_of(tenants).is_empty:
        raise UsageError(
            "a saved plan says who is migrated and to what: no target, selection, wave or provision beside it",
            hint=f"give them to the plan: orchestrator plan ... --out {shlex.quote(str(file))}",
        )
    saved = load_plan(file)
    result = await execute(fleet, saved.request(execution.budget), (), execution, watch, loop, saved=saved)
    if execution.handed_over:
        return result
    return await undone(fleet, result, execution, watch)
