"""An onboarding that is cut off anywhere: the same command finishes it, or --undo leaves nothing of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.actions.onboarding.undo import undo
from orchestrator.actions.pool import drop_pools, fill_pools
from orchestrator.fleet.fleet import Fleet
from tests.catalog import catalogs, difference
from tests.faults.worlds import sampled
from tests.faulty_network import Cut, FaultyNetwork
from tests.projects import ENV
from tests.servers import PostgresServer, execute, fetch
from tests.workspace import Workspace

HEAD = "5ce7308fb946"
SEED = "INSERT INTO accounts (name, slug) VALUES ('first', 'first')"
#: Boundaries that are tried of those that there are.
_BOUNDED, _THOROUGH = 4, 400


@dataclass(frozen=True, slots=True)
class Signup:
    """A project without tenants, and a database without anything."""

    workspace: Workspace
    server: PostgresServer
    url: str
    isolation: str
    #: Databases that are to be ready.
    pool: int = 0
    #: What a tenant holds that was onboarded without any trouble.
    right: Any = None

    def point_at(self, url: str, **policy: Any) -> None:
        """Let the fleet's server be at ``url``; who has been registered stays."""
        path = self.workspace.path / "tenants.yaml"
        tenants = (
            [] if not path.exists() else [line for line in path.read_text().splitlines() if line.startswith("  -")]
        )
        head = {"servers": {"main": {"url": url}}, "policy": policy, "defaults": {"isolation": self.isolation}}
        head["onboarding"] = {"seeds": {"demo": "demo.sql"}, "seed": "demo"}
        if self.pool:
            head["name"] = self.url.rpartition("/")[2]  # type: ignore[assignment]
            head["onboarding"] |= {"pool": {"size": self.pool}, "statements": "CREATE SCHEMA given"}
        lines = [f"{key}: {json.dumps(value)}" for key, value in head.items()]
        path.write_text("\n".join([*lines, "tenants:", *tenants, ""]))

    @property
    def fleet(self) -> Fleet:
        """tenants.yaml, loaded anew."""
        return orchestrator.load(self.workspace.path / "tenants.yaml", may_be_empty=True)

    def name(self, tenant: str) -> str:
        """What it is to be called: databases are the whole server's."""
        return tenant if self.isolation == "schema" else f"{tenant}_{self.url.rpartition('/')[2]}"

    def entry(self, tenant: str) -> dict[str, str]:
        """The newcomer."""
        return {"id": tenant, self.isolation: self.name(tenant)}

    def again(self, path: Path) -> Signup:
        """The same with a database and a directory of its own."""
        return replace(signup(self.server, path, self.isolation, self.pool), right=self.right)

    def drop(self) -> None:
        """Remove its databases."""
        if self.isolation == "database":
            self.server.drop_database(self.server.database_url(self.name("acme")))
        if self.pool:
            asyncio.run(drop_pools(self.fleet))
        self.server.drop_database(self.url)

    def held(self, tenant: str) -> Any:
        """What is in the tenant's place."""
        if self.isolation == "schema":
            return catalogs(self.url, [tenant])[tenant]
        return catalogs(self.server.database_url(self.name(tenant)), ["public"])["public"]

    def assert_done(self) -> None:
        """The newcomer holds what is right, its rows once, and is in the fleet once."""
        assert self.right is None or difference(self.right, self.held("acme")) == []
        url = self.url if self.isolation == "schema" else self.server.database_url(self.name("acme"))
        schema = "acme" if self.isolation == "schema" else "public"
        assert fetch(url, f"SELECT count(*) FROM {schema}.accounts") == [(1,)]
        assert fetch(url, f"SELECT version_num FROM {schema}.alembic_version") == [(HEAD,)]
        assert [tenant.id for tenant in self.fleet.tenants] == ["acme"]
        left = "SELECT datname FROM pg_database WHERE datname LIKE 'orchestrator%'"
        if self.pool:
            assert fetch(url, "SELECT 1 FROM pg_namespace WHERE nspname = 'given'") == [(1,)]
            # What is ready is whole, and closed; what new ones are copied from stays.
            left += " AND (datallowconn OR shobj_description(oid, 'pg_database') IS NULL)"
        assert self.isolation == "schema" or not fetch(self.url, left)

    def assert_nothing(self) -> None:
        """Of the newcomer, there is nothing."""
        kind = (
            "nspname FROM pg_namespace WHERE nspname"
            if self.isolation == "schema"
            else "datname FROM pg_database WHERE datname"
        )
        assert fetch(self.url, f"SELECT {kind} = '{self.name('acme')}'") == []
        assert not self.fleet.tenants


def signup(server: PostgresServer, path: Path, isolation: str, pool: int = 0) -> Signup:
    """A project of its own, with a full pool."""
    path.mkdir(parents=True)
    made = Signup(Workspace.create(path), server, server.create_database(), isolation, pool)
    (path / "tenants.yaml").unlink(missing_ok=True)
    (path / "demo.sql").write_text(SEED)
    made.point_at(made.url)
    if pool:
        # The usual one imports a package, of which one process that has several projects open sees more and more.
        made.workspace.write("alembic/env.py", ENV)
        assert asyncio.run(fill_pools(made.fleet)).satisfied
    return made


async def requests(made: Signup) -> tuple[Signup, int]:
    """How many requests a whole onboarding makes, and what it leaves."""
    with FaultyNetwork(made.url) as network:
        made.point_at(network.url(made.url))
        result = await orchestrator.onboard(made.fleet, made.entry("acme"))
        assert result.satisfied, result.as_json()
        assert (result.tenants[0].path == "pool") is bool(made.pool)
        count = len(network.requests)
    made.assert_done()
    return replace(made, right=made.held("acme")), count


@pytest.fixture(params=["schema", "database", "pool"])
def made(request: pytest.FixtureRequest, pg: PostgresServer, tmp_path: Path) -> Iterator[Signup]:
    """The project, for schemas, for databases and for those that are ready before."""
    isolation, pool = ("database", 1) if request.param == "pool" else (request.param, 0)
    yield signup(pg, tmp_path / "whole", isolation, pool)
    drop_templates(pg)


def drop_templates(pg: PostgresServer) -> None:
    """What pools were filled from."""
    for (name,) in fetch(pg.url, "SELECT datname FROM pg_database WHERE datname ^@ 'orchestrator_template_'"):
        execute(pg.url, f'ALTER DATABASE "{name}" IS_TEMPLATE false')
        execute(pg.url, f'DROP DATABASE "{name}"')


@pytest.mark.parametrize("back", [False, True], ids=["finished", "undone"])
@pytest.mark.parametrize("cut", Cut, ids=lambda cut: cut.value)
def test_cut(made: Signup, tmp_path: Path, cut: Cut, back: bool, thorough: bool) -> None:
    """A connection that is cut at any request, before or after the server has acted, and no second try."""
    made, count = asyncio.run(requests(made))
    for number in sampled(count, _THOROUGH if thorough else _BOUNDED):
        copy = made.again(tmp_path / f"cut-{number}")
        with FaultyNetwork(copy.url) as network:
            copy.point_at(network.url(copy.url), retries=0)
            network.fail_at(number, cut)
            with suppress(orchestrator.OrchestratorError):  # before the run had begun
                asyncio.run(orchestrator.onboard(copy.fleet, copy.entry("acme")))
            assert network.fired.is_set(), number
        copy.point_at(copy.url)
        finish(copy, number, back=back)
        copy.drop()
    made.drop()


@pytest.mark.parametrize("back", [False, True], ids=["finished", "undone"])
def test_process_killed(made: Signup, tmp_path: Path, back: bool, thorough: bool) -> None:
    """kill -9 at requests all over an onboarding."""
    made, count = asyncio.run(requests(made))
    for number in sampled(count, 60 if thorough else 4):
        copy = made.again(tmp_path / f"killed-{number}")
        asyncio.run(killed(copy, number))
        copy.point_at(copy.url)
        finish(copy, number, back=back)
        copy.drop()
    made.drop()


async def killed(copy: Signup, number: int) -> None:
    """Onboard in a process of its own, and kill that."""
    options = [part for key, value in copy.entry("acme").items() if key != "id" for part in (f"--{key}", value)]
    with FaultyNetwork(copy.url) as network:
        copy.point_at(network.url(copy.url))
        await kill_at(copy, network, number, "onboard", "acme", *options)


async def kill_at(copy: Signup, network: FaultyNetwork, number: int, *command: str) -> None:
    """Kill a command right after the server has acted on one of its requests."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator", *command),
        cwd=copy.workspace.path,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    network.fail_at(number, Cut.AFTER, partial(os.kill, process.pid, signal.SIGKILL))
    await process.wait()


def finish(copy: Signup, number: int, *, back: bool) -> None:
    """Give the command once more, or take back what it has left."""
    listed = [tenant.id for tenant in copy.fleet.tenants]
    if not back:
        result = asyncio.run(orchestrator.onboard(copy.fleet, copy.entry("acme")))
        assert result.satisfied, (number, result.as_json())
        copy.assert_done()
        return
    result = asyncio.run(undo(copy.fleet, copy.entry("acme")))
    if result.satisfied:
        copy.assert_nothing()
    else:
        # It had been handed over: that is not taken back.
        assert "acme" in listed, (number, result.as_json())
        copy.assert_done()


def test_half_made_is_begun_anew(made: Signup) -> None:
    """A fresh place that an earlier onboarding left in the middle of its way is emptied first, its rows given once."""
    copy, count = made.again(made.workspace.path.parent / "copy"), asyncio.run(requests(made))[1]
    with FaultyNetwork(copy.url) as network:
        copy.point_at(network.url(copy.url), retries=0)
        network.fail_at(count // 2, Cut.AFTER)
        result = asyncio.run(orchestrator.onboard(copy.fleet, copy.entry("acme")))
        assert not result.satisfied
    copy.point_at(copy.url)
    finish(copy, count // 2, back=False)
    copy.drop()
    made.drop()


def test_filling_killed(pg: PostgresServer, tmp_path: Path, thorough: bool) -> None:
    """kill -9 at requests all over the filling of a pool: the next filling leaves as many as are asked for, whole."""
    made = signup(pg, tmp_path / "whole", "database", 1)
    made = replace(made, pool=2)
    with FaultyNetwork(made.url) as network:
        made.point_at(network.url(made.url))
        assert asyncio.run(fill_pools(made.fleet)).satisfied
        count = len(network.requests)
    for number in sampled(count, 60 if thorough else 4):
        made.point_at(made.url)
        asyncio.run(drop_pools(made.fleet))
        with FaultyNetwork(made.url) as network:
            made.point_at(network.url(made.url))
            asyncio.run(kill_at(made, network, number, "pool", "fill"))
        made.point_at(made.url)
        (filled,) = asyncio.run(fill_pools(made.fleet)).servers
        assert (filled.ready, filled.error) == (2, None), number
        left = "SELECT datname FROM pg_database WHERE datname ^@ ANY ('{orchestrator_new_,orchestrator_ready_}')"
        assert len(fetch(made.url, left)) == 2, number
    result = asyncio.run(orchestrator.onboard(made.fleet, made.entry("acme")))
    assert (result.satisfied, result.tenants[0].path) == (True, "pool")
    made.assert_done()
    made.drop()
    drop_templates(pg)
