"""Databases that are ready before anybody comes: nobody's until they are taken, and never taken twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

import orchestrator
from orchestrator.actions.pool import drop_pools, fill_pools
from orchestrator.databases.claims import Claim, Marker
from orchestrator.databases.connect import connect
from orchestrator.databases.own_names import READY
from orchestrator.databases.postgresql import ready
from orchestrator.fleet.fleet import Fleet
from tests.command_line import THIRD, Project, assert_error, tenant_of
from tests.projects import ENV, until
from tests.servers import execute, fetch


@dataclass(frozen=True, slots=True)
class Shop:
    """A fleet of databases with a pool, on the test's own part of a server."""

    project: Project
    #: Begins the names of its tenants.
    prefix: str

    def write(self, size: int, **more: Any) -> None:
        """tenants.yaml without tenants."""
        document = {
            "name": self.prefix,
            "servers": {"main": {"url": self.project.url}},
            "defaults": {"isolation": "database"},
            "onboarding": {"pool": {"size": size}, **more},
        }
        lines = [f"{key}: {json.dumps(value)}" for key, value in document.items()]
        self.path.write_text("\n".join([*lines, "tenants:", ""]))

    @property
    def path(self) -> Path:
        """tenants.yaml."""
        return self.project.workspace.path / "tenants.yaml"

    @property
    def fleet(self) -> Fleet:
        """As it is written now."""
        return orchestrator.load(self.path, may_be_empty=True)

    def named(self, name: str) -> dict[str, str]:
        """A newcomer, whose database is the whole server's to know."""
        return {"id": name, "database": f"{self.prefix}_{name}"}

    def url_of(self, name: str) -> str:
        """Address of a newcomer's database."""
        return f"{self.project.url.rpartition('/')[0]}/{self.prefix}_{name}"

    def ready(self) -> dict[str, int]:
        """Names and identifiers of the databases that are ready for this fleet."""
        query = (
            "SELECT datname, oid::bigint FROM pg_database WHERE NOT datallowconn"
            f" AND datname ^@ '{READY}' AND shobj_description(oid, 'pg_database')::json->>'fleet' = '{self.prefix}'"
        )
        return {row[0]: row[1] for row in fetch(self.project.url, query)}

    def oid(self, name: str) -> int:
        """What tells a newcomer's database from others, also when it is renamed."""
        query = f"SELECT oid::bigint FROM pg_database WHERE datname = '{self.prefix}_{name}'"
        return int(fetch(self.project.url, query)[0][0])

    def drop(self) -> None:
        """Whatever is left on the server."""
        for (name,) in fetch(
            self.project.url,
            f"SELECT datname FROM pg_database WHERE datname ^@ '{self.prefix}_' OR datname ^@ 'orchestrator_'",
        ):
            execute(self.project.url, f'ALTER DATABASE "{name}" IS_TEMPLATE false')
            execute(self.project.url, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def shop(project: Project) -> Iterator[Shop]:
    """Two databases are to be ready."""
    # The usual one imports a package, of which one process that has several projects open sees more and more.
    project.workspace.write("alembic/env.py", ENV)
    made = Shop(project, project.url.rpartition("/")[2])
    made.write(2)
    yield made
    made.drop()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the test's own."""
    raw = await asyncpg.connect(url)
    try:
        yield raw
    finally:
        await raw.close()


async def refilled(shop: Shop, count: int) -> None:
    """Wait for what is made behind the sign-ups."""

    async def look() -> int:
        return len(shop.ready())

    await until(look, lambda found: found == count)


def test_filled_and_taken(shop: Shop) -> None:
    """A deploy fills the pool; the next tenants are the very databases that were ready, marked, with their rows."""
    shop.write(2, seeds={"demo": "demo.sql"}, statements="COMMENT ON SCHEMA public IS 'given once'")
    shop.project.workspace.write("demo.sql", "INSERT INTO notes (body) VALUES ('first')")
    prepared = shop.project.json("onboard", "--prepare")
    assert prepared["pool"] == {"ready": 2, "made": 2, "dropped": 0}
    there = shop.ready()
    assert len(there) == 2

    document = shop.project.json("onboard", "acme", "--database", f"{shop.prefix}_acme", "--seed", "demo")
    assert (tenant_of(document, "acme")["path"], tenant_of(document, "acme")["to"]) == ("pool", [THIRD])
    assert shop.oid("acme") in there.values()
    assert fetch(shop.url_of("acme"), "SELECT body FROM notes") == [("first",)]
    comment = "SELECT obj_description('public'::regnamespace, 'pg_namespace')"
    assert fetch(shop.url_of("acme"), comment) == [("given once",)]
    # A command ends with its onboarding; the pool is filled by the next deploy, or by hand.
    assert len(shop.ready()) == 1
    (filled,) = shop.project.json("pool", "fill")["servers"]
    assert filled == {"server": "main", "ready": 2, "made": 1, "dropped": 0, "error": None, "hint": None}
    assert shop.project.run("pool", "drop").stdout == "server main: 0 ready (2 dropped)\n"
    assert shop.ready() == {}


async def test_many_at_once_are_given_different_ones(shop: Shop) -> None:
    """Of twelve sign-ups by two desks, each gets a database of its own: the six that are ready, and copies."""
    shop.write(6)
    async with (
        orchestrator.onboarding(shop.fleet, refill=False) as one,
        orchestrator.onboarding(shop.fleet, refill=False) as other,
    ):
        await one.prepare()
        there = shop.ready()
        desks = (one, other) * 6
        results = await asyncio.gather(*(desk.onboard(shop.named(f"t{n}")) for n, desk in enumerate(desks)))

    assert [result.as_json() for result in results if not result.satisfied] == []
    paths = [result.tenants[0].path for result in results]
    assert (paths.count("pool"), paths.count("template")) == (6, 6)
    oids = {shop.oid(f"t{number}") for number in range(12)}
    assert len(oids) == 12
    assert set(there.values()) <= oids
    assert shop.ready() == {}


async def test_50_want_the_same(shop: Shop) -> None:
    """Of 50 who have all seen the same database ready, one gets it, and it is what he has asked for."""
    async with orchestrator.onboarding(shop.fleet, refill=False) as desk:
        await desk.prepare()
    (beginning,) = {name.rpartition("_")[0] for name in shop.ready()}
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(shop.project.url)) for _ in range(50)]
        (one, _) = await ready._found(connections[0], beginning)

        async def want(number: int) -> bool:
            claim = Claim(Marker(shop.prefix, f"t{number}", fresh=True))
            return await ready.take(connections[number], one, f"{shop.prefix}_t{number}", claim, furnished=True)

        got = await asyncio.gather(*map(want, range(50)))
    assert got.count(True) == 1
    assert len(shop.ready()) == 1
    name = f"{shop.prefix}_t{got.index(True)}"
    query = f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{name}' AND datallowconn"
    assert Marker.read(fetch(shop.project.url, query)[0][0]) == Marker(shop.prefix, f"t{got.index(True)}", fresh=True)


async def test_cut_off_before_it_was_furnished(shop: Shop) -> None:
    """One that was taken, and whose process was killed before it ran the statements, gets them from who goes on."""
    shop.write(1, statements="COMMENT ON SCHEMA public IS 'given'")
    async with orchestrator.onboarding(shop.fleet, refill=False) as desk, connected(shop.project.url) as raw:
        await desk.prepare()
        (name,) = shop.ready()
        (one,) = await ready._found(raw, name)
        claim = Claim(Marker(shop.prefix, "acme", fresh=True))
        assert await ready.take(raw, one, f"{shop.prefix}_acme", claim, furnished=False)
        assert (await desk.onboard(shop.named("acme"))).satisfied
    comment = "SELECT obj_description('public'::regnamespace, 'pg_namespace')"
    assert fetch(shop.url_of("acme"), comment) == [("given",)]


async def test_desk_makes_more(shop: Shop) -> None:
    """An open desk makes another one ready behind each that was taken, and ends with nothing half made."""
    async with orchestrator.onboarding(shop.fleet) as desk:
        await desk.prepare()
        for name in ("one", "two", "three"):
            assert (await desk.onboard(shop.named(name))).tenants[0].path == "pool"
            await refilled(shop, 2)
        assert (await desk.onboard(shop.named("four"))).tenants[0].path == "pool"
    assert fetch(shop.project.url, "SELECT 1 FROM pg_database WHERE datname ^@ 'orchestrator_new_'") == []
    assert len([task for task in asyncio.all_tasks() if not task.done()]) == 1


async def test_desk_follows_the_file(shop: Shop) -> None:
    """What tenants.yaml says of the pool by now is what an open desk keeps ready."""
    async with orchestrator.onboarding(shop.fleet) as desk:
        await desk.prepare()
        assert (await desk.onboard(shop.named("one"))).satisfied
        await refilled(shop, 2)
        shop.write(3)
        assert (await desk.onboard(shop.named("two"))).satisfied
        await refilled(shop, 3)


async def test_desk_does_not_wait_for_another_to_fill(shop: Shop) -> None:
    """A desk ends at once where another machine is filling the pool, and leaves alone what that is making."""
    waits = (
        "SELECT 1 FROM pg_stat_activity WHERE query ^@ 'SELECT pg_try_advisory_lock' AND pid <> pg_backend_pid()"
        " AND query_start > $1"
    )
    making = ready._unready(shop.prefix, "main")
    async with asyncio.timeout(60), AsyncExitStack() as open_desk:
        desk = await open_desk.enter_async_context(orchestrator.onboarding(shop.fleet))
        await desk.prepare()
        async with ready.alone(connected(shop.project.url), "main", shop.prefix) as other:
            await other.execute(f'CREATE DATABASE "{making}"')
            assert (await desk.onboard(shop.named("one"))).tenants[0].path == "pool"
            came = await other.fetchval("SELECT clock_timestamp()")
            await until(lambda: other.fetch(waits, came), bool)
            await open_desk.aclose()
            assert len(shop.ready()) == 1
            assert await other.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", making) == 1


async def test_two_fillers_make_no_more_than_one(shop: Shop) -> None:
    """Desks of two processes that fill one pool at once leave as many as were asked for."""
    shop.write(3)
    async with (
        orchestrator.onboarding(shop.fleet, refill=False) as one,
        orchestrator.onboarding(shop.fleet, refill=False) as other,
    ):
        await one.prepare(isolation="schema")
        found = await asyncio.gather(one.prepare(), other.prepare())

    assert sorted(each.stock.made for each in found if each.stock is not None) == [0, 3]
    assert len(shop.ready()) == 3


async def test_old_ones_are_never_taken(shop: Shop) -> None:
    """After a new revision, what was ready before is nobody's: left alone by sign-ups, dropped by the next deploy."""
    async with orchestrator.onboarding(shop.fleet, refill=False) as desk:
        await desk.prepare()
    old = shop.ready()
    fourth = "d4d4d4d4d4d4"
    shop.project.revision(fourth, THIRD, "op.add_column('notes', sa.Column('more', sa.Text))")

    async with orchestrator.onboarding(shop.fleet) as desk:
        result = await desk.onboard(shop.named("early"))
        assert result.tenants[0].path == "alembic"
        assert shop.ready() == old
        assert (await desk.prepare()).stock is not None
        assert not shop.ready().keys() & old.keys()
        result = await desk.onboard(shop.named("late"))
        assert result.tenants[0].path == "pool"
    for name in ("early", "late"):
        assert fetch(shop.url_of(name), "SELECT version_num FROM alembic_version") == [(fourth,)]
    assert {name for (name,) in fetch(shop.project.url, "SELECT datname FROM pg_database")}.isdisjoint(old)


@pytest.mark.parametrize(
    "how",
    [
        'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true',
        'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true; ALTER DATABASE "{name}" ALLOW_CONNECTIONS false',
        'COMMENT ON DATABASE "{name}" IS NULL',
    ],
    ids=["open", "opened and closed", "without a note"],
)
async def test_touched_ones_are_never_taken(shop: Shop, how: str) -> None:
    """One that could be connected to, if only for a moment, is not what was looked at; it is dropped in time."""
    shop.write(1)
    async with orchestrator.onboarding(shop.fleet, refill=False) as desk:
        await desk.prepare()
        (touched,) = shop.ready()
        execute(shop.project.url, how.format(name=touched))
        result = await desk.onboard(shop.named("acme"))
        assert (result.tenants[0].path, result.tenants[0].status) == ("template", "succeeded")
        stock = (await desk.prepare()).stock
    assert stock is not None
    assert (stock.ready, stock.made, stock.dropped) == (1, 1, 1)
    assert touched not in shop.ready()


async def test_another_fleets_is_left_alone(shop: Shop) -> None:
    """Two fleets of one directory on one server share the template, and neither takes or drops the other's."""
    other = replace(shop, prefix=f"{shop.prefix}b")
    async with orchestrator.onboarding(shop.fleet, refill=False) as desk:
        await desk.prepare()
    mine = shop.ready()

    other.write(1)
    async with orchestrator.onboarding(other.fleet, refill=False) as desk:
        assert (await desk.prepare()).stock is not None
        paths = [(await desk.onboard(other.named(name))).tenants[0].path for name in ("one", "two")]
    assert paths == ["pool", "template"]
    assert (await drop_pools(other.fleet)).servers[0].dropped == 0
    assert shop.ready() == mine


async def test_nobody_sees_them(shop: Shop) -> None:
    """Sources by pattern, what looks for tenants set aside, offboard and doctor leave alone what is ready."""
    async with orchestrator.onboarding(shop.fleet, refill=False) as desk:
        await desk.prepare()
        assert (await desk.onboard(shop.named("acme"))).satisfied
        (name,) = shop.ready()
        with pytest.raises(orchestrator.OrchestratorError, match="keeps for itself"):
            await desk.onboard({"id": "globex", "database": name})
    database = connect(shop.fleet.servers["main"])
    try:
        assert list(await database.databases("orchestrator*")) == []
        assert [aside for aside in await database.asides() if aside.name == name] == []
    finally:
        await database.close()
    assert name not in json.dumps((await orchestrator.doctor(shop.fleet)).as_json())
    assert (await orchestrator.offboard(shop.fleet, tenants=["acme"], drop=True)).satisfied
    assert [*shop.ready()] == [name]


async def test_size(shop: Shop) -> None:
    """A smaller pool is made smaller, and none is none."""
    await fill_pools(shop.fleet)
    shop.write(1)
    (filled,) = (await fill_pools(shop.fleet)).servers
    assert (filled.ready, filled.made, filled.dropped) == (1, 0, 1)
    with pytest.raises(orchestrator.OrchestratorError, match="no server `man`"):
        await fill_pools(shop.fleet, ["man"])
    shop.write(0)
    with pytest.raises(orchestrator.OrchestratorError, match="asks for no pool") as refused:
        await fill_pools(shop.fleet)
    assert "orchestrator pool drop" in (refused.value.hint or "")
    async with orchestrator.onboarding(shop.fleet, refill=False) as desk:
        assert (await desk.prepare()).stock is None
    assert shop.ready() == {}


@pytest.mark.parametrize("size", [101, -1, "10", True])
def test_bad_size(shop: Shop, size: Any) -> None:
    """A size is a number that a server can bear."""
    shop.write(size)
    with pytest.raises(orchestrator.OrchestratorError, match=r"tenants\.yaml:4:.* size: "):
        assert shop.fleet


async def test_no_right_to_create(shop: Shop) -> None:
    """A role that may make no databases is told so, and which right it lacks."""
    role = f"{shop.prefix}_weak"
    execute(shop.project.url, f"CREATE ROLE {role} LOGIN")
    try:
        async with orchestrator.onboarding(shop.fleet, refill=False) as desk:
            await desk.prepare()
        parts = urlsplit(shop.project.url)
        weak = parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}").geturl()
        shop.path.write_text(shop.path.read_text().replace(shop.project.url, weak))
        await drop_pools(shop.fleet)
        assert len(shop.ready()) == 2
        result = shop.project.run("pool", "fill")
        # What it may not drop, it may not take either.
        assert_error(result, "permission denied to create database", "needs CREATEDB", code=1)
    finally:
        execute(shop.project.url, f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_filling_that_fails_fails_no_sign_up(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """What goes wrong behind a sign-up is told, and is not the sign-up's; the next one is copied."""
    shop.write(1)
    async with orchestrator.onboarding(shop.fleet) as desk:
        await desk.prepare()
        (template,) = fetch(
            shop.project.url, "SELECT datname FROM pg_database WHERE datistemplate AND datname ^@ 'orc'"
        )
        execute(shop.project.url, f'ALTER DATABASE "{template[0]}" IS_TEMPLATE false')
        execute(shop.project.url, f'DROP DATABASE "{template[0]}"')
        assert (await desk.onboard(shop.named("acme"))).satisfied

        async def told() -> str:
            return caplog.text

        await until(told, lambda text: "orchestrator onboard --prepare" in text)
        result = await desk.onboard(shop.named("globex"))
        assert (result.satisfied, result.tenants[0].path) == (True, "alembic")


async def test_owner(shop: Shop) -> None:
    """One that is taken gets its owner, as one that is made."""
    role = f"{shop.prefix}_owner"
    execute(shop.project.url, f"CREATE ROLE {role}")
    try:
        shop.write(1, owner=role)
        async with orchestrator.onboarding(shop.fleet, refill=False) as desk:
            await desk.prepare()
            assert (await desk.onboard(shop.named("acme"))).tenants[0].path == "pool"
        query = f"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{shop.prefix}_acme'"
        assert fetch(shop.project.url, query) == [(role,)]
    finally:
        execute(shop.project.url, f'DROP DATABASE IF EXISTS "{shop.prefix}_acme"')
        execute(shop.project.url, f"DROP ROLE {role}")
