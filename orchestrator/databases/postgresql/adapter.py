"""PostgreSQL: one server, tenants in schemas or databases of it.

The tenant's scope is its ``search_path``, set on the connection itself and outside any transaction. A ``SET LOCAL``
would be gone inside an autocommit block, and an uncommitted ``SET`` makes Alembic believe in an outer transaction that
is rolled back at close, after success was reported. It is set by a query rather than a start-up parameter, because
poolers refuse start-up parameters they do not know.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

import asyncpg

from orchestrator.databases.postgresql.copies import Copies
from orchestrator.databases.postgresql.departures import Leavings
from orchestrator.databases.postgresql.looking import Looking
from orchestrator.databases.postgresql.script import Step, script
from orchestrator.databases.postgresql.session import PostgreSQLSession
from orchestrator.fleet.tenant import Limits, Tenant

_RawConnection: TypeAlias = asyncpg.Connection


class PostgreSQL(Looking, Leavings, Copies):
    """One PostgreSQL server, as the port asks."""

    @asynccontextmanager
    async def session(self, tenant: Tenant, application: str, limits: Limits) -> AsyncIterator[PostgreSQLSession]:
        """A connection that nobody else uses meanwhile; tenants of one database use it one after the other."""
        async with self._lane(tenant.database) as lane:
            lane.used = lane.locked = True

            async def second() -> _RawConnection:
                raw = await self._connect_for_many(tenant.database)
                await self._enter(raw, tenant, application, limits)
                return raw

            lane.second = second
            await self._enter(lane.raw, tenant, application, limits)
            name = await lane.asked_database_name()
            async with lane.engine().connect() as connection:
                if tenant.schema is not None:
                    # What SQLAlchemy asked for when the lane served its first tenant.
                    connection.dialect.default_schema_name = tenant.schema
                yield PostgreSQLSession(connection, lane.raw, tenant, name)

    async def replay(
        self, tenant: Tenant, steps: Sequence[Step], version_table: str, application: str, limits: Limits
    ) -> None:
        """One message to the server, on a connection that tenants of one database use one after the other."""
        async with self._lane(tenant.database) as lane:
            place = await self._place(lane, tenant, version_table, application, limits)
            await lane.raw.execute(script(place, steps))

    def scope_sql(self, tenant: Tenant) -> str:
        """The search path, as a session has it."""
        path = self._search_path(tenant)
        return "" if path is None else f"SET search_path TO {path};\n\n"
