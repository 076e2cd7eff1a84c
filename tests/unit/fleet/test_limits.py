"""Timeouts: which of several holds, and how long each try waits for a lock."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.tenant import Limits


def test_the_narrowest_holds() -> None:
    """What is said nearer wins, each timeout for itself; zero is said, too: it is no limit."""
    run, tenant, server = Limits(lock_timeout=0.0), Limits(5.0, 60.0), Limits(1.0, 2.0, 3.0)

    assert run.over(tenant).over(server) == Limits(0.0, 60.0, 3.0)


def test_ladder_by_default() -> None:
    """Six tries between a tenth of a second and two."""
    waits = [Limits(2.0).in_try(number, 6).lock_timeout or 0 for number in range(1, 7)]

    assert [round(wait, 2) for wait in waits] == [0.1, 0.18, 0.33, 0.6, 1.1, 2.0]


@pytest.mark.parametrize("most", [None, 0.0, 0.05, 0.1])
def test_no_ladder_to_climb(most: float | None) -> None:
    """Without a limit, or with a short one, every try has what was asked for."""
    assert Limits(most, 9.0).in_try(1, 6) == Limits(most, 9.0)


@given(most=st.floats(0.01, 86_400), tries=st.integers(1, 50))
def test_ladder(most: float, tries: int) -> None:
    """Each try waits at least as long as the one before it, and the last one as long as it may."""
    waits = [Limits(most).in_try(number, tries).lock_timeout or 0 for number in range(1, tries + 1)]

    assert all(before <= after <= most for before, after in pairwise([0.0, *waits]))
    assert waits[-1] == pytest.approx(most)


def test_said_at_a_tenant(load_text: Callable[[str], Fleet]) -> None:
    """A tenant's own timeouts are read from tenants.yaml."""
    fleet = load_text(
        "servers: {m: 'postgresql://h/d'}\ntenants: [{id: a, lock_timeout: 5s, idle_in_transaction_timeout: 2m}, b]"
    )

    assert [tenant.limits for tenant in fleet.tenants] == [Limits(5.0, None, 120.0), Limits()]
