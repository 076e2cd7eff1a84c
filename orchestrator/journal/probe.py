"""Find out whether a journal could be written, without writing anything."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import false, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.journal.sqlite_file import BUSY_TIMEOUT
from orchestrator.journal.tables import metadata


async def probe_file(path: Path) -> None:
    """Open a SQLite journal for writing, or see that one could be made.

    Raises:
        sqlite3.Error, OSError: it could not.
    """
    await asyncio.to_thread(_probe_file, path)


def _probe_file(path: Path) -> None:
    if path.exists():
        with closing(sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        return
    above = next(directory for directory in path.absolute().parents if directory.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise PermissionError(f"{above} cannot be written")


async def probe_tables(connection: AsyncConnection, *, exists: bool) -> None:
    """Ask a PostgreSQL server for the rights that writing the journal, or making it, takes; no row is touched.

    Raises:
        sqlalchemy.exc.DBAPIError: they are lacking.
    """
    if not exists:
        # Made in a transaction that is never committed.
        await connection.execute(text("CREATE TABLE orchestrator_journal_probe ()"))
    else:
        for table in metadata.sorted_tables:
            column = next(iter(table.columns))
            await connection.execute(update(table).values({column: column}).where(false()))
            await connection.execute(insert(table).from_select(list(table.columns), select(table).where(false())))
    await connection.rollback()
