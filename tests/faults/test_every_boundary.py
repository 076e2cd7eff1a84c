"""Cut wherever a run can be cut: every tenant can be described, and `resume` finishes it, with nothing done twice.

Only a revision that was cut off outside its transaction waits for `--retry-partial`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.faults.worlds import TENANTS, World, sampled
from tests.faulty_network import Cut, FaultyNetwork
from tests.projects import statuses
from tests.servers import PostgresServer

WAYS = {"replay": True, "alembic": False}
#: Boundaries that are tried of those that there are: of each way and each kind of cut.
_BOUNDED, _THOROUGH = 5, 400


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, pg: PostgresServer) -> Iterator[World]:
    """The database to copy, and what is right."""
    made = World.create(tmp_path_factory.mktemp("world"), pg)
    yield made
    pg.drop_database(made.url)


async def requests(world: World, path: Path, replay: bool) -> int:
    """How many requests a whole run makes, and proof that it does what it should."""
    copy = world.copied(path)
    with FaultyNetwork(copy.url) as network:
        copy.point_at(network.url(copy.url))
        assert (await copy.upgrade(jobs=1, replay=replay)).satisfied
        count = len(network.requests)
    copy.assert_done()
    copy.drop()
    return count


@pytest.mark.parametrize("cut", Cut, ids=lambda cut: cut.value)
@pytest.mark.parametrize("replay", WAYS.values(), ids=WAYS)
async def test_connection_cut(world: World, tmp_path: Path, replay: bool, cut: Cut, thorough: bool) -> None:
    """A connection that is cut at any request, before or after the server has acted, and no second try in the run."""
    count = await requests(world, tmp_path / "whole", replay)
    for number in sampled(count, _THOROUGH if thorough else _BOUNDED):
        copy = world.copied(tmp_path / "cut")
        with FaultyNetwork(copy.url) as network:
            copy.point_at(network.url(copy.url), retries=0)
            network.fail_at(number, cut)
            try:
                told = statuses(await copy.upgrade(jobs=1, replay=replay))
            except Exception:
                # Before the run had begun: the fleet could not be read, and nothing was touched.
                told = {}
            assert network.fired.is_set(), number
            copy.assert_describable(told)
            # By the same address: at another one the tenants would not be those that the run has met.
            copy.point_at(network.url(copy.url))
            result = await copy.finish(begun=bool(told))
        assert result.satisfied, (number, result.as_json())
        copy.assert_done()
        copy.drop()


@pytest.mark.parametrize("replay", WAYS.values(), ids=WAYS)
async def test_backend_ended(world: World, tmp_path: Path, replay: bool, thorough: bool) -> None:
    """A backend that is ended at any definition or change of heads, in the middle of a replayed script, too."""
    for number in sampled(world.points * len(TENANTS), _THOROUGH if thorough else 2 * _BOUNDED):
        copy = world.copied(tmp_path / "ended")
        copy.point_at(copy.url, retries=0)
        copy.fault_at(number + 1)
        told = statuses(await copy.upgrade(jobs=1, replay=replay))
        copy.assert_describable(told)
        copy.fault_at(None)
        result = await copy.finish()
        assert result.satisfied, (number, result.as_json())
        copy.assert_done()
        copy.drop()


async def test_backend_ended_heals_itself(world: World, tmp_path: Path) -> None:
    """With tries left, the run itself finishes the tenant whose backend was ended."""
    copy = world.copied(tmp_path / "healed")
    copy.point_at(copy.url, retries=2)
    copy.fault_at(40)

    result = await copy.upgrade(jobs=1)

    assert result.satisfied, result.as_json()
    assert max(attempt.attempts for attempt in result.tenants) == 2
    copy.assert_done()
    copy.drop()


async def test_process_killed(world: World, tmp_path: Path, thorough: bool) -> None:
    """kill -9 at requests all over a run of six tenants at once; the same command line finishes it."""
    count = await requests(world, tmp_path / "whole", True)
    for number in sampled(count, 200 if thorough else 6):
        copy = world.copied(tmp_path / "killed")
        with FaultyNetwork(copy.url) as network:
            copy.point_at(network.url(copy.url))
            command = [sys.executable, "-m", "orchestrator", "upgrade", "--provision"]
            process = await asyncio.create_subprocess_exec(
                *command, cwd=copy.workspace.path, stderr=asyncio.subprocess.DEVNULL
            )
            network.fail_at(number, Cut.BEFORE, partial(os.kill, process.pid, signal.SIGKILL))
            code = await process.wait()
            copy.assert_describable({})
            if code != 0:
                begun = (copy.workspace.path / ".orchestrator" / "transcripts").exists() or "run" in _last(copy)
                finished = copy.workspace.run(*(["resume"] if begun else ["upgrade", "--provision"]))
                if "partial" in finished.stdout:
                    finished = copy.workspace.run("resume", "--retry-partial")
                assert finished.returncode == 0, (number, finished.stderr)
        copy.assert_done()
        copy.drop()


def _last(copy: World) -> str:
    return copy.workspace.run("runs", "list").stdout
