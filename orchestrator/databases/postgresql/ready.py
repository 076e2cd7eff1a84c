"""Copies of a template that are made before anybody comes, and taken by being renamed.

A copy is looked at, and then gets its name and its note in the transaction that closes it to everybody. The note says
which transaction that was. PostgreSQL tells of each database which transaction has last altered what it says about it
(``xmin`` in ``pg_database``): whether it may be connected to, too. So one that still says the same has been closed all
the time, and is what it was when it was looked at; one that does not is never taken.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import asyncpg

from orchestrator.databases.answers import never
from orchestrator.databases.claims import Claim, Pool, Stock
from orchestrator.databases.dumping import taken
from orchestrator.databases.failures import describe
from orchestrator.databases.own_names import NEW, READY
from orchestrator.databases.postgresql import templates
from orchestrator.databases.postgresql.leaving import left
from orchestrator.databases.postgresql.script import identifier, literal
from orchestrator.errors import DatabaseError, OtherShape
from orchestrator.fleet.masking import mask

_RawConnection: TypeAlias = asyncpg.Connection
#: The shape and the heads of a database, by its name and the version table's.
Look: TypeAlias = Callable[[str, str], Awaitable[tuple[str | None, tuple[str, ...]]]]

#: Those that this role may rename and drop, by how their names begin. A DROP that was cut off leaves an invalid one
#: (datconnlimit -2), all else as it was: it is as good as open, nobody takes it.
_ALL = """
SELECT datname AS name, xmin::text AS altered_by, datallowconn OR datconnlimit = -2 AS open,
    shobj_description(oid, 'pg_database') AS note
FROM pg_database WHERE datname ^@ $1 AND pg_has_role(datdba, 'USAGE') ORDER BY 1
"""
_HINTS = {
    asyncpg.InsufficientPrivilegeError: "the migrating role needs CREATEDB",
    asyncpg.InvalidCatalogNameError: "what new databases are copied from is gone: orchestrator onboard --prepare",
}
#: Transactions are counted with more digits than each row has room for.
_TRANSACTIONS = 2**32


@dataclass(frozen=True, slots=True)
class Ready:
    """A copy, as it was found."""

    name: str
    #: The transaction that has last altered what the server says about it.
    altered_by: str
    #: It may be connected to.
    open: bool
    #: What is written about it.
    note: Mapping[str, Any]

    def is_of(self, pool: Pool) -> bool:
        """Whether it is what a new tenant of ``pool`` is to have."""
        untouched = not self.open and self.note.get("closed_by") == self.altered_by
        return untouched and {**self.note, "closed_by": None} == {**_note(pool), "server": self.note.get("server")}


async def ready(raw: _RawConnection, pool: Pool) -> list[Ready]:
    """The copies that may be taken from ``pool``, in no order: whoever comes at the same time begins with another."""
    found = [each for each in await _found(raw, _beginning(pool)) if each.is_of(pool)]
    random.shuffle(found)
    return found


async def take(raw: _RawConnection, one: Ready, name: str, claim: Claim, *, furnished: bool) -> bool:
    """Make ``one`` the database ``name``, marked and open, in one transaction and one message.

    Args:
        raw: a connection to another database.
        one: which copy.
        name: what it is called from now on.
        claim: what is asked.
        furnished: whether it has all that a new place is given before it is migrated.

    Returns:
        Whether it is: somebody else may have taken it, or be looking at it.
    """
    mark = replace(claim.marker, unfurnished=not furnished).within(None)
    statements = [
        # An error where it is not as it was found. Whoever loses the race waits in the second, and finds no such name.
        f"SELECT 1 / count(*) FROM pg_database WHERE datname = {literal(one.name)} AND NOT datallowconn"
        f" AND xmin::text = {literal(one.altered_by)}",
        f"ALTER DATABASE {identifier(one.name)} RENAME TO {identifier(name)}",
        f"ALTER DATABASE {identifier(name)} WITH ALLOW_CONNECTIONS true",
        f"COMMENT ON DATABASE {identifier(name)} IS {literal(mark)}",
    ]
    if claim.owner is not None:
        statements.append(f"ALTER DATABASE {identifier(name)} OWNER TO {identifier(claim.owner)}")
    try:
        await raw.execute("; ".join(statements))
    except asyncpg.PostgresError:
        if raw.is_closed():
            raise
        # Whatever it is, it will be told by the server again when the database is copied instead.
        return False
    return True


async def fill(
    raw: _RawConnection, pool: Pool, size: int, look: Look, *, tidy: bool, stopped: Callable[[], bool]
) -> Stock:
    """Have ``size`` copies ready. Whoever asks holds the lock of :func:`alone`.

    Args:
        raw: a connection to another database.
        pool: whose.
        size: how many.
        look: tells what has come of a copy.
        tidy: also drop what is of no use any more.
        stopped: asked before each copy, whether the rest is to be left.

    Raises:
        OtherShape: a copy came out different from the template.
        asyncpg.PostgresError: there is no such template, or nothing can be made.
    """
    if stopped():
        # Perhaps before the lock was had.
        return Stock(len(await ready(raw, pool)), 0, 0)
    new = _unready(pool.fleet, pool.server)
    # What a killed process has left.
    await _drop(raw, new)
    dropped = await _tidied(raw, pool, size) if tidy else 0
    made = 0
    while (there := len(await ready(raw, pool))) < size and not stopped():
        await _make(raw, pool, new, look)
        made += 1
    return Stock(there, made, dropped)


async def _tidied(raw: _RawConnection, pool: Pool, size: int) -> int:
    """Drop what can be taken no more, and what is too much; how many that were."""
    kept = dropped = 0
    for each in await _found(raw, READY):
        if each.is_of(pool) and kept < size:
            kept += 1
        elif each.is_of(pool) or each.name.startswith(_beginning(pool)) or _is_old(each, pool):
            await _drop(raw, each.name)
            dropped += 1
    return dropped


async def drop_all(raw: _RawConnection, server: str, fleet: str) -> int:
    """Drop all copies of one fleet, whatever they are of. Whoever asks holds the lock of :func:`alone`.

    Args:
        raw: a connection to another database.
        server: its name in the fleet.
        fleet: what tells the fleet from others.

    Returns:
        How many were ready.
    """
    await _drop(raw, _unready(fleet, server))
    mine = [each.name for each in await _found(raw, READY) if each.note.get("fleet") == fleet]
    for name in mine:
        await _drop(raw, name)
    return len(mine)


@asynccontextmanager
async def alone(
    maintenance: AbstractAsyncContextManager[_RawConnection],
    server: str,
    fleet: str,
    stopped: Callable[[], bool] = never,
) -> AsyncIterator[_RawConnection]:
    """A connection, for as long as nobody else makes or drops copies for ``fleet``; waits for whoever does.

    Args:
        maintenance: gives the connection.
        server: its name, for messages.
        fleet: what tells the fleet from others.
        stopped: asked while it waits; once it says so, the connection is given without the lock, and nothing is to be
            made or dropped with it.

    Raises:
        DatabaseError: what is done with it has failed.
    """
    try:
        async with maintenance as raw:
            # Tried again and again: whoever waits within a query keeps CREATE INDEX CONCURRENTLY waiting.
            held = False

            async def turn() -> bool:
                nonlocal held
                held = await raw.fetchval("SELECT pg_try_advisory_lock($1)", _filling(fleet))
                return held or stopped()

            await taken(turn, math.inf)
            yield raw
            if held:
                await raw.execute("SELECT pg_advisory_unlock($1)", _filling(fleet))
    except DatabaseError as error:
        cause = error.__cause__
        if type(error) is not DatabaseError or not isinstance(cause, asyncpg.PostgresError):
            raise
        message = f"server {server}: no database can be made ready: {describe(cause).message}"
        hint = next((hint for kind, hint in _HINTS.items() if isinstance(cause, kind)), None)
        raise DatabaseError(mask(message), hint=hint) from cause


async def _make(raw: _RawConnection, pool: Pool, new: str, look: Look) -> None:
    """Make one more copy; killed anywhere, it is whole or has the name ``new``."""
    template, name = pool.template, _beginning(pool) + secrets.token_hex(4)
    await templates.copy(raw, template.name, new)
    try:
        if await look(new, template.version_table) != (template.shape, template.heads):
            raise OtherShape(f"a copy of {template.name} came out different from it")
        await left(raw, new)
        async with raw.transaction():
            closed_by = await raw.fetchval("SELECT txid_current()") % _TRANSACTIONS
            for statement in _closing(pool, new, name, str(closed_by)):
                await raw.execute(statement)
    except BaseException:
        with suppress(Exception):
            await _drop(raw, new)
        raise


def _closing(pool: Pool, new: str, name: str, closed_by: str) -> Iterator[str]:
    note = json.dumps({**_note(pool), "closed_by": closed_by}, ensure_ascii=False)
    yield f"ALTER DATABASE {identifier(new)} WITH ALLOW_CONNECTIONS false"
    yield f"COMMENT ON DATABASE {identifier(new)} IS {literal(note)}"
    yield f"ALTER DATABASE {identifier(new)} RENAME TO {identifier(name)}"


def _note(pool: Pool) -> dict[str, Any]:
    template = pool.template
    return {
        "fleet": pool.fleet,
        "server": pool.server,
        "template": template.name,
        "shape": template.shape,
        "heads": list(template.heads),
        "closed_by": None,
    }


def _is_old(each: Ready, pool: Pool) -> bool:
    """Whether it was made for what is asked of this server, but from what is not so any more."""
    return (each.note.get("fleet"), each.note.get("server")) == (pool.fleet, pool.server)


def _unready(fleet: str, server: str) -> str:
    """What a copy is called until it is ready; whatever it is of, so that whoever comes next clears it up."""
    return NEW + hashlib.sha256(f"pool\0{fleet}\0{server}".encode()).hexdigest()[:16]


def _beginning(pool: Pool) -> str:
    """How the names of a pool's copies begin."""
    digest = hashlib.sha256(f"{pool.template.name}\0{pool.fleet}".encode()).hexdigest()[:16]
    return f"{READY}{digest}_"


async def _found(raw: _RawConnection, beginning: str) -> Sequence[Ready]:
    rows = await raw.fetch(_ALL, beginning)
    return [Ready(row["name"], row["altered_by"], row["open"], templates.read_note(row["note"]) or {}) for row in rows]


async def _drop(raw: _RawConnection, name: str) -> None:
    await raw.execute(f"DROP DATABASE IF EXISTS {identifier(name)} WITH (FORCE)")


def _filling(fleet: str) -> int:
    """Key (signed 64 bit) of the lock of whoever makes or drops copies for a fleet."""
    digest = hashlib.blake2b(f"filling {fleet}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
