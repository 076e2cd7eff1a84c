"""Selections: what each criterion takes, in which order, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import SelectionError, UsageError
from orchestrator.fleet.selection import Selection, parse_shard
from orchestrator.fleet.tenant import Isolation, Tenant


def tenant(id: str, *tags: str, server: str = "main") -> Tenant:
    return Tenant(id=id, server=server, isolation=Isolation.SCHEMA, schema=id, tags=tags)


FLEET = (
    tenant("eu-acme", "eu", "canary"),
    tenant("us-acme", "us"),
    tenant("eu-globex", "eu", server="second"),
    tenant("us-initech", "us", "canary", server="second"),
    tenant("a[1]"),
)


def ids(selection: Selection, tenants: tuple[Tenant, ...] = FLEET) -> list[str]:
    return [chosen.id for chosen in selection.choose(tenants)]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), ["eu-acme", "us-acme", "eu-globex", "us-initech", "a[1]"]),
        (Selection(patterns=("us-acme", "eu-*")), ["eu-acme", "us-acme", "eu-globex"]),
        (Selection(patterns=("a[1]",)), ["a[1]"]),
        (Selection(listed=("us-initech", "eu-acme")), ["eu-acme", "us-initech"]),
        (Selection(patterns=("us-*",), listed=("eu-acme",)), ["eu-acme", "us-acme", "us-initech"]),
        (Selection(tags=("canary",)), ["eu-acme", "us-initech"]),
        (Selection(tags=("canary", "eu")), ["eu-acme", "eu-globex", "us-initech"]),
        (Selection(servers=("second",)), ["eu-globex", "us-initech"]),
        (Selection(tags=("eu",), servers=("second",)), ["eu-globex"]),
        (Selection(exclude=("*-acme", "a[1]")), ["eu-globex", "us-initech"]),
        (Selection(patterns=("eu-*",), exclude=("eu-globex",)), ["eu-acme"]),
        (Selection(sample=99), ["eu-acme", "us-acme", "eu-globex", "us-initech", "a[1]"]),
    ],
)
def test_choose(selection: Selection, expected: list[str]) -> None:
    """Criteria of one kind add up, kinds narrow each other, and the fleet's order is kept."""
    assert ids(selection) == expected


@pytest.mark.parametrize(
    ("selection", "message", "hint"),
    [
        (Selection(patterns=("eu-acne",)), "no tenant matches 'eu-acne'", "did you mean 'eu-acme'?"),
        (Selection(patterns=("EU-*",)), "no tenant matches 'EU-*'", None),
        (Selection(patterns=("eu-*", "xx-*")), "no tenant matches 'xx-*'", None),
        (Selection(tags=("canray",)), "no tag matches 'canray'", "did you mean 'canary'?"),
        (Selection(servers=("mian",)), "no server matches 'mian'", "did you mean 'main'?"),
        (Selection(exclude=("eu-acne",)), "no tenant matches 'eu-acne'", "did you mean 'eu-acme'?"),
        (Selection(listed=("eu-*",)), "no tenant matches 'eu-*'", None),
        (Selection(listed=("nobody", "nothing")), "2 tenants that the fleet does not have: 'nobody', 'nothing'", None),
        (Selection(listed=()), "the list of tenants is empty", None),
        (Selection(tags=("eu",), patterns=("us-*",)), "2 after tenants, 0 after tags", None),
        (Selection(exclude=("*",)), "no tenant is left", None),
    ],
)
def test_refusals(selection: Selection, message: str, hint: str | None) -> None:
    """What matches nothing is refused with the nearest name; a mistyped exclusion too, it would spare nobody."""
    with pytest.raises(SelectionError) as caught:
        selection.choose(FLEET)
    assert message in caught.value.message
    assert caught.value.hint
    if hint:
        assert caught.value.hint == hint


def test_filter_takes_part_of_the_fleet() -> None:
    """A wave picks from those left, where a tag may have nobody any more."""
    assert Selection(tags=("eu",), exclude=("nobody",)).filter(FLEET[3:]) == ()
    assert [chosen.id for chosen in Selection(tags=("us",)).filter(FLEET[3:])] == ["us-initech"]


@pytest.mark.parametrize(
    "selection", [Selection(exclude=("a",)), Selection(listed=()), Selection(sample=1), Selection(shard=(1, 2))]
)
def test_is_empty(selection: Selection) -> None:
    """Only a selection that says nothing at all is empty."""
    assert Selection().is_empty
    assert not selection.is_empty


def test_empty_fleet() -> None:
    """Nothing asked of nobody is nobody."""
    assert Selection().choose(()) == ()


def test_empty_shard_is_no_error() -> None:
    """One job of a matrix may have nothing to do."""
    sizes = [len(Selection(shard=(number, 50)).choose(FLEET)) for number in range(1, 51)]
    assert sum(sizes) == len(FLEET)
    assert 0 in sizes


@pytest.mark.parametrize("text", ["0/5", "6/5", "1", "/", "a/b", "1/0", "-1/5", "1/5/2", "¹/5", ""])
def test_bad_shards(text: str) -> None:
    """What is no shard is refused with the right spelling."""
    with pytest.raises(UsageError) as caught:
        parse_shard(text)
    assert "--shard I/N" in str(caught.value.hint)


def test_parse_shard() -> None:
    """I/N, counted from 1."""
    assert parse_shard("2/5") == (2, 5)


def test_bad_sample() -> None:
    """A sample of nobody is refused."""
    with pytest.raises(UsageError):
        Selection(sample=0)


def test_shards_and_samples_are_stable_across_processes() -> None:
    """Python's own hash differs per process; jobs on several machines must agree on the shards."""
    code = (
        "from tests.unit.fleet.test_selection import *\n"
        "many = tuple(tenant(f't{n}') for n in range(40))\n"
        "print(ids(Selection(shard=(2, 3)), many), ids(Selection(sample=5), many))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


names = st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=40)
tags = st.lists(st.sampled_from(["eu", "us", "canary"]), unique=True)


@st.composite
def fleets(draw: Any) -> tuple[Tenant, ...]:
    return tuple(tenant(name, *draw(tags), server=draw(st.sampled_from(["main", "second"]))) for name in draw(names))


@given(fleet=fleets(), count=st.integers(1, 8))
def test_shards_partition(fleet: tuple[Tenant, ...], count: int) -> None:
    """Every tenant is in exactly one of N shards, and order is kept in each."""
    shards = [Selection(shard=(number, count)).choose(fleet) for number in range(1, count + 1)]
    assert sorted(each.id for shard in shards for each in shard) == sorted(each.id for each in fleet)
    for shard in shards:
        assert list(shard) == [each for each in fleet if each in shard]


@given(fleet=fleets(), extra=names, count=st.integers(2, 5))
def test_shard_depends_on_the_id_alone(fleet: tuple[Tenant, ...], extra: list[str], count: int) -> None:
    """A tenant stays in its shard when others come or go."""
    known = {each.id for each in fleet}
    more = (*(tenant(name) for name in extra if name not in known), *fleet)
    shard = Selection(shard=(1, count))
    assert [each for each in shard.choose(more) if each.id in known] == list(shard.choose(fleet))


@given(fleet=fleets(), size=st.integers(1, 50))
def test_samples(fleet: tuple[Tenant, ...], size: int) -> None:
    """A sample has the size asked for, keeps order, is the same again, and grows by adding."""
    chosen = Selection(sample=size).choose(fleet)
    assert len(chosen) == min(size, len(fleet))
    assert list(chosen) == [each for each in fleet if each in chosen]
    assert Selection(sample=size).choose(tuple(reversed(fleet))) == tuple(reversed(chosen))
    assert set(chosen) <= set(Selection(sample=size + 1).choose(fleet))


@given(fleet=fleets(), data=st.data())
def test_filter_is_idempotent_and_ordered(fleet: tuple[Tenant, ...], data: st.DataObject) -> None:
    """Choosing again from what was chosen changes nothing; what is left out stands in the fleet's order too."""
    some = st.lists(st.sampled_from([each.id for each in fleet] or ["x"]), max_size=3).map(tuple)
    selection = Selection(
        patterns=data.draw(some),
        tags=data.draw(st.lists(st.sampled_from(["eu", "us"]), max_size=2).map(tuple)),
        servers=data.draw(st.sampled_from([(), ("main",), ("main", "second")])),
        exclude=data.draw(some),
        shard=data.draw(st.sampled_from([None, (1, 2)])),
        sample=data.draw(st.sampled_from([None, 1, 5])),
    )
    chosen = selection.filter(fleet)
    assert selection.filter(chosen) == chosen
    positions = [fleet.index(each) for each in chosen]
    assert positions == sorted(positions)
    assert not any(each.id in selection.exclude for each in chosen)


def test_exact_id_wins_over_a_glob() -> None:
    """Where a tenant has a glob for its id, that glob means this tenant, in selections, exclusions and waves."""
    fleet = (*FLEET, tenant("*"), tenant("eu-*"))
    assert ids(Selection(patterns=("*",)), fleet) == ["*"]
    assert ids(Selection(patterns=("eu-*", "us-i*")), fleet) == ["us-initech", "eu-*"]
    assert ids(Selection(exclude=("*",)), fleet) == [each.id for each in fleet if each.id != "*"]
    # A wave picks from those that are left, and the tenant of that name may be in an earlier one.
    assert Selection(patterns=("*",)).filter(FLEET, fleet) == ()
