"""How long a plan may take, from what its revisions took before."""

from __future__ import annotations

from orchestrator.fleet.fleet import FailureBudget
from orchestrator.fleet.tenant import Isolation, Tenant
from orchestrator.journal.records import Spread
from orchestrator.rollout.estimate import PerTenant, estimate, per_tenant
from orchestrator.rollout.plan import Plan, PlannedTenant, PlannedWave
from orchestrator.statuses import TenantStatus

BUDGETS = {"main": ("db1:5432", 2), "also": ("db1:5432", 2), "eu": ("db2:5432", 4)}


def planned(name: str, server: str, *path: str, verdict: TenantStatus = TenantStatus.PENDING) -> PlannedTenant:
    """A tenant that has ``path`` to run."""
    tenant = Tenant(name, server, Isolation.SCHEMA, schema=name)
    return PlannedTenant(tenant, "postgresql", "15", (), TenantStatus.BEHIND, "heads", path[-1:], path, verdict)


def plan(*waves: tuple[PlannedTenant, ...]) -> Plan:
    """A plan with these waves."""
    return Plan("upgrade", None, tuple(PlannedWave(str(i), wave, FailureBudget()) for i, wave in enumerate(waves)))


def test_the_slowest_server_of_each_wave_counts() -> None:
    """Servers work side by side, waves one after the other; two names of one server share it."""
    first = (planned("a", "main", "x"), planned("b", "also", "x", "y"), planned("c", "eu", "x"))
    second = (planned("d", "eu", "y"),)
    durations = {"x": 100.0, "y": 400.0}
    assert estimate(plan(first, second), durations, BUDGETS) == (0.1 + 0.5) / 2 + 0.4


def test_a_revision_that_never_ran_makes_no_guess() -> None:
    """Half a sum would be read as the whole."""
    assert estimate(plan((planned("a", "main", "x", "new"),)), {"x": 100.0}, BUDGETS) is None


def test_tenants_that_are_not_attempted_take_no_time() -> None:
    """Nor do they need to be known."""
    blocked = planned("a", "main", "new", verdict=TenantStatus.BLOCKED)
    assert estimate(plan((blocked,)), {}, BUDGETS) == 0.0


def test_what_one_tenant_takes() -> None:
    """The sum over its revisions, known as well as the one that is known least; one that never ran is named."""
    spreads = {"x": Spread(10.0, 40.0, 100), "y": Spread(1.0, 2.0, 7)}
    assert per_tenant(("x", "y"), spreads) == PerTenant(11.0, 42.0, 7, ())
    assert per_tenant(("x", "new"), spreads) == PerTenant(None, None, 0, ("new",))
