"""Connections to one PostgreSQL server that serve one tenant after the other, each left clean for the next.

A connection costs the server a process and the client a round of questions, more than most migrations. So one that
served a tenant well serves the next one of the same database, and before that it reads where all of them stand;
anything doubtful closes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

#: Tenants that one connection serves. A backend remembers every table it has seen, and never forgets.
_USES = 500


@dataclass(slots=True)
class Lane:
    """One connection, used by one tenant at a time."""

    raw: asyncpg.Connection
    #: As the tenants name it; ``None`` for the database of the server's address.
    database: str | None
    #: Something may stay in the session that the next tenant must not meet; a script cleans up after itself.
    used: bool = False
    #: It may hold a tenant's lock, which is to be let go as soon as the tenant is done.
    locked: bool = False
    #: Opens one more for the tenant that has the lane, in its scope.
    second: Callable[[], Awaitable[asyncpg.Connection]] | None = None
    _seconds: list[asyncpg.Connection] = field(default_factory=list)
    _engine: AsyncEngine | None = None
    _name: str | None = None
    _uses: int = 0

    def engine(self) -> AsyncEngine:
        """What SQLAlchemy works with over this connection.

        Its dialect remembers one default schema, which is why a lane has an engine of its own, and why whoever takes
        the lane for another schema has to tell the dialect.
        """
        if self._engine is None:
            # Here and not above: whoever only reads does without SQLAlchemy's engines.
            from sqlalchemy.ext.asyncio import create_async_engine

            from orchestrator.databases.postgresql.concurrently import let_wait
            from orchestrator.databases.postgresql.second import OnePool

            async def opened(*_: Any, **__: Any) -> asyncpg.Connection:
                if self.second is None or self._engine is None or not getattr(self._engine.pool, "another", False):
                    return self.raw
                self._seconds.append(await self.second())
                return self._seconds[-1]

            self._engine = create_async_engine(
                "postgresql+asyncpg://",
                poolclass=OnePool,
                connect_args={"async_creator_fn": opened, "prepared_statement_cache_size": 0},
            )
            let_wait(self._engine.sync_engine, self.raw)
        return self._engine

    def seen(self, tenants: int) -> None:
        """Say that so many tenants' tables are looked at in this one use."""
        self._uses += tenants - 1

    async def asked_database_name(self) -> str:
        """What the server calls the database; asked once."""
        if self._name is None:
            self._name = str(await self.raw.fetchval("SELECT current_database()"))
        return self._name

    async def clean(self) -> bool:
        """Take back whatever the session may hold: locks, settings, temporary tables, prepared statements.

        Returns:
            Whether it is as good as new; otherwise it is closed.
        """
        if not self.used:
            return True
        try:
            await self.raw.execute("DISCARD ALL")
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
            self.raw.terminate()
            return False
        except BaseException:
            self.raw.terminate()
            raise
        if self._engine is not None and self._listened_to():
            # Also what a listener of env.py's has set on connecting: the next tenant's has to set it again.
            await self.close()
            return False
        self.used = self.locked = False
        return True

    def _listened_to(self) -> bool:
        from orchestrator.databases.postgresql.listeners import on_every_pool

        return on_every_pool()

    def end_seconds(self) -> None:
        """End what a migration has left open beside the lane."""
        self.second = None
        while self._seconds:
            self._seconds.pop().terminate()

    async def close(self) -> None:
        """Close the connection, at once when something is still under way on it."""
        if self.raw.is_in_transaction():
            self.raw.terminate()
        with suppress(Exception):
            await self.raw.close(timeout=5)


class Lanes:
    """All lanes of one server.

    Args:
        connect: opens a connection to a database of it.
        limit: connections at most, as long as no more are used at once.
    """

    def __init__(self, connect: Callable[[str | None], Awaitable[asyncpg.Connection]], limit: int) -> None:
        self._connect = connect
        #: May be lowered at any time.
        self.limit = limit
        self._idle: list[Lane] = []
        self._busy = 0

    @property
    def open(self) -> int:
        """Connections, in use or not."""
        return len(self._idle) + self._busy

    @asynccontextmanager
    async def taken(self, database: str | None) -> AsyncIterator[Lane]:
        """A lane to ``database`` that nobody else uses meanwhile.

        Args:
            database: as the tenant names it.
        """
        self._busy += 1
        try:
            lane = await self._take(database)
            try:
                yield lane
            except Exception:
                # Waits until the server has let go of it: whoever looks after this tenant next must find its lock free.
                with suppress(Exception):
                    await lane.raw.close(timeout=5)
                raise
            except BaseException:
                lane.raw.terminate()
                raise
            finally:
                lane.end_seconds()
            await self._give_back(lane)
        finally:
            self._busy -= 1

    async def close(self, keep: int = 0) -> None:
        """Close those that nobody uses, but for as many as may stay open beside those in use."""
        stay = max(0, keep - self._busy)
        idle, self._idle = self._idle[stay:], self._idle[:stay]
        await asyncio.gather(*(lane.close() for lane in idle))

    async def forget(self, database: str | None) -> None:
        """Close those to ``database`` that nobody uses: it is to be renamed, copied or dropped."""
        gone = [lane for lane in self._idle if lane.database == database]
        self._idle = [lane for lane in self._idle if lane.database != database]
        await asyncio.gather(*(lane.close() for lane in gone))

    async def _take(self, database: str | None) -> Lane:
        for lane in reversed(self._idle):
            if lane.database == database:
                self._idle.remove(lane)
                if not lane.raw.is_closed() and await lane.clean():
                    return lane
        if self._idle and self.open > self.limit:
            await self._idle.pop(0).close()
        return Lane(await self._connect(database), database)

    async def _give_back(self, lane: Lane) -> None:
        lane._uses += 1
        if lane._uses >= _USES or lane.raw.is_in_transaction() or lane.raw.is_closed():
            await lane.close()
        elif not lane.locked or await lane.clean():
            self._idle.append(lane)
