"""Backups as files: a dump, and beside it a manifest that says of whom it is and what it must come to.

The manifest is written last, so that a dump with one is whole. Nothing here knows a dialect.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from orchestrator.errors import BackupError

#: Of the manifest's form.
_FORMAT = 1
#: Characters of a tenant's id that its file is called by, for people; what tells files apart comes after them.
_SHOWN = 40
_READ = 1 << 20
_HINT = "give the run, the dump or its .json; `orchestrator runs show RUN --json` lists a run's backups"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of one tenant's dump."""

    tenant: str
    #: ``postgresql`` or ``sqlite``.
    dialect: str
    server_version: str
    #: Names of its server, database and schema in the fleet; ``None`` for what it has not got.
    server: str
    database: str | None
    schema: str | None
    #: What its version table said, under its lock.
    heads: tuple[str, ...]
    version_table: str
    #: The id of the run that it was made in.
    run: str
    created: datetime
    #: Name of the dump, beside the manifest.
    file: str
    bytes: int
    #: In hex.
    sha256: str
    #: The program that made it: ``pg_dump 18.6``.
    made_by: str
    #: What a database has to be made with and given to be like the dumped one, and its version table's search path.
    properties: Mapping[str, Any] = field(default_factory=dict)
    #: The step outside any transaction that the tenant was left half done in, and that is in the dump as far as it got,
    #: as the journal had it; ``None`` for none.
    step: Mapping[str, Any] | None = None
    #: The tenant's keys as in tenants.yaml, for whoever brings it back into a fleet that has it no more.
    entry: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The manifest's text, as data."""
        return {
            "format": _FORMAT,
            **asdict(self),
            "properties": dict(self.properties),
            "entry": dict(self.entry),
            "heads": list(self.heads),
            "created": self.created.isoformat(),
        }


def path_for(directory: Path, run: str, tenant: str) -> Path:
    """Where a new dump goes: ``DIRECTORY/RUN/TENANT-DIGEST.dump``, under a name that no other tenant's has.

    A tenant's id may hold any character, and two ids may differ in nothing that a file system tells apart.

    Args:
        directory: as the operator named it.
        run: the run's id.
        tenant: the tenant's id.
    """
    shown = re.sub(r"[^A-Za-z0-9_-]+", "_", tenant)[:_SHOWN].strip("-_")
    name = "-".join(part for part in (shown, hashlib.sha256(tenant.encode()).hexdigest()[:12]) if part)
    again = ("" if number == 1 else f"-{number}" for number in range(1, 1000))
    return next(
        path
        for path in (directory / run / f"{name}{suffix}.dump" for suffix in again)
        if not path.exists() and not manifest_of(path).exists()
    )


def prepare(directory: Path) -> None:
    """Make ``directory``, for this user alone: what is in it are customers' rows.

    Raises:
        BackupError: it cannot be made, or nothing can be written into it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise BackupError(
            f"backups cannot be written into {directory}: {error.strerror}", hint="name a directory that is yours"
        ) from error


def manifest_of(dump: Path) -> Path:
    """The manifest beside a dump."""
    return dump.with_name(f"{dump.name}.json")


def unfinished(dump: Path) -> Path:
    """The name that a dump has until it is whole."""
    return dump.with_name(f".{dump.name}.unfinished")


def keep(dump: Path, manifest: Manifest) -> Manifest:
    """Give a dump its name and its manifest; both are on disk when this returns.

    Args:
        dump: where it is to be; it is in :func:`unfinished` now.
        manifest: without the dump's size and checksum.

    Returns:
        The manifest, with them.
    """
    source = unfinished(dump)
    with source.open("rb") as file:
        os.fsync(file.fileno())
    whole = replace(manifest, file=dump.name, bytes=source.stat().st_size, sha256=checksum(source))
    source.replace(dump)
    told = unfinished(manifest_of(dump))
    with told.open("w", encoding="utf-8") as file:
        told.chmod(0o600)
        file.write(json.dumps(whole.as_json(), indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    told.replace(manifest_of(dump))
    _sync_directory(dump.parent)
    return whole


def checksum(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_READ):
            digest.update(chunk)
    return digest.hexdigest()


def read(path: Path) -> tuple[Path, Manifest]:
    """The dump and the manifest that ``path`` means, which may be either.

    The name is what whoever gave it says, and not what the manifest says: files are renamed. :func:`verify` knows
    whether the dump is the manifest's.

    Raises:
        BackupError: there is none, or it is none.
    """
    manifest = path if path.suffix == ".json" else manifest_of(path)
    try:
        given = json.loads(manifest.read_text(encoding="utf-8"))
        if given.pop("format") != _FORMAT:
            raise BackupError(f"{manifest} was written by a newer orchestrator", hint="upgrade this one")
        created = datetime.fromisoformat(given.pop("created"))
        known = Manifest(**{**given, "heads": tuple(given["heads"]), "created": created})
        return (_dump_of(manifest, known) if manifest == path else path), known
    except OSError as error:
        raise BackupError(f"no backup's manifest in {manifest}: {error.strerror}", hint=_HINT) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupError(f"{manifest} is no backup's manifest", hint=_HINT) from error


def _dump_of(manifest: Path, known: Manifest) -> Path:
    """The dump beside a manifest: called as the manifest is, or as it was when both were made."""
    beside = manifest.with_name(manifest.name.removesuffix(".json"))
    return beside if beside.is_file() else manifest.with_name(known.file)


def verify(dump: Path, manifest: Manifest) -> None:
    """Make sure that a dump is what it was.

    Raises:
        BackupError: it is not there, or has changed.
    """
    try:
        size = dump.stat().st_size
        same = size == manifest.bytes and checksum(dump) == manifest.sha256
    except OSError as error:
        raise BackupError(f"the backup {dump} cannot be read: {error.strerror}", hint=_HINT) from error
    if not same:
        raise BackupError(
            f"{dump} is not what was written then: its checksum or size differs; nothing was touched",
            hint="fetch it again from where it was copied to, or restore another one",
        )


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
