"""The preconditions of a run on SQLite files: the library, the files and their directories, who holds a tenant."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from orchestrator.databases.checkup import Finding, Level, Need, some
from orchestrator.fleet.tenant import Tenant


def examine_files(need: Need, file_of: Callable[[Tenant], Path], lock_of: Callable[[Path], Path]) -> list[Finding]:
    """Look at the files of ``need``'s tenants.

    Args:
        need: what a run would ask.
        file_of: a tenant's file.
        lock_of: the file whose lock stands for the tenant in a file.
    """
    files = {tenant.id: file_of(tenant) for tenant in need.tenants}
    version = Finding(
        "version", Level.OK, f"SQLite {sqlite3.sqlite_version}", measured={"version": sqlite3.sqlite_version}
    )
    return [version, *_rights(files), *_places(files), *_locks({id: lock_of(file) for id, file in files.items()})]


def _rights(files: dict[str, Path]) -> list[Finding]:
    """SQLite writes its rollback journal beside the file: both must be writable."""
    refused = {id: file for id, file in files.items() if file.exists() and not _writable(file)}
    if not refused:
        return [Finding("rights", Level.OK, "files and their directories can be written")]
    first = next(iter(refused.values()))
    message = f"{first} or its directory cannot be written"
    return [Finding("rights", Level.PROBLEM, message, f"ls -ld {first.parent} {first}", tuple(refused))]


def _writable(file: Path) -> bool:
    return file.is_file() and os.access(file, os.R_OK | os.W_OK) and os.access(file.parent, os.W_OK | os.X_OK)


def _places(files: dict[str, Path]) -> Iterator[Finding]:
    missing = {id: file for id, file in files.items() if not file.exists()}
    makeable = tuple(id for id, file in missing.items() if _can_be_made(file))
    others = tuple(id for id in missing if id not in makeable)
    if makeable:
        message = f"not there yet: {some(makeable)}"
        yield Finding("places", Level.NOTE, message, "orchestrator upgrade --provision", makeable)
    if others:
        message = f"not there, and cannot be made: {files[others[0]]}"
        yield Finding("places", Level.PROBLEM, message, "make its directory writable", others)


def _can_be_made(file: Path) -> bool:
    above = next(directory for directory in file.parents if directory.exists())
    return above.is_dir() and os.access(above, os.W_OK | os.X_OK)


def _locks(locks: dict[str, Path]) -> Sequence[Finding]:
    held = [
        Finding(
            "locks", Level.NOTE, f"{id} is being migrated by {who}", "wait for it", (id,), {"tenant": id, "holder": who}
        )
        for id, lock in locks.items()
        if (who := _holder(lock)) is not None
    ]
    return held or [Finding("locks", Level.OK, "no tenant is being migrated")]


def _holder(lock: Path) -> str | None:
    """What the holder wrote into a lock file that is held; the shared lock that tells is given back at once."""
    with suppress(OSError):
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.read_text(encoding="utf-8").strip() or "another process"
        finally:
            os.close(descriptor)
    return None
