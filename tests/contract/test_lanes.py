"""Connections that serve one tenant after the other: how many there are, for how long, and what the next one finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy import text

from orchestrator.databases.failures import describe
from orchestrator.databases.postgresql import lanes as module
from orchestrator.databases.postgresql.adapter import PostgreSQL
from orchestrator.databases.postgresql.lanes import Lanes
from orchestrator.databases.postgresql.script import Step
from orchestrator.databases.postgresql.session import lock_key
from orchestrator.errors import Unprovisioned
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.tenant import Isolation, Limits, Server, Tenant
from tests.projects import until
from tests.servers import PostgresServer, execute, fetch

VERSIONS = "alembic_version"
#: What a session may hold, as a fresh one has it.
_HELD = (
    "SELECT current_user = session_user AS role, (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()"
    " AND locktype = 'advisory' AND objid = 5) AS locks, (SELECT count(*) FROM pg_prepared_statements) AS statements,"
    " (SELECT count(*) FROM pg_cursors WHERE name = 'left_over') AS cursors,"
    " (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()) AS tables,"
    " current_setting('search_path') AS path, current_setting('work_mem') AS work_mem,"
    " current_setting('lock_timeout') AS lock_timeout, current_setting('statement_timeout') AS statement_timeout,"
    " coalesce(current_setting('own.setting', true), '') AS own"
)
#: How a migration may leave a session.
LEFT = {
    "setting": "SET work_mem = '12MB'",
    "own setting": "SET own.setting = 'x'",
    "search_path": "SET search_path TO public",
    "role": "SET ROLE pg_monitor",
    "authorization": "SET SESSION AUTHORIZATION pg_monitor",
    "table": "CREATE TEMP TABLE accounts ()",
    "lock": "SELECT pg_advisory_lock(5)",
    "statement": "PREPARE left_over AS SELECT 1",
    "cursor": "DECLARE left_over CURSOR WITH HOLD FOR SELECT 1",
}
#: Settings whose end the adapter itself has to see to, and none.
_TIMEOUTS, _NO_TIMEOUTS = Limits(lock_timeout=1.5, statement_timeout=90), Limits()


class Opened:
    """What opens connections for lanes, and keeps all of them."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.connections: list[asyncpg.Connection] = []
        #: The most that were open at once.
        self.most = 0

    async def __call__(self, database: str | None) -> asyncpg.Connection:
        url = self._server.url if database is None else self._server.database_url(database)
        self.connections.append(await asyncpg.connect(url, statement_cache_size=0))
        self.most = max(self.most, self.open)
        return self.connections[-1]

    @property
    def open(self) -> int:
        """How many are open now."""
        return sum(not each.is_closed() for each in self.connections)


@pytest.fixture
async def opened(pg: PostgresServer) -> AsyncIterator[Opened]:
    """Connections of a test, closed after it."""
    opened = Opened(pg)
    yield opened
    for each in opened.connections:
        await each.close()


@pytest.fixture(scope="module")
def database(pg: PostgresServer) -> Iterator[str]:
    """One database for all tests here, each of which makes its schemas anew: making a database takes longer."""
    url = pg.create_database()
    yield url
    pg.drop_database(url)


@pytest.fixture
async def adapter(database: str) -> AsyncIterator[PostgreSQL]:
    """The adapter for a database with the schemas a and b, each at r1."""
    execute(
        database,
        "DROP SCHEMA IF EXISTS a, b CASCADE;"
        + ";".join(
            f"CREATE SCHEMA {name}; CREATE TABLE {name}.{VERSIONS} AS SELECT 'r1' AS version_num" for name in ("a", "b")
        ),
    )
    adapter = PostgreSQL(Server("main", Template(database, Path("/")), max_concurrency=2))
    yield adapter
    await adapter.close()


def tenant(schema: str | None, database: str | None = None) -> Tenant:
    """A tenant of a schema, or of a database of its own."""
    return Tenant(schema or "whole", "main", Isolation.SCHEMA if schema else Isolation.DATABASE, schema, database)


def step(*statements: str) -> Step:
    """One transaction from r1 to r2."""
    return Step(("r2",), ("r1",), ("r2",), statements)


async def replay(adapter: PostgreSQL, of: Tenant, *statements: str, limits: Limits = _NO_TIMEOUTS) -> None:
    """Replay one step on a tenant."""
    await adapter.replay(of, [step(*statements)], VERSIONS, "orchestrator", limits)


async def pid(lanes: Lanes, database: str | None = None) -> int:
    """The process that serves one more tenant."""
    async with lanes.taken(database) as lane:
        return lane.raw.get_server_pid()


async def test_tenants_of_one_database_share_a_connection(opened: Opened) -> None:
    """One after the other, they are served by one process."""
    lanes = Lanes(opened, 4)

    assert len({await pid(lanes) for _ in range(5)}) == 1
    await lanes.close()
    assert opened.open == 0


async def test_each_database_has_connections_of_its_own(opened: Opened, make_database: Callable[..., str]) -> None:
    """A connection never serves a tenant of another database."""
    names = [urlsplit(make_database()).path.lstrip("/") for _ in range(2)]
    lanes = Lanes(opened, 4)
    for name in [*names, *names]:
        async with lanes.taken(name) as lane:
            assert await lane.raw.fetchval("SELECT current_database()") == name
    assert len(opened.connections) == 2
    await lanes.close()


async def test_a_lowered_limit_holds(opened: Opened, make_database: Callable[..., str]) -> None:
    """A run that is given fewer places than the server was declared with keeps no more connections than that."""
    names = [urlsplit(make_database()).path.lstrip("/") for _ in range(3)]
    lanes = Lanes(opened, 4)
    lanes.limit = 1
    for name in names:
        await pid(lanes, name)

    assert (opened.most, lanes.open) == (1, 1)
    await lanes.close()


async def test_a_lock_is_let_go_at_once(opened: Opened, pg: PostgresServer) -> None:
    """A tenant's lock does not wait until somebody else wants its connection."""
    lanes = Lanes(opened, 1)
    async with lanes.taken(None) as lane:
        lane.used = lane.locked = True
        await lane.raw.execute("SELECT pg_advisory_lock(5)")

    assert lanes.open == 1
    assert fetch(pg.url, "SELECT pg_try_advisory_lock(5)")[0][0]
    await lanes.close()


async def test_questions_are_cleaned_up_after_when_it_matters(opened: Opened) -> None:
    """What a question has set is gone for whoever uses the connection next, and nobody waits for that before."""
    lanes = Lanes(opened, 1)
    async with lanes.taken(None) as lane:
        lane.used = True
        await lane.raw.execute("SET work_mem = '12MB'")
    assert await opened.connections[0].fetchval("SHOW work_mem") == "12MB"

    async with lanes.taken(None) as lane:
        assert await lane.raw.fetchval("SHOW work_mem") != "12MB"
    assert len(opened.connections) == 1
    await lanes.close()


async def test_a_connection_is_closed_after_so_many_tenants(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend never forgets a table that it has seen, so each serves a bounded number of tenants."""
    monkeypatch.setattr(module, "_USES", 3)
    lanes = Lanes(opened, 1)

    served = [await pid(lanes) for _ in range(7)]

    assert [served.count(each) for each in dict.fromkeys(served)] == [3, 3, 1]
    await lanes.close()


async def test_no_more_connections_than_the_limit(opened: Opened, make_database: Callable[..., str]) -> None:
    """Tenants of five databases, two at once, in any order: never a third connection, idle ones included."""
    names = [urlsplit(make_database()).path.lstrip("/") for _ in range(5)]
    lanes, places = Lanes(opened, 2), asyncio.Semaphore(2)

    async def serve(name: str) -> None:
        async with places, lanes.taken(name) as lane:
            await lane.raw.fetchval("SELECT 1")

    await asyncio.gather(*(serve(names[number * 3 % 5]) for number in range(25)))

    assert opened.most == 2
    await lanes.close()
    assert opened.open == 0


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, asyncpg.PostgresError])
async def test_after_an_error_the_connection_is_closed(opened: Opened, error: type[BaseException]) -> None:
    """Whatever is raised while a tenant is served, the next one has a new connection, and the limit still holds."""
    lanes = Lanes(opened, 1)
    with pytest.raises(error):
        async with lanes.taken(None):
            raise error

    assert opened.open == 0
    await pid(lanes)
    assert opened.most == 1
    await lanes.close()


async def test_cancelled_while_the_connection_is_cleaned(opened: Opened) -> None:
    """A connection whose cleaning is cut off is closed, not lost."""
    lanes, inside = Lanes(opened, 1), asyncio.Event()

    async def serve() -> None:
        async with lanes.taken(None) as lane:
            lane.used = lane.locked = True
            inside.set()

    serving = asyncio.create_task(serve())
    # Woken when the task waits for the next thing after the body: the answer to the cleaning.
    await inside.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving

    assert opened.open == 0
    await pid(lanes)
    await lanes.close()


async def test_in_a_transaction_it_is_not_handed_on(opened: Opened) -> None:
    """A transaction that was left open ends with its connection."""
    lanes = Lanes(opened, 1)
    async with lanes.taken(None) as lane:
        await lane.raw.execute("BEGIN")

    assert opened.open == 0


async def test_a_broken_connection_is_not_used_again(opened: Opened, pg: PostgresServer) -> None:
    """A connection that broke while it waited is passed over."""
    lanes = Lanes(opened, 1)
    first = await pid(lanes)
    execute(pg.url, f"SELECT pg_terminate_backend({first})")
    await until(lambda: asyncio.sleep(0, opened.open), lambda count: count == 0)

    assert await pid(lanes) != first
    assert len(lanes._idle) == 1
    await lanes.close()


async def test_no_connection_takes_no_place(opened: Opened) -> None:
    """A database that is not there leaves the count as it was."""
    lanes = Lanes(opened, 1)
    for _ in range(3):
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            await pid(lanes, "orc_missing")

    first = await pid(lanes)
    assert await pid(lanes) == first
    await lanes.close()


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
@pytest.mark.parametrize("next_way", ["session", "replay"])
async def test_what_alembic_left_in_a_session(adapter: PostgreSQL, database: str, left: str, next_way: str) -> None:
    """Whatever a migration left in its session, the next tenant's is as new."""
    async with adapter.session(tenant("a"), "orchestrator", _TIMEOUTS) as session:
        assert await session.try_lock()
        await session.connection.execute(text(left))
        await session.connection.commit()
        served = await _pid(session._raw)

    found, serves = await _found(adapter, next_way)

    assert found == await _fresh(database)
    assert serves == served
    assert fetch(database, f"SELECT pg_try_advisory_lock({_key(database, 'a')})")[0][0]


@pytest.mark.parametrize(
    "left",
    [
        "SELECT set_config('work_mem', '12MB', false), set_config('own.setting', 'x', false)",
        "SELECT set_config('role', 'pg_monitor', false)",
        "CREATE TEMP TABLE accounts ()",
        "CREATE TABLE pg_temp.accounts ()",
        "UPDATE alembic_version SET version_num = version_num WHERE pg_try_advisory_lock(5)",
        "PREPARE left_over AS SELECT 1",
    ],
)
@pytest.mark.parametrize("next_way", ["session", "replay"])
async def test_what_a_replay_left_in_a_session(adapter: PostgreSQL, database: str, left: str, next_way: str) -> None:
    """Whatever a replayed statement left in its session, the next tenant's is as new, on the same connection."""
    execute(database, f"GRANT ALL ON SCHEMA a TO pg_monitor; GRANT ALL ON a.{VERSIONS} TO pg_monitor")
    await replay(adapter, tenant("a"), left, limits=_TIMEOUTS)
    served = adapter._lanes._idle[0].raw.get_server_pid()

    found, serves = await _found(adapter, next_way)

    assert found == await _fresh(database)
    assert serves == served


async def test_a_failed_replay_gives_the_lock_back_at_once(adapter: PostgreSQL, database: str) -> None:
    """Who looks after a replay that failed finds the tenant free, without waiting for a backend to die."""
    key = _key(database, "a")
    other = await asyncpg.connect(database)
    try:
        for number in range(20):
            with pytest.raises(asyncpg.PostgresError):
                await replay(adapter, tenant("a"), f"CREATE TABLE t{number} ()", "SELECT 1 / 0")
            assert await other.fetchval("SELECT pg_try_advisory_lock($1)", key), f"locked at the {number + 1}. time"
            await other.execute("SELECT pg_advisory_unlock_all()")
    finally:
        await other.close()


async def test_a_schema_that_is_not_there(adapter: PostgreSQL) -> None:
    """Told as such, also on a connection that has served others."""
    await replay(adapter, tenant("a"))
    with pytest.raises(Unprovisioned):
        async with adapter.session(tenant("missing"), "orchestrator", Limits()):
            pass


async def test_names_of_the_default_schema(adapter: PostgreSQL) -> None:
    """On one connection, SQLAlchemy takes each tenant's own schema for the default."""
    names = []
    for id in ("a", "b", "a"):
        async with adapter.session(tenant(id), "orchestrator", Limits()) as session:
            names.append(session.connection.dialect.default_schema_name)
    assert names == ["a", "b", "a"]


async def test_a_replay_keeps_to_the_timeouts(adapter: PostgreSQL, database: str) -> None:
    """statement_timeout and lock_timeout hold within a script, for that tenant alone."""
    with pytest.raises(asyncpg.QueryCanceledError):
        await replay(adapter, tenant("a"), "SELECT pg_sleep(30)", limits=Limits(statement_timeout=0.05))
    other = await asyncpg.connect(database)
    try:
        await other.execute(f"BEGIN; LOCK TABLE b.{VERSIONS}")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await replay(adapter, tenant("b"), limits=Limits(lock_timeout=0.05))
    finally:
        await other.close()
    await replay(adapter, tenant("a"), "SELECT pg_sleep(0.1)")


def _key(url: str, schema: str) -> int:
    return lock_key(urlsplit(url).path.lstrip("/"), schema)


async def _pid(raw: asyncpg.Connection) -> int:
    return raw.get_server_pid()


async def _found(adapter: PostgreSQL, way: str) -> tuple[dict[str, object], int]:
    """What tenant b finds in its session, and the process that serves it."""
    if way == "session":
        async with adapter.session(tenant("b"), "orchestrator", Limits()) as session:
            return dict(await session._raw.fetchrow(_HELD)), session._raw.get_server_pid()
    await replay(adapter, tenant("b"), f"CREATE TABLE found AS {_HELD}")
    raw = adapter._lanes._idle[0].raw
    return dict(await raw.fetchrow("SELECT * FROM b.found")), raw.get_server_pid()


async def _fresh(url: str) -> dict[str, object]:
    """What it finds on a connection that has served nobody."""
    connection = await asyncpg.connect(url, statement_cache_size=0)
    try:
        await connection.execute("SELECT set_config('search_path', '\"b\"', false)")
        return dict(await connection.fetchrow(_HELD))
    finally:
        await connection.close()


async def test_ended_by_the_server_a_moment_ago(database: str) -> None:
    """What asyncpg says of a connection whose end was told, and is not there yet, is a lost connection's."""
    ended, gone = asyncio.Event(), asyncio.Event()
    server = urlsplit(database)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(server.hostname, server.port)

        async def tell() -> None:
            while told := await back.read(65536):
                writer.write(told)
            # The client hears no more of it: its side stays open.
            ended.set()

        telling = asyncio.create_task(tell())
        while asked := await reader.read(65536):
            forth.write(asked)
        await telling
        forth.close()
        writer.close()
        gone.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as relay:
        port = relay.sockets[0].getsockname()[1]
        raw = await asyncpg.connect(server._replace(netloc=f"postgres@127.0.0.1:{port}").geturl())
        execute(database, f"SELECT pg_terminate_backend({raw.get_server_pid()}, 10000)")
        await ended.wait()
        with pytest.raises(asyncpg.InternalClientError) as raised:
            await until(lambda: raw.execute("SELECT 1", timeout=10), lambda _: False)
        raw.terminate()
        await gone.wait()
    assert describe(raised.value).lost
