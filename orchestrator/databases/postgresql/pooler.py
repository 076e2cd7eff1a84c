"""Whether a pooler in between gives one session's transactions to several server processes.

Such a pooler (PgBouncer's ``pool_mode = transaction``) keeps neither a lock nor a search path from one transaction to
the next: tenants would be migrated in each other's schemas. One that keeps sessions is fine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import asyncpg

_PID = "SELECT pg_backend_pid()"


async def shares_sessions(raw: asyncpg.Connection, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> bool:
    """Find out on a new connection that nobody uses yet.

    A pooler gives its clients keys of its own (BackendKeyData in the protocol), so without one in between the server's
    process is the one that was announced. With one, a second client holds on to whatever process is free: where
    that is the first one's, or the first one is then served by another, sessions are shared.

    Args:
        raw: the connection.
        connect: opens another one to the same place; it is closed again.

    Raises:
        asyncpg.PostgresError, asyncpg.InterfaceError, OSError: the connection is no good.
    """
    try:
        before = await raw.fetchval(_PID)
        return before != raw.get_server_pid() and await _changes(raw, before, connect)
    except asyncpg.InvalidSQLStatementNameError:
        # What one server process has parsed, another is to run.
        return True


async def _changes(raw: asyncpg.Connection, before: int, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> bool:
    """Whether the server process behind ``raw`` is another, or somebody else's, once a second client is busy."""
    other = await connect()
    try:
        await other.execute("BEGIN")
        its = await other.fetchval(_PID)
        after = await raw.fetchval(_PID)
    except asyncpg.PostgresError as error:
        # PgBouncer's pool_mode = statement hangs up on who begins a transaction, and says so.
        if "statement pooling" not in str(error):
            raise
        return True
    finally:
        other.terminate()
    return bool(its == before or after != before)
