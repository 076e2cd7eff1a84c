"""Databases that new ones are copied from: kept at a target, with nobody connected to them.

A template is made under a scratch name and gets its own in the same transaction that closes it to everybody and writes
its note: one with a template's name is whole. Whoever builds one holds an advisory lock that goes with his connection.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import asyncpg

from orchestrator.databases.own_names import TEMPLATE
from orchestrator.databases.postgresql.copying.database_properties import database_properties, given_afterwards
from orchestrator.databases.postgresql.script import identifier, literal

_RawConnection: TypeAlias = asyncpg.Connection

#: A template that is whole, and what was written about it.
_NOTE = (
    "SELECT shobj_description(oid, 'pg_database') FROM pg_database"
    " WHERE datname = $1 AND datistemplate AND NOT datallowconn"
)
_ALL = (
    "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database"
    " WHERE starts_with(datname, $1) AND datname <> $2 AND datistemplate AND NOT datallowconn"
)
#: Times that a copy is tried, and seconds between: the server lets nobody copy what it is just cleaning up itself.
_TRIES, _PAUSE = 5, 0.2


async def note_of(raw: _RawConnection, name: str) -> Mapping[str, Any] | None:
    """What was written about a template; ``None`` where there is none of that name."""
    text = await raw.fetchval(_NOTE, name)
    return read_note(text)


async def keep(raw: _RawConnection, made: str, name: str, note: Mapping[str, Any]) -> str | None:
    """Turn the database ``made``, which nobody is connected to, into the template ``name``.

    Args:
        raw: a connection to another database.
        made: its name so far.
        name: its name from now on.
        note: what is written about it.

    Returns:
        Why it cannot be one; ``None`` where it is one now.
    """
    own = next(given_afterwards(await database_properties(raw, made), made), None)
    if own is not None:
        return f"what the database itself was given does not come along with a copy: {own}"
    async with raw.transaction():
        for statement in (
            f"ALTER DATABASE {identifier(made)} WITH ALLOW_CONNECTIONS false IS_TEMPLATE true",
            f"COMMENT ON DATABASE {identifier(made)} IS {literal(json.dumps(note))}",
            f"ALTER DATABASE {identifier(made)} RENAME TO {identifier(name)}",
        ):
            await raw.execute(statement)
    return None


async def copy(raw: _RawConnection, template: str, name: str) -> None:
    """Make the database ``name`` as a copy.

    Raises:
        asyncpg.DuplicateDatabaseError: there is one of that name.
        asyncpg.PostgresError: it cannot be made.
    """
    # WAL_LOG, the default from PostgreSQL 15 on, is several times as fast for what is as small as an empty tenant:
    # FILE_COPY, the only way before, waits for two checkpoints. Measured: see benchmarks/tried.md.
    for left in reversed(range(_TRIES)):
        try:
            await raw.execute(f"CREATE DATABASE {identifier(name)} TEMPLATE {identifier(template)}")
            return
        except asyncpg.ObjectInUseError:
            if not left:
                raise
            await asyncio.sleep(_PAUSE)


async def drop_others(raw: _RawConnection, name: str, family: str) -> None:
    """Drop templates of the same family but ``name``: what they were made from has changed since."""
    for other, text in await raw.fetch(_ALL, TEMPLATE, name):
        if (read_note(text) or {}).get("family") == family:
            await drop(raw, other)


async def drop(raw: _RawConnection, name: str) -> None:
    """Drop a template."""
    await raw.execute(f"ALTER DATABASE {identifier(name)} WITH IS_TEMPLATE false")
    await raw.execute(f"DROP DATABASE IF EXISTS {identifier(name)}")


def building(name: str) -> int:
    """Key (signed 64 bit) of the lock of whoever builds the template ``name``."""
    digest = hashlib.blake2b(f"building {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def read_note(text: str | None) -> Mapping[str, Any] | None:
    """What a note says; ``None`` where it is none of ours."""
    try:
        found = json.loads(text or "")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
