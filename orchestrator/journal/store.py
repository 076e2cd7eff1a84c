"""The journal's database: an engine for either dialect, transactions on it, and its errors in plain words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import URL, AsyncAdaptedQueuePool, Connection, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from orchestrator.errors import JournalError
from orchestrator.journal import schema, sqlite_file
from orchestrator.journal.faults import explained

#: Seconds that a PostgreSQL server has for a connection and for each answer.
ANSWER_TIMEOUT = 10.0

#: Execution option: the statement that begins a transaction on SQLite.
_BEGIN = "orchestrator_journal_begin"


class Store:
    """One engine. Connections are opened when first needed and closed by :meth:`close`.

    Args:
        url: SQLAlchemy's address, for aiosqlite or asyncpg.
        connect_args: what else asyncpg is to be called with.
        place: the address for messages, secrets masked.
        read_only: write nothing, create nothing.
    """

    def __init__(self, url: URL, connect_args: Mapping[str, Any], place: str, *, read_only: bool) -> None:
        self.place = place
        self.dialect = url.get_backend_name()
        self._url = url
        self._connect_args = connect_args
        self._read_only = read_only
        self._check()
        self._engine = self._postgresql() if self.dialect == "postgresql" else self._sqlite()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading; its errors are raised as :class:`JournalError`."""
        with explained(self.place):
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end; its errors are raised as :class:`JournalError`."""
        with explained(self.place):
            async with self._engine.connect() as connection:
                # One that reads first and writes later could not wait for another writer: SQLite refuses it at once.
                await connection.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})
                try:
                    await connection.begin()
                    yield connection
                    await connection.commit()
                except BaseException:
                    if self.dialect == "postgresql":
                        # A server that gave no answer would let a ROLLBACK wait as long again.
                        await connection.invalidate()
                    raise

    async def prepare(self) -> None:
        """Bring the tables up to date.

        Raises:
            JournalError: the database cannot be used, or the journal is newer than this package.
        """
        if self.dialect == "sqlite":
            with explained(self.place):
                await sqlite_file.share(self._file)
        if await self._version() == schema.HEAD:
            return
        async with self.writing() as connection:
            await schema.bring_up_to_date(connection, self.place)

    async def look(self) -> bool:
        """Whether there is a journal to read.

        Raises:
            JournalError: the database cannot be used, or the journal has another format.
        """
        if self.dialect == "sqlite":
            with explained(self.place):
                if not self._file.exists():
                    return False
        version = await self._version()
        if version is not None and version != schema.HEAD:
            raise schema.unknown_format(version, self.place)
        return version is not None

    async def probe(self) -> None:
        """See whether the journal could be written, or made where it is missing; leaves nothing behind.

        Raises:
            JournalError: it could not.
        """
        # Only doctor needs it.
        from orchestrator.journal import probe

        with explained(self.place):
            if self.dialect == "sqlite":
                await probe.probe_file(self._file)
            else:
                exists = await self._version() is not None
                async with self._engine.connect() as connection:
                    await probe.probe_tables(connection, exists=exists)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @property
    def _file(self) -> Path:
        return Path(self._url.database or "")

    def _check(self) -> None:
        if self.dialect not in ("sqlite", "postgresql"):
            raise JournalError(
                f"the journal cannot live in {self.place}: only SQLite and PostgreSQL can hold it",
                hint="give `journal:` in tenants.yaml a postgresql:// or sqlite:/// address, or leave it out",
            )
        if self.dialect == "sqlite" and self._url.database in (None, "", ":memory:"):
            raise JournalError(
                "the journal cannot live in memory: it has to outlast the process",
                hint="give `journal:` in tenants.yaml a file, sqlite:////path/to/journal.db, or leave it out",
            )

    async def _version(self) -> str | None:
        async with self.reading() as connection:
            return await connection.run_sync(schema.read_version)

    def _postgresql(self) -> AsyncEngine:
        arguments = {"timeout": ANSWER_TIMEOUT, "command_timeout": ANSWER_TIMEOUT, **self._connect_args}
        # The one connection that is kept may have gone stale between two runs of a long process.
        return self._create(connect_args=arguments, pool_pre_ping=True)

    def _sqlite(self) -> AsyncEngine:
        engine = self._create(async_creator=partial(sqlite_file.connect, self._file, read_only=self._read_only))
        event.listen(engine.sync_engine, "begin", _begin)
        return engine

    def _create(self, **options: Any) -> AsyncEngine:
        return create_async_engine(
            self._url,
            poolclass=AsyncAdaptedQueuePool,
            pool_size=1,
            max_overflow=1,
            hide_parameters=True,
            **options,
        )


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))
