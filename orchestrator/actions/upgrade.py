"""upgrade: migrate tenants to their target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.servers import Tenants, opened_servers, selection_of
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

    Returns:
        What ``orchestrator upgrade --json`` prints, as an object.

    Raises:
        OrchestratorError: bad input; nothing was touched.
    """
    async with opened_servers(fleet, ahead=tenants) as servers:
        await servers.imported("orchestrator.actions.joining")
        from orchestrator.actions.execute import execute
        from orchestrator.actions.joining import joined
        from orchestrator.rollout.plan import Request

        request = Request("upgrade", target, provision, execution.budget, execution.wave, waves=execution.listed_waves)
        watch = watch or Watch()
        result = await execute(fleet, request, tenants, execution, watch, loop, servers)
    return await joined(fleet, result, request, selection_of(tenants), execution, watch, loop)
