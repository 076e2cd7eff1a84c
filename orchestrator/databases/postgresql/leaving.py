"""Wait until everybody has left a PostgreSQL database that is to be renamed."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import asyncpg

_RawConnection: TypeAlias = asyncpg.Connection

#: Looks whether anybody is still connected, and the seconds between two of them.
_LOOKS, _PAUSE = 50, 0.002


async def left(raw: _RawConnection, database: str) -> None:
    """Wait a moment for those who have just closed their connections to a database.

    The server itself would look again only after a tenth of a second.

    Args:
        raw: a connection to another database.
        database: the one that is to be renamed.
    """
    for _ in range(_LOOKS):
        if not await raw.fetchval("SELECT 1 FROM pg_stat_activity WHERE datname = $1", database):
            return
        await asyncio.sleep(_PAUSE)
