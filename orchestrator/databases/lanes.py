"""Connections to one PostgreSQL server that serve one tenant after the other, each left clean for the next.

A connection costs the server a process and the client a round of questions, more than most migrations. So one that
served a tenant well serves the next one of the same database; anything doubtful closes it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from orchestrator.databases.concurrently import let_wait
from orchestrator.databases.listeners import on_every_pool
from orchestrator.databases.second import OnePool

#: Tenants that one connection serves. A backend remembers every table it has seen, and never forgets.
_TENANTS = 200


@dataclass(slots=True)
class Lane:
    """One connection, used by one tenant at a time."""

    raw: asyncpg.Connection
    #: As the tenants name it; ``None`` for the database of the server's address.
    database: str | None
    #: Something may stay in the session that the next tenant must not meet; a script cleans up after itself.
    used: bool = False
    #: Opens one more for the tenant that has the lane, in its scope.
    second: Callable[[], Awaitable[asyncpg.Connection]] | None = None
    _seconds: list[asyncpg.Connection] = field(default_factory=list)
    _engine: AsyncEngine | None = None
    _name: str | None = None
    _tenants: int = 0

    def engine(self, lock_timeout: float | None) -> AsyncEngine:
        """What SQLAlchemy works with over this connection.

        Its dialect remembers one default schema, which is why a lane has an engine of its own, and why whoever takes
        the lane for another schema has to tell the dialect.

        Args:
            lock_timeout: seconds, as set on the connection.
        """
        if self._engine is None:

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
            if lock_timeout is not None:
                let_wait(self._engine.sync_engine, self.raw, lock_timeout)
        return self._engine

    async def asked_database_name(self) -> str:
        """What the server calls the database; asked once."""
        if self._name is None:
            self._name = str(await self.raw.fetchval("SELECT current_database()"))
        return self._name

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
        limit: connections at most, as long as no more tenants than that are migrated at once.
    """

    def __init__(self, connect: Callable[[str | None], Awaitable[asyncpg.Connection]], limit: int) -> None:
        self._connect = connect
        self._limit = limit
        self._idle: list[Lane] = []
        self._busy = 0

    @asynccontextmanager
    async def taken(self, database: str | None, *, again: bool) -> AsyncIterator[Lane]:
        """A lane to ``database`` for one tenant.

        Args:
            database: as the tenant names it.
            again: others in this database may want the connection afterwards.
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
            await self._give_back(lane, again=again)
        finally:
            self._busy -= 1

    async def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            await self._idle.pop().close()

    async def _take(self, database: str | None) -> Lane:
        for lane in reversed(self._idle):
            if lane.database == database:
                self._idle.remove(lane)
                if not lane.raw.is_closed():
                    return lane
        if self._idle and len(self._idle) + self._busy > self._limit:
            await self._idle.pop(0).close()
        return Lane(await self._connect(database), database)

    async def _give_back(self, lane: Lane, *, again: bool) -> None:
        lane._tenants += 1
        if not again or lane._tenants >= _TENANTS or lane.raw.is_in_transaction() or lane.raw.is_closed():
            await lane.close()
            return
        if lane.used:
            try:
                # Locks, settings, temporary tables, prepared statements: all that a session may hold.
                await lane.raw.execute("DISCARD ALL")
                if on_every_pool():
                    # Also what a listener of env.py's has set on connecting: the next tenant's has to set it again.
                    await lane.close()
                    return
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                lane.raw.terminate()
                return
            except BaseException:
                lane.raw.terminate()
                raise
            lane.used = False
        self._idle.append(lane)
