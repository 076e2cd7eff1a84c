"""Tenants' servers, simulated; run as a module, the orchestrator's command line over them.

    python -m benchmarks.simulated_servers status

It imports no more than the command itself would: what that takes is measured.
"""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.actions.servers import Servers
from orchestrator.databases.answers import Reading
from orchestrator.fleet.tenant import Tenant
from orchestrator.rollout.inventory import Inventory

#: Where everybody stands before the run, and after it.
BEFORE, AFTER = ("b0000",), ("b0001",)


def simulate(heads: tuple[str, ...]) -> None:
    """Have every tenant be found at ``heads``, in this process."""

    async def inventory(self: Servers, tenants: Sequence[Tenant], version_table: str) -> Inventory:
        kinds = dict.fromkeys({tenant.server for tenant in tenants}, ("postgresql", "18"))
        return Inventory({tenant.id: Reading(True, heads) for tenant in tenants}, kinds)

    Servers.inventory = inventory  # type: ignore[method-assign]


if __name__ == "__main__":
    from orchestrator.cli import main

    simulate(AFTER)
    main()
