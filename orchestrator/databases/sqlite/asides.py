"""SQLite files set aside in a hidden directory beside them, brought back, and removed.

The mark that says what a file was is a file beside it, written before the file is moved. A mark without its file says
nothing: the file was not moved yet, or is back.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from orchestrator.databases.asides import Aside, Leave, Leaving, refuse_set_aside, require_same
from orchestrator.databases.claims import Marker
from orchestrator.databases.departures import Stage
from orchestrator.databases.own_names import OFFBOARDED, offboarded
from orchestrator.databases.sqlite.claims import BESIDE, drop_file, write_marker
from orchestrator.errors import OnboardingError
from orchestrator.fleet.tenant import Isolation, Tenant

#: Of its own: the directory of a fleet may have very many files to look through.
_DIRECTORY = ".orchestrator_offboarded"
_MARK = ".mark"


def files_aside(server: str, directories: Collection[str]) -> list[Aside]:
    """What was set aside in some directories.

    Args:
        server: the server's name in the fleet.
        directories: which.
    """
    return [
        Aside(Tenant(marker.tenant, server, Isolation.FILE, file=marker.departure.was), str(file), marker)
        for directory in directories
        for file, marker in _marks(Path(directory))
        if marker.departure is not None and (file.exists() or marker.departure.stage is Stage.DROPPING)
    ]


def no_other_file_aside(tenant: Tenant, file: Path, *, leaving: bool) -> None:
    """Make sure that the file that is to be made for ``tenant`` was not set aside."""
    found = files_aside(tenant.server, [str(file.parent)])
    mine = [each.marker for each in found if each.departure.was == str(file)]
    refuse_set_aside(tenant, mine, leaving=leaving)


@contextmanager
def kept_from_writers(file: Path, wait: float) -> Iterator[sqlite3.Connection]:
    """A connection that keeps others from writing into ``file``; they may read.

    Raises:
        OnboardingError: somebody writes just now, or it is no database.
    """
    try:
        with closing(sqlite3.connect(file, timeout=wait, isolation_level=None, check_same_thread=False)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
    except sqlite3.Error as error:
        busy = isinstance(error, sqlite3.OperationalError) and "locked" in str(error)
        raise OnboardingError(f"{file}: {error}", passing=busy, hint="stop who writes to it") from error


def move_aside(leaving: Leaving, leave: Leave, file: Path) -> None:
    """Move ``file``, which nobody writes to, out of sight.

    Raises:
        OnboardingError: somebody reads it, and what is in its log cannot be put into it; or it cannot be moved.
    """
    _require_whole(file)
    aside = file.parent / _DIRECTORY / offboarded(str(file), leave.run)
    try:
        aside.parent.mkdir(mode=0o700, exist_ok=True)
        for stale, marker in _marks(file.parent):
            if marker.departure is not None and marker.departure.was == str(file) and not stale.exists():
                _mark_of(stale).unlink(missing_ok=True)
        _write(aside, leaving.marker)
        file.rename(aside)
        # All of it is in the file. Left there, the next file of that name would be given it.
        clear_beside(file)
        write_marker(file, None)
    except OSError as error:
        raise OnboardingError(f"{file} cannot be moved: {error.strerror}") from error


def clear_beside(file: Path) -> None:
    """Remove what SQLite has left beside a file that is gone."""
    if not file.exists():
        for ending in BESIDE:
            file.with_name(file.name + ending).unlink(missing_ok=True)


def remark_file(aside: Aside, marker: Marker) -> None:
    """Write another mark on it."""
    _require_same(aside)
    _write(Path(aside.name), marker)


def bring_file_back(aside: Aside, file: Path) -> None:
    """Give it its own name back."""
    _require_same(aside)
    if file.exists():
        raise OnboardingError(f"there is another {file} by now", hint="rename that one; then the same command again")
    clear_beside(file)
    Path(aside.name).rename(file)
    _mark_of(Path(aside.name)).unlink(missing_ok=True)


def drop_file_aside(aside: Aside) -> None:
    """Remove it, and its mark last."""
    _require_same(aside)
    if aside.departure.stage is not Stage.DROPPING:
        _write(Path(aside.name), replace(aside.marker, departure=replace(aside.departure, stage=Stage.DROPPING)))
    drop_file(Path(aside.name))
    _mark_of(Path(aside.name)).unlink(missing_ok=True)


def _require_same(aside: Aside) -> None:
    require_same(aside, _read(Path(aside.name)))


def _require_whole(file: Path) -> None:
    """Put a write-ahead log into the file; no writer is there to add to it."""
    with closing(sqlite3.connect(file, timeout=0)) as connection:
        _, logged, done = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if logged != done:
        raise OnboardingError(
            f"{file} is being read, and its write-ahead log cannot be put into it",
            passing=True,
            hint="stop its application first",
        )


def _marks(directory: Path) -> Iterator[tuple[Path, Marker]]:
    for mark in sorted((directory / _DIRECTORY).glob(f"{OFFBOARDED}*{_MARK}")):
        file = mark.with_name(mark.name.removesuffix(_MARK))
        marker = _read(file)
        if marker is not None:
            yield file, marker


def _read(aside: Path) -> Marker | None:
    with suppress(OSError, UnicodeDecodeError):
        return Marker.read(_mark_of(aside).read_text(encoding="utf-8"))
    return None


def _write(aside: Path, marker: Marker) -> None:
    place = _mark_of(aside)
    new = place.with_name(f"{place.name}.{os.getpid()}")
    new.write_text(marker.within(None), encoding="utf-8")
    new.replace(place)


def _mark_of(aside: Path) -> Path:
    return aside.with_name(aside.name + _MARK)
