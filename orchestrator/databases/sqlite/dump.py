"""One SQLite tenant as a file: made and put back by SQLite's own backup, which other connections may go on beside.

It is put back into the live file, in one transaction of SQLite's: other connections see the old rows or the new ones,
and a kill leaves a journal from which whoever opens the file next takes the old ones back. To rename another file over
it would leave connections that are open with a file that has no name, and a write-ahead log that belongs to neither. A
file that is missing is made under another name first.

Python's driver goes on for ever with a backup that finds the file locked. So each look is short, and in between it is
asked here whether to go on.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TypeVar

from orchestrator.databases.dumping import Dumped, Restored, Restoring
from orchestrator.errors import BackupError

_T = TypeVar("_T")

#: Seconds of one look at a file that somebody else has locked.
_LOOK = 0.05
#: Pages that are copied between two questions whether to go on: four megabytes, usually.
_PAGES = 1024
#: What SQLite itself puts beside a file. Beside a file that is new, it would take it for that one's.
_BESIDE = ("-wal", "-shm", "-journal")


@dataclass(slots=True)
class Waiting:
    """How long to wait for others who use a file, and whether to go on at all."""

    #: Seconds at a time; copying does not count.
    seconds: float
    #: Set, from any thread, to have it end.
    cut: Event = field(default_factory=Event)
    _since: float | None = None

    @property
    def look(self) -> float:
        """Seconds that SQLite itself may wait."""
        return min(self.seconds, _LOOK)

    def progress(self, status: int, *_: int) -> None:
        """Called by SQLite's backup after each part, and after each time that it found the file locked.

        Raises:
            BackupError: it has waited long enough, or is to end.
        """
        if self.cut.is_set():
            raise BackupError("it was cut off")
        if status not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            self._since = None
            return
        now = time.monotonic()
        self._since = now - self.look if self._since is None else self._since
        if now - self._since >= self.seconds:
            raise BackupError(
                f"waited longer than {self.seconds:g} s for somebody who has the file locked",
                passing=True,
                hint="try again when whoever holds it is done, or wait longer: --lock-timeout 10s",
            )

    def until_free(self, ask: Callable[[], _T]) -> _T:
        """What ``ask`` gives, as soon as nobody has the file locked."""
        while True:
            try:
                given = ask()
            except sqlite3.OperationalError as error:
                if not _is_locked(error):
                    raise
                self.progress(sqlite3.SQLITE_BUSY)
                self.cut.wait(_LOOK)
            else:
                self._since = None
                return given


def dump_file(file: Path, dump: Path, waiting: Waiting) -> Dumped:
    """Copy a database that may be in use.

    Args:
        file: the tenant's.
        dump: where to; it is not there yet.
        waiting: for a writer.

    Raises:
        BackupError: it cannot be read, or written there; or it took too long, or was cut off.
    """
    try:
        dump.touch(mode=0o600)
        with closing(_opened(file, waiting)) as source:
            # Read from here on: copied in several parts, it would be begun again whenever somebody has written.
            source.execute("BEGIN")
            waiting.until_free(lambda: source.execute("SELECT 1 FROM sqlite_master").fetchone())
            _copy(source, dump, waiting)
        with closing(sqlite3.connect(dump, timeout=waiting.look)) as copy:
            # One file: a log beside it would be no part of the checksum.
            copy.execute("PRAGMA journal_mode = DELETE")
    except (sqlite3.Error, OSError) as error:
        raise _explained(f"{file} cannot be backed up", error) from error
    return Dumped(f"SQLite {sqlite3.sqlite_version}")


def restore_file(file: Path, work: Restoring, waiting: Waiting) -> Restored:
    """Put a dump back into a tenant's file, under the tenant's lock.

    Args:
        file: the tenant's; may be missing.
        work: what.
        waiting: for others who use the file.

    Raises:
        BackupError: the dump is not of these heads, or the file cannot be written; or it took too long, or was cut
            off. The file is as it was.
    """
    kept = file.with_name(f"{file.name}.kept-{work.run}")
    try:
        with closing(_opened(work.dump, waiting)) as source:
            waiting.until_free(lambda: _require_heads(source, work))
            if not file.exists():
                _make(source, file, waiting)
                return Restored()
            if work.keep:
                _keep(file, kept, waiting)
            try:
                _copy(source, file, waiting)
            except BaseException:
                if work.keep:
                    kept.unlink(missing_ok=True)
                raise
    except (sqlite3.Error, OSError) as error:
        raise _explained(f"{file} cannot be restored", error) from error
    return Restored(f"file {kept}") if work.keep else Restored()


def _opened(file: Path, waiting: Waiting) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=waiting.look, isolation_level=None)


def _make(source: sqlite3.Connection, file: Path, waiting: Waiting) -> None:
    """Make a file that is missing: whole, or not at all."""
    fresh = file.with_name(f".{file.name}.restoring")
    try:
        fresh.unlink(missing_ok=True)
        _copy(source, fresh, waiting)
        for ending in _BESIDE:
            file.with_name(file.name + ending).unlink(missing_ok=True)
        fresh.replace(file)
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


def _keep(file: Path, kept: Path, waiting: Waiting) -> None:
    try:
        with closing(_opened(file, waiting)) as live:
            live.execute("BEGIN")
            waiting.until_free(lambda: live.execute("SELECT 1 FROM sqlite_master").fetchone())
            _copy(live, kept, waiting)
        shutil.copymode(file, kept)
    except BaseException:
        kept.unlink(missing_ok=True)
        raise


def _copy(source: sqlite3.Connection, file: Path, waiting: Waiting) -> None:
    with closing(sqlite3.connect(file, timeout=waiting.look)) as target:
        # What is raised between two parts has SQLite roll back what was written.
        source.backup(target, pages=_PAGES, progress=waiting.progress, sleep=_LOOK)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_heads(source: sqlite3.Connection, work: Restoring) -> None:
    if not work.heads:
        return
    name = '"' + work.version_table.replace('"', '""') + '"'
    found = tuple(sorted(row[0] for row in source.execute(f"SELECT version_num FROM {name}")))
    if found != tuple(sorted(work.heads)):
        raise BackupError("the backup's version table does not say what its manifest says; nothing was touched")


def _is_locked(error: sqlite3.Error | OSError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _explained(what: str, error: sqlite3.Error | OSError) -> BackupError:
    return BackupError(f"{what}: {error}", passing=_is_locked(error))
