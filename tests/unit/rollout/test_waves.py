"""Waves: every tenant in exactly one, in an order that can be told beforehand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.fleet.fleet import FailureBudget, Wave
from orchestrator.fleet.selection import Selection
from orchestrator.fleet.tenant import Isolation, Tenant
from orchestrator.rollout.plan import Plan, PlannedTenant, PlannedWave, ids, in_order
from orchestrator.rollout.planning import assign_waves
from orchestrator.statuses import TenantStatus
from tests.unit.rollout.fleets import tenant

TAGS = ["canary", "eu", "free"]


@st.composite
def waves(draw: st.DrawFn) -> list[Wave]:
    """Waves of any selection and bound, also of tenants and tags that nobody has."""
    names = st.lists(st.sampled_from([*TAGS, "nobody"]), max_size=2, unique=True)
    patterns = st.lists(st.sampled_from(["t1", "t1*", "t*", "ghost"]), max_size=2, unique=True)
    select = st.builds(Selection, patterns=patterns.map(tuple), tags=names.map(tuple), exclude=patterns.map(tuple))
    bounds = {"percent": st.none() | st.floats(0, 100), "count": st.none() | st.integers(1, 5)}
    return draw(st.lists(st.builds(Wave, st.sampled_from(["w1", "w2", "rest"]), select, **bounds), max_size=4))


@st.composite
def fleets(draw: st.DrawFn) -> list[Tenant]:
    """Up to twenty tenants with tags."""
    tags = st.lists(st.sampled_from(TAGS), max_size=2, unique=True).map(tuple)
    return [tenant(f"t{number}", tags=draw(tags)) for number in range(draw(st.integers(0, 20)))]


@given(waves(), fleets())
def test_partition(given_waves: list[Wave], fleet: list[Tenant]) -> None:
    """No tenant is lost, none is in two waves, and within a wave the fleet's order is kept."""
    assigned = assign_waves(given_waves, fleet)

    dealt = [each.id for _, members in assigned for each in members]
    assert sorted(dealt) == sorted(each.id for each in fleet)
    for _, members in assigned:
        assert [each for each in fleet if each in members] == members


@given(waves(), fleets())
def test_bounds_and_selection(given_waves: list[Wave], fleet: list[Tenant]) -> None:
    """A wave takes only whom it selects and no more than its bounds; it leaves one behind only when it is full."""
    assigned = {id(wave): members for wave, members in assign_waves(given_waves, fleet)}
    gone: set[str] = set()
    for wave in given_waves:
        members = assigned.get(id(wave), [])
        eligible = [each.id for each in wave.select.filter([each for each in fleet if each.id not in gone])]
        full = min(
            len(eligible) if wave.count is None else wave.count,
            len(eligible) if wave.percent is None else math.ceil(len(fleet) * wave.percent / 100),
        )
        assert [each.id for each in members] == eligible[:full]
        gone.update(each.id for each in members)


@given(waves(), fleets())
def test_same_every_time(given_waves: list[Wave], fleet: list[Tenant]) -> None:
    """Planned twice, the waves are the same: what plan shows is what upgrade does."""
    assert assign_waves(given_waves, fleet) == assign_waves(given_waves, fleet)


def test_pattern_that_matches_none_of_those_left() -> None:
    """A wave whose list names a tenant that is not in this run still takes the others it names."""
    canary = Wave("canary", Selection(patterns=("a", "not-selected")))

    assigned = assign_waves([canary], [tenant("b"), tenant("a")])

    assert [(wave.name, [each.id for each in members]) for wave, members in assigned] == [
        ("canary", ["a"]),
        ("rest", ["b"]),
    ]


@pytest.mark.parametrize(("waves", "name"), [([], "all"), ([Wave("none", Selection(tags=("nobody",)))], "rest")])
def test_name_of_the_last_wave(waves: list[Wave], name: str) -> None:
    """Without waves there is one called `all`; those that no wave took are `rest`."""
    assert [wave.name for wave, members in assign_waves(waves, [tenant("a")]) if members] == [name]


@given(waves(), fleets(), st.data())
def test_carried_on(given_waves: list[Wave], fleet: list[Tenant], data: st.DataObject) -> None:
    """Whoever is left of a run stays in the wave that he was dealt to; whoever has joined since comes last."""
    given_waves = list({wave.name: wave for wave in given_waves}.values())
    dealt = {each.id: wave.name for wave, members in assign_waves(given_waves, fleet) for each in members}
    left = [each for each in fleet if data.draw(st.booleans())]
    joined = [tenant("joined")] if dealt else []

    again = assign_waves(given_waves, [*left, *joined], dealt)

    names = [wave.name for wave, _ in again]
    assert len(set(names)) == len(names)
    if dealt:
        found = {each.id: wave.name for wave, members in again for each in members}
        assert found == {**{each.id: dealt[each.id] for each in left}, "joined": "rest" if given_waves else "all"}
        assert names[: len(given_waves)] == [wave.name for wave in given_waves]


def test_share_is_of_the_whole_run() -> None:
    """percent counts the run's tenants, not those that are left, and rounds up."""
    assigned = assign_waves([Wave("first", count=5), Wave("tenth", percent=10)], [tenant(f"t{n}") for n in range(11)])

    assert [(wave.name, len(members)) for wave, members in assigned] == [("first", 5), ("tenth", 2), ("rest", 4)]


@pytest.mark.parametrize(
    ("budget", "failures", "tenants", "goes_on"),
    [
        (FailureBudget(0), 0, 10, True),
        (FailureBudget(0), 1, 10, False),
        (FailureBudget(2), 2, 10, True),
        (FailureBudget(2), 3, 10, False),
        (FailureBudget(None), 10, 10, True),
        (FailureBudget(percent=10), 1, 10, True),
        (FailureBudget(percent=10), 1, 9, False),
        (FailureBudget(0, 50), 5, 10, True),
        (FailureBudget(9, 0), 1, 10, False),
    ],
)
def test_failure_budget(budget: FailureBudget, failures: int, tenants: int, goes_on: bool) -> None:
    """A count, a share of the wave, or any number; the share wins where both are given."""
    assert budget.allows(failures, tenants) is goes_on


def test_those_who_take_long_go_first() -> None:
    """Within their wave, the longest first; the others stay in the fleet's order."""
    tenants = [planned(name) for name in "abcd"]
    plan = Plan("upgrade", None, (PlannedWave("one", (*tenants,), FailureBudget()),))

    ordered = in_order(plan, {"b": 10_000.0, "d": 20_000.0, "gone": 1.0})

    assert ids(ordered.tenants) == ["d", "b", "a", "c"]
    assert ids(in_order(plan, {}).tenants) == ["a", "b", "c", "d"]


def planned(name: str) -> PlannedTenant:
    """A tenant that is to be migrated."""
    tenant = Tenant(name, "main", Isolation.SCHEMA, name)
    pending = TenantStatus.PENDING
    return PlannedTenant(tenant, "postgresql", "15", (), TenantStatus.BEHIND, "heads", ("x",), ("x",), pending)
