"""What dumping and restoring a tenant takes and gives, whatever the dialect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.fleet.tenant import Limits, Tenant

#: Seconds between two looks at a tenant's lock: the first and the longest.
_LOCK_POLL = (0.02, 0.5)


@dataclass(frozen=True, slots=True)
class Dumped:
    """A dump that was made."""

    #: The program that made it: ``pg_dump 18.6``.
    made_by: str
    #: What a database has to be made with and given to be like the dumped one; plain JSON.
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Restoring:
    """A dump that is to be put back."""

    tenant: Tenant
    #: Whole and verified.
    dump: Path
    #: What the tenant's version table has to say afterwards.
    heads: tuple[str, ...]
    version_table: str
    #: How connections name themselves to the server.
    application: str
    limits: Limits
    #: Seconds to wait for the tenant's lock.
    lock_wait: float
    #: What a missing database is made with and given.
    properties: Mapping[str, Any] = field(default_factory=dict)
    #: Whether what is replaced stays, under another name.
    keep: bool = False
    #: The id of the run; a part of that name.
    run: str = ""
    #: Called under the tenant's lock, before anything of the tenant's is touched; what it raises ends the restore.
    before: Callable[[], Awaitable[None]] | None = None

    async def begin(self) -> None:
        """The tenant's lock is held, and from now on it is touched."""
        if self.before is not None:
            await self.before()


@dataclass(frozen=True, slots=True)
class Restored:
    """A dump that was put back."""

    #: What is left of the tenant as it was before: the name of a schema, database or file; ``None`` for nothing.
    left: str | None = None
    #: Why it is left, where nobody asked for that.
    why: str | None = None


async def taken(try_lock: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Take a lock that may be somebody else's now, by trying again and again: nobody must wait for it in the server.

    Args:
        try_lock: tries once.
        seconds: how long to go on.
    """
    deadline = time.monotonic() + seconds
    pause, longest = _LOCK_POLL
    while not await try_lock():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(pause)
        pause = min(pause * 2, longest)
    return True
