"""Chunks: of one server and kind each, together never more at once than the server takes, few for many tenants."""

from __future__ import annotations

from collections import Counter

import pytest

from orchestrator.engine.queues import PLACES
from orchestrator.fleet.tenant import Isolation, Tenant
from orchestrator.rollout.chunks import LARGEST, Chunk, cut
from orchestrator.rollout.plan import PlannedTenant, kind_of
from orchestrator.statuses import TenantStatus


def tenants(server: str, count: int, start: str = "r1") -> list[PlannedTenant]:
    """So many on one server, at one revision."""
    return [
        PlannedTenant(
            Tenant(f"{server}-{start}-{number}", server, Isolation.SCHEMA, f"t{number}"),
            "postgresql",
            "18",
            (start,),
            TenantStatus.BEHIND,
            "heads",
            ("r9",),
            ("r9",),
            TenantStatus.PENDING,
        )
        for number in range(count)
    ]


def at_once(chunk: Chunk) -> int:
    """Tenants at once on its server, when all places are taken."""
    return chunk.places * chunk.width


@pytest.mark.parametrize("count", [1, 9, 10, 11, 19, 25, 99, 100, 500, 2000, 20001])
@pytest.mark.parametrize("cap", [1, 3, 4, 16])
@pytest.mark.parametrize("jobs", [None, 1, 2])
def test_whatever_there_is(count: int, cap: int, jobs: int | None) -> None:
    """Everybody is in one chunk, in order; at most one chunk for ten tenants; the cap is never passed, nor wasted."""
    todo = tenants("main", count)
    found = cut(todo, {"main": ("db1:5432", cap)}, [1, cap], jobs)["db1:5432"]

    assert [each for chunk in found for each in chunk.tenants] == todo
    assert len(found) <= max(1, count // 10)
    allowed = min(cap, jobs or cap)
    assert {at_once(chunk) for chunk in found} == {allowed}
    assert max(len(chunk.tenants) for chunk in found) <= LARGEST * found[0].width
    if count >= 10 * allowed * 2:
        # All places have something to do.
        assert len(found) >= found[0].places


def test_one_server_and_kind_each() -> None:
    """Two names of one physical server share its budget, the smaller one; kinds are not mixed."""
    todo = [*tenants("a", 30), *tenants("b", 30), *tenants("a", 30, "r2"), *tenants("c", 5)]
    budgets = {"a": ("db1:5432", 8), "b": ("db1:5432", 4), "c": ("db2:5432", 4)}

    found = cut(todo, budgets, [1, 4, 8])

    assert Counter(each.tenant.server for each in todo) == Counter(
        each.tenant.server for chunks in found.values() for chunk in chunks for each in chunk.tenants
    )
    for server, chunks in found.items():
        for chunk in chunks:
            assert chunk.server == server
            assert at_once(chunk) <= 4
            assert len({(each.tenant.server, kind_of(each)) for each in chunk.tenants}) == 1


def test_no_queue_for_so_many() -> None:
    """Where workers have no queue for a server's number of places, a smaller one is taken, and wider chunks."""
    (chunk, *_) = cut(tenants("main", 100), {"main": ("db1:5432", 5)}, [1, 4])["db1:5432"]
    assert (chunk.places, chunk.width) == (4, 1)
    (chunk, *_) = cut(tenants("main", 100), {"main": ("db1:5432", 3)}, [1, 4])["db1:5432"]
    assert (chunk.places, chunk.width) == (1, 3)


@pytest.mark.parametrize("cap", range(1, 101))
def test_queues_that_there_always_are(cap: int) -> None:
    """Whatever number a server takes, its chunks go to a queue that workers listen to, and use three quarters of it."""
    for chunk in cut(tenants("main", 2000), {"main": ("db1:5432", cap)}, PLACES)["db1:5432"]:
        assert chunk.places in PLACES
        assert 0.75 * cap <= at_once(chunk) <= cap


def test_what_is_left() -> None:
    """Those that came back undone, and that it was the second time."""
    (chunk, *_) = cut(tenants("main", 10), {"main": ("db1:5432", 1)}, [1])["db1:5432"]
    left = chunk.left(["main-r1-3", "main-r1-7"])
    assert ([each.tenant.id for each in left.tenants], left.rounds) == (["main-r1-3", "main-r1-7"], 1)
