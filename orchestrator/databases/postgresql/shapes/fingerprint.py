"""The shape of many schemas of one PostgreSQL database, read set-wise: schemas of one shape have one digest.

PostgreSQL itself leaves the tenant's name out. Its ``pg_get_*`` functions print without a schema what the search path
finds, so every schema is read under a search path that is this schema alone: what is its own prints bare, what lies
elsewhere (another tenant's table, an extension's type) prints with the name of that place. No text is replaced, hence
none is replaced wrongly: a literal, an alias or a longer name that happens to contain the schema's counts as written.
``set_config`` takes effect within a statement, so one statement goes through many schemas; it gives the path that was
in force for each line back, and is not believed where that is another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

from orchestrator.databases.postgresql.shapes.lines import EXTENSIONS
from orchestrator.databases.postgresql.shapes.statements import NOTED, SETTINGS, SURVEY, lines_sql, shapes_sql
from orchestrator.errors import DatabaseError
from orchestrator.fleet.tenant import Tenant

#: SQL for a server's major version, and for kinds of objects.
_Statement: TypeAlias = Callable[[int, frozenset[str]], str]

#: Schemas that one survey looks up.
_SCHEMAS_PER_SURVEY = 1_000
#: Schemas whose definitions one statement reads.
_SCHEMAS_PER_STATEMENT = 100
#: Locks that one statement may take. Printing a view locks every table in it to the transaction's end, and the lock
#: table (64 x 100 by default) is shared by the whole server.
_LOCKS_PER_STATEMENT = 500
#: What one schema that is being altered right now does to a reading of many: its lock is not to be had, or what was
#: surveyed has gone (PostgreSQL then speaks of a "cache lookup", an internal error). Nothing else is one schema's.
_ALTERED = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UndefinedObjectError,
    asyncpg.InternalServerError,
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What the objects of one schema come to."""

    #: SHA-256 of all definitions in order, its first half as 32 hex digits.
    digest: str


@dataclass(frozen=True, slots=True)
class _Space:
    """A schema and what is in it, before anything is defined."""

    name: str
    relations: Sequence[int]
    types: Sequence[int]
    functions: Sequence[int]
    #: Relations that printing its definitions may lock.
    locks: int
    #: Of which kinds its objects are, besides tables; see ``lines``.
    kinds: Sequence[str] = ()


async def fingerprints(
    raw: asyncpg.Connection,
    schemas: Sequence[str],
    version_table: str,
    *,
    within: bool = False,
) -> dict[str, Shape]:
    """Fingerprint ``schemas``: two with the same objects, whatever the schemas are called, get the same digest.

    What counts: relations (kind, persistence, options, row security, partition key and bound, parents), columns (type,
    default, nullability, identity, generation, collation, storage), constraints, indexes and whether they are valid,
    sequences, views and materialised views, rules, triggers, policies, enums with their labels in order, domains,
    ranges, composite and base types, functions, procedures and aggregates. Bodies of functions count as written: they
    are the operator's text, and one that names its tenant is another one for each tenant.

    What does not: the order of a table's columns (one that was added later has another number than one that was there
    from the start; in a composite type, whose values are written by position, it counts), comments and owners unless
    they are asked for, grants, OIDs, statistics, where a sequence stands, tablespaces, what extensions own, and rows.
    Nor, so far, operators and their classes, text search objects, collations, extended statistics, publications and
    event triggers.

    An object hidden behind one of ``pg_catalog`` with the same name (and arguments) prints with its schema's name
    where a definition uses it: PostgreSQL finds ``pg_catalog`` first, so that only SQL which names the schema can
    mean it. Such schemas are never equal.

    Args:
        raw: a connection outside any transaction, unless ``within``; its settings are as before when this returns.
        schemas: names, of any number.
        version_table: Alembic's table; it counts like any other, what it says does not.
        within: it is in a transaction, what is read is what that has made so far, and it goes on afterwards.

    Returns:
        Shapes by schema. Left out are schemas that are not there, that the role has no USAGE on, or whose definitions
        could not be read: one is being altered right now, for example.

    Raises:
        asyncpg.PostgresError, asyncpg.InterfaceError, OSError: the connection, or the database as a whole, is no good.
    """
    found = await _read(raw, shapes_sql, schemas, frozenset(), within)
    return {schema: Shape(digest) for schema, digest in found.items()}


async def fingerprint_tenants(
    raw: asyncpg.Connection,
    tenants: Sequence[Tenant],
    version_table: str,
    search_path: Callable[[Tenant], str | None],
    also: frozenset[str] = frozenset(),
) -> dict[str, str]:
    """Fingerprint tenants of the database that ``raw`` is connected to.

    Args:
        raw: a connection outside any transaction, of the caller's own.
        tenants: those with a schema are read as that; the others have the whole database, hence its extensions too, and
            their schema is the first that their search path finds.
        version_table: Alembic's table.
        search_path: a tenant's search path in SQL; ``None`` for the database's own.
        also: what else counts: comments, owners.

    Returns:
        Digests by tenant id, without those that cannot be read.

    Raises:
        asyncpg.PostgresError, asyncpg.InterfaceError, OSError: as :func:`fingerprints` does.
    """
    found: dict[str, str] = await _of_tenants(raw, shapes_sql, tenants, search_path, also)
    return found


async def lines_of_tenants(
    raw: asyncpg.Connection,
    tenants: Sequence[Tenant],
    search_path: Callable[[Tenant], str | None],
    also: frozenset[str] = frozenset(),
) -> dict[str, list[str]]:
    """What is digested of tenants of the database that ``raw`` is connected to: a line for each object, sorted.

    Args:
        raw: as for :func:`fingerprint_tenants`.
        tenants: few, because all of their lines are held.
        search_path: as for :func:`fingerprint_tenants`.
        also: as for :func:`fingerprint_tenants`.

    Returns:
        Lines by tenant id, without those that cannot be read.

    Raises:
        asyncpg.PostgresError, asyncpg.InterfaceError, OSError: as :func:`fingerprints` does.
    """
    found: dict[str, list[str]] = await _of_tenants(raw, lines_sql, tenants, search_path, also)
    return found


async def _of_tenants(
    raw: asyncpg.Connection,
    sql: _Statement,
    tenants: Sequence[Tenant],
    search_path: Callable[[Tenant], str | None],
    also: frozenset[str],
) -> dict[str, Any]:
    in_schemas = {tenant.id: tenant.schema for tenant in tenants if tenant.schema is not None}
    shapes = await _read(raw, sql, list(dict.fromkeys(in_schemas.values())), also)
    found = {tenant: shapes[schema] for tenant, schema in in_schemas.items() if schema in shapes}
    for tenant in tenants:
        if tenant.schema is None:
            noting = f"SET LOCAL search_path = {search_path(tenant) or 'DEFAULT'}; {NOTED}"
            for shape in (await _read_one(raw, sql, None, also | {EXTENSIONS}, noting=noting)).values():
                found[tenant.id] = shape
    return found


async def _read(
    raw: asyncpg.Connection, sql: _Statement, schemas: Sequence[str], also: frozenset[str], within: bool = False
) -> dict[str, Any]:
    """What ``sql`` finds of ``schemas``, and ``also`` of what is no object of theirs, by name."""
    if len(schemas) == 1:
        return await _read_one(raw, sql, schemas, also, within=within)
    found: dict[str, Any] = {}
    for start in range(0, len(schemas), _SCHEMAS_PER_SURVEY):
        for chunk in _chunks(await _survey(raw, schemas[start : start + _SCHEMAS_PER_SURVEY], within)):
            found.update(await _shapes(raw, sql, chunk, also, within))
    return found


async def _read_one(
    raw: asyncpg.Connection,
    sql: _Statement,
    schemas: Sequence[str] | None,
    also: frozenset[str],
    *,
    within: bool = False,
    noting: str = "",
) -> dict[str, Any]:
    """The same of one schema, in one transaction; without ``schemas``, of that which ``noting`` notes in its begin."""
    try:
        async with _reading(raw, within, noting):
            spaces = [_Space(*row) for row in await raw.fetch(SURVEY, schemas)]
            return await _rows(raw, sql, spaces, also) if spaces else {}
    except _ALTERED:
        return {}


async def _survey(raw: asyncpg.Connection, schemas: Sequence[str], within: bool = False) -> list[_Space]:
    async with _reading(raw, within):
        return [_Space(*row) for row in await raw.fetch(SURVEY, schemas)]


@asynccontextmanager
async def _reading(raw: asyncpg.Connection, within: bool, noting: str = "") -> AsyncIterator[None]:
    """A transaction, or a part of one, with the settings that definitions are read under; begun in one message."""
    begin, end = ("SAVEPOINT shape", "ROLLBACK TO shape") if within else ("BEGIN READ ONLY", "ROLLBACK")
    await raw.execute(f"{begin}; {noting}{SETTINGS}")
    try:
        yield
    finally:
        if not raw.is_closed():
            await raw.execute(end)


def _chunks(spaces: Sequence[_Space]) -> Iterator[Sequence[_Space]]:
    """``spaces`` in parts small enough for one statement each."""
    chunk: list[_Space] = []
    for space in spaces:
        locks = space.locks + sum(other.locks for other in chunk)
        if chunk and (locks > _LOCKS_PER_STATEMENT or len(chunk) == _SCHEMAS_PER_STATEMENT):
            yield chunk
            chunk = []
        chunk.append(space)
    if chunk:
        yield chunk


async def _shapes(
    raw: asyncpg.Connection, sql: _Statement, spaces: Sequence[_Space], also: frozenset[str], within: bool
) -> dict[str, Any]:
    try:
        async with _reading(raw, within):
            return await _rows(raw, sql, spaces, also)
    except _ALTERED:
        if len(spaces) == 1:
            return {}
        # Find out by halves which one it is, keep the others.
        half = len(spaces) // 2
        first = await _shapes(raw, sql, spaces[:half], also, within)
        return first | await _shapes(raw, sql, spaces[half:], also, within)


async def _rows(
    raw: asyncpg.Connection, sql: _Statement, spaces: Sequence[_Space], also: frozenset[str]
) -> dict[str, Any]:
    kinds = frozenset(kind for space in spaces for kind in space.kinds) | also
    rows = await raw.fetch(
        sql(raw.get_server_version().major, kinds),
        [space.name for space in spaces],
        [oid for space in spaces for oid in space.relations],
        [oid for space in spaces for oid in space.types],
        [oid for space in spaces for oid in space.functions],
    )
    for name, _, in_its_scope in rows:
        if not in_its_scope:
            raise DatabaseError(
                f"schema {name!r} was not read under its own search path",
                hint="please report this with the server's version: its planner does what no other was seen to do",
            )
    return {name: found for name, found, _ in rows}
