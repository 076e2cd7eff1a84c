"""downgrade: take selected tenants back to an earlier revision."""

from __future__ import annotations

from orchestrator.actions.execute import execute
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.project import require_selection
from orchestrator.actions.servers import Tenants
from orchestrator.fleet.fleet import Fleet
from orchestrator.migration.loop import TenantLoop
from orchestrator.rollout.planning import Request
from orchestrator.rollout.result import RunResult


async def downgrade(
    fleet: Fleet,
    target: str,
    *,
    tenants: Tenants = (),
    everyone: bool = False,
    execution: Execution = Execution(),  # noqa: B008  frozen
    watch: Watch | None = None,
    loop: TenantLoop | None = None,
) -> RunResult:
    """Run the selected tenants' downgrade functions down to ``target``. Asks nothing: the caller has.

    Args:
        fleet: as loaded from tenants.yaml.
        target: a revision, ``base``, or ``-N`` where one head makes it plain.
        tenants: ids or globs, or a :class:`Selection`; must select unless ``everyone``.
        everyone: mean the whole fleet.
        execution: how many at once, and how many may fail.
        watch: who looks on and may stop it.
        loop: given by env.py when it is plain Alembic that runs.

    Raises:
        SelectionError: no selection.
        OrchestratorError: other bad input; nothing was touched.
    """
    require_selection("downgrade", tenants, everyone)
    request = Request("downgrade", target, False, execution.budget, execution.wave, waves=execution.listed_waves)
    return await execute(fleet, request, tenants, execution, watch or Watch(), loop)
