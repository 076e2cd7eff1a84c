"""Read the tenant sources that a fleet declares."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from orchestrator.databases.port.database import Database
from orchestrator.fleet.callables import call
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.sources import DatabaseSource, Row, SchemaSource, Source, SqlSource


async def read_sources(fleet: Fleet, databases: Mapping[str, Database]) -> Fleet:
    """The fleet with all its tenants: those written down and those that its sources name.

    Args:
        fleet: as loaded.
        databases: by server name, for every server that a source asks.

    Raises:
        ConfigurationError: a source yields what is no tenant, or one that is there already.
        DatabaseError: a source's server cannot be asked.
    """
    if not fleet.sources:
        return fleet
    from orchestrator.fleet.rows import complete

    found = await asyncio.gather(*(_rows(databases, source) for source in fleet.sources))
    return complete(fleet, zip(fleet.sources, found, strict=True))


async def _rows(databases: Mapping[str, Database], source: Source) -> Iterable[Row]:
    if isinstance(source, SqlSource):
        return await databases[source.server].rows(source.sql)
    if isinstance(source, SchemaSource):
        return await databases[source.server].schemas(source.pattern)
    if isinstance(source, DatabaseSource):
        return await databases[source.server].databases(source.pattern)
    return await call(source)
