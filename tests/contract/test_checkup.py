"""What doctor finds on one server: every finding is made to come up on a real one, and goes with its cause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from orchestrator.databases import checkup_places, checkup_postgresql
from orchestrator.databases.checkup import Finding, Level, Need
from orchestrator.databases.connect import connect
from orchestrator.databases.embedded import EmbeddedServer
from orchestrator.databases.port import Database
from orchestrator.databases.postgresql import lock_key
from orchestrator.fleet.secrets import Template
from orchestrator.fleet.tenant import Isolation, Limits, Server, Tenant
from tests.projects import until, with_role
from tests.servers import SETTINGS, PostgresServer, connect_to, execute, fetch

RUN = "20261125-101112-abcde"
LIMITS = Limits(lock_timeout=2, statement_timeout=3600)
#: Few of everything: connections, locks, prepared transactions; and commits that wait for their replicas.
TIGHT = {
    **SETTINGS,
    "max_connections": "12",
    "max_locks_per_transaction": "10",
    "max_prepared_transactions": "2",
    "synchronous_commit": "on",
}


def adapter(url: str, **keys: Any) -> Database:
    """The server at ``url``."""
    return connect(Server("main", Template(url, Path("/")), **keys))


def schema(id: str) -> Tenant:
    """A tenant with a schema of the database in the server's address."""
    return Tenant(id, "main", Isolation.SCHEMA, schema=id)


async def look(
    url: str, *tenants: Tenant, limits: Limits = LIMITS, pending: bool = True, **keys: Any
) -> dict[str, Finding]:
    """Findings by what was looked at, the worst one of each."""
    need = Need(tenants, frozenset(tenant.id for tenant in tenants if pending), limits, "alembic_version")
    found: dict[str, Finding] = {}
    for finding in await adapter(url, **keys).examine(need):
        worse = [Level.OK, Level.NOTE, Level.PROBLEM].index
        if finding.check not in found or worse(finding.level) > worse(found[finding.check].level):
            found[finding.check] = finding
    return found


@pytest.fixture
def role(pg: PostgresServer, database: str) -> Iterator[str]:
    """Address of the test's database for a role that has no rights but to log in."""
    name = urlsplit(database).path.lstrip("/") + "_migrator"
    execute(pg.url, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    yield with_role(database, name, "secret")
    execute(database, f"DROP OWNED BY {name} CASCADE")
    execute(pg.url, f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.fixture(scope="module")
def tight() -> Iterator[PostgresServer]:
    """A server with little of everything."""
    embedded = EmbeddedServer.start(None, TIGHT)
    yield connect_to(embedded.url, embedded)
    embedded.stop()


def user(url: str) -> str:
    """The role of an address."""
    name = urlsplit(url).username
    assert name is not None
    return name


async def test_nothing_is_wrong(database: str) -> None:
    """On a server as it should be, everything is ok and says what was measured."""
    execute(database, "CREATE SCHEMA a")

    found = await look(database, schema("a"))

    assert {check: finding.level for check, finding in found.items()} == dict.fromkeys(
        ["reachable", "version", "pooler", "connections", "lock_room", "clock", "writable", "replicas", "timeouts",
         "rights", "long_transactions", "prepared_transactions", "locks"], Level.OK
    )  # fmt: skip
    measured = found["timeouts"].measured
    assert (measured["lock_timeout_ms"], measured["statement_timeout_ms"]) == (2000, 3_600_000)
    number = fetch(database, "SELECT split_part(current_setting('server_version'), ' ', 1)")[0][0]
    assert found["version"].measured == {"version": number, "supported": True}
    assert abs(found["clock"].measured["ahead_s"]) < 1


async def test_unreachable() -> None:
    """A server that gives no connection is a problem, and nothing else is said of it."""
    (finding,) = (await look("postgresql://nobody@127.0.0.1:1/app", schema("a"))).values()

    assert (finding.check, finding.level) == ("reachable", Level.PROBLEM)
    assert "127.0.0.1:1" in finding.message


async def test_rights_of_a_role_without_any(database: str, role: str) -> None:
    """A role without rights on a schema is a problem, and what the hint says to grant mends it."""
    execute(database, "CREATE SCHEMA a; CREATE TABLE a.alembic_version (version_num text)")
    hints = []
    while (finding := (await look(role, schema("a")))["rights"]).level is Level.PROBLEM and len(hints) < 3:
        assert finding.tenants == ("a",)
        assert finding.hint is not None
        hints.append(finding.hint)
        if not finding.hint.startswith("GRANT"):
            break
        execute(database, finding.hint.replace("the role in the server's url", user(role)))

    assert [hint.split(" ON ")[0] for hint in hints[:2]] == [
        "GRANT USAGE, CREATE",
        "GRANT SELECT, INSERT, UPDATE, DELETE",
    ]
    assert "a.alembic_version" in finding.message
    execute(database, f"ALTER TABLE a.alembic_version OWNER TO {user(role)}")
    assert (await look(role, schema("a")))["rights"].level is Level.OK


async def test_tables_of_another_owner(database: str, role: str) -> None:
    """A table that the role does not own is a problem for a tenant with revisions to run, else a note."""
    execute(database, f"CREATE SCHEMA a AUTHORIZATION {user(role)}; CREATE TABLE a.accounts (id int)")

    finding = (await look(role, schema("a")))["rights"]

    assert (finding.level, finding.tenants) == (Level.PROBLEM, ("a",))
    assert "does not own a.accounts" in finding.message
    assert (await look(role, schema("a"), pending=False))["rights"].level is Level.NOTE


async def test_missing_places(database: str, role: str) -> None:
    """A missing schema or database is a note for who may make it, and a problem for who may not."""
    own = Tenant("own", "main", Isolation.DATABASE, database="orc_test_not_there")

    assert (await look(database, schema("a"), own))["places"].level is Level.NOTE
    finding = (await look(role, schema("a"), own))["places"]
    assert (finding.level, set(finding.tenants)) == (Level.PROBLEM, {"a", "own"})

    execute(database, f'GRANT CREATE ON DATABASE "{urlsplit(database).path[1:]}" TO {user(role)}')
    execute(database, f"ALTER ROLE {user(role)} CREATEDB")
    assert (await look(role, schema("a"), own))["places"].level is Level.NOTE


async def test_schema_of_a_database_tenant(database: str, role: str) -> None:
    """A tenant with a database of its own needs rights on the schema that its search path finds."""
    whole = Tenant("whole", "main", Isolation.DATABASE, database=urlsplit(database).path[1:])
    execute(database, "REVOKE CREATE ON SCHEMA public FROM public")

    finding = (await look(role, whole))["rights"]

    assert finding.level is Level.PROBLEM
    assert 'ON SCHEMA "public"' in (finding.hint or "")
    execute(database, f"GRANT CREATE ON SCHEMA public TO {user(role)}")
    assert (await look(role, whole))["rights"].level is Level.OK


async def test_extensions_schema(database: str, role: str) -> None:
    """A missing extensions_schema is a note, one that the role may not use a problem."""
    execute(database, f"CREATE SCHEMA a AUTHORIZATION {user(role)}")

    assert (await look(role, schema("a"), extensions_schema="ext"))["rights"].level is Level.NOTE
    execute(database, "CREATE SCHEMA ext")
    assert (await look(role, schema("a"), extensions_schema="ext"))["rights"].level is Level.PROBLEM
    execute(database, f"GRANT USAGE ON SCHEMA ext TO {user(role)}")
    assert (await look(role, schema("a"), extensions_schema="ext"))["rights"].level is Level.OK


async def test_role_that_only_reads(database: str, role: str) -> None:
    """A role whose transactions are read-only, or whose connections are limited, is a problem."""
    execute(database, f"ALTER ROLE {user(role)} SET default_transaction_read_only = on")
    execute(database, f"ALTER ROLE {user(role)} CONNECTION LIMIT 3")

    found = await look(role, max_concurrency=8)

    assert found["writable"].level is Level.PROBLEM
    assert found["connections"].level is Level.PROBLEM
    assert found["connections"].measured["role_limit"] == 3


@pytest.mark.parametrize("sees_all", [False, True])
async def test_sessions_of_others(database: str, role: str, sees_all: bool) -> None:
    """A role without pg_read_all_stats still counts all connections, and doctor says what it could not see."""
    if sees_all:
        execute(database, f"GRANT pg_read_all_stats TO {user(role)}")
    first = await adapter(role).free_connections()
    assert first is not None
    async with asyncpg_connection(database), asyncpg_connection(database):
        assert await adapter(role).free_connections() == first - 2
        finding = (await look(role, schema("a")))["long_transactions"]

    assert finding.measured.get("unseen") == (None if sees_all else 2)
    assert ("could not be looked into" in finding.message) is not sees_all


@asynccontextmanager
async def asyncpg_connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A session of somebody else's."""
    connection = await asyncpg.connect(url, server_settings={"application_name": "the application"})
    try:
        yield connection
    finally:
        await connection.close()


async def test_long_transaction(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long transaction is a problem where it holds locks of a tenant that is to be migrated, else a note."""
    monkeypatch.setattr(checkup_places, "_LONG", 0.0)
    execute(database, "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.accounts (id int)")
    async with asyncpg_connection(database) as other, other.transaction():
        await other.execute("SELECT * FROM a.accounts")
        pid = other.get_server_pid()

        finding = (await look(database, schema("a"), schema("b")))["long_transactions"]
        assert (finding.level, finding.tenants) == (Level.PROBLEM, ("a",))
        assert f"the application (pid {pid})" in finding.message
        (transaction,) = finding.measured["transactions"]
        assert transaction["pid"] == pid
        assert transaction["query_started_at"] is not None
        assert (await look(database, schema("b")))["long_transactions"].level is Level.NOTE
        assert (await look(database, schema("a"), pending=False))["long_transactions"].level is Level.NOTE


async def test_prepared_transaction(tight: PostgresServer) -> None:
    """A prepared transaction that holds a tenant's locks is a problem; the hint's first command ends it."""
    url = tight.create_database()
    execute(url, "CREATE SCHEMA a; CREATE TABLE a.accounts (id int)")
    execute(url, "BEGIN; LOCK a.accounts; INSERT INTO a.accounts VALUES (1); PREPARE TRANSACTION 'it''s left'")

    finding = (await look(url, schema("a")))["prepared_transactions"]

    assert (finding.level, finding.tenants) == (Level.PROBLEM, ("a",))
    assert finding.measured["transactions"][0]["gid"] == "it's left"
    execute(url, (finding.hint or "").partition(",")[0])
    assert (await look(url, schema("a")))["prepared_transactions"].level is Level.OK


async def test_room_for_locks_and_connections(tight: PostgresServer) -> None:
    """More relations than the lock table has room for are a problem; few free connections are a note."""
    url = tight.create_database()
    execute(url, "CREATE SCHEMA a; CREATE SCHEMA b")
    assert (await look(url, schema("a")))["lock_room"].level is Level.OK
    for part in range(10):
        tables = range(part * 30, part * 30 + 15)
        execute(url, "; ".join(f"CREATE TABLE a.t{number} (id int PRIMARY KEY)" for number in tables))

    found = await look(url, schema("a"), schema("b"), max_concurrency=8)

    room = found["lock_room"]
    assert (room.level, room.measured["largest_tenant"], room.measured["room"]) == (Level.PROBLEM, 300, 140)
    assert found["connections"].level is Level.NOTE
    assert found["connections"].measured["at_once"] == found["connections"].measured["free"] // 4 == 2


async def test_replica_that_every_commit_waits_for(tight: PostgresServer) -> None:
    """Without a synchronous replica that is asked for, no commit would come back."""
    connection = await asyncpg.connect(tight.url)
    try:
        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'somebody'")
        await connection.execute("SELECT pg_reload_conf()")
        shown = "SELECT current_setting('synchronous_standby_names')"
        await until(lambda: connection.fetchval(shown), lambda value: value == "somebody")
        finding = (await look(tight.url))["replicas"]
    finally:
        await connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await connection.execute("SELECT pg_reload_conf()")
        await until(lambda: connection.fetchval(shown), lambda value: value == "")
        await connection.close()

    assert finding.level is Level.PROBLEM
    assert "every commit would wait" in finding.message


async def test_clock(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose clock is a minute from ours is a note that says which way."""
    ours = checkup_postgresql.time.time
    monkeypatch.setattr(checkup_postgresql.time, "time", lambda: ours() + 60)

    finding = (await look(database))["clock"]

    assert finding.level is Level.NOTE
    assert "behind" in finding.message
    assert -61 < finding.measured["ahead_s"] < -59


async def test_timeouts_in_force(database: str) -> None:
    """Without a lock_timeout the finding is a note; what is measured is what the session has."""
    finding = (await look(database, schema("a"), limits=Limits(lock_timeout=0)))["timeouts"]

    assert finding.level is Level.NOTE
    assert finding.measured["lock_timeout_ms"] == 0
    assert finding.measured["client_connection_check_interval_ms"] == 1000


async def test_lock_that_a_run_holds(database: str, role: str) -> None:
    """A tenant's lock says who holds it, by application, process and run, also to a role that sees nothing else."""
    execute(database, "CREATE SCHEMA a; CREATE SCHEMA b")
    holder = adapter(database)
    async with holder.session(schema("a"), f"orchestrator {RUN} a", LIMITS) as session:
        assert await session.try_lock()
        pid = await session.connection.scalar(checkup_pid())
        for url in (database, role):
            finding = (await look(url, schema("a"), schema("b")))["locks"]
            assert (finding.level, finding.tenants) == (Level.NOTE, ("a",))
            assert f"orchestrator {RUN} a (pid {pid}" in finding.message
            assert (finding.measured["run"], finding.measured["pid"]) == (RUN, pid)
        execute(database, f"GRANT USAGE, CREATE ON SCHEMA a TO {user(role)}")
        other = adapter(role)
        async with other.session(schema("a"), "another", LIMITS) as second:
            assert not await second.try_lock()
            assert await second.lock_holder() == f"orchestrator {RUN} a (pid {pid})"
        await other.close()
    await holder.close()
    assert (await look(database, schema("a")))["locks"].level is Level.OK


def checkup_pid() -> object:
    """The query for a session's own process."""
    from sqlalchemy import text

    return text("SELECT pg_backend_pid()")


async def test_lock_that_somebody_else_holds(database: str) -> None:
    """A tenant's lock in the hands of what is no run is a problem, and the hint ends it."""
    execute(database, "CREATE SCHEMA a")
    key = lock_key(urlsplit(database).path[1:], "a")
    async with asyncpg_connection(database) as other:
        await other.execute(f"SELECT pg_advisory_lock({key})")

        finding = (await look(database, schema("a")))["locks"]

        assert (finding.level, finding.tenants, finding.measured["run"]) == (Level.PROBLEM, ("a",), None)
        execute(database, (finding.hint or "").partition("; ")[2].removesuffix(" ends it"))
        ended = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND database ="
        ended += " (SELECT oid FROM pg_database WHERE datname = current_database())"
        async with asyncpg_connection(database) as looking:
            await until(lambda: looking.fetch(ended), lambda rows: not rows)
    assert (await look(database, schema("a")))["locks"].level is Level.OK


def test_lock_keys_of_places() -> None:
    """A lock's key comes from database and schema: no two places have one, and each process finds the same."""
    places = [(f"{database}", schema) for database in ("a", "b", "ab") for schema in (None, "a", "b", "ab", "c.d")]

    assert len({lock_key(*place) for place in places}) == len(places)
    assert lock_key("app", "acme") == -6423067359324970393


@asynccontextmanager
async def other_pid(url: str) -> AsyncIterator[str]:
    """Address of something in between that announces another process than the one that answers, as poolers do."""
    parts = urlsplit(url)

    async def pipe(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes]
    ) -> None:
        while data := await reader.read(65536):
            writer.write(change(data))
        writer.close()

    def announce(data: bytes) -> bytes:
        at = data.find(b"K\0\0\0\x0c")
        return data if at < 0 else data[: at + 5] + b"\0\0\0\x01" + data[at + 9 :]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(parts.hostname, parts.port)
        await asyncio.gather(pipe(reader, server_writer, lambda data: data), pipe(server_reader, writer, announce))

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}").geturl()


async def test_pooler_in_between(database: str) -> None:
    """Another process answers than the one that was announced: something stands in between."""
    async with other_pid(database) as url:
        finding = (await look(url))["pooler"]

    assert finding.level is Level.NOTE
    assert "a pooler is in between" in finding.message
    assert finding.measured["announced_pid"] == 1


def files(directory: Path, id: str) -> Tenant:
    """A tenant in a SQLite file."""
    return Tenant(id, "main", Isolation.FILE, file=str(directory / f"{id}.db"))


async def test_sqlite(tmp_path: Path) -> None:
    """Of SQLite files, doctor says which are missing, which cannot be made, and who holds a tenant."""
    url, a, b = f"sqlite:///{tmp_path}", files(tmp_path, "a"), files(tmp_path / "a.db", "b")
    database = adapter(url)

    assert (await look(url, a))["places"].level is Level.NOTE
    await database.provision(a)
    assert "places" not in await look(url, a)
    finding = (await look(url, a, b))["places"]
    assert (finding.level, finding.tenants) == (Level.PROBLEM, ("b",))

    async with database.session(a, f"orchestrator {RUN} a", LIMITS) as session:
        assert await session.try_lock()
        held = (await look(url, a))["locks"]
        assert (held.level, held.tenants) == (Level.NOTE, ("a",))
        assert f"orchestrator {RUN} a (pid " in held.message
    assert (await look(url, a))["locks"].level is Level.OK


async def test_sqlite_directory_in_the_files_place(tmp_path: Path) -> None:
    """What cannot be written as a file is a problem of rights."""
    (tmp_path / "a.db").mkdir()

    assert (await look(f"sqlite:///{tmp_path}", files(tmp_path, "a")))["rights"].level is Level.PROBLEM


def test_fetch_sees_nothing_left(database: str) -> None:
    """Looking leaves nothing behind: no session, no object."""
    execute(database, "CREATE SCHEMA a")
    before = fetch(database, "SELECT relname FROM pg_class ORDER BY 1")
    asyncio.run(look(database, schema("a")))

    assert fetch(database, "SELECT relname FROM pg_class ORDER BY 1") == before
    others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    assert fetch(database, f"{others} AND application_name = 'orchestrator doctor'") == []
