"""Give a PostgreSQL database another name under those who use it."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import asyncpg

from orchestrator.databases.postgresql.script import identifier

_RawConnection: TypeAlias = asyncpg.Connection

#: Ends everybody who is connected to a database, as far as the role may.
_END_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity LEFT JOIN pg_roles r ON r.oid = usesysid"
    " WHERE datname = $1 AND pid <> pg_backend_pid() AND (pg_has_role(coalesce(usesysid, 10), 'MEMBER')"
    " OR pg_has_role('pg_signal_backend', 'MEMBER') AND NOT coalesce(rolsuper, true))"
)


async def renamed_under_users(outside: _RawConnection, ender: _RawConnection, name: str, aside: str) -> None:
    """Rename a database, and end whoever is connected to it."""
    # Waits up to 5 s for those who are connected, and new ones wait for it: a lock keeps them out. The tenant's lock's
    # own connection is ended by it, like everybody's: nobody comes in between.
    renamed = asyncio.ensure_future(outside.execute(f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(aside)}"))
    try:
        while not renamed.done():
            await ender.execute(_END_SESSIONS, name)
            await asyncio.wait({renamed}, timeout=0.1)
    finally:
        await renamed
