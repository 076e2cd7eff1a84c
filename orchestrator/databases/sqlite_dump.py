"""One SQLite tenant as a file: made and put back by SQLite's own backup, which other connections may go on beside.

It is put back into the live file, in one transaction of SQLite's: other connections see the old rows or the new ones,
and a kill leaves a journal from which whoever opens the file next takes the old ones back. To rename another file over
it would leave connections that are open with a file that has no name, and a write-ahead log that belongs to neither. A
file that is missing is made under another name first.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from orchestrator.databases.dumping import Dumped, Restored, Restoring
from orchestrator.errors import BackupError


def dump_file(file: Path, dump: Path, wait: float) -> Dumped:
    """Copy a database that may be in use.

    Args:
        file: the tenant's.
        dump: where to; it is not there yet.
        wait: seconds to wait for a writer.

    Raises:
        BackupError: it cannot be read, or written there.
    """
    try:
        dump.touch(mode=0o600)
        with closing(_opened(file, wait)) as source, closing(sqlite3.connect(dump)) as copy:
            source.backup(copy)
            # One file: a log beside it would be no part of the checksum.
            copy.execute("PRAGMA journal_mode = DELETE")
    except (sqlite3.Error, OSError) as error:
        raise _explained(f"{file} cannot be backed up", error) from error
    return Dumped(f"SQLite {sqlite3.sqlite_version}")


def restore_file(file: Path, work: Restoring, wait: float) -> Restored:
    """Put a dump back into a tenant's file, under the tenant's lock.

    Args:
        file: the tenant's; may be missing.
        work: what.
        wait: seconds to wait for others who use the file.

    Raises:
        BackupError: the dump is not of these heads, or the file cannot be written; it is as it was.
    """
    fresh, kept = file.with_name(f".{file.name}.restoring"), file.with_name(f"{file.name}.kept-{work.run}")
    try:
        with closing(_opened(work.dump, wait)) as source:
            _require_heads(source, work)
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                fresh.unlink(missing_ok=True)
                _copy(source, fresh, wait)
                fresh.replace(file)
                return Restored()
            if work.keep:
                with closing(_opened(file, wait)) as live:
                    _copy(live, kept, wait)
            mode = _journal_mode(file, wait)
            _copy(source, file, wait)
            if mode == "wal":
                with closing(sqlite3.connect(file, timeout=wait)) as live:
                    live.execute("PRAGMA journal_mode = WAL")
    except (sqlite3.Error, OSError) as error:
        raise _explained(f"{file} cannot be restored", error) from error
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
    return Restored(f"file {kept}") if work.keep else Restored()


def _opened(file: Path, wait: float) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=wait)


def _copy(source: sqlite3.Connection, file: Path, wait: float) -> None:
    with closing(sqlite3.connect(file, timeout=wait)) as target:
        # In one step: in several, whoever writes meanwhile would have it begin again.
        source.backup(target)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _journal_mode(file: Path, wait: float) -> str:
    with closing(_opened(file, wait)) as live:
        return str(live.execute("PRAGMA journal_mode").fetchone()[0])


def _require_heads(source: sqlite3.Connection, work: Restoring) -> None:
    if not work.heads:
        return
    name = '"' + work.version_table.replace('"', '""') + '"'
    found = tuple(sorted(row[0] for row in source.execute(f"SELECT version_num FROM {name}")))
    if found != tuple(sorted(work.heads)):
        raise BackupError("the backup's version table does not say what its manifest says; nothing was touched")


def _explained(what: str, error: sqlite3.Error | OSError) -> BackupError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return BackupError(f"{what}: {error}", passing=code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED))
