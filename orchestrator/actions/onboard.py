"""onboard: new tenants from nothing to their first row, or as far as an earlier call left to do."""

from __future__ import annotations

from orchestrator.actions.execution import Execution, Watch
from orchestrator.actions.onboarding.desk import Entry, onboarding
from orchestrator.fleet.fleet import Fleet
from orchestrator.rollout.result import RunResult


async def onboard(
    fleet: Fleet,
    *newcomers: Entry,
    seed: str | None = None,
    adopt: bool = False,
    origin: str = "the call",
    expand: bool = True,
    execution: Execution = Execution(),  # noqa: B008  frozen
    watch: Watch | None = None,
) -> RunResult:
    """Make tenants, migrate them to their target, give them their rows, and write them down in the fleet.

    A program that does this again and again keeps a :func:`onboarding` open: it saves most of the time.

    Every step is made so that the same call, given again, finishes what was cut off; nobody is in the fleet before he
    is ready. A tenant that is there already, ready and in the fleet, is ``already_current``.

    Args:
        fleet: as loaded from tenants.yaml.
        newcomers: ids, or mappings with a tenant's keys as in tenants.yaml, and ``seed``.
        seed: name of the seed for those whose entry names none; ``None`` for the fleet's usual one, ``""`` for none.
        adopt: take in what is there already: its shape is compared with what the directory makes, and it is stamped.
        origin: where the newcomers are from, for messages.
        expand: whether ``${...}`` in a newcomer's ``url`` means a secret, as in tenants.yaml; never for data.
        execution: how many at once, how many may fail, in what waves.
        watch: who looks on and may stop it.

    Returns:
        What ``orchestrator onboard --json`` prints, as an object.

    Raises:
        ConfigurationError: a newcomer is no tenant, or clashes with another; nothing was touched.
        OrchestratorError: other bad input; nothing was touched.
    """
    async with onboarding(fleet, refill=False) as desk:
        return await desk.onboard(
            *newcomers, seed=seed, adopt=adopt, origin=origin, expand=expand, execution=execution, watch=watch
        )
