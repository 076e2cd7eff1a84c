"""What a tenant's SQLite file says when it is opened read-only."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

from orchestrator.databases.answers import Reading
from orchestrator.databases.definitions import Definition
from orchestrator.databases.failures import describe
from orchestrator.databases.sizes import Size, sizes_in_file
from orchestrator.databases.sqlite.definitions import definitions_in
from orchestrator.databases.sqlite.fingerprint import fingerprint_file
from orchestrator.errors import ServerUnreachable
from orchestrator.fleet.tenant import Tenant

_Answer = TypeVar("_Answer")

#: Seconds to wait for whoever is writing.
_PATIENCE = 5


def file_of(tenant: Tenant) -> Path:
    """The tenant's file, be it there or not."""
    assert tenant.file is not None, "a tenant of a SQLite server has a file"
    return Path(tenant.file)


def whereabouts_of(file: Path) -> str:
    """Device and inode, because links lead to one file under several names; its real path where it is not there."""
    try:
        found = file.stat()
    except OSError:
        return os.path.realpath(file)
    return f"{found.st_dev}:{found.st_ino}"


def reading_of(tenant: Tenant, version_table: str) -> Reading:
    """Its heads."""
    file = file_of(tenant)
    if not file.is_file():
        return Reading(exists=False)
    try:
        heads = _ask(file, partial(_heads, version_table=version_table))
    except sqlite3.Error as error:
        return Reading(exists=True, failure=describe(ServerUnreachable(f"{file}: {error}")))
    return Reading(True, heads)


def fingerprint_of(tenant: Tenant) -> str | None:
    """Digest of what it holds; ``None`` where it cannot be read."""
    try:
        return _ask(file_of(tenant), fingerprint_file)
    except sqlite3.Error:
        return None


def definitions_of(tenant: Tenant) -> tuple[Definition, ...] | None:
    """What it holds; ``None`` where it cannot be read."""
    try:
        return _ask(file_of(tenant), definitions_in)
    except sqlite3.Error:
        return None


def sizes_of(tenant: Tenant, tables: Collection[str]) -> Mapping[str, Size]:
    """Of those of ``tables`` that it has, by name; of none where it cannot be read."""
    try:
        return _ask(file_of(tenant), partial(sizes_in_file, tables=tables))
    except sqlite3.Error:
        return {}


def _ask(file: Path, question: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=_PATIENCE)) as connection:
        return question(connection)


def _heads(connection: sqlite3.Connection, version_table: str) -> tuple[str, ...]:
    there = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    if not connection.execute(there, (version_table,)).fetchone():
        return ()
    name = '"' + version_table.replace('"', '""') + '"'
    return tuple(sorted(row[0] for row in connection.execute(f"SELECT version_num FROM {name}")))
