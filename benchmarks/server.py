"""The server that is measured on, and the databases on it: every run starts from a fresh copy of a prepared one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from benchmarks.measuring import RunError
from orchestrator.databases.embedded import EmbeddedServer

#: What all databases that are made here are called; whatever else a server holds is not touched.
PREFIX = "orc_bench_"
#: Relations that one statement may lock at default max_locks_per_transaction, with room to spare.
_CHUNK = 300
#: Catalogs that a prepared database has grown by.
_CATALOGS = (
    *("pg_attribute", "pg_class", "pg_constraint", "pg_depend", "pg_index", "pg_namespace", "pg_sequence"),
    *("pg_attrdef", "pg_type", "pg_shdepend"),
)


#: Seconds within which a server must have read its settings.
_RELOAD_S = 10.0


class Server:
    """A PostgreSQL server."""

    def __init__(self, url: str, own: bool) -> None:
        #: Address of a superuser: ``postgresql://user@host:port/database``.
        self.url = url
        #: Whether its settings are ours to change.
        self.own = own
        self.version = int(self.fetch(url, "SHOW server_version_num")[0][0])

    def database_url(self, name: str) -> str:
        """Address of one of its databases."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def create(self, name: str, template: str | None = None) -> str:
        """Make the database ``name`` anew, as a copy of ``template``, and return its address."""
        self.drop(name)
        # File by file is the quicker way for many files; older servers know no other.
        strategy = " STRATEGY FILE_COPY" if template and self.version >= 150000 else ""
        source = f' TEMPLATE "{template}"{strategy}' if template else ""
        self.execute(self.url, f'CREATE DATABASE "{name}"{source}')
        return self.database_url(name)

    def drop(self, name: str) -> None:
        """Remove the database ``name`` and whoever is connected to it, where there is one."""
        assert name.startswith(PREFIX)
        self.execute(self.url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Thousands of files are made or undone here, and none of it is timed.

        On a server of our own nothing is synchronised until the end, where all is at once: file by file would take many
        times as long. What is pending is then written out, so that nobody pays for what was prepared.
        """
        if self.own:
            self._synchronise("off")
        try:
            yield
        finally:
            self.execute(self.url, "CHECKPOINT")
            if self.own:
                os.sync()
                self._synchronise("on")

    def _synchronise(self, value: str) -> None:
        self.execute(self.url, f"ALTER SYSTEM SET fsync = {value}", "SELECT pg_reload_conf()")
        deadline = time.monotonic() + _RELOAD_S
        # The server takes its settings up in its own time.
        while self.fetch(self.url, "SHOW fsync")[0][0] != value:
            if time.monotonic() > deadline:
                raise RunError(f"fsync did not become {value}")

    def vacuum(self, url: str) -> None:
        """Leave the catalogs as autovacuum would in time: free space known, numbers true for the planner."""
        self.execute(url, *(f"VACUUM ANALYZE {catalog}" for catalog in _CATALOGS))

    def execute(self, url: str, *scripts: str) -> None:
        """Run scripts one after the other on one connection."""

        async def run() -> None:
            connection = await asyncpg.connect(url)
            try:
                for script in scripts:
                    await connection.execute(script)
            finally:
                await connection.close()

        asyncio.run(run())

    def fetch(self, url: str, *queries: str) -> list[asyncpg.Record]:
        """The rows of all queries."""

        async def run() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(url)
            try:
                return [row for query in queries for row in await connection.fetch(query)]
            finally:
                await connection.close()

        return asyncio.run(run())

    def expect(self, url: str, schemas: Sequence[str], head: str, index: str | None) -> None:
        """See that the work was done.

        Args:
            url: the database.
            schemas: which tenants.
            head: what each one's version table must hold.
            index: what each of them must have, valid; ``None`` for nothing.

        Raises:
            RunError: a tenant is not so.
        """
        self._expect_rows(url, (f'SELECT version_num FROM "{name}".alembic_version' for name in schemas), head)
        if index is not None:
            query = (
                "SELECT count(*) FROM pg_class JOIN pg_index ON indexrelid = pg_class.oid"
                f" WHERE indisvalid AND relname = '{index}'"
            )
            found = self.fetch(url, query)[0][0]
            if found != len(schemas):
                raise RunError(f"{found} of {len(schemas)} tenants have {index}")

    def _expect_rows(self, url: str, queries: Iterable[str], value: str) -> None:
        every = list(queries)
        chunks = (every[start : start + _CHUNK] for start in range(0, len(every), _CHUNK))
        rows = self.fetch(url, *(" UNION ALL ".join(chunk) for chunk in chunks))
        wrong = len(every) - sum(row[0] == value for row in rows)
        if wrong or len(rows) != len(every):
            raise RunError(f"{wrong} of {len(every)} tenants are not at {value}")

    def remove_all(self) -> None:
        """Drop every database that was made here."""
        rows = self.fetch(self.url, f"SELECT datname FROM pg_database WHERE datname LIKE '{PREFIX}%'")
        for row in rows:
            if row[0].startswith(PREFIX):
                self.drop(row[0])


@contextmanager
def running() -> Iterator[Server]:
    """The server at BENCH_PG_URL, or one of our own: as it comes, fsync and all."""
    address = os.environ.get("BENCH_PG_URL")
    if address is None:
        with EmbeddedServer.start() as embedded:
            yield Server(embedded.url, own=True)
        return
    server = Server(address, own=False)
    server.remove_all()
    try:
        yield server
    finally:
        server.remove_all()
