"""The port every dialect's adapter implements: read heads, open a session on one tenant, make a missing place.

One :class:`Database` stands for one physical server (for SQLite: one directory of files). The conformance suite in
tests/contract/ holds every adapter to what is written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from orchestrator.databases.claims import Marker
from orchestrator.databases.port.arrivals import Arrivals
from orchestrator.databases.port.copies import Copies
from orchestrator.databases.port.departures import Leavings
from orchestrator.databases.port.looking import Looking
from orchestrator.databases.postgresql.script import Step
from orchestrator.fleet.tenant import Limits, Tenant

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class Session(Protocol):
    """One connection in one tenant's scope; closing it releases the tenant's lock."""

    #: Whether :meth:`mark` is in the transaction of :attr:`connection`, and is gone with it.
    marks_in_transaction: bool

    #: What migrations run on: an unqualified name on it means the tenant's.
    connection: AsyncConnection

    async def try_lock(self) -> bool:
        """Take the tenant's lock if it is free. Never waits: a waiter would deadlock with CREATE INDEX CONCURRENTLY."""
        ...

    async def lock_holder(self) -> str | None:
        """Who holds the tenant's lock, for people; ``None`` where the dialect cannot tell."""
        ...

    async def heads(self, version_table: str) -> tuple[str, ...]:
        """What the tenant's version table says now, outside any transaction of :attr:`connection`; sorted.

        Raises:
            Exception: it could not be read; a table that is not there reads as empty.
        """
        ...

    async def marker(self) -> Marker | None:
        """What is written on the tenant's place; ``None`` for nothing of ours."""
        ...

    async def mark(self, marker: Marker) -> None:
        """Write another mark on it, in the transaction of :attr:`connection` where the dialect has that."""
        ...

    async def script(self, sql: str) -> None:
        """Run SQL of several statements in the transaction of :attr:`connection`.

        Raises:
            Exception: the server's own; or the text has ended the transaction itself.
        """
        ...

    async def blockers(self) -> tuple[str, ...]:
        """Who holds locks on the tenant's tables beside this session, for people; those who hold them longest first."""
        ...

    async def invalid_indexes(self) -> Mapping[str, int]:
        """Indexes in the tenant's scope that were begun and never finished: by name, what tells one from another."""
        ...


class Database(Looking, Arrivals, Leavings, Copies, Protocol):
    """One physical server."""

    #: Name in the fleet.
    name: str
    #: SQLAlchemy's name of the dialect: ``postgresql`` or ``sqlite``.
    dialect: str
    #: Whether :meth:`replay` is to be had.
    replays: bool

    @property
    def identity(self) -> str:
        """What two declarations of one physical server have in common; may block while a secret is read."""
        ...

    @property
    def default_database(self) -> str | None:
        """The database in the server's own address; ``None`` where there is no such thing."""
        ...

    def session(self, tenant: Tenant, application: str, limits: Limits) -> AbstractAsyncContextManager[Session]:
        """Connect to ``tenant``'s place.

        Args:
            tenant: a tenant on this server.
            application: how the connection names itself to the server.
            limits: timeouts to set on it.

        Raises:
            ServerUnreachable: no connection.
            Unprovisioned: the schema, database or file is not there.
        """
        ...

    async def replay(
        self, tenant: Tenant, steps: Sequence[Step], version_table: str, application: str, limits: Limits
    ) -> None:
        """Take ``tenant`` through ``steps`` as they were recorded on others, under its lock, in one round trip.

        Args:
            tenant: a tenant on this server.
            steps: the transactions, one after the other.
            version_table: name of the version table, in the tenant's scope.
            application: how the connection names itself to the server.
            limits: timeouts to set on it.

        Raises:
            Exception: the step that was under way is rolled back, those before it stay. Where one of the guards did
                not hold, the message has :data:`~orchestrator.databases.postgresql.script.REFUSED` in it; where there
                are more heads than the one that is expected, it is the server's own.
        """
        ...

    def limit_connections(self, most: int) -> None:
        """Keep no more than ``most`` connections open, as long as no more are used at once."""
        ...

    async def close(self, keep: int = 0) -> None:
        """Close connections that nobody uses; the next use opens new ones.

        Args:
            keep: so many may stay open, those in use included.
        """
        ...

    def scope_sql(self, tenant: Tenant) -> str:
        """What a script has to begin with to mean ``tenant``; empty where the connection alone says it."""
        ...
