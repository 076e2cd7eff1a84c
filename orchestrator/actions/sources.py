"""Read the tenant sources that a fleet declares."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from orchestrator.databases.connect import connect
from orchestrator.fleet.callables import call
from orchestrator.fleet.fleet import Fleet
from orchestrator.fleet.sources import DatabaseSource, Row, SchemaSource, Source, SqlSource


async def read_sources(fleet: Fleet) -> Fleet:
    """The fleet with all its tenants: those written down and those that its sources name.

    Raises:
        ConfigurationError: a source yields what is no tenant, or one that is there already.
        DatabaseError: a source's server cannot be asked.
    """
    if not fleet.sources:
        return fleet
    from orchestrator.fleet.rows import complete

    found = await asyncio.gather(*(_rows(fleet, source) for source in fleet.sources))
    return complete(fleet, zip(fleet.sources, found, strict=True))


async def _rows(fleet: Fleet, source: Source) -> Iterable[Row]:
    if isinstance(source, SqlSource):
        return await connect(fleet.servers[source.server]).rows(source.sql)
    if isinstance(source, SchemaSource):
        return await connect(fleet.servers[source.server]).schemas(source.pattern)
    if isinstance(source, DatabaseSource):
        return await connect(fleet.servers[source.server]).databases(source.pattern)
    return await call(source)
