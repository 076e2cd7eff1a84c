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
from orchestrator.journal.faults import ELSEWHERE, explained, put_away

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
        #: Opened for reading in an earlier format.
        self.is_earlier = False
        self.dialect = url.get_backend_name()
        self._url = url
        self._connect_args = connect_args
        self._read_only = read_only
        self._check()
        self._seen: sqlite_file.Seen | None = None
        self._engine = self._new_engine()

    def again(self) -> Store:
        """The same database, for another event loop."""
        return Store(self._url, self._connect_args, self.place, read_only=self._read_only)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading; its errors are raised as :class:`JournalError`."""
        with explained(self.place):
            self._look_at_file()
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self, *, durable: bool = False) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end; its errors are raised as :class:`JournalError`.

        Args:
            durable: outlive a power failure, too; a server sees to that anyway.
        """
        with explained(self.place):
            self._look_at_file()
            async with self._engine.connect() as connection, self._synchronous(connection, durable):
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

    @property
    def is_lost(self) -> bool:
        """The file that this store has written is no longer in its place."""
        return self._seen is not None and self._seen.is_gone(self._file)

    async def renew(self) -> None:
        """Begin anew where the file was removed, or another one was put in its place.

        Raises:
            JournalError: it cannot be made.
        """
        await self._engine.dispose()
        self._seen = None
        self._engine = self._new_engine()
        await self.prepare()

    async def prepare(self) -> None:
        """Bring the tables up to date.

        Raises:
            JournalError: the database cannot be used, or the journal is newer than this package.
        """
        if self.dialect == "sqlite":
            with explained(self.place):
                await sqlite_file.share(self._file)
        if await self._version() != schema.HEAD:
            async with self.writing() as connection:
                await schema.bring_up_to_date(connection, self.place)
        if self.dialect == "sqlite":
            with explained(self.place):
                self._seen = sqlite_file.Seen.now(self._file)

    async def look(self) -> bool:
        """Whether there is a journal to read.

        Raises:
            JournalError: the database cannot be used, or the journal has another format.
        """
        if self.dialect == "sqlite":
            with explained(self.place):
                # Not exists(), to which a file in the directory's place is the same as nothing at all.
                try:
                    self._file.stat()
                except FileNotFoundError:
                    return False
        version = await self._version()
        self.is_earlier = version in schema.EARLIER
        if version not in (None, schema.HEAD) and not self.is_earlier:
            raise schema.unknown_format(str(version), self.place)
        return version is not None

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

    def _look_at_file(self) -> None:
        """SQLite would write to a file that nobody finds any more, and say that all is well."""
        if self._seen is None:
            return
        if self._seen.is_gone(self._file):
            raise JournalError(f"the journal {self.place} was removed while it was in use", hint=ELSEWHERE)
        if self._seen.is_cut_off(self._file):
            raise JournalError(f"the journal {self.place} was cut off while it was in use", hint=put_away(self.place))

    @asynccontextmanager
    async def _synchronous(self, connection: AsyncConnection, durable: bool) -> AsyncIterator[None]:
        if not durable or self.dialect != "sqlite":
            yield
            return
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.execute_fetchall("PRAGMA synchronous = FULL")
        try:
            yield
        finally:
            await raw.execute_fetchall("PRAGMA synchronous = NORMAL")

    def _new_engine(self) -> AsyncEngine:
        return self._postgresql() if self.dialect == "postgresql" else self._sqlite()

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
