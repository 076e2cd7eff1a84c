"""Put one PostgreSQL database back: it is made under another name beside the live one, and swapped in by two renames.

Databases are made in no transaction. Until the swap everybody uses the live one; after it the tenant is restored,
whatever fails then: what cannot be cleared away is told, and stays.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias

import asyncpg

from orchestrator.databases.dumping import Restored, Restoring, taken
from orchestrator.databases.failures import describe
from orchestrator.databases.own_names import beside
from orchestrator.databases.postgresql.copying.database_properties import (
    database_properties,
    given_afterwards,
    made_with,
)
from orchestrator.databases.postgresql.copying.database_rename import renamed_under_users
from orchestrator.databases.postgresql.copying.dump import Source, closed
from orchestrator.databases.postgresql.copying.dump_script import OTHER_HEADS, run_dump
from orchestrator.databases.postgresql.script import heads_guard, identifier
from orchestrator.errors import BackupError, OrchestratorError, RestoreUnknown

_RawConnection: TypeAlias = asyncpg.Connection

_OID = "SELECT oid FROM pg_database WHERE datname = $1"
_NAME = "SELECT datname FROM pg_database WHERE oid = $1"
#: Seconds to wait for the end of a session whose client is gone.
_ENDS_WITHIN = 10.0
#: What decides whether a dump goes in as it was written: taken from the backup, also where there is a live database.
_WRITTEN = frozenset({"encoding", "datcollate", "datctype", "provider", "locale", "rules"})


async def restore_database(source: Source, work: Restoring, other: str) -> Restored:
    """Put a tenant's database back.

    Args:
        source: how to come to it.
        work: what.
        other: a database of the server's that is not this one, to work from.

    Raises:
        TenantLocked: another process is at work on the tenant.
        BackupError: it could not be done, and the tenant is as it was.
        RestoreUnknown: nobody can tell whether it is, and that is what it says.
    """
    name = source.database
    fresh, old = beside("new", name), beside("old", name)
    aside = beside("kept", name, work.run) if work.keep else old
    async with _alone(source, work, other) as (outside, live, lock):
        await work.begin()
        # What an earlier restore was killed over; nobody else can be at it now.
        for left in (fresh, old):
            await outside.execute(f"DROP DATABASE IF EXISTS {identifier(left)} WITH (FORCE)")
        made: int | None = None
        try:
            made = await _fill(source, work, outside, fresh, live)
            # Whoever ends our connection gives the tenant's lock to others, who may have changed it since.
            await lock.execute("SELECT 1")
        except BaseException:
            await _clear_away(source, work, outside, other, None)
            raise
        try:
            await _put_in_place(source, outside, fresh, None if live is None else aside)
        except BaseException as error:
            if not await _is_in_place(source, work, outside, other, made):
                await _clear_away(source, work, outside, other, made)
                raise
            if not isinstance(error, Exception):
                raise
        if live is None:
            return Restored()
        if work.keep:
            return Restored(f"database {aside}")
        return await _without(source, outside, other, aside, live)


@asynccontextmanager
async def _alone(
    source: Source, work: Restoring, other: str
) -> AsyncIterator[tuple[_RawConnection, int | None, _RawConnection]]:
    """Keep other restores of this tenant out, and whoever migrates it: before anything is ended or dropped.

    The tenant's own lock is in its database, which may be missing, and which the swap ends. So there is one in the
    database outside, too: it lasts to the end, and is there in any case.

    Yields:
        A connection to the other database, the live database's oid (``None`` where there is none), and the connection
        with the tenant's lock.
    """
    deadline = time.monotonic() + work.lock_wait
    async with source.locked(other, work.tenant, deadline) as outside:
        # Asked only now: whoever had the lock may have made it.
        live = await outside.fetchval(_OID, source.database)
        if live is None:
            yield outside, None, outside
        else:
            async with source.locked(source.database, work.tenant, deadline) as lock:
                yield outside, live, lock


async def _fill(source: Source, work: Restoring, outside: _RawConnection, fresh: str, live: int | None) -> int:
    """Make the database ``fresh``, restore the dump into it, give it what the live one has; returns its oid."""
    properties: Mapping[str, Any] = work.properties
    path = source.path
    if live is not None:
        now = await database_properties(outside, source.database)
        # Of another encoding the dump might not go in: that alone is as it was.
        properties = {**now, **{key: value for key, value in properties.items() if key in _WRITTEN}}
    else:
        path = properties.get("search_path") or path
    await outside.execute(f"CREATE DATABASE {identifier(fresh)} {made_with(properties)}")
    made = int(await outside.fetchval(_OID, fresh))
    # By psql, too: pg_restore itself would set what an older server does not know, and stop there. Not in one
    # transaction: what restores large objects has transactions of its own.
    await run_dump(source.client, source.login(fresh, work.application), source.server, work.dump)
    # Before the heads are looked at: a search path among the settings says which version table is the tenant's.
    for statement in given_afterwards(properties, fresh):
        await outside.execute(statement)
    if work.heads:
        raw = await source.connect(fresh)
        try:
            if path is not None:
                await raw.execute("SELECT set_config('search_path', $1, false)", path)
            await raw.execute(heads_guard(None, work.version_table, work.heads))
        except asyncpg.DataError as error:
            raise BackupError(OTHER_HEADS) from error
        finally:
            await closed(raw)
    return made


async def _put_in_place(source: Source, outside: _RawConnection, fresh: str, aside: str | None) -> None:
    """Give ``fresh`` the tenant's name; the live one gets that of ``aside``, in the same transaction."""
    renamed = f"ALTER DATABASE {identifier(fresh)} RENAME TO {identifier(source.database)}"
    if aside is None:
        await outside.execute(renamed)
        return
    ender = await source.patient("postgres" if source.database != "postgres" else "template1")
    try:
        async with outside.transaction():
            await renamed_under_users(outside, ender, source.database, aside)
            await outside.execute(renamed)
    finally:
        await closed(ender)


async def _is_in_place(source: Source, work: Restoring, outside: _RawConnection, other: str, made: int) -> bool:
    """Whether the database that was made has the tenant's name, though there was an error on the way."""
    try:
        async with source.answering(outside, other) as asked:
            if asked is outside or await _has_ended(source, work, asked):
                return bool(await asked.fetchval(_NAME, made) == source.database)
            why = "its session has not ended yet"
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, OrchestratorError) as error:
        why = describe(error).message
    raise RestoreUnknown(
        f"the connection was lost while databases were swapped, and it could not be seen what became of it: {why}",
        hint="look at the tenant when the server answers again; restoring it once more is safe",
    )


async def _clear_away(source: Source, work: Restoring, outside: _RawConnection, other: str, made: int | None) -> None:
    """Drop what was made and is not needed, where that can be done; else the next restore does it."""
    fresh = beside("new", source.database)
    with suppress(Exception):
        async with source.answering(outside, other) as asked:
            # Another restore's has the same name. It is not at work as long as we have the lock, or can have it.
            if asked is outside or await asked.fetchval(_OID, fresh) == made or await _has_ended(source, work, asked):
                await asked.execute(f"DROP DATABASE IF EXISTS {identifier(fresh)} WITH (FORCE)")


async def _has_ended(source: Source, work: Restoring, asked: _RawConnection) -> bool:
    """Whether our own lost session has ended: the lock that it had is to be had."""
    key = source.key(work.tenant)
    return await taken(lambda: asked.fetchval("SELECT pg_try_advisory_lock($1)", key), _ENDS_WITHIN)


async def _without(source: Source, outside: _RawConnection, other: str, aside: str, live: int) -> Restored:
    """Drop what was replaced. The tenant is restored by now: nothing that happens here is its failure."""
    try:
        async with source.answering(outside, other) as asked:
            # On another connection we have no lock, and somebody else's database may have the name by now.
            if await asked.fetchval(_OID, aside) == live:
                await asked.execute(f"DROP DATABASE {identifier(aside)} WITH (FORCE)")
    except Exception as error:
        return Restored(f"database {aside}", describe(error).message)
    return Restored()
