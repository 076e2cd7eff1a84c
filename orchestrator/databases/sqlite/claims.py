"""SQLite files made, marked and taken away for tenants that come and go.

A file has no comment, and a table of ours in it would be one too many for whoever compares it with the models. So the
mark is a file beside it, for as long as the tenant is being onboarded.
"""

from __future__ import annotations

import glob
import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

from orchestrator.databases.claims import Claim, Found, Holds, Marker
from orchestrator.errors import DatabaseError

#: What SQLite itself puts beside a file.
BESIDE = ("-wal", "-shm", "-journal")


def found_file(file: Path) -> Found:
    """What is there now."""
    marker = read_marker(file)
    if not file.exists():
        return Found(Holds.MISSING, marker)
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=5)) as connection:
            full = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None
    except sqlite3.Error as error:
        raise DatabaseError(f"{file}: {error}", hint="is it a SQLite database?") from error
    return Found(Holds.FULL if full else Holds.EMPTY, marker)


def claim_file(file: Path, claim: Claim) -> Found:
    """Make and mark the file where there is none, or mark an empty one; nothing where it holds something.

    One that was cut off while it was given its rows is made anew: how far that had come, nobody can tell.
    """
    found = found_file(file)
    if found.marker is None and found.holds is Holds.FULL:
        return found
    marker = found.marker or replace(claim.marker, found=found.holds is Holds.EMPTY)
    if not marker.is_of(claim.marker):
        return found
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_marker(file, marker)
        if marker.fresh and marker.sowing:
            drop_file(file)
            marker = replace(marker, sowing=False)
            write_marker(file, marker)
        file.touch()
    except OSError as error:
        raise DatabaseError(f"cannot create {file}: {error.strerror}") from error
    return replace(found, marker=marker)


def read_marker(file: Path) -> Marker | None:
    """What is written beside the file."""
    with suppress(OSError, UnicodeDecodeError):
        return Marker.read(_marker_file(file).read_text(encoding="utf-8"))
    return None


def write_marker(file: Path, marker: Marker | None) -> None:
    """Write ``marker``, whole or not at all; one that says nothing of an onboarding takes the old one away."""
    place = _marker_file(file)
    if marker is None or not marker.fresh:
        # The killed may have left what they had not written whole. What counts goes last: until then all is done again.
        for half in place.parent.glob(f"{glob.escape(place.name)}.*"):
            half.unlink(missing_ok=True)
        place.unlink(missing_ok=True)
        return
    new = place.with_name(f"{place.name}.{os.getpid()}")
    new.write_text(marker.within(None), encoding="utf-8")
    new.replace(place)


def drop_file(file: Path) -> None:
    """Take the file away, with what SQLite has put beside it."""
    for name in (file.name, *(file.name + ending for ending in BESIDE)):
        file.with_name(name).unlink(missing_ok=True)


def _marker_file(file: Path) -> Path:
    return file.with_name(f".{file.name}.onboarding")
