"""Bring a journal's tables up to this package's format, once, however many orchestrators start at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, column, inspect, select, table, text
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import JournalError
from orchestrator.journal.tables import VERSION_TABLE

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext, RevisionStep

#: The head of the history in migrations/. Kept here so that opening a journal in its present format needs no Alembic.
HEAD = "0002"
#: Earlier formats, which only lack tables: read as they are, with nothing in those.
EARLIER = frozenset({"0001"})
MIGRATIONS = Path(__file__).parent / "migrations"

#: Seconds to wait for another orchestrator that is making the tables.
LOCK_WAIT = 60.0
#: Seconds between two looks at that lock.
LOCK_POLL = 0.05
#: Key of PostgreSQL's advisory lock for it: the bytes of "orchjrnl".
LOCK_KEY = int.from_bytes(b"orchjrnl")

_VERSION = table(VERSION_TABLE, column("version_num"))


def read_version(connection: Connection) -> str | None:
    """The revision that the journal stands at; ``None`` when there is no journal."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(select(_VERSION.c.version_num))


async def bring_up_to_date(connection: AsyncConnection, place: str) -> None:
    """Create the tables or migrate them to :data:`HEAD`.

    Args:
        connection: in a transaction that the caller commits; on SQLite it must hold the write lock already.
        place: the journal's address for messages.

    Raises:
        JournalError: the journal is newer than this package, or another process kept the lock.
    """
    if connection.dialect.name == "postgresql":
        await _take_lock(connection, place)
    version = await connection.run_sync(read_version)
    if version != HEAD:
        await connection.run_sync(_migrate, version, place)


def unknown_format(version: str, place: str) -> JournalError:
    """The error for a journal that this package can neither read nor migrate."""
    return JournalError(
        f"the journal {place} has format {version}; this orchestrator knows formats up to {HEAD}",
        hint="use the version of orchestrator that wrote it, or name another journal in tenants.yaml (`journal:`)",
    )


async def _take_lock(connection: AsyncConnection, place: str) -> None:
    # Asked for again and again rather than waited for, so that a holder which hangs can be reported.
    deadline = asyncio.get_running_loop().time() + LOCK_WAIT
    while not await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": LOCK_KEY}):
        if asyncio.get_running_loop().time() > deadline:
            raise JournalError(
                f"another process has been creating the journal's tables in {place} for over {LOCK_WAIT:.0f} s",
                hint="look for it in pg_stat_activity, end it and start again",
            )
        await asyncio.sleep(LOCK_POLL)


def _migrate(connection: Connection, version: str | None, place: str) -> None:
    """Apply the history without Alembic's environment.

    ``alembic.op`` and ``alembic.context`` are process globals, and tenants may be migrating through them at this
    moment. So nothing is installed there: every revision's module is loaded for this call alone, and its name ``op``
    is bound to operations on this connection.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(MIGRATIONS))
    if version is not None and version not in {script.revision for script in scripts.walk_revisions()}:
        raise unknown_format(version, place)

    def steps(revision: Any, context: MigrationContext) -> Sequence[RevisionStep]:
        path = scripts._upgrade_revs(HEAD, revision)
        for step in path:
            vars(step.revision.module)["op"] = Operations(context)
        return path

    options = {"fn": steps, "script": scripts, "version_table": VERSION_TABLE}
    MigrationContext.configure(connection, opts=options).run_migrations()
