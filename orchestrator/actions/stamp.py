"""stamp: say what revision tenants are at, without migrating them."""

from __future__ import annotations

from orchestrator.actions.execute import execute
from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.project import require_selection
from orchestrator.actions.servers import Tenants
from orchestrator.fleet.fleet import Fleet
from orchestrator.migration.loop import TenantLoop
from orchestrator.rollout.planning import Request
from orchestrator.rollout.result import RunResult


async def stamp(
    fleet: Fleet,
    revision: str,
    *,
    tenants: Tenants = (),
    everyone: bool = False,
    execution: Execution = Execution(),  # noqa: B008  frozen
    watch: Watch | None = None,
    loop: TenantLoop | None = None,
) -> RunResult:
    """Write ``revision`` into the selected tenants' version tables and change nothing else.

    Args:
        fleet: as loaded from tenants.yaml.
        revision: a revision, ``heads``, ``label@head`` or ``base``.
        tenants: ids or globs, or a :class:`Selection`; must select unless ``everyone``.
        everyone: mean the whole fleet.
        execution: how many at once, and how many may fail.
        watch: who looks on and may stop it.
        loop: given by env.py when it is plain Alembic that runs.

    Raises:
        SelectionError: no selection.
        OrchestratorError: other bad input; nothing was touched.
    """
    require_selection("stamp", tenants, everyone)
    request = Request("stamp", revision, False, execution.budget, execution.wave, waves=execution.listed_waves)
    return await execute(fleet, request, tenants, execution, watch or Watch(), loop)
