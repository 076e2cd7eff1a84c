"""An offboarding that is cut off anywhere: the same command ends it, or --undo takes it back; nobody is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.actions.execution import Execution
from orchestrator.databases.archives import read, verify
from orchestrator.rollout.result import RunResult
from tests.faults.test_onboarding_killed import Signup, signup
from tests.faults.worlds import sampled
from tests.faulty_network import Cut, FaultyNetwork
from tests.servers import PostgresServer, execute, fetch

#: Boundaries that are tried of those that there are.
_BOUNDED, _THOROUGH = 4, 400
#: How it is asked for, by name: options of the call, and the same as typed.
WAYS: Mapping[str, tuple[dict[str, Any], list[str]]] = {
    "aside": ({}, []),
    "dropped": ({"archive": "old", "drop": True}, ["--archive", "old", "--drop"]),
}
_LISTS = {
    "schema": "SELECT nspname FROM pg_namespace WHERE nspname",
    "database": "SELECT datname FROM pg_database WHERE datname",
}


def made_tenant(made: Signup) -> None:
    """Onboard the tenant that is to leave."""
    result = asyncio.run(orchestrator.onboard(made.fleet, made.entry("acme")))
    assert result.satisfied, result.as_json()


def asides(made: Signup) -> list[str]:
    """Names of what was set aside, of this tenant."""
    kind = "pg_namespace" if made.isolation == "schema" else "pg_database"
    function = "obj_description" if made.isolation == "schema" else "shobj_description"
    query = f"{_LISTS[made.isolation]} LIKE 'orchestrator\\_offboarded%' AND {function}(oid, '{kind}') LIKE '%{{}}%'"
    return [row[0] for row in fetch(made.url, query.format(f'"was": "{made.name("acme")}"'))]


def is_live(made: Signup) -> bool:
    """Whether the tenant's place has its name."""
    return bool(fetch(made.url, f"{_LISTS[made.isolation]} = '{made.name('acme')}'"))


def is_listed(made: Signup) -> bool:
    """Whether the fleet has it."""
    return [tenant.id for tenant in made.fleet.tenants] == ["acme"]


async def leaves(made: Signup, way: str) -> RunResult:
    """Take it out, in this process."""
    options = {**WAYS[way][0]}
    if "archive" in options:
        options["archive"] = made.workspace.path / options["archive"]
    return await orchestrator.offboard(made.fleet, tenants=["acme"], **options)


def assert_not_lost(made: Signup, way: str, number: int) -> None:
    """Wherever it was cut off: its rows are somewhere, or in a whole archive; a live one is in the fleet."""
    live, aside = is_live(made), asides(made)
    assert len(aside) <= 1, (number, aside)
    assert not (live and aside), (number, aside)
    if live:
        assert is_listed(made), number
    elif not aside or way == "dropped":
        archives = list((made.workspace.path / "old").rglob("*.dump"))
        assert way == "dropped", number
        assert aside or archives, number
        for path in archives:
            verify(*read(path))


def finish(made: Signup, way: str, number: int, *, back: bool) -> None:
    """The same command again, or the way back, as far as there is one."""
    if back:
        with suppress(orchestrator.OrchestratorError):  # nothing was set aside, or all of it is dropped
            asyncio.run(orchestrator.undo_offboarding(made.fleet, tenants=["acme"]))
        if is_live(made):
            assert is_listed(made), number
            made.assert_done()
            return
    with suppress(orchestrator.OrchestratorError):  # nobody is there any more
        result = asyncio.run(leaves(made, way))
        assert result.satisfied, (number, result.as_json())
    assert (is_live(made), is_listed(made)) == (False, False), number
    assert len(asides(made)) == (0 if way == "dropped" else 1), number


@pytest.fixture(params=["schema", "database"])
def made(request: pytest.FixtureRequest, pg: PostgresServer, tmp_path: Path) -> Signup:
    """The project, for schemas and for databases."""
    return signup(pg, tmp_path / "whole", request.param)


def requests(made: Signup, way: str) -> int:
    """How many requests a whole offboarding makes."""
    made_tenant(made)
    with FaultyNetwork(made.url) as network:
        made.point_at(network.url(made.url))
        result = asyncio.run(leaves(made, way))
        assert result.satisfied, result.as_json()
        count = len(network.requests)
    made.point_at(made.url)
    clear(made)
    return count


def cases(count: int, most: int, *, thorough: bool) -> Iterator[tuple[int, bool]]:
    """Where to cut, and whether to go back from there; by turns, where not all are tried."""
    for turn, number in enumerate(sampled(count, most)):
        for back in (False, True) if thorough else (turn % 2 == 1,):
            yield number, back


def clear(made: Signup) -> None:
    """Remove its databases, also those that were set aside."""
    for name in asides(made) if made.isolation == "database" else []:
        execute(made.url, f'DROP DATABASE "{name}" WITH (FORCE)')
    made.drop()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cut", Cut, ids=lambda cut: cut.value)
def test_cut(made: Signup, tmp_path: Path, cut: Cut, way: str, thorough: bool) -> None:
    """A connection that is cut at any request, before or after the server has acted, and no second try."""
    for number, back in cases(requests(made, way), _THOROUGH if thorough else _BOUNDED, thorough=thorough):
        copy = made.again(tmp_path / f"cut-{number}-{back}")
        made_tenant(copy)
        with FaultyNetwork(copy.url) as network:
            copy.point_at(network.url(copy.url), retries=0)
            network.fail_at(number, cut)
            with suppress(orchestrator.OrchestratorError):  # before the run had begun
                asyncio.run(leaves(copy, way))
        copy.point_at(copy.url)
        assert_not_lost(copy, way, number)
        finish(copy, way, number, back=back)
        clear(copy)


@pytest.mark.parametrize("way", WAYS)
def test_process_killed(made: Signup, tmp_path: Path, way: str, thorough: bool) -> None:
    """kill -9 at requests all over an offboarding."""
    for number, back in cases(requests(made, way), 60 if thorough else 4, thorough=thorough):
        copy = made.again(tmp_path / f"killed-{number}-{back}")
        made_tenant(copy)
        asyncio.run(killed(copy, number, ["acme", *WAYS[way][1], "--yes", "--allow-data-loss"]))
        copy.point_at(copy.url)
        assert_not_lost(copy, way, number)
        finish(copy, way, number, back=back)
        clear(copy)


def test_killed_on_the_way_back(made: Signup, tmp_path: Path, thorough: bool) -> None:
    """kill -9 at requests all over an --undo: the same command brings the tenant back."""
    made_tenant(made)
    asyncio.run(leaves(made, "aside"))
    with FaultyNetwork(made.url) as network:
        made.point_at(network.url(made.url))
        assert asyncio.run(orchestrator.undo_offboarding(made.fleet, tenants=["acme"])).satisfied
        count = len(network.requests)
    made.point_at(made.url)
    made.assert_done()
    clear(made)
    for number in sampled(count, 60 if thorough else 4):
        copy = made.again(tmp_path / f"killed-{number}")
        made_tenant(copy)
        asyncio.run(leaves(copy, "aside"))
        asyncio.run(killed(copy, number, ["acme", "--undo"]))
        copy.point_at(copy.url)
        assert is_live(copy) != bool(asides(copy)), number
        result = asyncio.run(
            orchestrator.undo_offboarding(copy.fleet, tenants=["acme"], execution=Execution(lock_wait=20))
        )
        assert result.satisfied, (number, result.as_json())
        copy.assert_done()
        clear(copy)


async def killed(copy: Signup, number: int, args: list[str]) -> None:
    """Run the command in a process of its own, and kill that."""
    with FaultyNetwork(copy.url) as network:
        copy.point_at(network.url(copy.url))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator", "offboard", *args),
            cwd=copy.workspace.path,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        network.fail_at(number, Cut.AFTER, partial(os.kill, process.pid, signal.SIGKILL))
        await process.wait()
