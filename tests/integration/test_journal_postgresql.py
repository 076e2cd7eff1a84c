"""The journal in a PostgreSQL database: the contract, and a server that refuses, falls silent or goes away."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import URL, make_url

from orchestrator.errors import JournalError
from orchestrator.journal import schema, store
from orchestrator.journal.journal import Journal
from orchestrator.statuses import RunStatus, TenantStatus
from tests.servers import execute, fetch
from tests.unit.journal.contract import JournalContract
from tests.unit.journal.samples import MOMENT, a_run, an_attempt, opened


def _for_asyncpg(address: str) -> URL:
    return make_url(address).set(drivername="postgresql+asyncpg")


@pytest.fixture
def address(database: str) -> URL:
    """An empty database."""
    return _for_asyncpg(database)


async def _refused(url: URL, root: Path) -> JournalError:
    with pytest.raises(JournalError) as caught:
        await Journal.open(url, root=root)
    return caught.value


class Relay:
    """A TCP relay before the server that can fall silent without closing anything."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def fall_silent(self) -> None:
        """Pass nothing on from now on."""
        self._open.clear()

    async def stop(self) -> None:
        """End everything."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(*self._target)
        for source, sink in ((reader, onward_writer), (onward_reader, writer)):
            self._tasks.add(asyncio.create_task(self._pass_on(source, sink)))

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                await self._open.wait()
                sink.write(data)
        finally:
            sink.close()


@pytest.fixture
async def relay(address: URL) -> AsyncIterator[tuple[Relay, URL]]:
    """A relay, and the address of the database behind it."""
    relay = Relay(address.host or "127.0.0.1", address.port or 5432)
    yield relay, address.set(host="127.0.0.1", port=await relay.start())
    await relay.stop()


class TestOnPostgresql(JournalContract):
    """Every promise of the contract."""


async def test_no_connection_is_left_behind(address: URL, database: str, tmp_path: Path) -> None:
    """A server's connections are counted, and the journal's are among them."""
    async with opened(address, tmp_path) as journal:
        await journal.start_run(a_run(), [])
        await journal.runs()
        mine = (
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection = await asyncpg.connect(database)
        assert await connection.fetchval(mine) == 1
    async with asyncio.timeout(10):
        while await connection.fetchval(mine):  # noqa: ASYNC110  # a backend takes a moment to end
            await asyncio.sleep(0.01)
    await connection.close()


async def test_a_database_that_is_missing(address: URL, tmp_path: Path) -> None:
    """Named, with the hint to create it."""
    error = await _refused(address.set(database="orc_no_such_database"), tmp_path)
    assert 'database "orc_no_such_database" does not exist' in error.message
    assert "create that database" in (error.hint or "")


async def test_nobody_listens(tmp_path: Path) -> None:
    """The address is named without its password."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = URL.create("postgresql+asyncpg", "me", "pass-hunter2", "127.0.0.1", unused.getsockname()[1], "app")
        error = await _refused(url, tmp_path)
    assert f"postgresql+asyncpg://me:***@127.0.0.1:{url.port}/app" in error.message
    assert "hunter2" not in f"{error.message} {error.hint}"
    assert error.hint


async def test_a_user_that_may_not_create_tables(address: URL, database: str, tmp_path: Path) -> None:
    """The database's own words, and what to grant."""
    role = f"{address.database}_reader"
    execute(database, f'CREATE ROLE "{role}" LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC')
    try:
        error = await _refused(address.set(username=role), tmp_path)
        assert "permission denied for schema public" in error.message
        assert "grant its user CREATE" in (error.hint or "")
    finally:
        execute(database, f'DROP ROLE "{role}"')


async def test_tables_go_where_the_search_path_says(address: URL, database: str, tmp_path: Path) -> None:
    """A shared database gets them in the schema that the address names."""
    execute(database, "CREATE SCHEMA ops")
    arguments = {"server_settings": {"search_path": "ops"}}
    for _ in range(2):
        journal = await Journal.open(address, arguments, root=tmp_path)
        await journal.start_run(a_run(), [])
        await journal.close()
    rows = fetch(database, "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename LIKE 'orchestrator%'")
    assert [row["schemaname"] for row in rows] == ["ops"]
    assert fetch(database, "SELECT count(*) AS n FROM ops.orchestrator_runs")[0]["n"] == 2


async def test_another_process_hangs_while_making_the_tables(
    address: URL, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not waited for without end; once it is gone, opening works."""
    monkeypatch.setattr(schema, "LOCK_WAIT", 0.1)
    other = await asyncpg.connect(database)
    await other.execute(f"SELECT pg_advisory_lock({schema.LOCK_KEY})")
    error = await _refused(address, tmp_path)
    assert "another process has been creating" in error.message
    assert "pg_stat_activity" in (error.hint or "")
    await other.close()
    async with opened(address, tmp_path) as journal:
        assert journal.exists


async def test_a_lost_connection_is_made_again(address: URL, database: str, tmp_path: Path) -> None:
    """An administrator ends it, the server restarts: the next batch finds its way."""
    run = a_run()
    async with opened(address, tmp_path) as journal:
        await journal.start_run(run, [an_attempt(run, "acme")])
        execute(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        journal.record(an_attempt(run, "acme", status=TenantStatus.SUCCEEDED))
        await journal.finish_run(run.id, RunStatus.SUCCEEDED, MOMENT)
        assert [found.status for found in await journal.attempts(run.id)] == [TenantStatus.SUCCEEDED]
        assert (await journal.run(run.id)).status is RunStatus.SUCCEEDED


async def test_a_server_that_falls_silent_does_not_hang_the_run(
    relay: tuple[Relay, URL], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut cable sends no error: the wait is bounded, the run ends, and its records are saved."""
    monkeypatch.setattr(store, "ANSWER_TIMEOUT", 0.2)
    run = a_run()
    journal = await Journal.open(relay[1], root=tmp_path)
    await journal.start_run(run, [an_attempt(run, "acme")])
    relay[0].fall_silent()
    journal.record(an_attempt(run, "acme", status=TenantStatus.SUCCEEDED))
    async with asyncio.timeout(20):
        await journal.finish_run(run.id, RunStatus.SUCCEEDED, MOMENT)
        with pytest.raises(JournalError, match="no answer in time"):
            await journal.close()
    assert list((tmp_path / ".orchestrator").glob(f"unsaved-{run.id}.jsonl"))
