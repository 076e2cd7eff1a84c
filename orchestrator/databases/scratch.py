"""An empty schema or database of nobody's, for as long as somebody looks at it.

Whoever makes one holds an advisory lock that goes with its connection. So what a killed process left is known by its
free lock, and the next one drops it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TypeAlias

import asyncpg

from orchestrator.databases.own_names import SCRATCH
from orchestrator.databases.script import identifier
from orchestrator.fleet.tenant import Tenant

_RawConnection: TypeAlias = asyncpg.Connection

#: How a connection names itself that is in such a database for as long as somebody uses it: where that is not the
#: database that the lock is in, another configuration does not see the lock.
HOLDER = "orchestrator holds this scratch database"

_SCHEMAS = "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, $1)"
_DATABASES = "SELECT datname FROM pg_database WHERE starts_with(datname, $1)"


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
    kind, there = ("DATABASE", _DATABASES) if alone else ("SCHEMA", _SCHEMAS)
    how = " WITH (FORCE)" if alone else " CASCADE"
    raw = await connect(maintenance if alone else like.database)
    try:
        if raw.get_server_version().major >= 14:
            # It has nothing to do for as long as somebody looks, and must not be ended for that.
            await raw.execute("SET idle_session_timeout = 0")
        await raw.execute("SELECT pg_advisory_lock($1)", _alive(name))
        for (left,) in await raw.fetch(there, SCRATCH):
            await _drop_if_left(raw, left, f"DROP {kind} IF EXISTS {identifier(left)}{how}")
        await raw.execute(f"CREATE {kind} {identifier(name)} {made}")
        try:
            yield tenant
        finally:
            if raw.is_closed():
                raw = await connect(maintenance if alone else like.database)
            await raw.execute(f"DROP {kind} IF EXISTS {identifier(name)}{how}")
    finally:
        with suppress(Exception):
            await raw.close(timeout=5)


async def _drop_if_left(raw: _RawConnection, name: str, drop: str) -> None:
    if await raw.fetchval("SELECT 1 FROM pg_stat_activity WHERE datname = $1 AND application_name = $2", name, HOLDER):
        return
    if await raw.fetchval("SELECT pg_try_advisory_lock($1)", _alive(name)):
        # What another role made, or is being looked at by somebody, is left to the next one.
        with suppress(asyncpg.PostgresError):
            await raw.execute(drop)
        await raw.execute("SELECT pg_advisory_unlock($1)", _alive(name))


def _alive(name: str) -> int:
    """Key (signed 64 bit) of the lock that says that somebody uses it."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
