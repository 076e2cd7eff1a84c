"""A SQLite tenant's clone: a copy of its file in a hidden directory beside it; and what SQLite tells of migrations."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.databases.cloning import Clone, Cloning
from orchestrator.databases.measuring import Contents, Inside, Outside, Table
from orchestrator.databases.own_names import SCRATCH
from orchestrator.databases.sqlite.dump import Waiting, dump_file
from orchestrator.errors import DatabaseError
from orchestrator.fleet.tenant import Tenant

if TYPE_CHECKING:
    from sqlalchemy import Connection


@contextmanager
def place_beside(file: Path) -> Iterator[Path]:
    """A hidden directory beside ``file``, gone at the end; those that killed processes left are removed first.

    A copy of a tenant's rows goes to no other disk, and nobody may look at it but who may look at the tenant's own.
    Whoever uses one holds a lock on it, which ends with the process.

    Raises:
        DatabaseError: none can be made.
    """
    clear_beside(file)
    try:
        place, descriptor = _locked_place(file)
    except OSError as error:
        raise DatabaseError(
            f"no copy can be made beside {file}: {error.strerror}", hint="make the directory writable, or make room"
        ) from error
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(descriptor)


def clear_beside(file: Path) -> None:
    """Remove what killed processes have left beside ``file``."""
    for left in file.parent.glob(f".{SCRATCH}*"):
        _remove_if_left(left)


def _locked_place(file: Path) -> tuple[Path, int]:
    while True:
        place = file.parent / f".{SCRATCH}{secrets.token_hex(8)}"
        place.mkdir(mode=0o700)
        # Before it is locked, it looks like one that was left.
        with suppress(FileNotFoundError):
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if place.exists():
                return place, descriptor
            os.close(descriptor)


def _remove_if_left(place: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(place, ignore_errors=True)
        finally:
            os.close(descriptor)


def copied(tenant: Tenant, file: Path, place: Path, waiting: Waiting, cloning: Cloning) -> Clone:
    """Copy a tenant's file into ``place``.

    Raises:
        BackupError: it cannot be read, or written there.
        DatabaseError: it cannot be copied as asked.
    """
    if cloning.schema_only:
        raise DatabaseError(
            f"tenant {tenant.id}: a SQLite file is copied with its rows", hint="leave --schema-only out for files"
        )
    started = time.perf_counter()
    copy = place / file.name
    dump_file(file, copy, waiting)
    took = time.perf_counter() - started
    return Clone(replace(tenant, file=str(copy), pin=None, until=None), "copy", took, copy.stat().st_size)


@dataclass(slots=True)
class SQLiteMeter:
    """What there is to be seen: rows written, and what was made anew."""

    _file: Path
    no_locks: str | None = "SQLite has no locks on tables: whoever writes has the whole file until the commit"
    no_wal: str | None = "SQLite does not count what it writes ahead"
    _options: dict[str, Any] = field(default_factory=dict)

    async def outside(self, connection: Connection) -> Outside:
        """Nothing."""
        return Outside()

    def stands_for_itself(self, connection: Connection) -> bool:
        """In an autocommit block."""
        return connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"

    def inside(self, connection: Connection) -> Inside:
        """Tables by the page that they begin at, which is another one when they are made anew."""
        found = connection.exec_driver_sql(
            "SELECT type, name, tbl_name, rootpage FROM sqlite_master WHERE type IN ('table', 'index')"
            " AND name NOT LIKE 'sqlite_%' ORDER BY type DESC",
            execution_options=self._options,
        ).fetchall()
        indexes: dict[str, dict[str, int]] = {}
        for kind, name, table, page in found:
            if kind == "index":
                indexes.setdefault(table, {})[name] = page
        tables = {
            _number(name): Table(name, page, None, 0, indexes.get(name, {}))
            for kind, name, _, page in found
            if kind == "table"
        }
        written = connection.exec_driver_sql("SELECT total_changes()", execution_options=self._options).scalar_one()
        return Inside(tables, {None: written})

    async def contents(self, version_table: str) -> Contents:
        """Read row by row."""
        return await asyncio.to_thread(_contents, self._file, version_table)

    def unheard(self, option: str) -> None:
        """Mark its own statements with an execution option, by which listeners know them."""
        self._options[option] = True


def _contents(file: Path, version_table: str) -> Contents:
    found: dict[str, tuple[int, str]] = {}
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> ?"
        for (table,) in connection.execute(tables, (version_table,)).fetchall():
            rows = connection.execute(f"SELECT * FROM {_quoted(table)}")
            names = [column[0] for column in rows.description]
            order = sorted(range(len(names)), key=names.__getitem__)
            count = total = 0
            for row in rows:
                text = repr([(names[at], row[at]) for at in order]).encode()
                total += int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
                count += 1
            found[table] = (count, str(total))
    return Contents(found)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _number(name: str) -> int:
    """SQLite knows tables by name; a copy that takes another's name is that table."""
    return int.from_bytes(name.encode(), "big")
