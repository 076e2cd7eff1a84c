"""Places of PostgreSQL whose tenants go: set aside, brought back, dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

import asyncpg

from orchestrator.databases.asides import Aside, Leave, Leaving
from orchestrator.databases.claims import Marker
from orchestrator.databases.failures import describe
from orchestrator.databases.postgresql.arrivals import Arrivals
from orchestrator.databases.postgresql.asides import Departures, databases_aside, schemas_aside
from orchestrator.errors import (
    DatabaseError,
    OnboardingError,
    ServerUnreachable,
    Unprovisioned,
)
from orchestrator.fleet.tenant import Limits, Tenant

#: Databases that can be looked into.
_CONNECTABLE = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate"


class Leavings(Arrivals):
    """Places of those who go."""

    @asynccontextmanager
    async def set_aside(self, tenant: Tenant, leave: Leave) -> AsyncIterator[Leaving]:
        """See :mod:`~orchestrator.databases.postgresql.asides`."""
        async with self._departing(tenant, leave.lock_wait) as departures, departures.set_aside(leave) as leaving:
            yield leaving

    async def asides(self, within: Collection[str | None] | None = None) -> Sequence[Aside]:
        """One connection per database, for its schemas; one for the databases themselves."""
        async with self._maintenance() as raw:
            found = await databases_aside(raw, self.name)
            own = self.default_database or str(await raw.fetchval("SELECT current_database()"))
            names = [row[0] for row in await raw.fetch(_CONNECTABLE)] if within is None else within
        budget = asyncio.Semaphore(self._server.max_concurrency)

        async def look(name: str | None) -> list[Aside]:
            database = None if name == own else name
            try:
                async with budget, self._connected(database) as raw:
                    return await schemas_aside(raw, self.name, database)
            except (Unprovisioned, ServerUnreachable):
                # It is gone by now, or this role may not look into it, and has not set anything aside there.
                return []

        for part in await asyncio.gather(*(look(name) for name in dict.fromkeys(names))):
            found += part
        return found

    async def remark(self, aside: Aside, marker: Marker, lock_wait: float) -> None:
        """In one statement."""
        async with self._departing(aside.tenant, lock_wait) as departures:
            await departures.remark(aside, marker)

    async def bring_back(self, aside: Aside, lock_wait: float) -> None:
        """In one transaction."""
        async with self._departing(aside.tenant, lock_wait) as departures:
            await departures.bring_back(aside)

    async def drop_aside(self, aside: Aside, limits: Limits, lock_wait: float) -> None:
        """A large schema in parts, see :mod:`~orchestrator.databases.postgresql.whole_schema`."""
        async with self._departing(aside.tenant, lock_wait) as departures:
            await departures.drop(aside, limits)

    @asynccontextmanager
    async def _departing(self, tenant: Tenant, lock_wait: float) -> AsyncIterator[Departures]:
        """What the server says against it is told as our error, and whether it may pass."""
        try:
            async with self._places(tenant, lock_wait) as places:
                yield Departures(places)
        except DatabaseError as error:
            cause = error.__cause__
            if type(error) is not DatabaseError or not isinstance(cause, asyncpg.PostgresError):
                raise
            failure = describe(cause)
            passing = failure.passing or isinstance(cause, asyncpg.ObjectInUseError)
            raise OnboardingError(failure.message, passing=passing, hint=failure.hint) from cause
