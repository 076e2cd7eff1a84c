"""An empty schema or database of nobody's, for as long as somebody looks at it.

Whoever makes one holds an advisory lock that goes with its connection. So what a killed process left is known by its
free lock, and the next one drops it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TypeAlias

import asyncpg

from orchestrator.databases.own_names import SCRATCH
from orchestrator.databases.postgresql.script import identifier
from orchestrator.fleet.tenant import Tenant

_RawConnection: TypeAlias = asyncpg.Connection

log = logging.getLogger("orchestrator.scratch")

#: How a connection names itself that is in such a database for as long as somebody uses it. Another configuration may
#: work from another database, and does not see the lock.
HOLDER = "orchestrator holds this scratch database"

#: Milliseconds that dropping waits for a lock, of what somebody has left and of one's own: without an end, a command
#: would wait for whoever has forgotten a transaction.
_LOCK_MS, _OWN_LOCK_MS = 1000, 3000

_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, $1)"
_DATABASES = "SELECT datname FROM pg_database WHERE starts_with(datname, $1)"
#: Seconds between two looks whether those who are connected have gone, and how many looks: DROP DATABASE itself looks
#: again only after a tenth of a second, and a backend that is told to end needs a few thousandths.
_GOING, _LOOKS = 0.002, 25
#: By whether it is databases: what they are called in SQL, which there are, and how they are dropped.
_KINDS = {False: ("SCHEMA", _SCHEMAS, "CASCADE"), True: ("DATABASE", _DATABASES, "WITH (FORCE)")}
#: Ends them; says how many there were.
_END = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1"
#: Somebody is connected to it, be it the backend of a killed process at its last statement; or has its lock.
_IN_USE = """
    SELECT 1 FROM pg_stat_activity WHERE datname = $1 AND usesysid IS NOT NULL
    UNION ALL SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND ((classid::bigint << 32) | objid::bigint) = $2
"""


@asynccontextmanager
async def scratch(
    like: Tenant, connect: Callable[[str | None], Awaitable[_RawConnection]], maintenance: str | None, made: str = ""
) -> AsyncIterator[Tenant]:
    """Make a place of the kind that ``like`` has, and drop it at the end.

    Args:
        like: a schema is made in its database, a database on its server.
        connect: opens a connection to a database of the server.
        maintenance: where databases are made from; ``None`` for the one in the server's address.
        made: options for CREATE DATABASE.
    """
    name = f"{SCRATCH}{secrets.token_hex(8)}"
    alone = like.schema is None
    database, schema = (name, None) if alone else (like.database, name)
    tenant = replace(like, id=name, database=database, schema=schema, pin=None)
    kind, _, how = _KINDS[alone]
    raw = await connect(maintenance if alone else like.database)
    try:
        if raw.get_server_version().major >= 14:
            # It has nothing to do for as long as somebody looks, and must not be ended for that.
            await raw.execute("SET idle_session_timeout = 0")
        await raw.execute("SELECT pg_advisory_lock($1)", _alive(name))
        await clear(raw, databases=alone)
        await raw.execute(f"CREATE {kind} {identifier(name)} {made}")
        try:
            yield tenant
        finally:
            if raw.is_closed():
                raw = await connect(maintenance if alone else like.database)
            if alone:
                await _end_sessions(raw, name)
            await _drop(raw, f"{kind} IF EXISTS {identifier(name)} {how}", name)
    finally:
        with suppress(Exception):
            await raw.close(timeout=5)


async def _drop(raw: _RawConnection, what: str, name: str) -> None:
    """Drop one's own; where somebody looks at it (a dump of the whole database does), it is left to the next one."""
    try:
        await raw.execute(f"SET lock_timeout = {_OWN_LOCK_MS}")
        await raw.execute(f"DROP {what}")
    except asyncpg.LockNotAvailableError:
        log.warning("%s stays until something like it is made again: somebody holds a lock in it", name)


async def _end_sessions(raw: _RawConnection, name: str) -> None:
    """Have whoever is connected to one's own database go, which nobody else has any business with; dropping insists."""
    with suppress(asyncpg.InsufficientPrivilegeError):
        for _ in range(_LOOKS):
            if not await raw.fetchval(_END, name):
                return
            await asyncio.sleep(_GOING)


async def clear(raw: _RawConnection, *, databases: bool) -> None:
    """Drop what killed processes have left.

    Args:
        raw: a connection to the database that it was made from, or that it is in.
        databases: whether it is databases, or schemas.
    """
    kind, there, how = _KINDS[databases]
    # Whoever looks at it holds locks on its tables, be it the backend of a killed process: nobody waits for that here.
    await raw.execute(f"SET lock_timeout = {_LOCK_MS}")
    for (left,) in await raw.fetch(there, SCRATCH):
        if await raw.fetchval(_IN_USE, left, _alive(left)):
            continue
        # Whoever has just made it, or drops it as well, has the lock by now.
        if await raw.fetchval("SELECT pg_try_advisory_lock($1)", _alive(left)):
            # What another role made, or is being looked at by somebody, is left to the next one.
            with suppress(asyncpg.PostgresError):
                await raw.execute(f"DROP {kind} IF EXISTS {identifier(left)} {how}")
            await raw.execute("SELECT pg_advisory_unlock($1)", _alive(left))
    await raw.execute("RESET lock_timeout")


async def left_behind(raw: _RawConnection) -> list[str]:
    """Names of databases, and of schemas of this one, that killed processes have left."""
    found = [row[0] for query in (_DATABASES, _SCHEMAS) for row in await raw.fetch(query, SCRATCH)]
    return [name for name in found if not await raw.fetchval(_IN_USE, name, _alive(name))]


def _alive(name: str) -> int:
    """Key (signed 64 bit) of the lock that says that somebody uses it."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
